"""The audit log: one line per thing that somebody with rights did."""

from __future__ import annotations

import datetime as dt
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from app.core.bulk import nibble
from app.core.db import Database, table_of
from app.core.ids import first_id, new_id
from app.security.models import AuditEntry


def record(
    session: AsyncSession,
    *,
    workspace_id: str,
    actor: str,
    verb: str,
    target: str,
    now: dt.datetime,
    **data: Any,
) -> None:
    """Add a line in the caller's transaction; ``data`` holds names and counts, never identifiers or
    secrets. The id begins with ``now``: pages and the sweep go by it alone.
    """
    session.add(
        AuditEntry(
            id=new_id("aud", now.timestamp()),
            workspace_id=workspace_id,
            at=now,
            actor=actor,
            verb=verb,
            target=target,
            data=data,
        )
    )


async def sweep(database: Database, oldest: dt.datetime) -> None:
    """Lines from before ``oldest`` go. Their ids begin with the time: that is index enough."""
    first = first_id("aud", oldest)
    await nibble(database, table_of(AuditEntry), lambda row: row.id < first)
