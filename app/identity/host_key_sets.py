"""Key sets that hosts publish: fetched through the guard, kept in memory, and used for a while when
they are out of reach.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections import OrderedDict
from dataclasses import dataclass, field

import httpx

from app.core.errors import Problem, Unavailable
from app.core.http import strict_json
from app.core.logging import get_logger
from app.identity.host_keys import Jwk, KeyRefused, usable
from connectors.contract import ConnectorError

log = get_logger(__name__)

FRESH = dt.timedelta(minutes=10)
"""So long a key set is not asked for again, unless a token names a key it lacks."""
HARD_LIMIT = dt.timedelta(hours=24)
"""So long the last good key set is used when its address gives none."""
PAUSE = dt.timedelta(seconds=30)
"""Between two fetches of one address, whatever tokens say: nobody can use us to hammer a host."""
SECONDS = 5.0
MAX_BYTES = 65_536
_MOST = 1000


class KeysOutOfReach(Unavailable):
    slug, title = "host-keys-out-of-reach", "The site's keys cannot be fetched"

    def __init__(self) -> None:
        super().__init__(
            "The site's `jwks_url` gives no key set; try again later.",
            headers={"Retry-After": str(int(PAUSE.total_seconds()))},
        )


@dataclass(slots=True)
class _Known:
    keys: dict[str, Jwk] = field(default_factory=dict)
    fetched_at: dt.datetime | None = None
    tried_at: dt.datetime | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Who comes while it is being fetched waits for that answer."""

    def is_wanted(self, kid: str, now: dt.datetime) -> bool:
        if self.tried_at is not None and now - self.tried_at < PAUSE:
            return False
        return self.fetched_at is None or now - self.fetched_at >= FRESH or kid not in self.keys

    def is_usable(self, now: dt.datetime) -> bool:
        return self.fetched_at is not None and now - self.fetched_at <= HARD_LIMIT


class KeySets:
    """One per process."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        """``http``: the guarded client (``Outbound.http``)."""
        self._http = http
        self._known: OrderedDict[str, _Known] = OrderedDict()

    async def find(self, url: str, kid: str, now: dt.datetime) -> Jwk | None:
        """The key of this name at the address; ``KeysOutOfReach`` when there is no key set to look
        into.
        """
        known = self._known.setdefault(url, _Known())
        self._known.move_to_end(url)
        if len(self._known) > _MOST:
            self._known.popitem(last=False)
        async with known.lock:
            if known.is_wanted(kid, now):
                await self._refresh(known, url, now)
        if not known.is_usable(now):
            raise KeysOutOfReach
        return known.keys.get(kid)

    async def _refresh(self, known: _Known, url: str, now: dt.datetime) -> None:
        known.tried_at = now
        try:
            known.keys = await self._fetch(url)
            known.fetched_at = now
        except (
            httpx.HTTPError,
            httpx.InvalidURL,
            ConnectorError,
            OSError,
            TimeoutError,
            Problem,
            KeyRefused,
        ) as error:
            log.warning("host_keys_not_fetched", error=type(error).__name__)

    async def _fetch(self, url: str) -> dict[str, Jwk]:
        """``KeyRefused`` for any other answer than a key set; redirects are such an answer."""
        async with asyncio.timeout(SECONDS):
            answer = await self._http.get(url, headers={"accept": "application/json"})
        if answer.status_code != 200 or len(answer.content) > MAX_BYTES:
            raise KeyRefused("This is no key set.")
        return usable(strict_json(answer.content))
