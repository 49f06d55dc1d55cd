"""Suppression taken back: an unsuppression lifts what was asked for before it, and nothing else.

People change their minds faster than destinations answer, and calls may overtake each other. So
the later request takes the opposite calls of earlier ones out of the queues it uses itself, and
waits for those that are under way. The last word holds, whatever a destination does.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased
from sqlmodel import col

from app.consent.devices import is_only_user
from app.consent.models import ConsentOutbox, VisitorLink
from app.crypto.keyring import KeyRing
from app.delivery import service as deliveries
from app.destinations.models import Destination
from app.identity.models import PersonalValue
from app.identity.vault import Opened
from app.subject_requests import settle
from app.subject_requests.models import SubjectRequest
from app.subject_requests.services import Services
from app.subject_requests.states import FINAL, OPERATIONS, Kind, Status
from app.suppression import service as suppression
from app.suppression.models import Suppression
from connectors.contract import Kind as IdentifierKind
from connectors.contract import Operation

CONSENT = "consent"
"""The channel of requests that the banner makes."""
SUPPRESSING = frozenset(
    kind for kind, operation in OPERATIONS.items() if operation is Operation.SUPPRESS
)
LONGEST_WAIT = dt.timedelta(hours=1)
SHORTEST_WAIT = dt.timedelta(seconds=2)
_NOT_PLANNED = (Status.COOLING_OFF, Status.RESOLVING)
_UNDER_WAY = (*_NOT_PLANNED, Status.IN_PROGRESS)
_DONE = (Status.COMPLETED, Status.COMPLETED_WITH_EXCEPTIONS)
_NOTHING_SUPPRESSED = {("succeeded", "absent"), ("succeeded", "skipped")}


def is_grant(request: SubjectRequest) -> bool:
    """Consent given again, by the person in the banner."""
    return request.kind == Kind.UNSUPPRESSION and request.channel == CONSENT


def next_look(request: SubjectRequest, now: dt.datetime) -> dt.datetime:
    """When a request that waits looks again: after as long as it has been here already."""
    asked = request.verified_at or request.received_at
    return now + min(max(now - asked, SHORTEST_WAIT), LONGEST_WAIT)


@dataclass(frozen=True, slots=True)
class Turn:
    """A request at its place in the order. ``planned`` and ``unplanned``: ids of earlier requests
    under way that do the opposite for the same person, by whether their deliveries are out.
    ``purposes``: the request's, without those that were settled the other way meanwhile.
    """

    request: SubjectRequest
    opened: Sequence[Opened]
    purposes: Sequence[str]
    planned: frozenset[str]
    unplanned: frozenset[str]

    @property
    def is_settled(self) -> bool:
        """All of its purposes were granted again while an operator held it."""
        return bool(self.request.purposes) and not self.purposes


async def turns(
    session: AsyncSession,
    requests: Sequence[SubjectRequest],
    opened: Mapping[str, Sequence[Opened]],
) -> list[Turn]:
    """The requests in the order they were asked; the earlier ones they meet are locked."""
    planned: dict[str, set[str]] = defaultdict(set)
    unplanned: dict[str, set[str]] = defaultdict(set)
    lifting = [each.id for each in requests if each.kind == Kind.UNSUPPRESSION]
    suppressing = [each.id for each in requests if each.kind in SUPPRESSING]
    for ids, kinds in ((lifting, SUPPRESSING), (suppressing, {Kind.UNSUPPRESSION})):
        if ids:
            for request_id, other_id, status in await _earlier(session, ids, kinds):
                (unplanned if status in _NOT_PLANNED else planned)[request_id].add(other_id)
    granted = await _granted_since(session, requests)
    return [
        Turn(
            each,
            opened.get(each.id, ()),
            [purpose for purpose in each.purposes if purpose not in granted[each.id]],
            frozenset(planned[each.id]),
            frozenset(unplanned[each.id]),
        )
        for each in sorted(requests, key=lambda each: each.received_at)
    ]


async def _earlier(
    session: AsyncSession, request_ids: Sequence[str], kinds: Collection[Kind]
) -> Sequence[tuple[str, str, str]]:
    this, other = aliased(SubjectRequest), aliased(SubjectRequest)
    # Asked in the same moment: what suppresses comes first.
    came_before = (
        col(other.received_at) < col(this.received_at)
        if Kind.UNSUPPRESSION in kinds
        else col(other.received_at) <= col(this.received_at)
    )
    rows = await session.execute(
        _of_same_person(this, other, col(this.id), col(other.id), col(other.status))
        .where(
            col(this.id).in_(request_ids),
            col(other.kind).in_(kinds),
            col(other.status).in_(_UNDER_WAY),
            came_before,
        )
        .order_by(col(other.id))
        .with_for_update(of=other)
    )
    return [(this_id, other_id, status) for this_id, other_id, status in rows]


def _of_same_person(this: Any, other: Any, *columns: Any) -> Any:
    mine, theirs = aliased(PersonalValue), aliased(PersonalValue)
    return (
        sa.select(*columns)
        .join(mine, col(mine.holder_id) == col(this.id))
        .join(
            theirs,
            (col(theirs.workspace_id) == col(mine.workspace_id))
            & (col(theirs.subject_ref) == col(mine.subject_ref)),
        )
        .join(other, col(other.id) == col(theirs.holder_id))
    )


async def _granted_since(
    session: AsyncSession, requests: Sequence[SubjectRequest]
) -> dict[str, set[str]]:
    """Withdrawals that an operator had held: request id -> the purposes that the person has granted
    again meanwhile, by a request that is done.
    """
    ids = [each.id for each in requests if each.channel == CONSENT and each.kind in SUPPRESSING]
    found: dict[str, set[str]] = defaultdict(set)
    if not ids:
        return found
    this, other = aliased(SubjectRequest), aliased(SubjectRequest)
    rows = await session.execute(
        _of_same_person(this, other, col(this.id), col(other.purposes)).where(
            col(this.id).in_(ids),
            col(other.kind) == Kind.UNSUPPRESSION,
            col(other.channel) == CONSENT,
            col(other.status).in_(_DONE),
            col(other.received_at) > col(this.received_at),
        )
    )
    for request_id, purposes in rows:
        found[request_id] |= set(purposes)
    return found


async def follow(
    session: AsyncSession,
    services: Services,
    turn: Turn,
    concerned: Sequence[Destination],
    started: Collection[str],
    now: dt.datetime,
) -> Sequence[Destination] | None:
    """A suppressing request takes its place behind what came before; None: it must wait, for a call
    under way or for what has been ``started`` in this very plan. What is not planned yet will see
    what this one has entered in our own list.
    """
    if not turn.unplanned.isdisjoint(started):
        return None
    return concerned if await _overtake(session, services, turn, concerned, now) else None


async def lift(
    session: AsyncSession,
    services: Services,
    turn: Turn,
    concerned: Sequence[Destination],
    now: dt.datetime,
) -> Sequence[Destination] | None:
    """Take the person off our own list; returns the destinations to tell: those that nothing keeps
    the person from any more and, of a grant, that had been told to suppress. None: it must wait.
    """
    plan = await _plan_lift(session, turn.request, turn.opened, now)
    freed = [each for each in concerned if plan.frees(each)]
    if turn.unplanned or not await _overtake(session, services, turn, freed, now):
        return None
    await suppression.remove(session, [each.id for each in plan.going])
    if not is_grant(turn.request):
        return freed
    told = await _told(session, {each.request_id for each in plan.going})
    return [each for each in freed if each.id in told]


async def _overtake(
    session: AsyncSession,
    services: Services,
    turn: Turn,
    destinations: Sequence[Destination],
    now: dt.datetime,
) -> bool:
    """Take the earlier requests out of these destinations' queues; False while a call of theirs is
    under way, which nobody can recall.
    """
    ids = {each.id for each in destinations}
    if not turn.planned or not ids:
        return True
    stopped = await deliveries.stop_all(
        session, turn.planned, "overtaken", now, reason="overtaken", destination_ids=ids
    )
    if stopped:
        await settle.on_settled(services, session, stopped, now)
    return not await deliveries.in_call(session, turn.planned, ids)


@dataclass(frozen=True, slots=True)
class _Lift:
    """Entries of our own list that a request takes away, and the scopes that keep the person
    suppressed all the same.
    """

    going: Sequence[Suppression]
    staying: frozenset[str]

    def frees(self, destination: Destination) -> bool:
        """Whether nothing keeps the person from this destination any more."""
        return not any(_covers(each, destination) for each in self.staying)


async def _plan_lift(
    session: AsyncSession, request: SubjectRequest, opened: Sequence[Opened], now: dt.datetime
) -> _Lift:
    """What was asked for before ``request``, for its purposes or for all. Consent given again lifts
    only what consent withdrawn has suppressed: of the withdrawals that named this visitor or, where
    the visitor belongs to one account, this account, all of it and nothing else.
    """
    scopes = {f"purpose:{each}" for each in request.purposes}
    refs = {each.subject_ref for each in opened if each.subject_ref is not None}
    asked_by: set[str | None] | None = None
    if is_grant(request):
        given = {
            each.subject_ref
            for each in opened
            if each.subject_ref is not None and each.origin == "given"
        }
        named = set().union(*(await _persons(session, given, now)).values(), given)
        found = await suppression.entries(session, request.workspace_id, named, now)
        asked_by = {each.request_id for each in found if each.channel == CONSENT}
        refs = named | await suppression.subjects(session, asked_by)
    entries = await suppression.entries(session, request.workspace_id, refs, now)
    later = await _received_after(session, request, {each.request_id for each in entries})
    going = [
        each
        for each in entries
        if each.request_id not in later
        and (not scopes or each.scope in scopes)
        and (asked_by is None or each.request_id in asked_by)
    ]
    gone = {each.id for each in going}
    return _Lift(going, frozenset(each.scope for each in entries if each.id not in gone))


async def _persons(
    session: AsyncSession, refs: Collection[bytes], now: dt.datetime
) -> dict[bytes, set[bytes]]:
    """Of visitors, by their reference: it, and that of the one account they are linked to. Of a
    device that several people share, only itself.
    """
    rows = await session.execute(
        sa.select(col(VisitorLink.subject_ref), col(PersonalValue.subject_ref))
        .join(PersonalValue, col(PersonalValue.holder_id) == col(VisitorLink.id))
        .where(col(VisitorLink.subject_ref).in_(refs), is_only_user)
        .where(col(PersonalValue.expires_at) > now)
    )
    found = {each: {each} for each in refs}
    for ref, user in rows:
        if user is not None:
            found[ref].add(user)
    return found


def _covers(scope: str, destination: Destination) -> bool:
    """Whether an entry of our own list keeps the person from this destination."""
    what, _, name = scope.partition(":")
    if what == "purpose":
        return not destination.purposes or name in destination.purposes
    return what == "all" or name == destination.id


async def _received_after(
    session: AsyncSession, request: SubjectRequest, ids: Collection[str | None]
) -> set[str]:
    rows = await session.execute(
        sa.select(col(SubjectRequest.id)).where(
            col(SubjectRequest.id).in_(ids), col(SubjectRequest.received_at) > request.received_at
        )
    )
    return set(rows.scalars())


async def _told(session: AsyncSession, request_ids: Collection[str | None]) -> set[str]:
    """Destinations where these requests may have suppressed somebody, as far as their history is
    kept.
    """
    rows = await session.execute(
        sa.select(col(SubjectRequest.id), col(SubjectRequest.duplicate_of)).where(
            col(SubjectRequest.id).in_(request_ids)
        )
    )
    holders = {duplicate_of or request_id for request_id, duplicate_of in rows}
    return {
        each.destination_id
        for each in await deliveries.standing(session, holders)
        if each.operation == Operation.SUPPRESS
        and (each.state, each.detail) not in _NOTHING_SUPPRESSED
        and not (each.detail == "overtaken" and each.attempt == 0)
    }


async def with_something_to_lift(
    session: AsyncSession, ring: KeyRing, grants: Sequence[ConsentOutbox], now: dt.datetime
) -> set[str]:
    """Ids of the grants before which something was withdrawn: there is an entry of our own list, or
    a withdrawal on its way to one.
    """
    refs = {
        each.id: ring.subject_ref(each.workspace_id, IdentifierKind.ANONYMOUS_ID, each.visitor_id)
        for each in grants
    }
    known = await _persons(session, set(refs.values()), now)
    everybody = set().union(*known.values())
    workspaces = {each.workspace_id for each in grants}
    listed = await session.execute(
        sa.select(col(Suppression.subject_ref), col(Suppression.scope)).where(
            col(Suppression.workspace_id).in_(workspaces),
            col(Suppression.subject_ref).in_(everybody),
            col(Suppression.channel) == CONSENT,
            col(Suppression.expires_at) > now,
        )
    )
    coming = await session.execute(
        sa.select(col(PersonalValue.subject_ref))
        .join(SubjectRequest, col(SubjectRequest.id) == col(PersonalValue.holder_id))
        .where(
            col(PersonalValue.workspace_id).in_(workspaces),
            col(PersonalValue.subject_ref).in_(everybody),
            col(SubjectRequest.channel) == CONSENT,
            col(SubjectRequest.kind).in_(SUPPRESSING),
            col(SubjectRequest.status).not_in(FINAL),
        )
    )
    entered = {(ref, scope) for ref, scope in listed}
    expected = set(coming.scalars())
    return {
        each.id
        for each in grants
        if not expected.isdisjoint(known[refs[each.id]])
        or any(
            (ref, f"purpose:{purpose}") in entered
            for ref in known[refs[each.id]]
            for purpose in each.purposes
        )
    }
