"""The directory: published sites and notices kept in memory for the public paths.

A notice version never changes, so it is kept as long as there is room. A site may change: what is
known of it is dropped when this process commits a change, and looked up again after a second in any
case, for changes made by other processes. While the database is away, what was known last is
served: a banner that is a little old is better than none.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.core.db import OUTAGES, Database, is_postgresql
from app.core.errors import Unavailable
from app.core.logging import get_logger
from app.sites import changes
from app.sites.errors import UnknownSite
from app.sites.models import NoticeVersion, Site

log = get_logger(__name__)

_FRESH_SECONDS = 1.0
_PATIENCE_SECONDS = 3.0
"""How long a visitor waits for a database that may be away."""
_MAX_SITES = 10_000
_MAX_NOTICES = 100


@dataclass(frozen=True, slots=True)
class PublishedSite:
    """What the public paths know of a site."""

    id: str
    workspace_id: str
    site_key: str
    name: str
    origins: frozenset[str]
    version_id: str
    is_intake_open: bool
    first_party: str = ""
    """``SiteConfig.first_party``, of the draft: it acts without being published."""
    host_identity: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """An immutable notice version."""

    id: str
    site_id: str
    number: int
    sha256: str
    content: Mapping[str, Any]
    choices: frozenset[str]
    """The purposes that are a choice: all but the required ones."""
    required: frozenset[str]
    denied_by_gpc: frozenset[str]
    material: str
    news: Mapping[str, Sequence[str]]


class Directory:
    """One per database; see ``directory_of``."""

    def __init__(self, database: Database) -> None:
        self._database = weakref.proxy(database)
        self._sites: OrderedDict[str, tuple[float, PublishedSite]] = OrderedDict()
        self._notices: OrderedDict[str, Notice] = OrderedDict()

    async def site(self, site_key: str) -> PublishedSite:
        """The live, published site with this key, or 404."""
        known = self._sites.get(site_key)
        now = time.monotonic()
        if known and now - known[0] < _FRESH_SECONDS:
            return known[1]
        if known:  # who asks meanwhile is not kept waiting
            self._sites[site_key] = now, known[1]
        try:
            async with (
                asyncio.timeout(_PATIENCE_SECONDS),
                self._database.reading() as session,
            ):
                found = await _load_site(session, site_key)
        except OUTAGES as error:
            away = _away(error)
            if known:
                return known[1]
            raise away from None
        if found is None:
            self._sites.pop(site_key, None)
            raise UnknownSite
        self._sites[site_key] = (now, found)
        _trim(self._sites, _MAX_SITES)
        return found

    async def notice(self, version_id: str) -> Notice | None:
        """A notice version of any site, published now or earlier."""
        if known := self._notices.get(version_id):
            self._notices.move_to_end(version_id)
            return known
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS), self._database.reading() as session:
                version = await session.get(NoticeVersion, version_id)
        except OUTAGES as error:
            raise _away(error) from None
        if version is None:
            return None
        self._notices[version_id] = notice = notice_of(version)
        _trim(self._notices, _MAX_NOTICES)
        return notice

    async def published(self, site_key: str) -> tuple[PublishedSite, Notice]:
        """A site and the notice its visitors see, or 404."""
        site = await self.site(site_key)
        notice = await self.notice(site.version_id)
        if notice is None:
            raise UnknownSite
        return site, notice

    def forget(self, site_key: str) -> None:
        self._sites.pop(site_key, None)


def _away(error: Exception) -> Unavailable:
    log.warning("database_away", task="directory", error=type(error).__name__)
    return Unavailable(
        "The database cannot be reached; try again later.", headers={"Retry-After": "5"}
    )


_directories: weakref.WeakKeyDictionary[Database, Directory] = weakref.WeakKeyDictionary()


def directory_of(database: Database) -> Directory:
    """The directory of this database, made on first use."""
    if (found := _directories.get(database)) is None:
        found = _directories[database] = Directory(database)
    return found


def forget_after_commit(session: AsyncSession, site_key: str) -> None:
    """Drop what this process knows of a site once the session's transaction is committed."""

    def forget(_: Any) -> None:
        for each in list(_directories.values()):
            each.forget(site_key)

    sa.event.listen(session.sync_session, "after_commit", forget, once=True)


def notice_of(version: NoticeVersion) -> Notice:
    purposes = version.content["purposes"]
    required = frozenset(each["id"] for each in purposes if each["required"])
    return Notice(
        version.id,
        version.site_id,
        version.number,
        version.sha256,
        version.content,
        choices=frozenset(each["id"] for each in purposes) - required,
        required=required,
        denied_by_gpc=frozenset(each["id"] for each in purposes if each["denied_by_gpc"])
        - required,
        material=version.material or changes.material(version.content),
        news=version.news or {},
    )


async def _load_site(session: AsyncSession, site_key: str) -> PublishedSite | None:
    rows = await session.execute(
        sa.select(Site).where(
            col(Site.site_key) == site_key,
            col(Site.deleted_at).is_(None),
            col(Site.published_version_id).is_not(None),
        )
    )
    site = rows.scalar_one_or_none()
    if site is None or site.published_version_id is None:
        return None
    return PublishedSite(
        site.id,
        site.workspace_id,
        site.site_key,
        site.name,
        frozenset(site.origins),
        site.published_version_id,
        site.is_intake_open,
        site.draft.get("first_party", ""),
        site.host_identity,
    )


async def is_listed_anywhere(session: AsyncSession, origin: str) -> bool:
    """Whether any live, published site lists this origin: all a preflight, which names no
    site, can ask."""
    if is_postgresql(session):
        listed = sa.text("site.origins @> jsonb_build_array(cast(:origin as text))")
    else:
        listed = sa.text("EXISTS (SELECT 1 FROM json_each(site.origins) WHERE value = :origin)")
    live = (col(Site.deleted_at).is_(None), col(Site.published_version_id).is_not(None))
    found = await session.execute(
        sa.select(col(Site.id)).where(*live, listed).limit(1), {"origin": origin}
    )
    return found.first() is not None


def _trim(kept: OrderedDict[str, Any], most: int) -> None:
    while len(kept) > most:
        kept.popitem(last=False)
