"""Consent records go when their proof has served its time."""

from __future__ import annotations

import datetime as dt

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.consent.models import ConsentReceipt, ConsentRecord
from app.core.ids import first_id


async def remove_old(
    session: AsyncSession, oldest: dt.datetime, now: dt.datetime, limit: int
) -> int:
    """Remove records made before ``oldest`` whose choice no longer holds, with their receipts; at
    most ``limit``. Returns how many went.
    """
    rows = await session.execute(
        sa.select(col(ConsentRecord.id))
        # By id, which begins with the time: the primary key is all the index this needs.
        .where(col(ConsentRecord.id) < first_id("con", oldest), col(ConsentRecord.expires_at) < now)
        .order_by(col(ConsentRecord.id))
        .limit(limit)
    )
    ids = list(rows.scalars())
    if ids:
        receipts, records = col(ConsentReceipt.consent_id), col(ConsentRecord.id)
        await session.execute(sa.delete(ConsentReceipt).where(receipts.in_(ids)))
        await session.execute(sa.delete(ConsentRecord).where(records.in_(ids)))
    return len(ids)
