"""Alerts by webhook: signed posts (Standard Webhooks), each alert's events in their order, repeated
with growing pauses.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from typing import Any

import httpx
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.core.clock import rfc3339
from app.core.db import Database, table_of
from app.core.logging import get_logger
from app.core.settings import Settings
from app.notifications.alerts import SUBJECTS, Kind, path_of
from app.notifications.models import Alert
from app.notifications.service import BACKOFF, BACKOFF_CAP, LEASE, MAX_ATTEMPTS
from connectors.contract import ConnectorError
from connectors.webhook import sign

log = get_logger(__name__)

TOGETHER = 10
TIMEOUT = 10.0
RAISED, RESOLVED = "raised", "resolved"


async def tell_due(
    database: Database, http: httpx.AsyncClient, settings: Settings, now: dt.datetime
) -> bool:
    """Post the news that are due longest; True when there were some."""
    if not settings.alert_webhook_url:
        return False
    async with database.writing() as session:
        alerts = await _take(session, now)
    if not alerts:
        return False
    taken = await asyncio.gather(*(_post(http, settings, each, now) for each in alerts))
    async with database.writing() as session:
        for alert, is_taken in zip(alerts, taken, strict=True):
            await _record(session, alert, now, is_taken=is_taken)
    return True


async def _take(session: AsyncSession, now: dt.datetime) -> list[Alert]:
    rows = await session.execute(
        sa.select(Alert)
        .where(col(Alert.tell_at) <= now)
        .order_by(col(Alert.tell_at), col(Alert.id))
        .limit(TOGETHER)
        .with_for_update(skip_locked=True)
    )
    alerts = list(rows.scalars())
    for alert in alerts:
        alert.tell_at = now + LEASE
        alert.tell_attempt += 1
    return alerts


async def _post(
    http: httpx.AsyncClient, settings: Settings, alert: Alert, now: dt.datetime
) -> bool:
    """Whether the receiver took the news."""
    message_id = f"{alert.id}_{_event(alert)}"
    content = json.dumps(body(alert, settings.public_url), separators=(",", ":")).encode()
    moment = str(int(now.timestamp()))
    headers = {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": moment,
    }
    if secret := settings.alert_webhook_secret:
        headers["webhook-signature"] = sign(secret, message_id, moment, content)
    try:
        async with asyncio.timeout(TIMEOUT):
            answer = await http.post(settings.alert_webhook_url, content=content, headers=headers)
    except (httpx.HTTPError, httpx.InvalidURL, ConnectorError, OSError, TimeoutError) as error:
        log.warning(
            "alert_not_told",
            kind=alert.kind,
            attempt=alert.tell_attempt,
            error=type(error).__name__,
        )
        return False
    if not answer.is_success:
        log.warning(
            "alert_not_told",
            kind=alert.kind,
            attempt=alert.tell_attempt,
            status=answer.status_code,
        )
    return answer.is_success


def _event(alert: Alert) -> str:
    return RAISED if alert.told is None else RESOLVED


def body(alert: Alert, public_url: str) -> dict[str, Any]:
    """What the receiver is told next of this alert."""
    event = _event(alert)
    return {
        "type": f"quittance.alert.{event}",
        "id": alert.id,
        "kind": alert.kind,
        "at": rfc3339(alert.raised_at if event == RAISED else alert.resolved_at),
        "subject": {"type": SUBJECTS[Kind(alert.kind)], "id": alert.subject_id},
        "detail": alert.detail,
        "dashboard_url": f"{public_url}{path_of(alert)}",
    }


async def _record(session: AsyncSession, alert: Alert, now: dt.datetime, *, is_taken: bool) -> None:
    """``alert`` as it was taken; it may have been resolved meanwhile, and then is to be told of at
    once.
    """
    values: dict[str, Any]
    if is_taken:
        event = _event(alert)
        values = {"told": event, "notified_at": now, "tell_attempt": 0, "tell_at": None}
        if event == RAISED:
            moment = sa.literal(now, table_of(Alert).c.tell_at.type)
            values["tell_at"] = sa.case((col(Alert.resolved_at).is_not(None), moment), else_=None)
    elif alert.tell_attempt >= MAX_ATTEMPTS:
        values = {"tell_at": None}
    else:
        pause = min(BACKOFF_CAP, BACKOFF * 2 ** (alert.tell_attempt - 1))
        values = {"tell_at": now + pause}
    await session.execute(
        sa.update(Alert)
        .where(col(Alert.id) == alert.id)
        .values(**values)
        .execution_options(synchronize_session=False)
    )
