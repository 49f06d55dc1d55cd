"""Running out of time: deliveries leave the working set for the archive."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.logging import get_logger
from app.delivery.models import Archived

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Expired:
    """A delivery whose transition to ``archiving`` is being written."""

    delivery_id: str
    workspace_id: str
    request_id: str
    queue_id: str


async def archive(session: AsyncSession, expired: Sequence[Expired], now: dt.datetime) -> None:
    """Keep them as a legal risk, and let ``app.delivery.archive`` write them down."""
    if not expired:
        return
    await session.execute(
        sa.insert(Archived),
        [
            {
                "delivery_id": each.delivery_id,
                "workspace_id": each.workspace_id,
                "request_id": each.request_id,
                "queue_id": each.queue_id,
                "archived_at": now,
                "file": None,
            }
            for each in expired
        ],
    )
    for each in expired:
        log.error("delivery_expired", delivery_id=each.delivery_id, destination_id=each.queue_id)
