"""Visitors as an identity source: who was linked to a visitor, and which visitors a person was."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.consent.devices import is_only_user
from app.consent.models import VisitorLink
from app.crypto.keyring import KeyRing
from app.crypto.keystore import KeyStore
from app.identity import vault
from app.identity.models import PersonalValue
from connectors.contract import Identifier, Kind


async def linked(
    session: AsyncSession,
    keys: KeyStore,
    ring: KeyRing,
    workspace_id: str,
    identifiers: Sequence[Identifier],
) -> list[Identifier]:
    """Further identifiers of the person, by links made with ``POST /v1/visitors/link``: those of
    the visitors that share an identifier, and of the other devices of the same account.
    """
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
    links = {each.id: each for each in rows.scalars()}
    if not links:
        return []
    links |= await _of_same_accounts(session, workspace_id, links.keys())
    found = [Identifier(Kind.ANONYMOUS_ID, each.visitor_id) for each in links.values()]
    opened = await vault.open_holder(session, keys, list(links))
    return [*found, *(each.identifier for each in opened)]


async def _of_same_accounts(
    session: AsyncSession, workspace_id: str, holder_ids: Collection[str]
) -> dict[str, VisitorLink]:
    """Links of the visitors that have the same ``user_id``, and no other: a device that several
    people share leads from none of them to another.
    """
    mine = sa.select(col(PersonalValue.subject_ref)).where(
        col(PersonalValue.holder_id).in_(holder_ids), is_only_user
    )
    refs = set((await session.execute(mine)).scalars())
    rows = await session.execute(
        sa.select(VisitorLink)
        .join(PersonalValue, col(PersonalValue.holder_id) == col(VisitorLink.id))
        .where(
            col(PersonalValue.workspace_id) == workspace_id,
            col(PersonalValue.subject_ref).in_(refs),
            is_only_user,
        )
    )
    return {each.id: each for each in rows.scalars()}
