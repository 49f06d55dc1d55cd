"""The queues' activity of the demo's past, counted from its deliveries: no rate is invented."""

from __future__ import annotations

import datetime as dt
from collections import Counter

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.delivery.activity import WEEK
from app.delivery.models import Call, Delivery, DeliveryTransition, QueueActivity
from app.delivery.states import State
from app.delivery.stats import CALLS, DISCARDED, RETRIED, SUCCEEDED, slot_of

Counts = Counter[tuple[str, dt.datetime, str]]
"""(queue, slot, event) -> how often."""


_EVENTS: dict[str, str] = {
    State.SUCCEEDED: SUCCEEDED + "{}",
    State.AWAITING_RETRY: RETRIED,
    State.DISCARDED: DISCARDED,
}


async def count(session: AsyncSession, workspace_id: str, until: dt.datetime) -> None:
    """Write what the week before ``until`` adds up to, in place of what is there."""
    since, until = slot_of(until) - WEEK, slot_of(until)
    counts = Counter[tuple[str, dt.datetime, str]]()
    await _count_answers(session, workspace_id, since, until, counts)
    await _count_calls(session, {queue_id for queue_id, _, _ in counts}, since, until, counts)
    await session.execute(
        sa.delete(QueueActivity).where(
            col(QueueActivity.queue_id).in_({queue_id for queue_id, _, _ in counts}),
            col(QueueActivity.at) < until,
        )
    )
    if counts:
        await session.execute(
            sa.insert(QueueActivity),
            [
                {"queue_id": queue_id, "at": at, "event": event, "count": number}
                for (queue_id, at, event), number in counts.items()
            ],
        )


async def _count_answers(
    session: AsyncSession,
    workspace_id: str,
    since: dt.datetime,
    until: dt.datetime,
    counts: Counts,
) -> None:
    rows = await session.execute(
        sa.select(
            col(Delivery.destination_id),
            col(DeliveryTransition.at),
            col(DeliveryTransition.state),
            col(DeliveryTransition.attempt),
        )
        .join(DeliveryTransition, col(DeliveryTransition.delivery_id) == col(Delivery.id))
        .where(
            col(Delivery.workspace_id) == workspace_id,
            col(DeliveryTransition.attempt) > 0,
            col(DeliveryTransition.at) >= since,
            col(DeliveryTransition.at) < until,
        )
    )
    for queue_id, at, state, attempt in rows:
        if event := _EVENTS.get(state):
            counts[queue_id, slot_of(at), event.format(attempt)] += 1


async def _count_calls(
    session: AsyncSession,
    queue_ids: set[str],
    since: dt.datetime,
    until: dt.datetime,
    counts: Counts,
) -> None:
    rows = await session.execute(
        sa.select(col(Call.queue_id), col(Call.created_at)).where(
            col(Call.queue_id).in_(queue_ids),
            col(Call.created_at) >= since,
            col(Call.created_at) < until,
        )
    )
    for queue_id, at in rows:
        counts[queue_id, slot_of(at), CALLS] += 1
