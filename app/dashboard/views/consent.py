"""Consent: numbers per day and method, the latest records, one record by its id."""

from __future__ import annotations

import datetime as dt
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
from app.sites.models import NoticeVersion, Site

SERIES = ("Accepted all", "Own selection", "Refused", "Signal or other")
_SERIES_OF = {"accept_all": 0, "custom": 1, "reject_all": 2, "withdrawal": 2, "dismissed": 2}
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
class ConsentPage:
    chart: StackedBars
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
        series = _SERIES_OF.get(method, 3)
        per_day.setdefault(each, [0] * len(SERIES))[series] += count
        totals[SERIES[series]] += count
    rows, pager = await _records(session, operator.workspace_id, site_id, position, sites)
    record = await _lookup(session, operator.workspace_id, looked_up)
    notice = await session.get(NoticeVersion, record.notice_version_id) if record else None
    return ConsentPage(
        chart=stacked_bars(days, per_day, SERIES),
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
