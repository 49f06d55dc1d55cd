"""How often a banner is shown: a count by day, notice version, language and law, with nothing in it
about the visitor. The widget's module `counts` tells of each page view in which it was."""

from __future__ import annotations

import asyncio
import datetime as dt
import weakref
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import Field

from app.consent.errors import ChoicesDoNotFit, UnknownNotice
from app.consent.models import ConsentView
from app.core.clock import utc_now
from app.core.db import OUTAGES, Database, insert_or_add, table_of
from app.core.errors import Unavailable
from app.core.http import Schema, StrictRoute
from app.core.logging import get_logger
from app.sites import beacons, regimes
from app.sites.directory import Notice, PublishedSite, directory_of

log = get_logger(__name__)

router = APIRouter(route_class=StrictRoute, tags=["public"])

MODULE = "counts"


class ShownIn(Schema):
    """Which banner came into view."""

    notice_version: Annotated[str, Field(min_length=1, max_length=64)]
    language: Annotated[str, Field(min_length=2, max_length=35)]
    regime: Annotated[str, Field(min_length=1, max_length=32)]


@dataclass(frozen=True, slots=True, order=True)
class Display:
    """What is counted together: the key of a ``ConsentView``."""

    site_id: str
    day: dt.date
    notice_version_id: str
    language: str
    regime: str
    workspace_id: str


def display(site: PublishedSite, notice: Notice | None, body: ShownIn, now: dt.datetime) -> Display:
    """Refuses what the site's visitors cannot have been shown, as a choice would be."""
    if notice is None or notice.site_id != site.id:
        raise UnknownNotice
    if body.language not in notice.content["languages"]:
        raise ChoicesDoNotFit("`language` is not one the notice was published in.")
    if not regimes.may_ask(body.regime, notice.content["regimes"]):
        raise ChoicesDoNotFit("`regime` is not one that the notice can have been shown under.")
    return Display(site.id, now.date(), notice.id, body.language, body.regime, site.workspace_id)


@dataclass(slots=True)
class _Batch:
    """``is_stored`` is None until its transaction has ended."""

    counts: Counter[Display] = field(default_factory=Counter)
    is_stored: bool | None = None


class Displays:
    """Counts displays: those that come while one transaction commits share the next, for they all
    meet in a few rows. One per database; see ``displays_of``."""

    def __init__(self, database: Database) -> None:
        self._database = weakref.proxy(database)
        self._turn = asyncio.Lock()
        self._batch = _Batch()

    async def count(self, shown: Display) -> None:
        """Returns once it is stored; 503 when the database is away."""
        batch = self._batch
        batch.counts[shown] += 1
        async with self._turn:
            if batch.is_stored is None:
                if self._batch is batch:
                    self._batch = _Batch()
                batch.is_stored = await self._store(batch.counts)
        if not batch.is_stored:
            raise Unavailable("It was not counted.", headers={"Retry-After": "5"})

    async def _store(self, counts: Counter[Display]) -> bool:
        rows = [asdict(each) | {"count": counts[each]} for each in sorted(counts)]
        try:
            async with self._database.writing() as session:
                await session.execute(insert_or_add(session, table_of(ConsentView)), rows)
        except OUTAGES as error:
            log.warning("displays_not_counted", error=type(error).__name__, count=len(rows))
            return False
        return True


_known: weakref.WeakKeyDictionary[Database, Displays] = weakref.WeakKeyDictionary()


def displays_of(database: Database) -> Displays:
    if (found := _known.get(database)) is None:
        found = _known[database] = Displays(database)
    return found


@router.post("/b/{site_key}/shown", status_code=204, openapi_extra=beacons.described(ShownIn))
async def count_shown(request: Request, site_key: str) -> Response:
    """A banner came into view: sent by the module `counts`, once in a page view, without an id or a
    cookie."""
    database: Database = request.app.state.database

    async def store(site: PublishedSite, body: ShownIn) -> None:
        notice = await directory_of(database).notice(body.notice_version)
        await displays_of(database).count(display(site, notice, body, utc_now()))

    return await beacons.take(request, site_key, MODULE, ShownIn, store)


@router.options("/b/{site_key}/shown", include_in_schema=False)
async def shown_preflight(request: Request, site_key: str) -> Response:
    return await beacons.preflight(request, site_key)
