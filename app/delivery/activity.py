"""What queues did lately, from counts per five minutes: for people, nothing is decided by it.

An answer is about one delivery: it succeeded, is tried again (``retried``), or is discarded.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.delivery.models import QueueActivity, VirtualQueue
from app.delivery.stats import CALLS, DISCARDED, DURATION_MS, RETRIED, SLOT, SUCCEEDED, slot_of

HOUR = dt.timedelta(hours=1)
WEEK = dt.timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Count:
    """How often ``event`` happened in the slot that began ``at``."""

    at: dt.datetime
    event: str
    count: int


@dataclass(slots=True)
class Tally:
    """Counts over any time; ``succeeded`` is by attempt, 1 is the first."""

    calls: int = 0
    duration_ms: int = 0
    retried: int = 0
    discarded: int = 0
    succeeded: dict[int, int] = field(default_factory=dict)

    def add(self, event: str, count: int) -> None:
        """What this release does not know is left out."""
        if event == CALLS:
            self.calls += count
        elif event == DURATION_MS:
            self.duration_ms += count
        elif event == RETRIED:
            self.retried += count
        elif event == DISCARDED:
            self.discarded += count
        elif event.startswith(SUCCEEDED):
            attempt = max(1, int(event.removeprefix(SUCCEEDED)))
            self.succeeded[attempt] = self.succeeded.get(attempt, 0) + count

    @property
    def succeeded_count(self) -> int:
        return sum(self.succeeded.values())

    @property
    def answer_count(self) -> int:
        return self.succeeded_count + self.retried + self.discarded

    @property
    def saved_count(self) -> int:
        """Deliveries that would have been lost without a retry."""
        return sum(count for attempt, count in self.succeeded.items() if attempt > 1)

    @property
    def saved_share(self) -> float | None:
        """Of those that succeeded; None: none did."""
        return self.saved_count / self.succeeded_count if self.succeeded else None

    @property
    def success_share(self) -> float | None:
        """Of all answers; None: there was none."""
        return self.succeeded_count / self.answer_count if self.answer_count else None


def total(counts: Iterable[Count]) -> Tally:
    found = Tally()
    for each in counts:
        found.add(each.event, each.count)
    return found


def series(
    counts: Iterable[Count], start: dt.datetime, width: dt.timedelta, length: int
) -> list[Tally]:
    """One tally per ``width`` from ``start`` on; what lies outside is left out."""
    found = [Tally() for _ in range(length)]
    for each in counts:
        place = (each.at - start) // width
        if 0 <= place < length:
            found[place].add(each.event, each.count)
    return found


def per_minute(counts: Iterable[Count], now: dt.datetime) -> float:
    """Calls a minute over the last full slot and the one that runs."""
    start = slot_of(now) - SLOT
    calls = sum(each.count for each in counts if each.event == CALLS and each.at >= start)
    return calls / ((now - start) / dt.timedelta(minutes=1))


async def counts_of(
    session: AsyncSession, queue_ids: Collection[str], since: dt.datetime
) -> dict[str, list[Count]]:
    """Every count since then, by queue; a range of the primary key for each."""
    found: dict[str, list[Count]] = {each: [] for each in queue_ids}
    rows = await session.execute(
        sa.select(
            col(QueueActivity.queue_id),
            col(QueueActivity.at),
            col(QueueActivity.event),
            col(QueueActivity.count),
        )
        .where(col(QueueActivity.queue_id).in_(queue_ids), col(QueueActivity.at) >= since)
        .order_by(col(QueueActivity.queue_id), col(QueueActivity.at))
    )
    for queue_id, at, event, count in rows:
        found[queue_id].append(Count(at, event, count))
    return found


async def total_of(session: AsyncSession, queue_id: str, since: dt.datetime) -> Tally:
    return await _total(session, col(QueueActivity.queue_id) == queue_id, since)


async def total_of_all(session: AsyncSession, workspace_id: str, since: dt.datetime) -> Tally:
    """All queues of a workspace together."""
    mine = sa.select(col(VirtualQueue.id)).where(col(VirtualQueue.workspace_id) == workspace_id)
    return await _total(session, col(QueueActivity.queue_id).in_(mine), since)


async def _total(
    session: AsyncSession, condition: sa.ColumnElement[bool], since: dt.datetime
) -> Tally:
    rows = await session.execute(
        sa.select(col(QueueActivity.event), sa.func.sum(col(QueueActivity.count)))
        .where(condition, col(QueueActivity.at) >= since)
        .group_by(col(QueueActivity.event))
    )
    return total(Count(since, event, int(count)) for event, count in rows)


async def rates(session: AsyncSession, workspace_id: str, now: dt.datetime) -> dict[str, float]:
    """Calls a minute at present, by queue; a queue without calls is missing."""
    rows = await session.execute(
        sa.select(col(QueueActivity.queue_id), col(QueueActivity.at), col(QueueActivity.count))
        .join(VirtualQueue, col(VirtualQueue.id) == col(QueueActivity.queue_id))
        .where(
            col(VirtualQueue.workspace_id) == workspace_id,
            col(QueueActivity.at) >= slot_of(now) - SLOT,
            col(QueueActivity.event) == CALLS,
        )
    )
    found: dict[str, list[Count]] = {}
    for queue_id, at, count in rows:
        found.setdefault(queue_id, []).append(Count(at, CALLS, count))
    return {queue_id: per_minute(counts, now) for queue_id, counts in found.items()}


def tally_json(tally: Tally) -> dict[str, Any]:
    """As the API says it: ``attempts`` are those that succeeded, by number."""
    return {
        "calls": tally.calls,
        "duration_ms": tally.duration_ms,
        "succeeded": tally.succeeded_count,
        "retried": tally.retried,
        "discarded": tally.discarded,
        "attempts": attempts_json(tally),
    }


def attempts_json(tally: Tally) -> dict[str, int]:
    return {str(attempt): count for attempt, count in sorted(tally.succeeded.items())}
