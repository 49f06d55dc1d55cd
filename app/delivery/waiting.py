"""Which queues have waited, and for how long: conditions on ``virtual_queue`` that indexes answer,
however many deliveries wait.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.db import table_of
from app.core.ids import new_id
from app.delivery.due import heads_of
from app.delivery.models import Call, QueueActivity, VirtualQueue

queue = table_of(VirtualQueue)


def is_running() -> sa.ColumnElement[bool]:
    """Neither paused nor parked."""
    return ~queue.c.is_paused & queue.c.parked_reason.is_(None)


def is_leased(now: dt.datetime) -> sa.ColumnElement[bool]:
    return queue.c.lease_until > now


def is_free(now: dt.datetime) -> sa.ColumnElement[bool]:
    """Nobody holds it."""
    return sa.or_(queue.c.lease_until.is_(None), queue.c.lease_until <= now)


def failing_since(start: dt.datetime) -> sa.ScalarSelect[Any]:
    """When the queue's first retry since its last success was counted, looking back to ``start``;
    NULL: nothing is amiss.
    """
    activity, earlier = table_of(QueueActivity), table_of(QueueActivity).alias()
    answered = (
        sa.select(sa.func.max(earlier.c.at))
        .where(
            earlier.c.queue_id == queue.c.id,
            earlier.c.at >= start,
            earlier.c.event.like("succeeded:%") | (earlier.c.event == "discarded"),
        )
        .correlate(queue)
        .scalar_subquery()
    )
    return (
        sa.select(sa.func.min(activity.c.at))
        .where(
            activity.c.queue_id == queue.c.id,
            activity.c.at >= start,
            activity.c.event == "retried",
            activity.c.at > sa.func.coalesce(answered, sa.literal(start, activity.c.at.type)),
        )
        .correlate(queue)
        .scalar_subquery()
    )


async def is_stalled(session: AsyncSession, now: dt.datetime, after: dt.timedelta) -> bool:
    """Work has been due for ``after``, and in that time no dispatcher took a queue.

    One that is busy elsewhere is not stalled; that a queue waits beside it is an alert of its own.
    """
    cutoff = now - after
    waits = (
        sa.select(sa.literal(1))
        .where(
            queue.c.next_due <= cutoff,
            is_running(),
            is_free(now),
            sa.or_(*(head <= cutoff for head in heads_of(queue.c.id))),
        )
        .exists()
    )
    holds = sa.select(sa.literal(1)).where(is_leased(now), queue.c.leased_at > cutoff).exists()
    # Leases already given back: their calls stay, and an id tells when it was made.
    first_id = new_id("call", cutoff.timestamp())
    calls = sa.select(sa.literal(1)).where(table_of(Call).c.id > first_id).exists()
    if not (await session.execute(sa.select(waits))).scalar_one():
        return False
    return not (await session.execute(sa.select(sa.or_(holds, calls)))).scalar_one()
