"""Suppression taken back: an unsuppression lifts what was asked for before it, and nothing else.

People change their minds faster than destinations answer, and calls may overtake each other. Two
rules keep the order in which they asked: an unsuppression waits until the requests before it that
suppress the same person have ended; a request that suppresses takes the unsuppressions before it
out of the queues it uses itself. So the last word holds, and until then the person is suppressed.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased
from sqlmodel import col

from app.delivery import service as deliveries
from app.destinations.models import Destination
from app.identity.models import PersonalValue
from app.subject_requests import settle
from app.subject_requests.models import SubjectRequest
from app.subject_requests.services import Services
from app.subject_requests.states import OPERATIONS, Kind, Status
from app.suppression import service as suppression
from app.suppression.models import Suppression
from connectors.contract import Operation

CONSENT = "consent"
"""The channel of requests that the banner makes."""
SUPPRESSING = frozenset(
    kind for kind, operation in OPERATIONS.items() if operation is Operation.SUPPRESS
)
LONGEST_WAIT = dt.timedelta(hours=1)
SHORTEST_WAIT = dt.timedelta(seconds=2)
_UNDER_WAY = (Status.COOLING_OFF, Status.RESOLVING, Status.IN_PROGRESS)
_NOTHING_SUPPRESSED = {("succeeded", "absent"), ("succeeded", "skipped")}


def is_grant(request: SubjectRequest) -> bool:
    """Consent given again, by the person in the banner."""
    return request.kind == Kind.UNSUPPRESSION and request.channel == CONSENT


def next_look(request: SubjectRequest, now: dt.datetime) -> dt.datetime:
    """When a request that waits looks again: after as long as it has waited already."""
    return now + min(max(now - request.received_at, SHORTEST_WAIT), LONGEST_WAIT)


async def before(
    session: AsyncSession, requests: Sequence[SubjectRequest]
) -> Mapping[str, set[str]]:
    """Request id -> the requests under way that came before it, name the same person and do the
    opposite; all of them are locked.
    """
    found: dict[str, set[str]] = defaultdict(set)
    lifting = [each.id for each in requests if each.kind == Kind.UNSUPPRESSION]
    suppressing = [each.id for each in requests if each.kind in SUPPRESSING]
    for ids, kinds in ((lifting, SUPPRESSING), (suppressing, {Kind.UNSUPPRESSION})):
        if ids:
            for request_id, other_id in await _earlier(session, ids, kinds):
                found[request_id].add(other_id)
    return found


async def _earlier(
    session: AsyncSession, request_ids: Sequence[str], kinds: Collection[Kind]
) -> Sequence[tuple[str, str]]:
    this, other = aliased(SubjectRequest), aliased(SubjectRequest)
    mine, theirs = aliased(PersonalValue), aliased(PersonalValue)
    # Asked in the same moment: what suppresses comes first.
    came_before = (
        col(other.received_at) < col(this.received_at)
        if Kind.UNSUPPRESSION in kinds
        else col(other.received_at) <= col(this.received_at)
    )
    rows = await session.execute(
        sa.select(col(this.id), col(other.id))
        .join(mine, col(mine.holder_id) == col(this.id))
        .join(
            theirs,
            (col(theirs.workspace_id) == col(mine.workspace_id))
            & (col(theirs.subject_ref) == col(mine.subject_ref)),
        )
        .join(other, col(other.id) == col(theirs.holder_id))
        .where(
            col(this.id).in_(request_ids),
            col(other.kind).in_(kinds),
            col(other.status).in_(_UNDER_WAY),
            came_before,
        )
        .order_by(col(other.id))
        .with_for_update(of=other)
    )
    return [(this_id, other_id) for this_id, other_id in rows]


async def overtake(
    session: AsyncSession,
    services: Services,
    request_ids: Collection[str],
    destination_ids: Collection[str],
    now: dt.datetime,
) -> bool:
    """Take unsuppressions out of these destinations' queues; False while a call of theirs is under
    way, which nobody can recall.
    """
    stopped = await deliveries.stop_all(
        session, request_ids, "overtaken", now, reason="overtaken", destination_ids=destination_ids
    )
    await settle.on_settled(services, session, stopped, now)
    return not await deliveries.in_call(session, request_ids, destination_ids)


async def lift(
    session: AsyncSession,
    request: SubjectRequest,
    refs: Collection[bytes],
    now: dt.datetime,
) -> Lifted:
    """Take the person off our own list: what was asked for before ``request``, for its purposes or
    for all. Consent given again lifts only what consent withdrawn has suppressed.
    """
    entries = await suppression.entries(session, request.workspace_id, refs, now)
    later = await _received_after(session, request, {each.request_id for each in entries})
    scopes = {f"purpose:{each}" for each in request.purposes}
    going = [
        each
        for each in entries
        if each.request_id not in later
        and (not scopes or each.scope in scopes)
        and (request.channel != CONSENT or each.channel == CONSENT)
    ]
    await suppression.remove(session, [each.id for each in going])
    told = None
    if is_grant(request):
        told = await _told(session, {each.request_id for each in going if each.request_id})
    gone = {each.id for each in going}
    return Lifted({each.scope for each in entries if each.id not in gone}, told)


class Lifted:
    """What keeps the person suppressed (scopes), and the destinations that had been told to (None:
    perhaps any).
    """

    def __init__(self, staying: set[str], told: set[str] | None) -> None:
        self._staying = staying
        self._told = told

    def frees(self, destination: Destination) -> bool:
        """Whether the destination suppresses the person for nothing that still holds."""
        return (self._told is None or destination.id in self._told) and not any(
            covers(each, destination) for each in self._staying
        )


def covers(scope: str, destination: Destination) -> bool:
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


async def _told(session: AsyncSession, request_ids: Collection[str]) -> set[str]:
    """Destinations where these requests suppressed somebody, as far as their history is kept."""
    return {
        each.destination_id
        for each in await deliveries.standing(session, request_ids)
        if each.operation == Operation.SUPPRESS
        and (each.state, each.detail) not in _NOTHING_SUPPRESSED
    }


async def lifts_something(
    session: AsyncSession, workspace_id: str, refs: Collection[bytes], purposes: Collection[str],
    now: dt.datetime,
) -> bool:  # fmt: skip
    """Whether consent given again for these purposes has anything to lift: an entry of our own
    list, or a withdrawal on its way to one.
    """
    scopes = {f"purpose:{each}" for each in purposes}
    listed = sa.select(sa.literal(1)).where(
        col(Suppression.workspace_id) == workspace_id,
        col(Suppression.subject_ref).in_(refs),
        col(Suppression.scope).in_(scopes),
        col(Suppression.channel) == CONSENT,
        col(Suppression.expires_at) > now,
    )
    coming = (
        sa.select(sa.literal(1))
        .select_from(SubjectRequest)
        .join(PersonalValue, col(PersonalValue.holder_id) == col(SubjectRequest.id))
        .where(
            col(PersonalValue.workspace_id) == workspace_id,
            col(PersonalValue.subject_ref).in_(refs),
            col(SubjectRequest.channel) == CONSENT,
            col(SubjectRequest.kind).in_(SUPPRESSING),
            col(SubjectRequest.status).in_(_UNDER_WAY),
        )
    )
    found = await session.execute(sa.select(sa.or_(listed.exists(), coming.exists())))
    return bool(found.scalar_one())
