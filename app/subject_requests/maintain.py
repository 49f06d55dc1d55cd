"""Retention: what has served its time goes, in small bites."""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable
from functools import partial

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.consent import links, retention
from app.core import bulk
from app.core.db import hint_after_commit
from app.core.ids import first_id
from app.core.logging import get_logger
from app.delivery import history, reports
from app.delivery.models import Archived
from app.identity import host_tokens
from app.notifications import alerts
from app.notifications.postmen import FilePostman
from app.notifications.service import Postman
from app.receipts.models import Receipt
from app.security import audit, idempotency, sessions
from app.sites import seen
from app.subject_requests.models import RequestEvent, SubjectRequest
from app.subject_requests.services import Services
from app.suppression import service as suppression

log = get_logger(__name__)


async def maintain(services: Services, postman: Postman, now: dt.datetime) -> None:
    """Remove all that is due."""
    database = services.database
    await history.make_months(database, now)
    await _remove_links(services, now)
    await idempotency.sweep(database, now)
    await suppression.sweep(database, now)
    await host_tokens.sweep(database, now)
    await reports.drop_expired(database, now)
    oldest = now - dt.timedelta(days=services.settings.request_record_days)
    await alerts.sweep(database, oldest)
    await audit.sweep(database, oldest)
    async with database.writing() as session:
        await sessions.sweep(session, now)
        await seen.sweep(session, now)
        await _end_waiting(session, services, now)
    if isinstance(postman, FilePostman):
        postman.sweep(now - dt.timedelta(days=services.settings.forget_grace_days))
    gone = await _remove_history(services, now)
    removed = await _bite_by_bite(partial(_remove_old, services, oldest))
    consents = await _bite_by_bite(partial(_remove_consents, services, now))
    if count := gone + removed + consents:
        log.info("maintained", count=count)


async def _remove_links(services: Services, now: dt.datetime) -> None:
    while True:
        async with services.database.reading() as session:
            holders = await links.expired(session, now, bulk.BITE)
            holders = holders or await links.idle(session, now, bulk.BITE)
        if not holders:
            return
        await services.keys.forget(holders)
        async with services.database.writing() as session:
            await links.forget(session, holders)


async def _bite_by_bite(remove: Callable[[], Awaitable[int]]) -> int:
    """Until a bite is not full. Each is a transaction of its own: others have their turn."""
    total = 0
    while count := await remove():
        total += count
        if count < bulk.BITE:
            break
    return total


async def _remove_consents(services: Services, now: dt.datetime) -> int:
    kept = dt.timedelta(days=services.settings.consent_record_days)
    async with services.database.writing() as session:
        return await retention.remove_old(session, now - kept, now, bulk.BITE)


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


async def _remove_history(services: Services, now: dt.datetime) -> int:
    removed = await history.remove_activity(services.database, now)
    return removed + await history.remove_old(
        services.database, now - services.settings.history_kept, _is_remembered
    )


def _is_remembered(request_id: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """Its person is not forgotten yet, so that it may still be shown, replayed or given up."""
    return sa.exists().where(
        col(SubjectRequest.id) == request_id, col(SubjectRequest.forgotten_at).is_(None)
    )


async def _remove_old(services: Services, oldest: dt.datetime) -> int:
    """Forgotten requests past their record time, with their receipts and timelines; the history of
    their deliveries has gone before.
    """
    async with services.database.writing() as session:
        rows = await session.execute(
            sa.select(col(SubjectRequest.id))
            .where(
                # By id, which begins with the time: who was done by then had come by then.
                col(SubjectRequest.id) < first_id("req", oldest),
                col(SubjectRequest.completed_at) < oldest,
                col(SubjectRequest.forgotten_at).is_not(None),
            )
            .order_by(col(SubjectRequest.id))
            .limit(bulk.BITE)
        )
        ids = [request_id for (request_id,) in rows]
        if not ids:
            return 0
        for owned in (RequestEvent, Receipt, Archived):
            await session.execute(sa.delete(owned).where(col(owned.request_id).in_(ids)))
        await session.execute(sa.delete(SubjectRequest).where(col(SubjectRequest.id).in_(ids)))
        return len(ids)
