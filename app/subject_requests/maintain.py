"""Retention: what has served its time goes, in small bites."""

from __future__ import annotations

import datetime as dt

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.consent import links
from app.core.db import hint_after_commit
from app.core.logging import get_logger
from app.delivery.models import Archived, Call, Delivery, DeliveryTransition
from app.notifications.postmen import FilePostman
from app.notifications.service import Postman
from app.receipts.models import Receipt
from app.security import idempotency, sessions
from app.security.models import AuditEntry
from app.subject_requests import forget
from app.subject_requests.models import RequestEvent, SubjectRequest
from app.subject_requests.services import Services
from app.suppression import service as suppression

log = get_logger(__name__)

BITE = 500


async def maintain(services: Services, postman: Postman, now: dt.datetime) -> bool:
    """One pass; True when there is more to remove."""
    orphans = await forget.sweep_orphans(services, now)
    async with services.database.reading() as session:
        unlinked = await links.expired(session, now)
    await services.keys.forget(unlinked)
    async with services.database.writing() as session:
        await idempotency.sweep(session, now)
        await suppression.sweep(session, now)
        await sessions.sweep(session, now)
        await links.forget(session, unlinked)
        await _end_waiting(session, services, now)
        oldest = now - dt.timedelta(days=services.settings.request_record_days)
        await session.execute(sa.delete(AuditEntry).where(col(AuditEntry.at) < oldest))
    if isinstance(postman, FilePostman):
        postman.sweep(now - dt.timedelta(days=services.settings.forget_grace_days))
    removed = await _remove_old(services, oldest)
    if orphans or removed:
        log.info("maintained", count=orphans + removed)
    return removed == BITE


async def _end_waiting(session: AsyncSession, services: Services, now: dt.datetime) -> None:
    """The hard cap: whatever a request waits for, it takes its last step now."""
    await session.execute(
        sa.update(SubjectRequest)
        .where(
            col(SubjectRequest.forgotten_at).is_(None),
            col(SubjectRequest.received_at) <= now - services.settings.identifier_cap,
            sa.or_(
                col(SubjectRequest.next_step_at).is_(None),
                col(SubjectRequest.next_step_at) > now,
            ),
        )
        .values(next_step_at=now)
        .execution_options(synchronize_session=False)
    )
    hint_after_commit(session, "advance")


async def _remove_old(services: Services, oldest: dt.datetime) -> int:
    """Forgotten requests past their record time, with everything that hangs on them."""
    async with services.database.writing() as session:
        rows = await session.execute(
            sa.select(col(SubjectRequest.id))
            .where(
                col(SubjectRequest.completed_at) < oldest,
                col(SubjectRequest.forgotten_at).is_not(None),
            )
            .limit(BITE)
        )
        ids = [request_id for (request_id,) in rows]
        if not ids:
            return 0
        deliveries = sa.select(col(Delivery.id)).where(col(Delivery.request_id).in_(ids))
        calls = sa.select(col(DeliveryTransition.call_id)).where(
            col(DeliveryTransition.delivery_id).in_(deliveries)
        )
        await session.execute(sa.delete(Call).where(col(Call.id).in_(calls)))
        await session.execute(
            sa.delete(DeliveryTransition).where(col(DeliveryTransition.delivery_id).in_(deliveries))
        )
        await session.execute(sa.delete(Delivery).where(col(Delivery.request_id).in_(ids)))
        for owned in (RequestEvent, Receipt, Archived):
            await session.execute(sa.delete(owned).where(col(owned.request_id).in_(ids)))
        await session.execute(sa.delete(SubjectRequest).where(col(SubjectRequest.id).in_(ids)))
        return len(ids)
