"""Claiming: lease due queues, take what may go now, and write the calls down, in one transaction.

Nothing is sent before its ``call`` row is committed, so that whatever happens next, the same call
can be made again under the same idempotency key. A queue's lease is the only lock: while it is held
nobody else reads its rows.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.core.db import table_of
from app.core.ids import new_id
from app.delivery import health
from app.delivery.models import Call, Delivery, OpenCall, Ready, VirtualQueue
from app.delivery.order import ranges
from app.destinations.models import Destination
from connectors.contract import Window

QUANTUM = 64
"""Deliveries a queue may take in one lease when others wait too; batches count by their people."""
MAX_LEASES = 5
TURNS = 4
"""How often a queue's concurrency fits into one claim."""
CONNECTOR_MISSING = "connector_missing"
DESTINATION_DISABLED = "destination_disabled"


@dataclass(frozen=True, slots=True)
class Traits:
    """What the engine needs to know of a connector class."""

    batch: int
    limits: tuple[Window, ...]
    concurrency: int
    timeout: dt.timedelta
    poll_every: dt.timedelta
    gives_up_after: dt.timedelta


TraitsOf = Callable[[str], Traits | None]
"""Connector name -> traits; None when the connector is not installed."""


@dataclass(slots=True)
class Member:
    """One delivery inside a call, with the key of its ``ready`` row."""

    delivery_id: str
    operation: str
    rank: int
    due_at: dt.datetime
    attempt: int
    seq: int
    expires_at: dt.datetime
    job: str | None
    job_since: dt.datetime | None
    request_id: str = ""
    workspace_id: str = ""
    identifier_ids: tuple[str, ...] = ()
    deadline: dt.datetime | None = None


@dataclass(slots=True)
class Claimed:
    """A committed call, ready to be sent (again)."""

    id: str
    operation: str
    attempt: int
    job: str | None
    members: list[Member]


@dataclass(slots=True)
class Lease:
    """A leased queue with its calls; ``token`` guards everything written about it."""

    queue_id: str
    workspace_id: str
    token: int
    destination: Destination
    traits: Traits
    windows: dict[str, Any]
    concurrency: int
    breaker: health.Breaker
    calls: list[Claimed] = field(default_factory=list)
    answers: list[bool] = field(default_factory=list)
    """Whether each finished call showed a healthy destination."""
    open: int = 0
    next_window: dt.datetime | None = None
    parked: str | None = None

    @property
    def key(self) -> tuple[str, int]:
        return self.queue_id, self.token


async def claim(
    session: AsyncSession,
    *,
    owner: str,
    queues: int,
    room: int,
    traits_of: TraitsOf,
    now: dt.datetime,
    lease: dt.timedelta,
) -> list[Lease]:
    """Lease up to ``queues`` due queues and take at most about ``room`` deliveries from them,
    fairly.
    """
    rows = await _lease(session, owner, queues, now, lease)
    if not rows:
        return []
    destinations = {
        each.id: each
        for each in (
            await session.execute(
                sa.select(Destination).where(col(Destination.id).in_([row.id for row in rows]))
            )
        ).scalars()
    }
    share = max(QUANTUM, room // len(rows))
    leases = []
    for row in rows:
        destination = destinations[row.id]
        traits = traits_of(destination.connector)
        if traits is None or not (destination.is_enabled or destination.deleted_at):
            reason = CONNECTOR_MISSING if traits is None else DESTINATION_DISABLED
            await _park(session, row.id, row.token, reason, destination.version)
            continue
        held = Lease(
            row.id,
            row.workspace_id,
            row.token,
            destination,
            traits,
            row.windows,
            min(row.concurrency_limit, traits.concurrency),
            health.Breaker.load(row.breaker).at_lease(now),
        )
        await _resume(session, held, now)
        if not held.calls and not held.parked:
            await _take(session, held, share, now)
        leases.append(held)
    await _describe(session, leases)
    return leases


async def _lease(
    session: AsyncSession, owner: str, queues: int, now: dt.datetime, lease: dt.timedelta
) -> Sequence[Any]:
    due = (
        sa.select(col(VirtualQueue.id))
        .where(
            col(VirtualQueue.next_due) <= now,
            sa.or_(col(VirtualQueue.lease_until).is_(None), col(VirtualQueue.lease_until) <= now),
            ~col(VirtualQueue.is_paused),
            col(VirtualQueue.parked_reason).is_(None),
        )
        .order_by(col(VirtualQueue.next_due))
        .limit(queues)
        .with_for_update(skip_locked=True)
    )
    ids = [queue_id for (queue_id,) in await session.execute(due)]
    if not ids:
        return []
    until = now + lease
    # next_due moves to the lease's end: a plan made meanwhile brings it forward, a crash lets it
    # come due by itself.
    leased = await session.execute(
        sa.update(VirtualQueue)
        .where(col(VirtualQueue.id).in_(ids))
        .values(lease_owner=owner, lease_until=until, next_due=until, token=VirtualQueue.token + 1)
        .returning(
            col(VirtualQueue.id),
            col(VirtualQueue.workspace_id),
            col(VirtualQueue.token),
            col(VirtualQueue.windows),
            col(VirtualQueue.concurrency_limit),
            col(VirtualQueue.breaker),
        )
        .execution_options(synchronize_session=False)
    )
    return leased.all()


async def _park(
    session: AsyncSession, queue_id: str, token: int, reason: str, version: int
) -> None:
    """Stop a queue until somebody mends its destination; its deliveries keep their places."""
    await session.execute(
        sa.update(VirtualQueue)
        .where(col(VirtualQueue.id) == queue_id, col(VirtualQueue.token) == token)
        .values(
            parked_reason=reason,
            parked_version=version,
            next_due=None,
            lease_until=None,
            lease_owner=None,
        )
        .execution_options(synchronize_session=False)
    )


async def _resume(session: AsyncSession, held: Lease, now: dt.datetime) -> None:
    """Calls left open by a crash are made again, unchanged but for people already settled, before
    any new work.
    """
    rows = (
        await session.execute(
            sa.select(Call, col(OpenCall.leases))
            .join(OpenCall, col(OpenCall.call_id) == col(Call.id))
            .where(col(OpenCall.queue_id) == held.queue_id)
            .order_by(col(Call.id))
        )
    ).all()
    for call, leases in rows:
        members = [
            _member(row)
            for row in await session.execute(
                sa.select(table_of(Ready)).where(
                    col(Ready.queue_id) == held.queue_id, col(Ready.call_id) == call.id
                )
            )
        ]
        if not members or leases >= MAX_LEASES:
            await _break_up(session, held, call, members, now)
            continue
        await session.execute(
            sa.update(OpenCall)
            .where(col(OpenCall.queue_id) == held.queue_id, col(OpenCall.call_id) == call.id)
            .values(leases=leases + 1)
            .execution_options(synchronize_session=False)
        )
        held.calls.append(Claimed(call.id, call.operation, call.attempt, call.job, members))


async def _break_up(
    session: AsyncSession, held: Lease, call: Call, members: list[Member], now: dt.datetime
) -> None:
    """A call that never came to an outcome: its people go one by one; a single one parks
    the queue.
    """
    if len(members) == 1:
        held.parked = "call_never_returns"
        return
    await session.execute(
        sa.delete(OpenCall).where(
            col(OpenCall.queue_id) == held.queue_id, col(OpenCall.call_id) == call.id
        )
    )
    await _write_calls(session, held, [[member] for member in members], now)


async def _take(session: AsyncSession, held: Lease, share: int, now: dt.datetime) -> None:
    """New work: in order of rank and due time, within the rate windows and the breaker's probe."""
    if held.breaker.until is not None and not held.breaker.probing:
        return
    # No more than it gets through soon: what is claimed is out of everybody else's reach.
    soon = TURNS * held.concurrency * held.traits.batch
    wanted = 1 if held.breaker.probing else min(share * held.traits.batch, soon)
    members = [_member(row) for row in await session.execute(_due(held.queue_id, wanted, now))]
    calls = group(members, held.traits.batch)
    held.windows, granted, held.next_window = health.spend(
        held.windows, held.traits.limits, len(calls), now
    )
    await _write_calls(session, held, calls[:granted], now)


def _due(queue_id: str, limit: int, now: dt.datetime) -> Any:
    """The first ``limit`` due rows, one index range per rank: rows that wait are never walked.

    They are locked: a row that is being moved or taken out at this moment is left alone.
    """
    table = table_of(Ready)
    parts = [
        sa.select(table)
        .where(
            table.c.queue_id == queue_id,
            table.c.rank >= first,
            *(() if last is None else (table.c.rank <= last,)),
            table.c.due_at <= now,
            table.c.call_id.is_(None),
        )
        .order_by(table.c.rank, table.c.due_at, table.c.delivery_id)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .subquery()
        for first, last in ranges(now)
    ]
    union = sa.union_all(
        *(sa.select(part, sa.literal(place).label("place")) for place, part in enumerate(parts))
    ).subquery()
    order = (union.c.place, union.c.rank, union.c.due_at, union.c.delivery_id)
    return sa.select(union).order_by(*order).limit(limit)


def group(members: list[Member], batch: int) -> list[list[Member]]:
    """Calls of up to ``batch`` people with one operation; people who wait for the same vendor job
    share its poll.
    """

    def key(member: Member) -> tuple[str, str]:
        return member.operation, member.job or ""

    calls = []
    for (_, job), same in groupby(sorted(members, key=key), key):
        people = list(same)
        size = len(people) if job else batch
        calls += [people[at : at + size] for at in range(0, len(people), size)]
    return calls


async def _write_calls(
    session: AsyncSession, held: Lease, calls: list[list[Member]], now: dt.datetime
) -> None:
    """Write each call and mark its people's rows with it."""
    if not calls:
        return
    claimed = [
        Claimed(
            new_id("call"),
            members[0].operation,
            1 + max(each.attempt for each in members),
            members[0].job,
            members,
        )
        for members in calls
    ]
    held.calls += claimed
    await session.execute(
        sa.insert(Call),
        [
            {
                "id": each.id,
                "queue_id": held.queue_id,
                "token": held.token,
                "operation": each.operation,
                "delivery_ids": [member.delivery_id for member in each.members],
                "attempt": each.attempt,
                "job": each.job,
                "created_at": now,
            }
            for each in claimed
        ],
    )
    await session.execute(
        sa.insert(OpenCall),
        [{"queue_id": held.queue_id, "call_id": each.id, "leases": 1} for each in claimed],
    )
    table = table_of(Ready)
    await session.execute(
        sa.update(table)
        .where(table.c.delivery_id == sa.bindparam("b_delivery_id"))
        .values(call_id=sa.bindparam("b_call_id")),
        [
            {"b_delivery_id": member.delivery_id, "b_call_id": each.id}
            for each in claimed
            for member in each.members
        ],
    )


def _member(row: Any) -> Member:
    return Member(
        row.delivery_id,
        row.operation,
        row.rank,
        row.due_at,
        row.attempt,
        row.seq,
        row.expires_at,
        row.job,
        row.job_since,
    )


async def _describe(session: AsyncSession, leases: list[Lease]) -> None:
    """Read the immutable deliveries of all claimed members, by primary key."""
    members = {
        member.delivery_id: member
        for held in leases
        for call in held.calls
        for member in call.members
    }
    if not members:
        return
    rows = await session.execute(
        sa.select(
            col(Delivery.id),
            col(Delivery.request_id),
            col(Delivery.workspace_id),
            col(Delivery.identifier_ids),
            col(Delivery.due_at),
        ).where(col(Delivery.id).in_(list(members)))
    )
    for delivery_id, request_id, workspace_id, identifier_ids, due_at in rows:
        member = members[delivery_id]
        member.request_id, member.workspace_id, member.deadline = request_id, workspace_id, due_at
        member.identifier_ids = tuple(identifier_ids)
