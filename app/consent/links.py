"""Visitor links: what the host knows a visitor by, sealed under a key of the visitor's own until it
is destroyed."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.consent.devices import take_turns
from app.consent.errors import TooManyLinks, TooManyVisitors, VisitorOfAnother
from app.consent.models import ConsentRecord, VisitorLink
from app.core.db import insert_or_ignore, table_of
from app.core.logging import get_logger
from app.crypto.keyring import KeyRing
from app.crypto.keystore import HolderKey
from app.identity import vault
from app.identity.models import PersonalValue
from app.sites.directory import PublishedSite
from connectors.contract import Identifier, Kind

log = get_logger(__name__)

MAX_PER_KIND = 50
MAX_VISITORS = 400
"""Visitors of a site that may be linked to one ``user_id``; what more have ("guest", "0") is hardly
a person. A browser that forgets everything when it closes is a new visitor each time: who signs in
with it once a day has 390 by the end of the longest term.
"""
IDLE = dt.timedelta(hours=6)
"""How long a host token links a page's visitor of whose person nothing was ever chosen. Such a page
stores nothing, so that the next one is another visitor.
"""


class HolderChanged(Exception):
    """Somebody else linked the visitor first, under another holder: read it again and repeat."""


async def holder_of(
    session: AsyncSession, site_id: str, visitor_id: str, *, to_change: bool = False
) -> str | None:
    """The holder (``vis_...``) of a linked visitor's identifiers; ``to_change``: nobody else
    changes or forgets it before this transaction ends.
    """
    found = sa.select(col(VisitorLink.id)).where(
        col(VisitorLink.site_id) == site_id, col(VisitorLink.visitor_id) == visitor_id
    )
    return await session.scalar(found.with_for_update() if to_change else found)


async def link(
    session: AsyncSession,
    ring: KeyRing,
    *,
    site: PublishedSite,
    visitor_id: str,
    holder_id: str,
    is_new: bool,
    key: HolderKey,
    identifiers: Sequence[Identifier],
    now: dt.datetime,
    expires_at: dt.datetime,
    is_one_account: bool = False,
) -> dict[str, Any]:
    """Add identifiers to a visitor; those already known are kept, and all live until
    ``expires_at``.

    The holder's key must be committed before. Raises HolderChanged when the visitor has another
    holder by now, or none although the holder was not ``is_new`` (its time was over, or the person
    was erased). ``is_one_account``: the visitor may be known by no other ``user_id``; raises
    VisitorOfAnother. Raises TooManyVisitors.
    """
    if is_new:
        row = {
            "id": holder_id,
            "workspace_id": site.workspace_id,
            "site_id": site.id,
            "visitor_id": visitor_id,
            "subject_ref": ring.subject_ref(site.workspace_id, "anonymous_id", visitor_id),
            "created_at": now,
        }
        await session.execute(insert_or_ignore(session, VisitorLink).values(**row))
    if await holder_of(session, site.id, visitor_id, to_change=True) != holder_id:
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
    users = [row["subject_ref"] for row in rows if row["kind"] == Kind.USER_ID]
    await take_turns(session, {(site.id, (site.workspace_id, each)) for each in users})
    for each in users:
        if await _is_of_many(session, site, each, now):
            log.warning("too_many_visitors", site_id=site.id)
            raise TooManyVisitors(MAX_VISITORS)
    await vault.add(session, rows)
    return {"identifier_kinds": sorted(set(kinds)), "added": len(rows)}


async def _is_of_many(
    session: AsyncSession, site: PublishedSite, user_ref: bytes, now: dt.datetime
) -> bool:
    """Whether no further visitor may have this ``user_id``; of the site's links it reads no more
    than one may have.
    """
    found = (
        sa.select(col(PersonalValue.id))
        .join(VisitorLink, col(VisitorLink.id) == col(PersonalValue.holder_id))
        .where(
            col(PersonalValue.workspace_id) == site.workspace_id,
            col(PersonalValue.subject_ref) == user_ref,
            col(PersonalValue.expires_at) > now,
            col(VisitorLink.site_id) == site.id,
        )
        .limit(1)
        .offset(MAX_VISITORS - 1)
    )
    return await session.scalar(found) is not None


def _refs(ring: KeyRing, site: PublishedSite, identifiers: Sequence[Identifier]) -> set[bytes]:
    return {ring.subject_ref(site.workspace_id, each.kind, each.value) for each in identifiers}


async def set_idle(
    session: AsyncSession, holder_id: str, until: dt.datetime | None, *, is_new: bool
) -> None:
    """Let a link end at ``until`` if nothing is chosen under it; null, or a link that was meant to
    stay before: it stays.
    """
    link = table_of(VisitorLink)
    mine = [link.c.id == holder_id]
    if not is_new:
        mine.append(link.c.idle_until.is_not(None))
    if until or not is_new:
        await session.execute(sa.update(link).where(*mine).values(idle_until=until))


async def idle(session: AsyncSession, now: dt.datetime, limit: int = 500) -> list[str]:
    """Holders of links under which nothing was chosen in time, as ``expired``."""
    rows = await session.execute(
        sa.select(col(VisitorLink.id))
        .where(
            col(VisitorLink.idle_until) < now,
            ~sa.exists().where(
                col(ConsentRecord.site_id) == col(VisitorLink.site_id),
                col(ConsentRecord.visitor_id) == col(VisitorLink.visitor_id),
            ),
        )
        .order_by(col(VisitorLink.idle_until))
        .limit(limit)
    )
    return sorted(rows.scalars())


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
    """Delete links and ciphertexts; destroy the data keys first (``KeyStore.forget``). The links go
    first, so that what somebody adds to one just now is either seen here or never added.
    """
    if holder_ids:
        await session.execute(sa.delete(VisitorLink).where(col(VisitorLink.id).in_(holder_ids)))
        await vault.forget(session, holder_ids)
