"""Visitors as an identity source: who was linked to a visitor, and which visitors a person was."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.consent.models import VisitorLink
from app.crypto.keyring import KeyRing
from app.crypto.keystore import KeyStore
from app.identity import vault
from connectors.contract import Identifier, Kind


async def linked(
    session: AsyncSession,
    keys: KeyStore,
    ring: KeyRing,
    workspace_id: str,
    identifiers: Sequence[Identifier],
) -> list[Identifier]:
    """Further identifiers of the person, by links made with ``POST /v1/visitors/link``."""
    holders = await vault.holders_of(session, ring, workspace_id, identifiers)
    refs = [
        ring.subject_ref(workspace_id, each.kind, each.value)
        for each in identifiers
        if each.kind == Kind.ANONYMOUS_ID
    ]
    rows = await session.execute(
        sa.select(VisitorLink).where(
            col(VisitorLink.workspace_id) == workspace_id,
            sa.or_(col(VisitorLink.id).in_(holders), col(VisitorLink.subject_ref).in_(refs)),
        )
    )
    links = list(rows.scalars())
    if not links:
        return []
    found = [Identifier(Kind.ANONYMOUS_ID, each.visitor_id) for each in links]
    opened = await vault.open_holder(session, keys, [each.id for each in links])
    return [*found, *(each.identifier for each in opened)]
