"""Looking at queues: how much waits, who is next, who stands before whom. Nothing is changed."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.core.bulk import among
from app.core.db import table_of
from app.core.errors import NotFound
from app.delivery.models import Call, Delivery, OpenCall, Ready, VirtualQueue
from app.delivery.order import BOOSTED, FRESH, STARTED, URGENT, WAITING, last_urgent
from app.destinations.models import Destination

AHEAD_CAP = 10_000
"""Nobody needs to know more exactly how long a line is."""


class Load(NamedTuple):
    """What waits in a queue. ``oldest_due_at`` is None when nothing is due."""

    depth: int = 0
    due_count: int = 0
    oldest_due_at: dt.datetime | None = None
    call_count: int = 0
    """Calls that were begun and have not settled."""


class Failure(NamedTuple):
    """One of a queue's last errors."""

    at: dt.datetime
    reason: str
    http_status: int | None


class Note(NamedTuple):
    """What a queue's own row says about its flow."""

    not_before: dt.datetime | None
    last_errors: list[Failure]

    def is_held(self, now: dt.datetime) -> bool:
        return self.not_before is not None and self.not_before > now


def failures(last_errors: list[Any]) -> list[Failure]:
    """Newest first."""
    found = [
        Failure(dt.datetime.fromtimestamp(at, dt.UTC), reason, http_status)
        for at, reason, http_status in last_errors
    ]
    return sorted(found, key=lambda each: each.at, reverse=True)


async def notes(session: AsyncSession, workspace_id: str) -> dict[str, Note]:
    """Of every queue of a workspace."""
    rows = await session.execute(
        sa.select(
            col(VirtualQueue.id), col(VirtualQueue.not_before), col(VirtualQueue.last_errors)
        ).where(col(VirtualQueue.workspace_id) == workspace_id)
    )
    return {each: Note(not_before, failures(errors)) for each, not_before, errors in rows}


async def loads(
    session: AsyncSession, queue_ids: Collection[str], now: dt.datetime
) -> dict[str, Load]:
    """Read from the index alone, and only of these queues."""
    is_due = col(Ready.due_at) <= now
    rows = await session.execute(
        sa.select(
            col(Ready.queue_id),
            sa.func.count(),
            sa.func.sum(sa.case((is_due, 1), else_=0)),
            sa.func.min(sa.case((is_due, col(Ready.due_at)))),
        )
        .where(among(table_of(Ready).c.queue_id, queue_ids))
        .group_by(col(Ready.queue_id))
    )
    waiting = {queue_id: (depth, due, oldest) for queue_id, depth, due, oldest in rows}
    calls = await session.execute(
        sa.select(col(OpenCall.queue_id), sa.func.count())
        .where(among(table_of(OpenCall).c.queue_id, queue_ids))
        .group_by(col(OpenCall.queue_id))
    )
    open_calls = dict(calls.all())
    return {
        each: Load(*waiting.get(each, (0, 0, None)), open_calls.get(each, 0)) for each in queue_ids
    }


class Standing(NamedTuple):
    """What a list says of a queue and its destination; small, because all of them are read."""

    id: str
    name: str
    connector: str
    is_deleted: bool
    next_due: dt.datetime | None
    not_before: dt.datetime | None
    lease_until: dt.datetime | None
    parked_reason: str | None
    parked_at: dt.datetime | None
    is_paused: bool
    breaker: dict[str, Any]
    concurrency_limit: int


_STANDING = (
    col(VirtualQueue.id),
    col(Destination.name),
    col(Destination.connector),
    col(Destination.deleted_at).is_not(None),
    col(VirtualQueue.next_due),
    col(VirtualQueue.not_before),
    col(VirtualQueue.lease_until),
    col(VirtualQueue.parked_reason),
    col(VirtualQueue.parked_at),
    col(VirtualQueue.is_paused),
    col(VirtualQueue.breaker),
    col(VirtualQueue.concurrency_limit),
)


async def standings(session: AsyncSession, workspace_id: str) -> list[Standing]:
    """Of every queue; that of a deleted destination as long as something waits in it."""
    waits = sa.exists().where(col(Ready.queue_id) == col(VirtualQueue.id))
    rows = await session.execute(
        sa.select(*_STANDING)
        .join(Destination, col(Destination.id) == col(VirtualQueue.id))
        .where(
            col(VirtualQueue.workspace_id) == workspace_id,
            sa.or_(col(Destination.deleted_at).is_(None), waits),
        )
    )
    return [Standing(*row) for row in rows]


def standing_of(queue: VirtualQueue, destination: Destination) -> Standing:
    return Standing(
        id=queue.id,
        name=destination.name,
        connector=destination.connector,
        is_deleted=destination.deleted_at is not None,
        next_due=queue.next_due,
        not_before=queue.not_before,
        lease_until=queue.lease_until,
        parked_reason=queue.parked_reason,
        parked_at=queue.parked_at,
        is_paused=queue.is_paused,
        breaker=queue.breaker,
        concurrency_limit=queue.concurrency_limit,
    )


async def find(
    session: AsyncSession, workspace_id: str, queue_id: str
) -> tuple[VirtualQueue, Destination]:
    queue = await session.get(VirtualQueue, queue_id)
    destination = await session.get(Destination, queue_id)
    if queue is None or destination is None or queue.workspace_id != workspace_id:
        raise await no_queue(session, workspace_id, queue_id)
    return queue, destination


async def no_queue(session: AsyncSession, workspace_id: str, queue_id: str) -> NotFound:
    """Why there is none: no such destination, or nothing was ever delivered to it."""
    destination = await session.get(Destination, queue_id)
    if destination is None or destination.workspace_id != workspace_id:
        return NotFound("There is no destination with this id.")
    return NotFound("This destination has no queue yet; it gets one with its first delivery.")


async def waiting(
    session: AsyncSession, queue_id: str, now: dt.datetime, limit: int
) -> list[tuple[Ready, Delivery]]:
    """The first deliveries in the order in which they go, whether or not they are due."""
    found: list[tuple[Ready, Delivery]] = []
    for first, last in _ranges(now):
        if len(found) == limit:
            break
        rows = await session.execute(
            sa.select(Ready, Delivery)
            .join(Delivery, col(Delivery.id) == col(Ready.delivery_id))
            .where(col(Ready.queue_id) == queue_id, *_within(first, last))
            .order_by(col(Ready.rank), col(Ready.due_at), col(Ready.delivery_id))
            .limit(limit - len(found))
        )
        found += [(ready, delivery) for ready, delivery in rows]
    return found


async def ahead(session: AsyncSession, place: Ready, now: dt.datetime) -> int:
    """How many deliveries of the queue go before this one, counted to ``AHEAD_CAP``."""
    count = 0
    for first, last in _ranges(now):
        is_here = first <= place.rank <= (place.rank if last is None else last)
        before = _before(place) if is_here else sa.true()
        line = (
            sa.select(col(Ready.delivery_id))
            .where(col(Ready.queue_id) == place.queue_id, *_within(first, last), before)
            .limit(AHEAD_CAP)
            .subquery()
        )
        count += (await session.execute(sa.select(sa.func.count()).select_from(line))).scalar_one()
        if is_here or count >= AHEAD_CAP:
            break
    return min(count, AHEAD_CAP)


def _ranges(now: dt.datetime) -> tuple[tuple[int, int | None], ...]:
    """Ranks from first to last as the engine takes them (``app.delivery.due``), both ends included;
    None: no end. Those that wait for a job have a share of their own beside all others.
    """
    urgent = last_urgent(now)
    return (
        (BOOSTED, BOOSTED),
        (URGENT, URGENT),
        (FRESH, urgent),
        (STARTED, STARTED),
        (urgent + 1, None),
        (WAITING, WAITING),
    )


def goes_at(place: Ready, eager_before: dt.datetime | None) -> dt.datetime:
    """When it is due; a flushed or recovered queue waits no longer for who was there before."""
    if eager_before is not None and place.placed_at < eager_before:
        return min(place.due_at, eager_before)
    return place.due_at


def _within(first: int, last: int | None) -> list[sa.ColumnElement[bool]]:
    rank = col(Ready.rank)
    return [rank >= first] if last is None else [rank >= first, rank <= last]


def _before(place: Ready) -> sa.ColumnElement[bool]:
    table = table_of(Ready)
    key = (table.c.rank, table.c.due_at, table.c.delivery_id)
    mine = (place.rank, place.due_at, place.delivery_id)
    return sa.tuple_(*key) < sa.tuple_(
        *(sa.literal(value, column.type) for value, column in zip(mine, key, strict=True))
    )


async def calls(session: AsyncSession, call_ids: Collection[str]) -> dict[str, Call]:
    rows = await session.execute(sa.select(Call).where(col(Call.id).in_(call_ids)))
    return {each.id: each for each in rows.scalars()}
