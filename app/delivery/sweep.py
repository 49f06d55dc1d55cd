"""The sweep: repairs queues that nobody would look at, and archives what has expired."""

from __future__ import annotations

import datetime as dt

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.core.db import hint_after_commit
from app.delivery import expiry
from app.delivery.claim import DESTINATION_DISABLED
from app.delivery.models import Delivery, DeliveryTransition, OpenCall, Ready, VirtualQueue
from app.delivery.states import Assurance, State
from app.destinations.models import Destination


async def sweep(session: AsyncSession, now: dt.datetime) -> int:
    """One bounded pass; returns how many deliveries were archived."""
    await _unpark_mended(session, now)
    await _repair(session, now)
    await _drop_empty_calls(session)
    return await _archive_expired(session, now)


async def _unpark_mended(session: AsyncSession, now: dt.datetime) -> None:
    """A parked queue goes on once its destination was changed, or enabled again."""
    mended = (
        sa.select(col(VirtualQueue.id))
        .join(Destination, col(Destination.id) == col(VirtualQueue.id))
        .where(
            sa.or_(col(VirtualQueue.parked_reason).is_not(None), col(VirtualQueue.is_paused)),
            sa.or_(
                # Nobody will mend a deleted one: its deliveries come to their end as exceptions.
                col(Destination.deleted_at).is_not(None),
                _is_mended(),
            ),
        )
    )
    await session.execute(
        sa.update(VirtualQueue)
        .where(col(VirtualQueue.id).in_(mended))
        .values(is_paused=False, parked_reason=None, parked_version=None, breaker={}, next_due=now)
        .execution_options(synchronize_session=False)
    )


def _is_mended() -> sa.ColumnElement[bool]:
    return sa.and_(
        col(VirtualQueue.parked_reason).is_not(None),
        ~col(VirtualQueue.is_paused),
        col(Destination.is_enabled),
        sa.or_(
            col(VirtualQueue.parked_reason) == DESTINATION_DISABLED,
            col(Destination.version) != col(VirtualQueue.parked_version),
        ),
    )


async def _repair(session: AsyncSession, now: dt.datetime) -> None:
    """A queue with work looks at its head, whatever its ``next_due`` says (a lost update, a
    hand-made change, a worker that died while the queue was paused).
    """
    heads = (
        sa.select(col(Ready.queue_id), sa.func.min(col(Ready.due_at)).label("head"))
        .group_by(col(Ready.queue_id))
        .subquery()
    )
    rows = await session.execute(
        sa.select(heads.c.queue_id, heads.c.head)
        .join(VirtualQueue, col(VirtualQueue.id) == heads.c.queue_id)
        .where(
            col(VirtualQueue.next_due).is_(None),
            sa.or_(col(VirtualQueue.lease_until).is_(None), col(VirtualQueue.lease_until) <= now),
            ~col(VirtualQueue.is_paused),
            col(VirtualQueue.parked_reason).is_(None),
        )
        .limit(1000)
    )
    for queue_id, head in rows.all():
        await session.execute(
            sa.update(VirtualQueue)
            .where(col(VirtualQueue.id) == queue_id, col(VirtualQueue.next_due).is_(None))
            .values(next_due=head)
            .execution_options(synchronize_session=False)
        )
        hint_after_commit(session, "dispatch")


async def _drop_empty_calls(session: AsyncSession) -> None:
    """Open calls none of whose people wait any more (cancelled meanwhile)."""
    waiting = sa.select(col(Ready.call_id)).where(col(Ready.call_id).is_not(None))
    await session.execute(
        sa.delete(OpenCall)
        .where(
            col(OpenCall.call_id).not_in(waiting),
            col(OpenCall.queue_id).in_(
                sa.select(col(VirtualQueue.id)).where(col(VirtualQueue.lease_until).is_(None))
            ),
        )
        .execution_options(synchronize_session=False)
    )


async def _archive_expired(session: AsyncSession, now: dt.datetime) -> int:
    """Expired deliveries leave the working set; they stay a legal risk until replayed or waived."""
    rows = (
        await session.execute(
            sa.select(Ready, col(Delivery.workspace_id), col(Delivery.request_id))
            .join(Delivery, col(Delivery.id) == col(Ready.delivery_id))
            .where(col(Ready.expires_at) <= now, col(Ready.call_id).is_(None))
            .limit(500)
            .with_for_update(of=Ready, skip_locked=True)
        )
    ).all()
    for row, _, _ in rows:
        session.add(
            DeliveryTransition(
                delivery_id=row.delivery_id,
                seq=row.seq + 1,
                at=now,
                state=State.ARCHIVING,
                detail="expired",
                assurance=Assurance.ACKNOWLEDGED if row.job else Assurance.REQUESTED,
                attempt=row.attempt,
                reason="expired",
            )
        )
        await session.delete(row)
    await session.flush()
    await expiry.archive(
        session,
        [
            expiry.Expired(row.delivery_id, workspace_id, request_id, row.queue_id)
            for row, workspace_id, request_id in rows
        ],
        now,
    )
    return len(rows)
