"""Finds the demo's workspace and site; without a demo there is nothing to find."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.security.models import Workspace
from app.sites.models import Site


async def demo_workspace(session: AsyncSession) -> Workspace | None:
    """Its row is also the mark that the demo was made."""
    rows = await session.execute(
        sa.select(Workspace).where(col(Workspace.is_demo)).order_by(col(Workspace.id)).limit(1)
    )
    return rows.scalar_one_or_none()


async def first_site(session: AsyncSession, workspace_id: str) -> Site | None:
    """The shop's site."""
    rows = await session.execute(
        sa.select(Site)
        .where(col(Site.workspace_id) == workspace_id, col(Site.deleted_at).is_(None))
        .order_by(col(Site.id))
        .limit(1)
    )
    return rows.scalar_one_or_none()
