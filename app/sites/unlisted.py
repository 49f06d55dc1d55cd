"""Pages that use a site's banner from an origin the site does not list: no choice is recorded
there, so the log and the site's page tell the operator.

A browser asks before it posts (a preflight, which names no site) and then does not post at all, so
pages are seen where they load the script, by its ``Referer``, too.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import time
import weakref

import sqlalchemy as sa
from fastapi import Request
from sqlmodel import col

from app.core.clock import rfc3339, utc_now
from app.core.db import OUTAGES, Database
from app.core.logging import get_logger
from app.sites.directory import PublishedSite
from app.sites.errors import InvalidOrigin
from app.sites.models import Site
from app.sites.origins import clean_origin

log = get_logger(__name__)

HOUR = 3600.0
MOST = 20
"""Origins told of a site in an ``HOUR``, and kept, so that nobody fills the log or a table."""
PATIENCE_SECONDS = 3.0
KEPT = dt.timedelta(days=30)
"""How long an origin is shown that is not seen again."""


class Told:
    """What this process has told within an ``HOUR``: origins by site."""

    def __init__(self) -> None:
        self._began = -HOUR
        self._origins: dict[str, set[str]] = {}

    def is_new(self, site_id: str, origin: str, now: float) -> bool:
        """Whether to tell it now; ``now``: seconds of a clock that never goes back."""
        if now - self._began >= HOUR:
            self._began, self._origins = now, {}
        told = self._origins.setdefault(site_id, set())
        if origin in told or len(told) >= MOST:
            return False
        told.add(origin)
        return True

    def forget(self, site_id: str, origin: str) -> None:
        self._origins.get(site_id, set()).discard(origin)


_told: weakref.WeakKeyDictionary[Database, Told] = weakref.WeakKeyDictionary()


async def notice(request: Request, site: PublishedSite) -> None:
    """Tell of the page that asks, once an hour, unless the site lists it or it is one of ours."""
    origin = request.headers.get("origin") or _origin_of(request.headers.get("referer", ""))
    if origin in site.origins or not _is_origin(origin):
        return
    state = request.app.state
    if f"{state.settings.public_url}/".startswith(f"{origin}/"):
        return
    told = _told.setdefault(state.database, Told())
    if not told.is_new(site.id, origin, time.monotonic()):
        return
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await _keep(state.database, site.id, origin, utc_now())
    except OUTAGES as error:
        told.forget(site.id, origin)
        log.warning("database_away", task="unlisted", error=type(error).__name__)
    else:
        log.warning("origin_not_listed", site_id=site.id, origin=origin)


async def _keep(database: Database, site_id: str, origin: str, now: dt.datetime) -> None:
    """Among the newest ``MOST``; processes take turns at the site's row, which choices still may
    refer to."""
    mine = col(Site.id) == site_id
    async with database.writing() as session:
        kept = sa.select(col(Site.unlisted_origins)).where(mine).with_for_update(key_share=True)
        known = (await session.scalar(kept) or {}) | {origin: str(rfc3339(now))}
        newest = sorted(known.items(), key=lambda each: dt.datetime.fromisoformat(each[1]))
        await session.execute(
            sa.update(Site).where(mine).values(unlisted_origins=dict(newest[-MOST:]))
        )


def kept(site: Site, now: dt.datetime) -> list[tuple[str, dt.datetime]]:
    """Origins and when they were last seen, the newest first; without those listed since."""
    seen = {
        origin: dt.datetime.fromisoformat(at)
        for origin, at in (site.unlisted_origins or {}).items()
    }
    found = [
        (each, at) for each, at in seen.items() if at > now - KEPT and each not in site.origins
    ]
    return sorted(found, key=lambda each: each[1], reverse=True)


def _origin_of(address: str) -> str:
    return "/".join(address.split("/", 3)[:3])


def _is_origin(text: str) -> bool:
    """As browsers send it, and such that a site could list it."""
    try:
        return len(text) <= 300 and clean_origin(text) == text
    except InvalidOrigin:
        return False
