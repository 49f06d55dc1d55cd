"""The sweep: repairs queues that nobody would look at, and archives what has expired."""

from __future__ import annotations

import datetime as dt

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.core.db import table_of
from app.core.failpoints import failpoint
from app.delivery import expiry
from app.delivery.claim import DESTINATION_DISABLED
from app.delivery.due import heads_of
from app.delivery.models import Delivery, DeliveryTransition, Ready
from app.delivery.plan import look_at
from app.delivery.states import Assurance, State
from app.delivery.waiting import is_free, is_running, queue
from app.destinations.models import Destination

OVERSLEPT = dt.timedelta(minutes=1)
"""What is looked at within this time need not be woken."""


async def sweep(session: AsyncSession, now: dt.datetime) -> int:
    """One bounded pass; returns how many deliveries were archived."""
    await _unpark_mended(session, now)
    await _repair(session, now)
    archived = await _archive_expired(session, now)
    failpoint("sweep.before_commit")
    return archived


async def _unpark_mended(session: AsyncSession, now: dt.datetime) -> None:
    """A parked queue goes on once its destination was changed, or enabled again. Nobody will mend a
    deleted one: its deliveries come to their end as exceptions, also where somebody paused it.
    """
    destination = table_of(Destination)
    is_deleted = destination.c.deleted_at.is_not(None)
    is_mended = sa.and_(
        ~queue.c.is_paused,
        destination.c.is_enabled,
        sa.or_(
            queue.c.parked_reason == DESTINATION_DISABLED,
            destination.c.version != queue.c.parked_version,
        ),
    )
    stopped = sa.select(queue.c.id).join(destination, destination.c.id == queue.c.id)
    goes_on = stopped.where(
        queue.c.parked_reason.is_not(None), sa.or_(is_deleted, is_mended)
    ).union(stopped.where(queue.c.is_paused, is_deleted))
    await session.execute(
        sa.update(queue)
        .where(queue.c.id.in_(goes_on))
        .values(
            is_paused=False,
            parked_reason=None,
            parked_at=None,
            parked_version=None,
            breaker={},
            not_before=None,
            next_due=now,
        )
    )


async def _repair(session: AsyncSession, now: dt.datetime) -> None:
    """A queue with work is looked at, whatever became of its ``next_due``: a hand-made change, a
    worker that died while the queue was paused, or a plan whose queue was due already, so that it
    changed and locked nothing, and that was claimed and given back before the plan's commit.
    """
    free = sa.and_(is_free(now), is_running())
    forgotten = queue.c.next_due.is_(None) & sa.or_(
        *(head.is_not(None) for head in heads_of(queue.c.id))
    )
    asleep = sa.and_(
        queue.c.next_due > now + OVERSLEPT,
        sa.or_(queue.c.not_before.is_(None), queue.c.not_before <= now),
        sa.or_(*(head <= now for head in heads_of(queue.c.id))),
    )
    for wrong in (forgotten, asleep):
        found = await session.execute(sa.select(queue.c.id).where(free, wrong).limit(1000))
        await look_at(session, found.scalars(), now)


async def _archive_expired(session: AsyncSession, now: dt.datetime) -> int:
    """Expired deliveries leave the working set; they stay a legal risk until replayed or waived."""
    rows = (
        await session.execute(
            sa.select(Ready, col(Delivery.workspace_id), col(Delivery.request_id))
            .join(Delivery, col(Delivery.id) == col(Ready.delivery_id))
            .where(
                col(Ready.expires_at) <= now,
                col(Ready.call_id).is_(None),
                col(Ready.job).is_(None),
            )
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
                assurance=Assurance.REQUESTED,
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
