"""Suppression list and audit log."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.dashboard import present
from app.dashboard.views.paging import SIZE, Pager, Position
from app.dashboard.views.people import names_of
from app.dashboard.views.requests import flat
from app.destinations.models import Destination
from app.security.models import AuditEntry
from app.security.sessions import Operator
from app.suppression import service
from app.suppression.models import Suppression

COUNTED = 10_000
"""What is longer is said to be longer: nobody needs to know it more exactly."""


@dataclass(frozen=True, slots=True)
class SuppressionRow:
    id: str
    kind: str
    scope: str
    since: dt.datetime
    expires_at: dt.datetime
    request_id: str | None


@dataclass(frozen=True, slots=True)
class AuditRow:
    at: dt.datetime
    who: str
    verb: str
    target: str
    href: str | None
    details: str


async def suppressions(
    session: AsyncSession, operator: Operator, position: Position, now: dt.datetime
) -> tuple[list[SuppressionRow], Pager, int]:
    """Live entries, newest first, and how many there are, counted to a little over ``COUNTED``."""
    rows = await service.page(
        session, operator.workspace_id, now, limit=SIZE + 1, after=position.after
    )
    found, pager = position.page(rows, rows[min(len(rows), SIZE) - 1].id if rows else "")
    names = await _destination_names(session, operator.workspace_id, {each.scope for each in found})
    live = sa.select(col(Suppression.id)).where(
        col(Suppression.workspace_id) == operator.workspace_id, col(Suppression.expires_at) > now
    )
    counted = sa.select(sa.func.count()).select_from(live.limit(COUNTED + 1).subquery())
    count = int((await session.execute(counted)).scalar_one())
    views = [
        SuppressionRow(
            each.id,
            present.words(each.kind),
            _scope(each.scope, names),
            each.since,
            each.expires_at,
            each.request_id,
        )
        for each in found
    ]
    return views, pager, count


def _scope(scope: str, names: dict[str, str]) -> str:
    kind, _, name = scope.partition(":")
    if kind == "purpose":
        return f"Purpose {name}"
    if kind == "destination":
        return names.get(name, "a deleted destination")
    return "Everything"


async def _destination_names(
    session: AsyncSession, workspace_id: str, scopes: set[str]
) -> dict[str, str]:
    ids = {scope.partition(":")[2] for scope in scopes if scope.startswith("destination:")}
    if not ids:
        return {}
    rows = await session.execute(
        sa.select(col(Destination.id), col(Destination.name)).where(
            col(Destination.id).in_(ids), col(Destination.workspace_id) == workspace_id
        )
    )
    return dict(rows.all())


_PAGES = {
    "req": "/dashboard/requests/",
    "dst": "/dashboard/destinations/",
    "sit": "/dashboard/sites/",
}


async def audit_log(
    session: AsyncSession, operator: Operator, position: Position
) -> tuple[list[AuditRow], Pager]:
    """Who did what, newest first."""
    query = sa.select(AuditEntry).where(col(AuditEntry.workspace_id) == operator.workspace_id)
    if after := position.after:
        query = query.where(col(AuditEntry.id) < after)
    rows = (
        (await session.execute(query.order_by(col(AuditEntry.id).desc()).limit(SIZE + 1)))
        .scalars()
        .all()
    )
    found, pager = position.page(rows, rows[min(len(rows), SIZE) - 1].id if rows else "")
    names = await names_of(session, operator.workspace_id, {each.actor for each in found})
    return [
        AuditRow(
            each.at,
            names[each.actor],
            _verb(each.verb),
            each.target,
            _href(each.target),
            flat(each.data),
        )
        for each in found
    ], pager


def _verb(verb: str) -> str:
    """``site.publish`` as "Publish site"."""
    thing, dot, act = verb.replace("queue_", "queue.", 1).partition(".")
    return present.words(f"{act}_{thing}") if dot else present.words(verb)


def _href(target: str) -> str | None:
    prefix = _PAGES.get(target.partition("_")[0])
    return f"{prefix}{target}" if prefix else None
