"""Steering queues: pause, boost and flush are one UPDATE of a queue's row, however much waits."""

from __future__ import annotations

import datetime as dt
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.core.db import Moment, hint_after_commit
from app.delivery import due, queue_view
from app.delivery.finish import BOOSTED_AT
from app.delivery.health import Breaker
from app.delivery.models import OpenCall, VirtualQueue


async def shown(session: AsyncSession, workspace_id: str, now: dt.datetime) -> list[dict[str, Any]]:
    """Every queue with its depth and health, in the shape of ``GET /v1/queues``."""
    rows = await session.execute(
        sa.select(VirtualQueue)
        .where(col(VirtualQueue.workspace_id) == workspace_id)
        .order_by(col(VirtualQueue.id))
    )
    queues = list(rows.scalars())
    loads = await queue_view.loads(session, [each.id for each in queues], now)
    return [_shown(each, loads[each.id]) for each in queues]


def _shown(queue: VirtualQueue, load: queue_view.Load) -> dict[str, Any]:
    return {
        "destination_id": queue.id,
        "depth": load.depth,
        "due_count": load.due_count,
        "oldest_due_at": load.oldest_due_at,
        "in_flight": load.call_count,
        "concurrency_limit": queue.concurrency_limit,
        "breaker": Breaker.load(queue.breaker).state,
        "paused": queue.is_paused,
        "parked_reason": queue.parked_reason,
        "next_due_at": queue.next_due,
    }


class QueueAction(StrEnum):
    PAUSE = "pause"
    RESUME = "resume"
    BOOST = "boost"
    FLUSH = "flush"


async def change(
    session: AsyncSession, workspace_id: str, queue_id: str, action: QueueAction, now: dt.datetime
) -> None:
    match action:
        case QueueAction.PAUSE:
            await pause(session, workspace_id, queue_id)
        case QueueAction.RESUME:
            await resume(session, workspace_id, queue_id, now)
        case QueueAction.BOOST:
            await boost(session, workspace_id, queue_id, now)
        case QueueAction.FLUSH:
            await flush(session, workspace_id, queue_id, now)


async def pause(session: AsyncSession, workspace_id: str, queue_id: str) -> None:
    """No new calls; those under way finish."""
    await _change(session, workspace_id, queue_id, is_paused=True, next_due=None)


async def resume(session: AsyncSession, workspace_id: str, queue_id: str, now: dt.datetime) -> None:
    """Go on, also after parking; the breaker starts anew, calls that never returned have all their
    tries again, and the destination's wishes are forgotten. Retries keep their times.
    """
    await _change(
        session, workspace_id, queue_id, is_paused=False, parked_reason=None, parked_at=None,
        breaker={}, not_before=None,
    )  # fmt: skip
    await session.execute(
        sa.update(OpenCall)
        .where(col(OpenCall.queue_id) == queue_id)
        .values(leases=1)
        .execution_options(synchronize_session=False)
    )
    heads = (await due.heads(session, [queue_id]))[queue_id]
    head = min(filter(None, heads), default=None)
    await session.execute(
        sa.update(VirtualQueue)
        .where(
            col(VirtualQueue.id) == queue_id,
            sa.or_(col(VirtualQueue.lease_until).is_(None), col(VirtualQueue.lease_until) <= now),
        )
        .values(next_due=max(head, now) if head else None)
        .execution_options(synchronize_session=False)
    )
    hint_after_commit(session, "dispatch")


async def boost(session: AsyncSession, workspace_id: str, queue_id: str, now: dt.datetime) -> None:
    """Let the queue be looked at before all others, until nothing in it is due; what its
    destination asked for, it still waits for.
    """
    may_go = sa.or_(col(VirtualQueue.not_before).is_(None), col(VirtualQueue.not_before) <= now)
    has_work = _is_running() & may_go & col(VirtualQueue.next_due).is_not(None)
    next_due = sa.case(
        (has_work, sa.literal(BOOSTED_AT, Moment())), else_=col(VirtualQueue.next_due)
    )
    await _change(session, workspace_id, queue_id, is_boosted=True, next_due=next_due)
    hint_after_commit(session, "dispatch")


async def flush(session: AsyncSession, workspace_id: str, queue_id: str, now: dt.datetime) -> None:
    """Try everything that waits, now: whatever waits since before this moment need not wait for
    its time, and the breaker and the destination's wishes are forgotten.
    """
    looked_at = sa.case((_is_running(), sa.literal(now, Moment())), else_=None)
    await _change(
        session, workspace_id, queue_id, eager_before=now, not_before=None, breaker={}, budget={},
        next_due=looked_at,
    )  # fmt: skip
    hint_after_commit(session, "dispatch")


def _is_running() -> sa.ColumnElement[bool]:
    return ~col(VirtualQueue.is_paused) & col(VirtualQueue.parked_reason).is_(None)


async def _change(session: AsyncSession, workspace_id: str, queue_id: str, **values: Any) -> None:
    changed = await session.execute(
        sa.update(VirtualQueue)
        .where(col(VirtualQueue.id) == queue_id, col(VirtualQueue.workspace_id) == workspace_id)
        .values(**values)
        .returning(col(VirtualQueue.id))
        .execution_options(synchronize_session=False)
    )
    if changed.first() is None:
        raise await queue_view.no_queue(session, workspace_id, queue_id)
