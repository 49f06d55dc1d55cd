"""Planning: one request becomes deliveries, places in queues, and a first line of history, in the
caller's transaction.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.core import bulk
from app.core.db import Moment, hint_after_commit, insert_or_ignore, table_of
from app.core.ids import new_id
from app.delivery.models import (
    FIRST_LIMIT,
    Delivery,
    DeliveryTransition,
    Ready,
    VirtualQueue,
)
from app.delivery.order import rank_of
from app.delivery.states import Assurance, State


@dataclass(frozen=True, slots=True)
class Planned:
    """One delivery to be; ``skip_reason`` settles it at once, ``is_waiting`` leaves it for a later
    phase.
    """

    workspace_id: str
    request_id: str
    destination_id: str
    operation: str
    identifier_ids: Sequence[str]
    expires_at: dt.datetime
    due_at: dt.datetime | None = None
    phase: int = 1
    skip_reason: str | None = None
    id: str = field(default_factory=lambda: new_id("dlv"))


async def insert(session: AsyncSession, planned: Sequence[Planned], now: dt.datetime) -> None:
    """Write deliveries; those of the first phase are due at once."""
    if not planned:
        return
    await bulk.insert(session, Delivery, [_delivery(each, now) for each in planned])
    await bulk.insert(
        session, DeliveryTransition, [_first_transition(each, now) for each in planned]
    )
    first = first_phases(planned)
    due = [
        each
        for each in planned
        if each.skip_reason is None and each.phase == first[each.request_id]
    ]
    await enqueue(
        session,
        [_ready(each, now) for each in due],
        {each.destination_id: each.workspace_id for each in due},
        now,
    )


def first_phases(planned: Iterable[Planned]) -> dict[str, int]:
    """Request id -> the phase it begins with: the first that has something to do."""
    first: dict[str, int] = {}
    for each in planned:
        if each.skip_reason is None:
            first[each.request_id] = min(each.phase, first.get(each.request_id, each.phase))
    return first


async def enqueue(
    session: AsyncSession,
    rows: Sequence[dict[str, Any]],
    workspaces: dict[str, str],
    now: dt.datetime,
) -> None:
    """Put rows into ``ready`` and let their queues be looked at. ``workspaces``: queue id ->
    workspace id.
    """
    if not rows:
        return
    await bulk.insert(session, Ready, list(rows))
    queue_ids = sorted(workspaces)
    await session.execute(
        insert_or_ignore(session, table_of(VirtualQueue)),
        [
            {
                "id": queue_id,
                "workspace_id": workspaces[queue_id],
                "windows": {},
                "breaker": {},
                "budget": {},
                "last_errors": [],
                "token": 0,
                "deficit": 0,
                "concurrency_limit": FIRST_LIMIT,
                "is_boosted": False,
                "is_paused": False,
            }
            for queue_id in queue_ids
        ],
    )
    await look_at(session, queue_ids, now)


async def look_at(session: AsyncSession, queue_ids: Iterable[str], due_at: dt.datetime) -> None:
    """Bring queues' next look forward to ``due_at``, or to the end of what holds them back; touches
    only those that would look later.
    """
    queue = table_of(VirtualQueue)
    when = sa.case(
        (queue.c.not_before > due_at, queue.c.not_before), else_=sa.literal(due_at, Moment())
    )
    await session.execute(
        sa.update(queue)
        .where(
            bulk.among(queue.c.id, sorted(queue_ids)),
            sa.or_(queue.c.next_due.is_(None), queue.c.next_due > when),
            ~queue.c.is_paused,
            queue.c.parked_reason.is_(None),
        )
        .values(next_due=when)
    )
    hint_after_commit(session, "dispatch")


async def release_phase(
    session: AsyncSession, request_ids: Sequence[str], phase: int, now: dt.datetime
) -> None:
    """Make the waiting deliveries of a later phase due; their people are already started."""
    found = await session.execute(
        sa.select(Delivery).where(
            col(Delivery.request_id).in_(request_ids), col(Delivery.phase) == phase
        )
    )
    deliveries = found.scalars().all()
    settled = await _settled(session, [each.id for each in deliveries])
    due = [each for each in deliveries if each.id not in settled]
    rows = [
        {
            **_ready_row(each.destination_id, each.id, each.operation, each.expires_at, now),
            "rank": rank_of(each.due_at, now, is_started=True),
        }
        for each in due
    ]
    await enqueue(session, rows, {each.destination_id: each.workspace_id for each in due}, now)


async def _settled(session: AsyncSession, delivery_ids: Sequence[str]) -> set[str]:
    """Deliveries skipped at planning: their history has one line and it is final."""
    rows = await session.execute(
        sa.select(col(DeliveryTransition.delivery_id)).where(
            col(DeliveryTransition.delivery_id).in_(delivery_ids),
            col(DeliveryTransition.state).in_([State.SUCCEEDED, State.DISCARDED]),
        )
    )
    return {delivery_id for (delivery_id,) in rows}


def _delivery(planned: Planned, now: dt.datetime) -> dict[str, Any]:
    return {
        "id": planned.id,
        "workspace_id": planned.workspace_id,
        "request_id": planned.request_id,
        "destination_id": planned.destination_id,
        "operation": planned.operation,
        "identifier_ids": list(planned.identifier_ids),
        "phase": planned.phase,
        "due_at": planned.due_at,
        "created_at": now,
        "expires_at": planned.expires_at,
    }


def _first_transition(planned: Planned, now: dt.datetime) -> dict[str, Any]:
    is_skipped = planned.skip_reason is not None
    return {
        "delivery_id": planned.id,
        "seq": 1,
        "at": now,
        "state": State.SUCCEEDED if is_skipped else State.AWAITING_SCHEDULING,
        "detail": "skipped" if is_skipped else None,
        "assurance": Assurance.NONE if is_skipped else Assurance.REQUESTED,
        "attempt": 0,
        "reason": planned.skip_reason,
    }


def _ready(planned: Planned, now: dt.datetime) -> dict[str, Any]:
    return {
        **_ready_row(
            planned.destination_id, planned.id, planned.operation, planned.expires_at, now
        ),
        "rank": rank_of(planned.due_at, now, is_started=False),
    }


def _ready_row(
    queue_id: str, delivery_id: str, operation: str, expires_at: dt.datetime, now: dt.datetime
) -> dict[str, Any]:
    return {
        "queue_id": queue_id,
        "due_at": now,
        "placed_at": now,
        "delivery_id": delivery_id,
        "operation": operation,
        "attempt": 0,
        "seq": 1,
        "expires_at": expires_at,
    }
