"""Alerts: what is open, and what was resolved of late."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.dashboard.present import Badge
from app.destinations.models import Destination
from app.notifications import alerts
from app.notifications.alerts import Kind
from app.notifications.models import Alert

SHOWN = 200
RESOLVED_WITHIN = dt.timedelta(days=30)
_TONES = {Kind.DEADLINE_NEAR: "warn"}


@dataclass(frozen=True, slots=True)
class AlertRow:
    badge: Badge
    meaning: str
    details: str
    subject: str
    href: str
    raised_at: dt.datetime
    resolved_at: dt.datetime | None


@dataclass(frozen=True, slots=True)
class AlertPage:
    """``open_count`` counts all; lists end after ``SHOWN``."""

    open: list[AlertRow]
    open_count: int
    resolved: list[AlertRow]
    is_cut: bool


async def alert_page(session: AsyncSession, workspace_id: str, now: dt.datetime) -> AlertPage:
    standing = await alerts.page(session, workspace_id, is_open=True, limit=SHOWN)
    over = await alerts.resolved_since(session, workspace_id, now - RESOLVED_WITHIN, SHOWN)
    open_count = await session.execute(
        sa.select(sa.func.count()).where(
            col(Alert.workspace_id) == workspace_id, col(Alert.resolved_at).is_(None)
        )
    )
    names = await _names(session, {each.subject_id for each in (*standing, *over)})
    return AlertPage(
        open=[_row(each, names) for each in standing],
        open_count=open_count.scalar_one(),
        resolved=[_row(each, names) for each in over],
        is_cut=SHOWN in {len(standing), len(over)},
    )


async def stuck(
    session: AsyncSession, workspace_id: str, besides: Collection[str], limit: int
) -> list[AlertRow]:
    """Stuck queues of destinations other than these, newest first."""
    rows = await session.execute(
        sa.select(Alert)
        .where(
            col(Alert.workspace_id) == workspace_id,
            col(Alert.resolved_at).is_(None),
            col(Alert.kind) == Kind.QUEUE_STUCK,
            col(Alert.subject_id).not_in(besides),
        )
        .order_by(col(Alert.id).desc())
        .limit(limit)
    )
    found = list(rows.scalars())
    names = await _names(session, {each.subject_id for each in found})
    return [_row(each, names) for each in found]


async def _names(session: AsyncSession, ids: Collection[str]) -> dict[str, str]:
    """Of the destinations among these subjects."""
    rows = await session.execute(
        sa.select(col(Destination.id), col(Destination.name)).where(col(Destination.id).in_(ids))
    )
    return dict(rows.all())


def _row(alert: Alert, names: dict[str, str]) -> AlertRow:
    kind = Kind(alert.kind)
    subject = names.get(alert.subject_id) or (
        f"{alerts.SUBJECTS[kind].capitalize()} …{alert.subject_id[-8:]}"
    )
    return AlertRow(
        badge=Badge(alerts.TITLES[kind], _TONES.get(kind, "bad")),
        meaning=alerts.MEANINGS[kind],
        details=alerts.details_of(alert),
        subject=subject,
        href=alerts.path_of(alert),
        raised_at=alert.raised_at,
        resolved_at=alert.resolved_at,
    )
