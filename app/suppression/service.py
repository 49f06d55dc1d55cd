"""The suppression list: keyed digests of people who must not be processed again."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.core.bulk import nibble
from app.core.db import Database, insert_or_ignore, table_of
from app.core.ids import new_id
from app.suppression.models import Suppression


def expiry(now: dt.datetime, months: int) -> dt.datetime:
    """The end of an entry made now, counted in months of 30.44 days."""
    return now + dt.timedelta(days=round(months * 30.4375))


async def add(
    session: AsyncSession,
    *,
    workspace_id: str,
    subjects: Sequence[tuple[bytes, str]],
    scopes: Sequence[str],
    request_id: str,
    channel: str,
    now: dt.datetime,
    until: dt.datetime,
) -> None:
    """Enter people (digest, kind) for scopes, because of one request."""
    rows = [
        {
            "id": new_id("sup"),
            "workspace_id": workspace_id,
            "subject_ref": ref,
            "kind": kind,
            "scope": scope,
            "since": now,
            "expires_at": until,
            "request_id": request_id,
            "channel": channel,
        }
        for ref, kind in subjects
        for scope in scopes
    ]
    if rows:
        await session.execute(insert_or_ignore(session, Suppression).values(rows))


async def entries(
    session: AsyncSession, workspace_id: str, refs: Collection[bytes], now: dt.datetime
) -> list[Suppression]:
    """Every live entry of these people."""
    rows = await session.execute(
        sa.select(Suppression).where(
            col(Suppression.workspace_id) == workspace_id,
            col(Suppression.subject_ref).in_(refs),
            col(Suppression.expires_at) > now,
        )
    )
    return list(rows.scalars())


async def subjects(session: AsyncSession, request_ids: Collection[str | None]) -> set[bytes]:
    """Everybody whom these requests entered."""
    rows = await session.execute(
        sa.select(col(Suppression.subject_ref)).where(col(Suppression.request_id).in_(request_ids))
    )
    return set(rows.scalars())


async def remove(session: AsyncSession, ids: Collection[str]) -> None:
    """Take entries off the list."""
    await session.execute(sa.delete(Suppression).where(col(Suppression.id).in_(ids)))


async def check(
    session: AsyncSession,
    workspace_id: str,
    refs: Sequence[bytes],
    now: dt.datetime,
    *,
    scopes: Collection[str],
) -> dict[bytes, Suppression]:
    """The oldest live entry for each digest in any of the scopes."""
    rows = await session.execute(
        sa.select(Suppression)
        .where(
            col(Suppression.workspace_id) == workspace_id,
            col(Suppression.subject_ref).in_(refs),
            col(Suppression.scope).in_(scopes),
            col(Suppression.expires_at) > now,
        )
        .order_by(col(Suppression.since).desc())
    )
    return {each.subject_ref: each for each in rows.scalars()}


async def page(
    session: AsyncSession, workspace_id: str, now: dt.datetime, *, limit: int, after: str | None
) -> list[Suppression]:
    """Live entries, newest first."""
    query = sa.select(Suppression).where(
        col(Suppression.workspace_id) == workspace_id, col(Suppression.expires_at) > now
    )
    if after:
        query = query.where(col(Suppression.id) < after)
    return list(
        (await session.execute(query.order_by(col(Suppression.id).desc()).limit(limit))).scalars()
    )


async def sweep(database: Database, now: dt.datetime) -> None:
    await nibble(database, table_of(Suppression), lambda row: row.expires_at <= now)
