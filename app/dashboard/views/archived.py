"""Archived deliveries: whom the law's clock has run out for, by destination and day."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.dashboard import present
from app.dashboard.present import Badge
from app.dashboard.views.choices import Choice, choice
from app.delivery.models import Archived, Delivery
from app.delivery.service import REPLAYABLE, Selection
from app.destinations.models import Destination
from app.security.models import Role
from app.security.sessions import Operator

FILTERS = ("destination", "since", "until")
LISTED = 100


@dataclass(frozen=True, slots=True)
class Row:
    """One delivery; ``operation`` is empty where the database has lost it."""

    delivery_id: str
    request_id: str
    destination: str
    operation: str
    archived_at: dt.datetime
    badge: Badge


@dataclass(frozen=True, slots=True)
class ArchivedList:
    """``rows``: the oldest ones of ``total``."""

    rows: list[Row]
    total: int
    choices: list[Choice]
    asked: Mapping[str, str]
    is_filtered: bool
    may_replay: bool


def selection(workspace_id: str, asked: Mapping[str, str]) -> Selection:
    """Days are UTC, the first and the last one included. ValueError for what is no day,
    OverflowError for the last there is."""
    until = _midnight(asked["until"])
    return Selection(
        workspace_id,
        queue_id=asked["destination"] or None,
        since=_midnight(asked["since"]),
        until=until + dt.timedelta(days=1) if until else None,
    )


def _midnight(day: str) -> dt.datetime | None:
    if not day:
        return None
    return dt.datetime.combine(dt.date.fromisoformat(day), dt.time(), dt.UTC)


async def archived(
    session: AsyncSession,
    operator: Operator,
    which: Selection,
    asked: Mapping[str, str],
    choices: list[Choice],
) -> ArchivedList:
    counted = sa.select(sa.func.count()).select_from(Archived).where(which.condition)
    total = (await session.execute(counted)).scalar_one()
    rows = await session.execute(
        sa.select(
            Archived, col(Destination.name), col(Delivery.operation), REPLAYABLE.label("replayable")
        )
        .join(Destination, col(Destination.id) == col(Archived.queue_id))
        .outerjoin(Delivery, col(Delivery.id) == col(Archived.delivery_id))
        .where(which.condition)
        .order_by(col(Archived.archived_at), col(Archived.delivery_id))
        .limit(LISTED)
    )
    return ArchivedList(
        rows=[
            Row(
                delivery_id=each.delivery_id,
                request_id=each.request_id,
                destination=name,
                operation=present.words(operation or ""),
                archived_at=each.archived_at,
                badge=Badge("Can be replayed", "warn") if ok else Badge("Person forgotten", "bad"),
            )
            for each, name, operation, ok in rows
        ],
        total=total,
        choices=choices,
        asked=asked,
        is_filtered=any(asked.values()),
        may_replay=operator.may(Role.OPERATOR),
    )


async def choices(
    session: AsyncSession, workspace_id: str, asked: Mapping[str, str]
) -> list[Choice]:
    """The destinations with something archived, and the one that is asked for."""
    with_some = sa.select(col(Archived.queue_id)).where(col(Archived.workspace_id) == workspace_id)
    rows = await session.execute(
        sa.select(col(Destination.id), col(Destination.name))
        .where(
            col(Destination.workspace_id) == workspace_id,
            col(Destination.id).in_(with_some) | (col(Destination.id) == asked["destination"]),
        )
        .order_by(col(Destination.name))
    )
    offered = {"": "Any destination", **dict(rows.all())}
    return [choice(asked, "destination", "Destination", offered)]
