"""Visitor links: what the host knows a visitor by, sealed under a key of the visitor's own until it
is destroyed."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.consent.errors import TooManyLinks, VisitorOfAnother
from app.consent.models import VisitorLink
from app.core.db import insert_or_ignore
from app.crypto.keyring import KeyRing
from app.crypto.keystore import HolderKey
from app.identity import vault
from app.identity.models import PersonalValue
from app.sites.directory import PublishedSite
from connectors.contract import Identifier, Kind

MAX_PER_KIND = 50


class HolderChanged(Exception):
    """Somebody else linked the visitor first, under another holder: read it again and repeat."""


async def holder_of(session: AsyncSession, site_id: str, visitor_id: str) -> str | None:
    """The holder (``vis_...``) of a linked visitor's identifiers."""
    return (
        await session.execute(
            sa.select(col(VisitorLink.id)).where(
                col(VisitorLink.site_id) == site_id, col(VisitorLink.visitor_id) == visitor_id
            )
        )
    ).scalar_one_or_none()


async def link(
    session: AsyncSession,
    ring: KeyRing,
    *,
    site: PublishedSite,
    visitor_id: str,
    holder_id: str,
    key: HolderKey,
    identifiers: Sequence[Identifier],
    now: dt.datetime,
    expires_at: dt.datetime,
    is_one_account: bool = False,
) -> dict[str, Any]:
    """Add identifiers to a visitor; those already known are kept, and all live until
    ``expires_at``.

    The holder's key must be committed before. Raises HolderChanged when the visitor has another
    holder by now. ``is_one_account``: the visitor may be known by no other ``user_id``; raises
    VisitorOfAnother.
    """
    row = {
        "id": holder_id,
        "workspace_id": site.workspace_id,
        "site_id": site.id,
        "visitor_id": visitor_id,
        "subject_ref": ring.subject_ref(site.workspace_id, "anonymous_id", visitor_id),
        "created_at": now,
    }
    await session.execute(insert_or_ignore(session, VisitorLink).values(**row))
    if await holder_of(session, site.id, visitor_id) != holder_id:
        raise HolderChanged
    mine = col(PersonalValue.holder_id) == holder_id
    await session.execute(sa.update(PersonalValue).where(mine).values(expires_at=expires_at))
    known = await session.execute(
        sa.select(col(PersonalValue.kind), col(PersonalValue.subject_ref)).where(mine)
    )
    seen = {(kind, ref) for kind, ref in known}
    if is_one_account and any(
        kind == Kind.USER_ID and ref not in _refs(ring, site, identifiers) for kind, ref in seen
    ):
        raise VisitorOfAnother
    rows = []
    for each in dict.fromkeys(identifiers):
        made = vault.identifier_row(
            ring, key, workspace_id=site.workspace_id, holder_id=holder_id, identifier=each, now=now
        )
        if (each.kind, made["subject_ref"]) not in seen:
            rows.append({**made, "expires_at": expires_at})
    kinds = [kind for kind, _ in seen] + [each["kind"] for each in rows]
    if any(kinds.count(kind) > MAX_PER_KIND for kind in set(kinds)):
        raise TooManyLinks(
            f"At most {MAX_PER_KIND} identifiers of a kind; unlink the visitor first."
        )
    await vault.add(session, rows)
    return {"identifier_kinds": sorted(set(kinds)), "added": len(rows)}


def _refs(ring: KeyRing, site: PublishedSite, identifiers: Sequence[Identifier]) -> set[bytes]:
    return {ring.subject_ref(site.workspace_id, each.kind, each.value) for each in identifiers}


async def expired(session: AsyncSession, now: dt.datetime, limit: int = 500) -> list[str]:
    """Holders of links whose time is over; forget their keys, then call ``forget``. Empty: there
    are no more.
    """
    rows = await session.execute(
        sa.select(col(PersonalValue.holder_id))
        .where(col(PersonalValue.holder_id).startswith("vis_"), col(PersonalValue.expires_at) < now)
        .order_by(col(PersonalValue.expires_at))
        .limit(limit)
    )
    return sorted(set(rows.scalars()))  # not DISTINCT: that would keep it from the index


async def forget(session: AsyncSession, holder_ids: Collection[str]) -> None:
    """Delete links and ciphertexts; destroy the data keys first (``KeyStore.forget``)."""
    if holder_ids:
        await vault.forget(session, holder_ids)
        await session.execute(sa.delete(VisitorLink).where(col(VisitorLink.id).in_(holder_ids)))
