"""Reading consent records back: a visitor's state, lists, counts for the dashboard, exports."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql.selectable import TextualSelect
from sqlmodel import col

from app.consent.models import ConsentRecord, ConsentView
from app.consent.state import denials, deny_wins
from app.core import bulk
from app.core.clock import rfc3339
from app.core.db import Moment, is_postgresql, table_of
from app.core.errors import NotFound
from app.sites import regimes
from app.sites.directory import Notice
from app.sites.models import NoticeVersion, Site

_DAY_MICROSECONDS = 86_400_000_000
_RECORD = table_of(ConsentRecord)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which records; ``since`` is included, ``until`` is not, both by ``recorded_at``."""

    workspace_id: str
    site_id: str | None = None
    since: dt.datetime | None = None
    until: dt.datetime | None = None
    purpose: str | None = None


@dataclass(frozen=True, slots=True)
class DayCount:
    """How many records one site got on one day (UTC) by one method."""

    day: dt.date
    site_id: str
    method: str
    count: int


@dataclass(frozen=True, slots=True)
class CurrentState:
    """What holds for a visitor: the newest record, with the denials of any other of the same
    moment. ``is_joint``: other devices of the same person have a say in it. ``is_open``: nobody has
    answered yet, so that the visitor is asked.
    """

    record: ConsentRecord
    choices: dict[str, bool]
    is_joint: bool = False
    is_open: bool = False

    def has_lapsed(
        self, answered: Notice | None, published: Notice | None, now: dt.datetime
    ) -> bool:
        """Whether what is granted no longer is. ``answered``: the notice that was shown."""
        asked = [each and each.material for each in (answered, published)]
        return self.is_open or asked[0] != asked[1] or self.record.expires_at <= now

    def is_left_alone(self, now: dt.datetime) -> bool:
        """Whether the law has nobody asked again so soon after a refusal."""
        return bool(denials(self.choices)) and now < left_alone_until(self.record)


def left_alone_until(record: ConsentRecord) -> dt.datetime:
    """When somebody who refused may be asked again, by the law of the record."""
    law = regimes.load().get(record.regime)
    return record.decided_at + (law.left_alone if law else dt.timedelta())


async def current_state(
    session: AsyncSession, site_id: str, visitor_id: str
) -> CurrentState | None:
    mine = (col(ConsentRecord.site_id) == site_id, col(ConsentRecord.visitor_id) == visitor_id)
    newest = sa.select(sa.func.max(col(ConsentRecord.decided_at))).where(*mine).scalar_subquery()
    rows = await session.execute(
        sa.select(ConsentRecord)
        .where(*mine, col(ConsentRecord.decided_at) == newest)
        .order_by(col(ConsentRecord.recorded_at).desc(), col(ConsentRecord.id).desc())
    )
    records = list(rows.scalars())
    if not records:
        return None
    choices = dict(sorted(records[0].choices.items()))
    for each in records[1:]:
        choices = deny_wins(choices, each.choices)
    return CurrentState(records[0], choices)


async def newest_states(
    session: AsyncSession, visitors: Collection[tuple[str, str]]
) -> Sequence[Any]:
    """Site id, visitor id, moment and choices of the newest record of each of these visitors;
    several where they were decided at once.
    """
    names = ("site_id", "visitor_id", "decided_at", "choices")
    statement = newest_of(names, "TRUE", on_postgresql=is_postgresql(session))
    return (await session.execute(statement, _asked(visitors))).all()


async def newest_records(
    session: AsyncSession, visitors: Collection[tuple[str, str]], which: str
) -> Sequence[ConsentRecord]:
    """The newest record of each of these visitors among those that ``which`` holds for, as an index
    says it (``models.IS_CHOICE``); several where they were decided at once.
    """
    statement = newest_of(tuple(_RECORD.c.keys()), which, on_postgresql=is_postgresql(session))
    rows = await session.execute(
        sa.select(ConsentRecord).from_statement(statement), _asked(visitors)
    )
    return rows.scalars().all()


def _asked(visitors: Collection[tuple[str, str]]) -> dict[str, str]:
    return bulk.document(
        [{"site_id": site_id, "visitor_id": each} for site_id, each in sorted(visitors)]
    )


@cache
def newest_of(names: tuple[str, ...], which: str, *, on_postgresql: bool) -> TextualSelect:
    """What it costs does not depend on how often a visitor has chosen."""
    given = bulk.given_rows(_RECORD, ("site_id", "visitor_id"), on_postgresql=on_postgresql)
    columns = ", ".join(f"record.{name}" for name in names)
    return sa.text(
        f"""
        WITH newest AS MATERIALIZED (
          SELECT given.site_id, given.visitor_id, (
            SELECT one.decided_at FROM consent_record AS one
            WHERE one.site_id = given.site_id AND one.visitor_id = given.visitor_id AND {which}
            ORDER BY one.decided_at DESC LIMIT 1
          ) AS decided_at FROM {given}
        )
        SELECT {columns}
        FROM newest CROSS JOIN consent_record AS record
        WHERE record.site_id = newest.site_id AND record.visitor_id = newest.visitor_id
          AND record.decided_at = newest.decided_at AND {which}
        """  # noqa: S608 (names and conditions of ours; what is given travels as ``rows``)
    ).columns(*(_RECORD.c[name] for name in names))


async def records(
    session: AsyncSession, wanted: Filter, *, limit: int = 50, after: str | None = None
) -> list[tuple[ConsentRecord, str]]:
    """Records with their site keys, newest first; ``after`` is the ``position`` of the last one
    seen."""
    query = sa.select(ConsentRecord, col(Site.site_key)).join(
        Site, col(Site.id) == col(ConsentRecord.site_id)
    )
    query = query.where(*_conditions(session, wanted))
    if after is not None:
        recorded_at, _, record_id = after.partition("|")
        query = query.where(
            sa.tuple_(col(ConsentRecord.recorded_at), col(ConsentRecord.id))
            < sa.tuple_(
                sa.literal(dt.datetime.fromisoformat(recorded_at), Moment), sa.literal(record_id)
            )
        )
    order = (col(ConsentRecord.recorded_at).desc(), col(ConsentRecord.id).desc())
    rows = await session.execute(query.order_by(*order).limit(limit))
    return [(record, site_key) for record, site_key in rows]


def position(record: ConsentRecord) -> str:
    """Where a list goes on after this record."""
    return f"{record.recorded_at.isoformat()}|{record.id}"


async def latest(
    session: AsyncSession, workspace_id: str, *, site_id: str | None = None, limit: int = 20
) -> list[tuple[ConsentRecord, str]]:
    """The newest records with their site keys, for the dashboard."""
    return await records(session, Filter(workspace_id, site_id), limit=limit)


async def export(
    session: AsyncSession, wanted: Filter, page: int = 1000
) -> AsyncIterator[dict[str, Any]]:
    """All matching records as JSON objects, newest first, read a page at a time."""
    after = None
    while True:
        found = await records(session, wanted, limit=page, after=after)
        for record, site_key in found:
            yield record_json(record, site_key)
        if len(found) < page:
            return
        after = position(found[-1][0])
        session.expunge_all()


async def get(
    session: AsyncSession, workspace_id: str, consent_id: str
) -> tuple[ConsentRecord, str, NoticeVersion]:
    """A record with its site's key and the notice version it names; ``NotFound``."""
    found = await session.execute(
        sa.select(ConsentRecord, col(Site.site_key), NoticeVersion)
        .join(Site, col(Site.id) == col(ConsentRecord.site_id))
        .join(NoticeVersion, col(NoticeVersion.id) == col(ConsentRecord.notice_version_id))
        .where(col(ConsentRecord.id) == consent_id, col(ConsentRecord.workspace_id) == workspace_id)
    )
    row = found.one_or_none()
    if row is None:
        raise NotFound("There is no consent record with this id.")
    return row[0], row[1], row[2]


async def daily_counts(
    session: AsyncSession,
    workspace_id: str,
    since: dt.datetime,
    until: dt.datetime,
    site_id: str | None = None,
) -> list[DayCount]:
    """Records per day, site and method, oldest day first; days without records are left out."""
    recorded_at = col(ConsentRecord.recorded_at)
    day: Any
    if is_postgresql(session):
        day = sa.cast(sa.func.timezone("UTC", recorded_at), sa.Date)
    else:
        day = sa.cast(
            sa.type_coerce(recorded_at, sa.BigInteger).op("/")(_DAY_MICROSECONDS), sa.Integer
        )
    key = (day.label("day"), col(ConsentRecord.site_id), col(ConsentRecord.method))
    rows = await session.execute(
        sa.select(*key, sa.func.count())
        .where(*_conditions(session, Filter(workspace_id, site_id, since, until)))
        .group_by(sa.literal_column("day"), *key[1:])
        .order_by(sa.literal_column("day"), *key[1:])
    )
    return [DayCount(_date(day), site, method, count) for day, site, method, count in rows]


async def daily_totals(
    session: AsyncSession, workspace_id: str, days: Sequence[dt.date]
) -> list[int]:
    """Records of all sites on each of these days (UTC): a range of one index for each."""
    starts = [dt.datetime.combine(each, dt.time(), dt.UTC) for each in days]
    wanted = [Filter(workspace_id, None, each, each + dt.timedelta(days=1)) for each in starts]
    counts = [
        sa.select(sa.func.count()).where(*_conditions(session, each)).scalar_subquery()
        for each in wanted
    ]
    return list((await session.execute(sa.select(*counts))).one())


ANSWERS = ("accepted", "partial", "rejected", "other")
ANSWER_OF = {
    "accept_all": "accepted",
    "custom": "partial",
    "reject_all": "rejected",
    "withdrawal": "rejected",
    "dismissed": "rejected",
}
"""By method; what is not named is ``other``: nobody answered the banner, or not here."""

By = Literal["regime", "language", "version"]


@dataclass(frozen=True, slots=True)
class Group:
    """Records of one method, or with None displays of the banner, under one law, in one language,
    of one notice version (its id).
    """

    regime: str
    language: str
    version: str
    method: str | None
    count: int


@dataclass(frozen=True, slots=True)
class Answers:
    """How often a banner was shown and what was answered. ``shown`` is None where that was never
    counted."""

    key: str
    shown: int | None
    accepted: int
    partial: int
    rejected: int
    other: int

    @property
    def total(self) -> int:
        return self.accepted + self.partial + self.rejected + self.other


async def groups(session: AsyncSession, wanted: Filter) -> list[Group]:
    """Records and displays. Displays are counted by the UTC day: a day that is only partly wanted
    counts as a whole."""
    shown = (col(ConsentView.regime), col(ConsentView.language), col(ConsentView.notice_version_id))
    chosen = (
        col(ConsentRecord.regime),
        col(ConsentRecord.language),
        col(ConsentRecord.notice_version_id),
        col(ConsentRecord.method),
    )
    records = await session.execute(
        sa.select(*chosen, sa.func.count()).where(*_conditions(session, wanted)).group_by(*chosen)
    )
    displays = await session.execute(
        sa.select(*shown, sa.func.sum(col(ConsentView.count)))
        .where(*_views(wanted))
        .group_by(*shown)
    )
    found = [Group(law, tag, version, method, n) for law, tag, version, method, n in records]
    return found + [Group(law, tag, version, None, int(n)) for law, tag, version, n in displays]


def answers(found: Iterable[Group], by: By) -> list[Answers]:
    """The groups summed up by one of their members, the most answered first."""
    sums: dict[str, dict[str, int]] = {}
    for each in found:
        kind = ANSWER_OF.get(each.method, "other") if each.method else "shown"
        sum_of = sums.setdefault(getattr(each, by), {})
        sum_of[kind] = sum_of.get(kind, 0) + each.count
    rows = [
        Answers(key, said.get("shown"), *(said.get(kind, 0) for kind in ANSWERS))
        for key, said in sums.items()
    ]
    return sorted(rows, key=lambda row: (-row.total, -(row.shown or 0), row.key))


def _views(wanted: Filter) -> list[Any]:
    found: list[Any] = [col(ConsentView.workspace_id) == wanted.workspace_id]
    if wanted.site_id is not None:
        found.append(col(ConsentView.site_id) == wanted.site_id)
    if wanted.since is not None:
        found.append(col(ConsentView.day) >= wanted.since.astimezone(dt.UTC).date())
    if wanted.until is not None:
        last = wanted.until.astimezone(dt.UTC) - dt.timedelta(microseconds=1)
        found.append(col(ConsentView.day) <= last.date())
    return found


def _date(day: dt.date | int) -> dt.date:
    return dt.date(1970, 1, 1) + dt.timedelta(days=day) if isinstance(day, int) else day


def _conditions(session: AsyncSession, wanted: Filter) -> list[Any]:
    found: list[Any] = [col(ConsentRecord.workspace_id) == wanted.workspace_id]
    if wanted.site_id is not None:
        found.append(col(ConsentRecord.site_id) == wanted.site_id)
    if wanted.since is not None:
        found.append(col(ConsentRecord.recorded_at) >= wanted.since)
    if wanted.until is not None:
        found.append(col(ConsentRecord.recorded_at) < wanted.until)
    if wanted.purpose is not None:
        found.append(_names_purpose(session, wanted.purpose))
    return found


def _names_purpose(session: AsyncSession, purpose: str) -> Any:
    """Records whose choices name the purpose."""
    choices = col(ConsentRecord.choices)
    if is_postgresql(session):
        return sa.type_coerce(choices, postgresql.JSONB).has_key(purpose)
    return sa.func.json_type(sa.type_coerce(choices, sa.String), f"$.{json.dumps(purpose)}").is_not(
        None
    )


RECORD_MEMBERS = (
    "consent_id", "site_key", "visitor_id", "event_id", "notice_version", "choices", "method",
    "language", "region", "regime", "gpc", "gpc_applied", "page", "decided_at", "recorded_at",
    "expires_at",
)  # fmt: skip


def record_json(record: ConsentRecord, site_key: str) -> dict[str, Any]:
    """A record as programs and exports see it, with ``RECORD_MEMBERS``."""
    return {
        "consent_id": record.id,
        "site_key": site_key,
        "visitor_id": record.visitor_id,
        "event_id": record.event_id,
        "notice_version": record.notice_version_id,
        "choices": dict(sorted(record.choices.items())),
        "method": record.method,
        "language": record.language,
        "region": record.region,
        "regime": record.regime,
        "gpc": record.gpc,
        "gpc_applied": record.is_gpc_applied,
        "page": record.page,
        "decided_at": rfc3339(record.decided_at),
        "recorded_at": rfc3339(record.recorded_at),
        "expires_at": rfc3339(record.expires_at),
    }
