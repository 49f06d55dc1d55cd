"""Resolve and plan: what the person proved becomes the identifiers destinations know, then
deliveries.

Resolving asks identity sources over the network and holds no transaction; planning is one
transaction: state, deliveries, places in queues. Several people go through both together.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.core.db import is_deadlock
from app.core.failpoints import failpoint
from app.core.ids import new_id
from app.core.logging import get_logger
from app.delivery import plan
from app.delivery.carry import usable
from app.destinations.models import Destination
from app.destinations.service import matches
from app.identity import vault
from app.identity.normalise import InvalidIdentifier, normalise
from app.identity.vault import Opened
from app.receipts.claims import NO_IDENTIFIER
from app.security.models import Workspace
from app.subject_requests import reversals, settle, visitors
from app.subject_requests.models import RESOLVING, RequestEvent, SubjectRequest
from app.subject_requests.reversals import Turn
from app.subject_requests.services import Services
from app.subject_requests.states import OPERATIONS, Kind, Status
from app.subject_requests.timeline import note
from app.suppression import service as suppression
from connectors.contract import Call, Identifier, Operation, Outcome, Person, retry, supports

log = get_logger(__name__)

BATCH = 100
TRIES = 3
LOOKUP_SECONDS = 20.0
LEASE = dt.timedelta(seconds=LOOKUP_SECONDS + 10)
"""Who takes longer meets no harm: of two plans of a request the second finds it planned."""
RETRY = dt.timedelta(seconds=30)
RETRY_CAP = dt.timedelta(hours=1)
FAILED_EVENT = "resolve_failed"
MAX_PER_KIND = 50
TOO_MANY = "too_many_identifiers"


async def resolve_due(services: Services, now: dt.datetime) -> bool:
    """Resolve and plan up to a batch of requests; True when there were some."""
    async with services.database.writing() as session:
        batch = await _take(session, now)
    if not batch:
        return False
    started = time.monotonic()
    found, failed = await _ask_sources(services, batch)
    now += dt.timedelta(seconds=time.monotonic() - started)
    ready = [request for request in batch if request.id not in failed]
    await _store(services, ready, found, now)
    for _ in range(TRIES - 1):
        try:
            await _plan(services, ready, failed, now)
            break
        except sa.exc.OperationalError as error:
            # Who overtakes earlier requests locks them, and a finisher may hold what we want next.
            if not is_deadlock(error):
                raise
    else:
        await _plan(services, ready, failed, now)
    failpoint("plan.after_commit")
    return True


async def _plan(
    services: Services,
    ready: Sequence[SubjectRequest],
    failed: Mapping[str, str],
    now: dt.datetime,
) -> None:
    async with services.database.writing() as session:
        for request in await _still_resolving(session, list(failed)):
            await _put_off(session, request, failed[request.id], now)
        still_ready = await _still_resolving(session, [each.id for each in ready])
        await plan_requests(session, services, still_ready, now)
        failpoint("plan.before_commit")


async def _put_off(
    session: AsyncSession, request: SubjectRequest, source: str, now: dt.datetime
) -> None:
    """Ask again later: after half a minute, and twice as long each time, up to an hour."""
    tries = await session.execute(
        sa.select(sa.func.count()).where(
            col(RequestEvent.request_id) == request.id, col(RequestEvent.type) == FAILED_EVENT
        )
    )
    request.next_step_at = now + min(RETRY_CAP, RETRY * 2 ** min(tries.scalar_one(), 10))
    note(session, request.id, FAILED_EVENT, "service", now, source=source)


async def _take(session: AsyncSession, now: dt.datetime) -> list[SubjectRequest]:
    """Requests due for resolving; their next look moves to the end of our lease, should we die."""
    rows = await session.execute(
        sa.select(SubjectRequest)
        .where(col(SubjectRequest.next_step_at) <= now, col(SubjectRequest.status) == RESOLVING)
        .order_by(col(SubjectRequest.next_step_at))
        .limit(BATCH)
        .with_for_update(skip_locked=True)
    )
    batch = list(rows.scalars())
    for request in batch:
        request.next_step_at = now + LEASE
    return batch


async def forget_leases(services: Services, now: dt.datetime) -> None:
    """Embedded start: whoever took requests to resolve them is dead; none has to wait for that."""
    async with services.database.writing() as session:
        await session.execute(
            sa.update(SubjectRequest)
            .where(
                col(SubjectRequest.status) == Status.RESOLVING,
                col(SubjectRequest.next_step_at) > now,
            )
            .values(next_step_at=now)
            .execution_options(synchronize_session=False)
        )


async def _still_resolving(session: AsyncSession, ids: Sequence[str]) -> list[SubjectRequest]:
    if not ids:
        return []
    rows = await session.execute(
        sa.select(SubjectRequest)
        .where(col(SubjectRequest.id).in_(ids), col(SubjectRequest.status) == Status.RESOLVING)
        .order_by(col(SubjectRequest.id))
        .with_for_update()
    )
    return list(rows.scalars())


# Resolve


async def _ask_sources(
    services: Services, batch: Sequence[SubjectRequest]
) -> tuple[dict[str, list[Identifier]], dict[str, str]]:
    """What identity sources know: request id -> further identifiers; and the requests a source
    could not answer.
    """
    asking = [each for each in batch if each.verified_at is not None]  # else only what was named
    async with services.database.reading() as session:
        sources = await _sources(session, {each.workspace_id for each in asking})
        opened = await vault.open_holder(session, services.keys, [each.id for each in asking])
    known: dict[str, list[Identifier]] = defaultdict(list)
    for value in opened:
        known[value.holder_id].append(value.identifier)
    found: dict[str, list[Identifier]] = defaultdict(list)
    failed: dict[str, str] = {}
    async with services.database.reading() as session:
        for request in asking:
            found[request.id] += await visitors.linked(
                session, services.keys, services.ring, request.workspace_id, known[request.id]
            )
    people = {
        each.id: Person(each.id, tuple(known[each.id] + found[each.id]))
        for each in asking
        if known[each.id]
    }
    concerned = [
        [people[each.id] for each in asking if _concerns(source, each) and each.id in people]
        for source in sources
    ]
    answers = await asyncio.gather(
        *(_ask(services, *each) for each in zip(sources, concerned, strict=True))
    )
    for source, mine, answer in zip(sources, concerned, answers, strict=True):
        if isinstance(answer, Outcome):
            failed |= {each.id: source.id for each in mine}
            log.warning("lookup_failed", destination_id=source.id, reason=answer.reason)
            continue
        for request_id, identifiers in answer.items():
            found[request_id] += identifiers
    return found, failed


def _concerns(source: Destination, request: SubjectRequest) -> bool:
    return source.workspace_id == request.workspace_id


async def _ask(services: Services, source: Destination, people: Sequence[Person]) -> Any:
    """One source's answer; one that hangs holds nobody longer than the others may take."""
    if not people:
        return {}
    call = Call(new_id("call"), Operation.ERASE, 1)
    try:
        async with asyncio.timeout(LOOKUP_SECONDS):
            return await services.ask(source, call, "lookup", people)
    except TimeoutError:
        return retry("timeout")


async def _sources(session: AsyncSession, workspace_ids: set[str]) -> list[Destination]:
    rows = await session.execute(
        sa.select(Destination).where(
            col(Destination.workspace_id).in_(workspace_ids),
            col(Destination.is_identity_source),
            col(Destination.is_enabled),
            col(Destination.deleted_at).is_(None),
        )
    )
    return list(rows.scalars())


async def _store(
    services: Services,
    batch: Sequence[SubjectRequest],
    found: Mapping[str, Sequence[Identifier]],
    now: dt.datetime,
) -> None:
    """Seal what was found beside what was given; more than the cap needs an operator's eyes."""
    if not any(found.values()):
        return
    keys = await services.keys.load([each.id for each in batch if found.get(each.id)])
    async with services.database.writing() as session:
        approved = await _approved(session, list(keys))
        given = await vault.open_holder(session, services.keys, list(keys))
        have: dict[str, set[Identifier]] = defaultdict(set)
        for value in given:
            have[value.holder_id].add(value.identifier)
        rows: list[dict[str, Any]] = []
        for request in batch:
            if request.id not in keys:
                continue
            fresh = [
                each for each in _normalised(found[request.id]) if each not in have[request.id]
            ]
            counts = Counter(each.kind for each in fresh)
            is_too_many = bool(counts) and max(counts.values()) > MAX_PER_KIND
            if is_too_many and request.id not in approved:
                await _needs_approval(session, request.id, now)
                continue
            rows += [
                vault.identifier_row(
                    services.ring,
                    keys[request.id],
                    workspace_id=request.workspace_id,
                    holder_id=request.id,
                    identifier=each,
                    now=now,
                    origin="resolved",
                )
                for each in fresh
            ]
            if fresh:
                note(session, request.id, "resolved", "service", now, found=dict(counts))
        await vault.add(session, rows)


async def _approved(session: AsyncSession, request_ids: Sequence[str]) -> set[str]:
    """Requests that an operator has looked at already."""
    rows = await session.execute(
        sa.select(col(RequestEvent.request_id)).where(
            col(RequestEvent.request_id).in_(request_ids), col(RequestEvent.type) == "approved"
        )
    )
    return set(rows.scalars())


def _normalised(identifiers: Sequence[Identifier]) -> list[Identifier]:
    clean: dict[Identifier, None] = {}
    for each in identifiers:
        try:
            clean[normalise(each.kind, each.value)] = None
        except InvalidIdentifier:
            log.warning("lookup_value_refused", kind=each.kind)
    return list(clean)


async def _needs_approval(session: AsyncSession, request_id: str, now: dt.datetime) -> None:
    for request in await _still_resolving(session, [request_id]):
        await_approval(session, request, now)


def await_approval(session: AsyncSession, request: SubjectRequest, now: dt.datetime) -> None:
    """More identifiers were found than a person usually has: an operator looks first."""
    request.status, request.next_step_at = Status.AWAITING_APPROVAL, None
    request.approval_reason = request.hold_reason = TOO_MANY
    note(session, request.id, "approval_needed", "service", now, reason=TOO_MANY)


# Plan


async def plan_requests(
    session: AsyncSession, services: Services, requests: Sequence[SubjectRequest], now: dt.datetime
) -> None:
    """Plan resolving requests in the caller's transaction: deliveries, suppression, duplicates. Who
    must wait for an earlier request is put off.
    """
    if not requests:
        return
    opened: dict[str, list[Opened]] = defaultdict(list)
    for value in await vault.open_holder(session, services.keys, [each.id for each in requests]):
        opened[value.holder_id].append(value)
    by_workspace: dict[str, list[Turn]] = defaultdict(list)
    for turn in await reversals.turns(session, requests, opened):
        by_workspace[turn.request.workspace_id].append(turn)
    planned: list[plan.Planned] = []
    started: set[str] = set()
    nothing_to_do: list[SubjectRequest] = []
    for workspace_id, mine in by_workspace.items():
        workspace = await session.get_one(Workspace, workspace_id)
        destinations = await _destinations(session, workspace_id)
        originals = _originals([each.request for each in mine], opened)
        for turn in mine:
            request = turn.request
            concerned = _concerned(turn, destinations)
            if request.kind == Kind.UNSUPPRESSION:
                told = await reversals.lift(session, services, turn, concerned, now)
            else:
                await _suppress(session, services, workspace, turn, now)
                told = await reversals.follow(session, services, turn, concerned, started, now)
            if told is None:
                request.next_step_at = reversals.next_look(request, now)
                continue
            if original := originals.get(request.id):
                _attach(session, request, original, now)
                continue
            deliveries = _deliveries(services, request, told, turn.opened, now)
            planned += deliveries
            started.add(request.id)
            _start(session, request, deliveries, now)
            if request.open_count == 0:
                nothing_to_do.append(request)
    await plan.insert(session, planned, now)
    await session.flush()
    if nothing_to_do:
        await settle.finalise(session, services, nothing_to_do, now)


async def _destinations(session: AsyncSession, workspace_id: str) -> list[Destination]:
    rows = await session.execute(
        sa.select(Destination)
        .where(
            col(Destination.workspace_id) == workspace_id,
            col(Destination.is_enabled),
            col(Destination.deleted_at).is_(None),
        )
        .order_by(col(Destination.id))
    )
    return list(rows.scalars())


def _originals(
    requests: Sequence[SubjectRequest], opened: Mapping[str, Sequence[Opened]]
) -> dict[str, SubjectRequest]:
    """Requests that ask the same for the same person as an earlier one of this plan: none of whose
    calls was made. What an unsuppression lifts depends on its time, so it joins none.
    """
    first: dict[Any, SubjectRequest] = {}
    originals = {}
    for request in sorted(requests, key=lambda each: each.id):
        if request.duplicate_of is not None or request.kind == Kind.UNSUPPRESSION:
            continue
        same = (
            request.kind,
            frozenset(each.subject_ref for each in opened[request.id]),
            tuple(request.destination_ids or ()),
            tuple(request.purposes),
            request.regime,
        )
        original = first.setdefault(same, request)
        if original is not request:
            originals[request.id] = original
    return originals


def _attach(
    session: AsyncSession, request: SubjectRequest, original: SubjectRequest, now: dt.datetime
) -> None:
    """A duplicate has its own id, clock and receipt, and settles with its original."""
    request.status = Status.IN_PROGRESS
    request.duplicate_of = original.id
    request.next_step_at = None
    note(session, request.id, "joined", "service", now, duplicate_of=original.id)


def _concerned(turn: Turn, destinations: Sequence[Destination]) -> list[Destination]:
    """Those it names, or those set to take its like. Consent given again concerns whatever the
    withdrawal did.
    """
    request, purposes = turn.request, turn.purposes
    if turn.is_settled:
        return []
    if reversals.is_grant(request):
        return [
            each for each in destinations if not each.purposes or {*each.purposes} & {*purposes}
        ]
    named = request.destination_ids
    return [
        each
        for each in destinations
        if (named is None or each.id in named)
        and matches(each, request.kind, request.regime, purposes)
    ]


def _deliveries(
    services: Services,
    request: SubjectRequest,
    destinations: Sequence[Destination],
    opened: Sequence[Opened],
    now: dt.datetime,
) -> list[plan.Planned]:
    operation = OPERATIONS[Kind(request.kind)]
    planned = []
    for destination in destinations:
        connector = services.class_of(destination.connector)
        if connector is None or not supports(connector, operation):
            continue
        identifiers = usable(connector.accepts, connector.accepts_all, opened)
        planned.append(
            plan.Planned(
                workspace_id=request.workspace_id,
                request_id=request.id,
                destination_id=destination.id,
                operation=operation,
                identifier_ids=[each.id for each in identifiers],
                expires_at=now + dt.timedelta(days=destination.expiry_days),
                due_at=request.extended_until or request.due_at,
                phase=2 if destination.is_identity_source and operation is Operation.ERASE else 1,
                skip_reason=None if identifiers else NO_IDENTIFIER,
            )
        )
    return planned


def _start(
    session: AsyncSession,
    request: SubjectRequest,
    deliveries: Sequence[plan.Planned],
    now: dt.datetime,
) -> None:
    live = [each for each in deliveries if each.skip_reason is None]
    request.status = Status.IN_PROGRESS
    request.open_count = len(live)
    request.phase = plan.first_phases(deliveries).get(request.id, 0)
    request.phase_open_count = sum(each.phase == request.phase for each in live)
    request.next_step_at = None
    note(session, request.id, "planned", "service", now, deliveries=len(deliveries))


async def _suppress(
    session: AsyncSession,
    services: Services,
    workspace: Workspace,
    turn: Turn,
    now: dt.datetime,
) -> None:
    """Erasure, opt-out and suppression enter the person in our own list."""
    request = turn.request
    is_unwanted = request.kind == Kind.ERASURE and not workspace.suppress_after_erasure
    if is_unwanted or turn.is_settled:
        return
    await suppression.add(
        session,
        workspace_id=workspace.id,
        subjects=[
            (each.subject_ref, each.kind) for each in turn.opened if each.subject_ref is not None
        ],
        scopes=[f"purpose:{each}" for each in turn.purposes] or ["all"],
        request_id=request.id,
        channel=request.channel,
        now=now,
        until=suppression.expiry(now, services.settings.suppression_months),
    )


async def irreversible_destinations(
    session: AsyncSession, services: Services, workspace_id: str
) -> bool:
    """Whether an erasure would touch a destination that cannot undo it."""
    return any(
        connector is not None and connector.is_irreversible and supports(connector, Operation.ERASE)
        for connector in (
            services.class_of(each.connector) for each in await _destinations(session, workspace_id)
        )
    )
