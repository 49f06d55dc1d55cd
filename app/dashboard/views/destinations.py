"""Destinations: health and queue of each, and forms from their connectors' JSON schema."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.core.errors import NotFound
from app.dashboard import present
from app.dashboard.present import Badge
from app.delivery import queues
from app.destinations.models import Destination
from app.security.sessions import Operator


@dataclass(frozen=True, slots=True)
class Health:
    """A destination with its queue, in words."""

    id: str
    name: str
    connector: str
    badge: Badge
    detail: str
    is_trouble: bool
    depth: int
    due_count: int
    in_flight: int
    concurrency_limit: int | None
    breaker: str
    oldest_due_at: dt.datetime | None
    next_due_at: dt.datetime | None
    is_paused: bool
    is_parked: bool
    has_queue: bool
    is_enabled: bool
    is_identity_source: bool
    tested_at: dt.datetime | None
    test_error: str | None

    @property
    def is_queue_trouble(self) -> bool:
        return self.is_parked or self.is_paused or self.breaker != "closed"


async def healths(session: AsyncSession, workspace_id: str, now: dt.datetime) -> list[Health]:
    """All live destinations by name."""
    rows = await session.execute(
        sa.select(Destination)
        .where(col(Destination.workspace_id) == workspace_id, col(Destination.deleted_at).is_(None))
        .order_by(sa.func.lower(col(Destination.name)), col(Destination.id))
    )
    shown = await queues.shown(session, workspace_id, now)
    by_id = {each["destination_id"]: each for each in shown}
    return [health_of(each, by_id.get(each.id)) for each in rows.scalars()]


def health_of(destination: Destination, queue: dict[str, object] | None) -> Health:
    found: dict[str, object] = queue or {}
    badge, detail, is_trouble = _state(destination, found)
    return Health(
        id=destination.id,
        name=destination.name,
        connector=destination.connector,
        badge=badge,
        detail=detail,
        is_trouble=is_trouble,
        depth=int(str(found.get("depth", 0))),
        due_count=int(str(found.get("due_count", 0))),
        in_flight=int(str(found.get("in_flight", 0))),
        concurrency_limit=int(str(found["concurrency_limit"])) if found else None,
        breaker=str(found.get("breaker", "closed")),
        oldest_due_at=_moment(found.get("oldest_due_at")),
        next_due_at=_moment(found.get("next_due_at")),
        is_paused=bool(found.get("paused")),
        is_parked=bool(found.get("parked_reason")),
        has_queue=queue is not None,
        is_enabled=destination.is_enabled,
        is_identity_source=destination.is_identity_source,
        tested_at=destination.tested_at,
        test_error=destination.test_error,
    )


def _state(destination: Destination, queue: dict[str, object]) -> tuple[Badge, str, bool]:
    """The worst thing first: what an operator must know before anything else."""
    if reason := queue.get("parked_reason"):
        return Badge("Parked", "bad"), f"It refuses us: {present.words(str(reason))}", True
    if queue.get("paused"):
        return Badge("Paused", "warn"), "Somebody paused it; nothing goes out", True
    if queue.get("breaker") in {"open", "half_open"}:
        return Badge("Failing", "bad"), "Calls fail; it is tried again with growing pauses", True
    if destination.test_error:
        return Badge("Test failed", "bad"), destination.test_error, True
    if not destination.is_enabled:
        return Badge("Disabled", "neutral"), "Left out of new requests", False
    if destination.tested_at is None:
        return Badge("Not tested", "neutral"), "Test the connection before relying on it", False
    return Badge("Healthy", "good"), "", False


def _moment(value: object) -> dt.datetime | None:
    return value if isinstance(value, dt.datetime) and value.year > 1971 else None


async def find(session: AsyncSession, operator: Operator, destination_id: str) -> Destination:
    found = await session.get(Destination, destination_id)
    if found is None or found.workspace_id != operator.workspace_id or found.deleted_at is not None:
        raise NotFound("There is no destination with this id in your workspace.")
    return found


async def health(session: AsyncSession, destination: Destination, now: dt.datetime) -> Health:
    rows = await queues.shown(session, destination.workspace_id, now)
    return health_of(
        destination, next((q for q in rows if q["destination_id"] == destination.id), None)
    )
