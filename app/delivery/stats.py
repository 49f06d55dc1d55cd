"""Counting what happens in queues, for people's eyes: in memory first, then in five-minute rows."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Sequence

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.db import is_postgresql, table_of
from app.delivery.carry import Answered
from app.delivery.due import Member
from app.delivery.finish import attempt_of
from app.delivery.models import QueueActivity
from app.delivery.states import State, Step

SLOT = dt.timedelta(minutes=5)
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
CALLS, DURATION_MS, RETRIED, DISCARDED = "calls", "duration_ms", "retried", "discarded"
SUCCEEDED = "succeeded:"
"""Followed by the attempt."""

_EVENTS = {
    State.AWAITING_RETRY: RETRIED,
    State.DISCARDED: DISCARDED,
    State.ARCHIVING: DISCARDED,
    State.ARCHIVED: DISCARDED,
}


class Activity:
    """Counts since the last ``write``; a crash loses them, and harms nobody."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()

    def __bool__(self) -> bool:
        return bool(self._counts)

    def add(
        self, steps: Iterable[tuple[Answered, Member, Step]], answered: Sequence[Answered]
    ) -> None:
        for each in answered:
            if each.outcomes:
                self._counts[each.lease.queue_id, CALLS] += 1
                self._counts[each.lease.queue_id, DURATION_MS] += each.duration_ms
        for each, member, step in steps:
            if step.state is State.SUCCEEDED:
                self._counts[each.lease.queue_id, f"{SUCCEEDED}{attempt_of(member, step)}"] += 1
            elif step.state in _EVENTS:
                self._counts[each.lease.queue_id, _EVENTS[step.state]] += 1

    async def write(self, session: AsyncSession, now: dt.datetime) -> None:
        """Add the counts to the rows of the present five minutes."""
        counts, self._counts = self._counts, Counter()
        at = slot_of(now)
        rows = [
            {"queue_id": queue_id, "at": at, "event": event, "count": count}
            for (queue_id, event), count in sorted(counts.items())
        ]
        table = table_of(QueueActivity)
        build = postgresql.insert if is_postgresql(session) else sqlite.insert
        adding = build(table)
        adding = adding.on_conflict_do_update(
            index_elements=["queue_id", "at", "event"],
            set_={"count": table.c.count + adding.excluded.count},
        )
        await session.execute(adding, rows)


def slot_of(moment: dt.datetime, width: dt.timedelta = SLOT) -> dt.datetime:
    """When the slot of this width began that ``moment`` is in."""
    return moment - (moment - _EPOCH) % width
