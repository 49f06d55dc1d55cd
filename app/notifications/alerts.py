"""Alerts: at most one is open for a kind and a subject; operators are told by mail and by webhook
when one is raised, and when it is over.

Who raises them must be able to say when they are over: see ``app.subject_requests.watch``.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.core.bulk import nibble
from app.core.db import Database, hint_after_commit, insert_or_ignore, table_of
from app.core.ids import first_id, new_id
from app.core.logging import get_logger
from app.core.settings import Settings
from app.notifications import service as mails
from app.notifications.models import Alert

log = get_logger(__name__)

MAIL = "alert"
"""The template of mails about alerts."""


class Kind(StrEnum):
    QUEUE_STUCK = "queue_stuck"
    """A queue's deliveries wait, or fail, for long; nobody paused it."""
    DESTINATION_PARKED = "destination_parked"
    """It refuses us: nothing goes out until it is mended."""
    DEADLINE_NEAR = "deadline_near"
    """An open request is due within 72 hours."""
    DEADLINE_MISSED = "deadline_missed"
    """An open request is past its deadline."""
    DELIVERY_ARCHIVED = "delivery_archived"
    """A delivery ran out of time, and its request is open: a legal risk."""


SUBJECTS = {
    Kind.QUEUE_STUCK: "destination",
    Kind.DESTINATION_PARKED: "destination",
    Kind.DEADLINE_NEAR: "request",
    Kind.DEADLINE_MISSED: "request",
    Kind.DELIVERY_ARCHIVED: "delivery",
}
"""What the subject's id is of."""
TITLES = {
    Kind.QUEUE_STUCK: "Queue stuck",
    Kind.DESTINATION_PARKED: "Destination parked",
    Kind.DEADLINE_NEAR: "Deadline near",
    Kind.DEADLINE_MISSED: "Deadline missed",
    Kind.DELIVERY_ARCHIVED: "Delivery given up",
}
MEANINGS = {
    Kind.QUEUE_STUCK: "Deliveries to a destination wait, or fail.",
    Kind.DESTINATION_PARKED: "A destination refuses us; nothing goes out to it until it is mended.",
    Kind.DEADLINE_NEAR: "A request is due within 72 hours and still open.",
    Kind.DEADLINE_MISSED: "A request is past its legal deadline and still open.",
    Kind.DELIVERY_ARCHIVED: "A delivery ran out of time: replay it or waive it.",
}


@dataclass(frozen=True, slots=True)
class Found:
    """Something to raise an alert about. ``detail``: moments, codes and ids of ours."""

    workspace_id: str
    kind: Kind
    subject_id: str
    detail: Mapping[str, Any] = field(default_factory=dict)


async def raise_alerts(
    session: AsyncSession, settings: Settings, found: Iterable[Found], now: dt.datetime
) -> set[str]:
    """Raise what is not open already; returns the workspaces that have a new alert."""
    rows = [
        {
            "id": new_id("alr", now.timestamp()),
            "workspace_id": each.workspace_id,
            "kind": each.kind,
            "subject_id": each.subject_id,
            "raised_at": now,
            "detail": dict(each.detail),
            "tell_at": now if settings.alert_webhook_url else None,
            "tell_attempt": 0,
        }
        # In one order, so that two processes that see the same never wait for each other in a ring.
        for each in sorted(found, key=lambda each: (each.kind, each.subject_id))
    ]
    if not rows:
        return set()
    table = table_of(Alert)
    raised = await session.execute(
        insert_or_ignore(session, table)
        .values(rows)
        .returning(table.c.workspace_id, table.c.kind, table.c.subject_id)
    )
    return _note(session, "alert_raised", raised.all())


async def resolve(
    session: AsyncSession, settings: Settings, alert_ids: Collection[str], now: dt.datetime
) -> set[str]:
    """These are over; returns the workspaces of those that were open until now."""
    table = table_of(Alert)
    over = await session.execute(
        sa.update(table)
        .where(table.c.id.in_(sorted(alert_ids)), table.c.resolved_at.is_(None))
        .values(
            resolved_at=now,
            tell_at=now if settings.alert_webhook_url else None,
            tell_attempt=0,
        )
        .returning(table.c.workspace_id, table.c.kind, table.c.subject_id)
    )
    return _note(session, "alert_resolved", over.all())


def _note(session: AsyncSession, event: str, rows: Sequence[sa.Row[Any]]) -> set[str]:
    for row in rows:
        subject = {f"{SUBJECTS[Kind(row.kind)]}_id": row.subject_id}
        log.warning(event, kind=row.kind, workspace_id=row.workspace_id, **subject)
    if rows:
        hint_after_commit(session, "alerts")
    return {row.workspace_id for row in rows}


def announce(
    session: AsyncSession, settings: Settings, workspace_ids: Iterable[str], now: dt.datetime
) -> None:
    """One mail per workspace about all that was raised or resolved in it at ``now``."""
    if settings.alert_mail:
        for workspace_id in sorted(workspace_ids):
            mails.queue(session, workspace_id, workspace_id, MAIL, "en", now)


async def at(session: AsyncSession, workspace_id: str, moment: dt.datetime) -> list[Alert]:
    """What was raised or resolved in a workspace at exactly this moment, by kind."""
    rows = await session.execute(
        sa.select(Alert)
        .where(
            col(Alert.workspace_id) == workspace_id,
            (col(Alert.raised_at) == moment) | (col(Alert.resolved_at) == moment),
        )
        .order_by(col(Alert.kind), col(Alert.id))
    )
    return list(rows.scalars())


async def page(
    session: AsyncSession,
    workspace_id: str,
    *,
    is_open: bool | None,
    limit: int,
    after: str | None = None,
) -> list[Alert]:
    """Newest first; ``after`` is the id of the last one seen."""
    query = sa.select(Alert).where(col(Alert.workspace_id) == workspace_id)
    if is_open is not None:
        resolved_at = col(Alert.resolved_at)
        query = query.where(resolved_at.is_(None) if is_open else resolved_at.is_not(None))
    if after is not None:
        query = query.where(col(Alert.id) < after)
    rows = await session.execute(query.order_by(col(Alert.id).desc()).limit(limit))
    return list(rows.scalars())


async def resolved_since(
    session: AsyncSession, workspace_id: str, moment: dt.datetime, limit: int
) -> list[Alert]:
    """The newest ends first."""
    rows = await session.execute(
        sa.select(Alert)
        .where(col(Alert.workspace_id) == workspace_id, col(Alert.resolved_at) > moment)
        .order_by(col(Alert.resolved_at).desc(), col(Alert.id).desc())
        .limit(limit)
    )
    return list(rows.scalars())


async def open_counts(session: AsyncSession) -> dict[str, int]:
    """Kind -> alerts that are not resolved, in all workspaces."""
    rows = await session.execute(
        sa.select(col(Alert.kind), sa.func.count())
        .where(col(Alert.resolved_at).is_(None))
        .group_by(col(Alert.kind))
    )
    return dict(rows.all())


async def sweep(database: Database, oldest: dt.datetime) -> None:
    """Alerts that were over before ``oldest`` go; what was over by then had been raised by then."""
    raised = first_id("alr", oldest)
    await nibble(
        database, table_of(Alert), lambda row: (row.id < raised) & (row.resolved_at < oldest)
    )


def path_of(alert: Alert) -> str:
    """The dashboard's page that shows what it is about."""
    match SUBJECTS[Kind(alert.kind)]:
        case "destination":
            return f"/dashboard/destinations/{alert.subject_id}"
        case "request":
            return f"/dashboard/requests/{alert.subject_id}"
        case _:
            return f"/dashboard/requests/{alert.detail['request_id']}"


def details_of(alert: Alert) -> str:
    """``since 2026-11-25 10:04 UTC, reason unauthorized``; ids are left to links."""
    return ", ".join(
        f"{name.removesuffix('_at')} {_shown(value)}"
        for name, value in alert.detail.items()
        if not name.endswith("_id")
    )


def _shown(value: Any) -> str:
    """A moment to the minute; all else as it is."""
    try:
        moment = dt.datetime.fromisoformat(str(value))
    except ValueError:
        return str(value)
    return f"{moment.astimezone(dt.UTC):%Y-%m-%d %H:%M UTC}"
