"""Pages that use a site's banner from an origin the site does not list: no choice is taken from
there, so the log tells the operator.

A browser asks before it posts (a preflight, which names no site) and then does not post at all, so
pages are seen where they load the script, by its ``Referer``, too.
"""

from __future__ import annotations

import time
import weakref

from fastapi import Request

from app.core.db import Database
from app.core.logging import get_logger
from app.sites.directory import PublishedSite
from app.sites.errors import InvalidOrigin
from app.sites.origins import clean_origin

log = get_logger(__name__)

MOST = 20
"""Origins told of a site in an hour, so that nobody fills the log or the memory."""


class Told:
    """What this process has told in this hour: origins by site."""

    def __init__(self) -> None:
        self._hour = 0
        self._origins: dict[str, set[str]] = {}

    def is_new(self, site_id: str, origin: str, now: float) -> bool:
        """Whether to tell it now; ``now``: seconds."""
        if (hour := int(now // 3600)) != self._hour:
            self._hour, self._origins = hour, {}
        told = self._origins.setdefault(site_id, set())
        if origin in told or len(told) >= MOST:
            return False
        told.add(origin)
        return True


_told: weakref.WeakKeyDictionary[Database, Told] = weakref.WeakKeyDictionary()


def notice(request: Request, site: PublishedSite) -> None:
    """Tell of the page that asks, once an hour, unless the site lists it or it is one of ours."""
    origin = request.headers.get("origin") or _origin_of(request.headers.get("referer", ""))
    if origin in site.origins or not _is_origin(origin):
        return
    state = request.app.state
    if f"{state.settings.public_url}/".startswith(f"{origin}/"):
        return
    if _told.setdefault(state.database, Told()).is_new(site.id, origin, time.time()):
        log.warning("origin_not_listed", site_id=site.id, origin=origin)


def _origin_of(address: str) -> str:
    return "/".join(address.split("/", 3)[:3])


def _is_origin(text: str) -> bool:
    """As browsers send it, and such that a site could list it."""
    try:
        return len(text) <= 300 and clean_origin(text) == text
    except InvalidOrigin:
        return False
