"""Consent: numbers per day and method, the latest records, one record by its id."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.consent import queries
from app.consent.models import ConsentRecord
from app.dashboard import present
from app.dashboard.views.charts import Share, StackedBars, shares, stacked_bars
from app.dashboard.views.paging import SIZE, Pager, Position
from app.dashboard.views.requests import Option, options
from app.security.sessions import Operator
from app.sites.languages import shipped
from app.sites.models import NoticeVersion, Site

SERIES = ("Accepted all", "Own selection", "Refused", "Signal or other")
"""As people read ``queries.ANSWERS``."""
PERIODS = {"14": "14 days", "30": "30 days", "90": "90 days"}


@dataclass(frozen=True, slots=True)
class RecordRow:
    id: str
    recorded_at: dt.datetime
    decided_at: dt.datetime
    expires_at: dt.datetime
    site: str
    method: str
    granted: list[str]
    denied: list[str]
    regime: str
    language: str
    is_gpc_applied: bool
    visitor: str


@dataclass(frozen=True, slots=True)
class Part:
    """One kind of answer, and its share of all answers of the row."""

    name: str
    count: int
    percent: int


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """``shown`` is None where nobody counts how often the banner is shown."""

    name: str
    shown: int | None
    parts: list[Part]


@dataclass(frozen=True, slots=True)
class AnswerTable:
    title: str
    rows: list[AnswerRow]


@dataclass(frozen=True, slots=True)
class ConsentPage:
    chart: StackedBars
    answers: list[AnswerTable]
    shares: list[Share]
    total: int
    period: str
    series: tuple[str, ...]
    rows: list[RecordRow]
    pager: Pager
    sites: list[Option]
    periods: list[Option]
    looked_up: str
    found: RecordRow | None
    notice_number: int | None
    notice_hash: str


def days_back(now: dt.datetime, count: int) -> list[dt.date]:
    """The last ``count`` days in UTC, today included, oldest first."""
    today = now.astimezone(dt.UTC).date()
    return [today - dt.timedelta(days=back) for back in range(count - 1, -1, -1)]


async def daily_counts(
    session: AsyncSession, workspace_id: str, site_id: str | None, since: dt.date
) -> dict[tuple[dt.date, str], int]:
    """Records per UTC day and method, over all sites or one."""
    start = dt.datetime.combine(since, dt.time(), dt.UTC)
    found: dict[tuple[dt.date, str], int] = {}
    for each in await queries.daily_counts(session, workspace_id, start, _FAR, site_id):
        found[each.day, each.method] = found.get((each.day, each.method), 0) + each.count
    return found


_FAR = dt.datetime(9000, 1, 1, tzinfo=dt.UTC)


async def consent_page(
    session: AsyncSession,
    operator: Operator,
    position: Position,
    now: dt.datetime,
    looked_up: str = "",
) -> ConsentPage:
    sites = await _sites(session, operator.workspace_id)
    site_id = position.filters["site"] if position.filters["site"] in sites else ""
    days = days_back(now, int(position.filters["days"]))
    counts = await daily_counts(session, operator.workspace_id, site_id or None, days[0])
    per_day: dict[dt.date, list[int]] = {}
    totals = dict.fromkeys(SERIES, 0)
    for (each, method), count in counts.items():
        series = queries.ANSWERS.index(queries.ANSWER_OF.get(method, "other"))
        per_day.setdefault(each, [0] * len(SERIES))[series] += count
        totals[SERIES[series]] += count
    rows, pager = await _records(session, operator.workspace_id, site_id, position, sites)
    record = await _lookup(session, operator.workspace_id, looked_up)
    notice = await session.get(NoticeVersion, record.notice_version_id) if record else None
    return ConsentPage(
        chart=stacked_bars(days, per_day, SERIES),
        answers=await _answers(session, operator.workspace_id, site_id, days[0], sites),
        shares=shares(totals, SERIES),
        total=sum(totals.values()),
        period=PERIODS[position.filters["days"]],
        series=SERIES,
        rows=rows,
        pager=pager,
        sites=options({"": "All sites", **sites}, site_id),
        periods=options(PERIODS, position.filters["days"]),
        looked_up=looked_up,
        found=_row(record, sites) if record else None,
        notice_number=notice.number if notice else None,
        notice_hash=notice.sha256 if notice else "",
    )


async def _answers(
    session: AsyncSession, workspace_id: str, site_id: str, since: dt.date, sites: dict[str, str]
) -> list[AnswerTable]:
    start = dt.datetime.combine(since, dt.time(), dt.UTC)
    found = await queries.groups(session, queries.Filter(workspace_id, site_id or None, start))
    versions = await _version_names(session, {each.version for each in found}, sites)
    names: dict[queries.By, tuple[str, Callable[[str], str]]] = {
        "regime": ("Law", present.regime),
        "language": ("Language", _language),
        "version": ("Version", lambda key: versions.get(key, key)),
    }
    return [
        AnswerTable(
            title, [_answer_row(name(each.key), each) for each in queries.answers(found, by)]
        )
        for by, (title, name) in names.items()
        if found
    ]


def _answer_row(name: str, said: queries.Answers) -> AnswerRow:
    counts = zip(SERIES, (getattr(said, each) for each in queries.ANSWERS), strict=True)
    total = said.total or 1
    return AnswerRow(name, said.shown, [Part(of, n, round(100 * n / total)) for of, n in counts])


def _language(tag: str) -> str:
    return str(shipped().get(tag, {}).get("name", tag))


async def _version_names(
    session: AsyncSession, ids: set[str], sites: dict[str, str]
) -> dict[str, str]:
    """``3``; where several sites are shown, ``Shop, 3``."""
    rows = await session.execute(
        sa.select(
            col(NoticeVersion.id), col(NoticeVersion.site_id), col(NoticeVersion.number)
        ).where(col(NoticeVersion.id).in_(ids))
    )
    found = rows.all()
    has_several = len({site for _, site, _ in found}) > 1
    return {
        version: f"{sites.get(site, 'a deleted site')}, {number}" if has_several else str(number)
        for version, site, number in found
    }


async def _sites(session: AsyncSession, workspace_id: str) -> dict[str, str]:
    rows = await session.execute(
        sa.select(col(Site.id), col(Site.name))
        .where(col(Site.workspace_id) == workspace_id)
        .order_by(col(Site.name))
    )
    return dict(rows.all())


async def _records(
    session: AsyncSession,
    workspace_id: str,
    site_id: str,
    position: Position,
    sites: dict[str, str],
) -> tuple[list[RecordRow], Pager]:
    wanted = queries.Filter(workspace_id, site_id or None)
    pairs = await queries.records(session, wanted, limit=SIZE + 1, after=position.after)
    rows = [record for record, _ in pairs]
    last = rows[min(len(rows), SIZE) - 1] if rows else None
    found, pager = position.page(rows, queries.position(last) if last else "")
    return [_row(each, sites) for each in found], pager


async def _lookup(
    session: AsyncSession, workspace_id: str, consent_id: str
) -> ConsentRecord | None:
    record = await session.get(ConsentRecord, consent_id) if consent_id else None
    return record if record and record.workspace_id == workspace_id else None


def _row(record: ConsentRecord, sites: dict[str, str]) -> RecordRow:
    return RecordRow(
        id=record.id,
        recorded_at=record.recorded_at,
        decided_at=record.decided_at,
        expires_at=record.expires_at,
        site=sites.get(record.site_id, "a deleted site"),
        method=present.METHOD.get(record.method, present.words(record.method)),
        granted=sorted(name for name, is_granted in record.choices.items() if is_granted),
        denied=sorted(name for name, is_granted in record.choices.items() if not is_granted),
        regime=present.regime(record.regime),
        language=record.language,
        is_gpc_applied=record.is_gpc_applied,
        visitor=f"{record.visitor_id[:4]}•••{record.visitor_id[-4:]}",
    )
