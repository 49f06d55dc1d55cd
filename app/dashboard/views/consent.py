"""Consent: numbers per day and method, the latest records, one record by its id."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.consent import audit_trail, queries
from app.consent.models import ConsentRecord
from app.consent.shown import MODULE
from app.core import bulk
from app.core.db import table_of
from app.dashboard import present
from app.dashboard.views.charts import (
    Share,
    SplitBar,
    StackedBars,
    shares,
    split_bars,
    stacked_bars,
)
from app.dashboard.views.choices import Choice, choice, laws
from app.dashboard.views.paging import SIZE, Pager, Position
from app.security.sessions import Operator
from app.sites.config import LANGUAGE_TAG
from app.sites.directory import Notice, notice_of
from app.sites.languages import direction, shipped
from app.sites.models import NoticeVersion, Site

SERIES = ("Accepted all", "Own selection", "Refused", "Signal or other")
"""As people read ``queries.ANSWERS``."""
PERIODS = {"14": "14 days", "30": "30 days", "90": "90 days"}
FILTERS = ("site", "days", "regime", "method", "language", "notice_version")


@dataclass(frozen=True, slots=True)
class RecordRow:
    """``region`` and ``page`` are empty where the record does not have them."""

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
    region: str
    page: str
    is_gpc_applied: bool
    visitor: str


@dataclass(frozen=True, slots=True)
class PurposeShown:
    name: str
    description: str
    answer: str


@dataclass(frozen=True, slots=True)
class NoticeShown:
    """What was on the screen, in the visitor's language (``language``, ``direction``: of the HTML
    attributes). ``caveat`` says where it was not this banner; ``href`` is empty once the site is
    gone.
    """

    number: int
    sha256: str
    href: str
    receipt: str
    asked: str
    language: str
    direction: str
    title: str
    body: str
    buttons: list[str]
    purposes: list[PurposeShown]
    controller: str
    policy_url: str
    caveat: str


@dataclass(frozen=True, slots=True)
class Part:
    """One kind of answer, and its share of all answers of the row."""

    name: str
    count: int
    percent: int


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """``href``: where only what is counted here is shown. ``shown`` is None where nobody counts how
    often the banner is shown."""

    name: str
    href: str
    shown: int | None
    parts: list[Part]
    bar: SplitBar


@dataclass(frozen=True, slots=True)
class AnswerTable:
    title: str
    rows: list[AnswerRow]


@dataclass(frozen=True, slots=True)
class Uncounted:
    """A site that does not count how often its banner is shown, and what is left to do for it."""

    name: str
    href: str
    is_in_draft: bool


@dataclass(frozen=True, slots=True)
class ConsentPage:
    """All of it is under one filter. ``zone``: where its days begin."""

    chart: StackedBars
    answers: list[AnswerTable]
    has_shown: bool
    uncounted: list[Uncounted]
    shares: list[Share]
    total: int
    period: str
    series: tuple[str, ...]
    rows: list[RecordRow]
    pager: Pager
    choices: list[Choice]
    is_filtered: bool
    looked_up: str
    found: RecordRow | None
    notice: NoticeShown | None
    here: str
    zone: str


def days_back(now: dt.datetime, count: int, zone: dt.tzinfo) -> list[dt.date]:
    """The last ``count`` days in ``zone``, today included, oldest first."""
    today = now.astimezone(zone).date()
    return [today - dt.timedelta(days=back) for back in range(count - 1, -1, -1)]


_DELETED = "a deleted site"


async def choices(
    session: AsyncSession, sites: Mapping[str, str], asked: Mapping[str, str]
) -> list[Choice]:
    """The filter, by the names that a record's members have in the API. ``sites``: the workspace's,
    by ``sites.names``.
    """
    site, version = asked.get("site", ""), asked.get("notice_version", "")
    offered = col(NoticeVersion.site_id) == site  # those of all sites would be too many
    versions = await _version_names(session, offered | (col(NoticeVersion.id) == version), sites)
    every = "Any version" if site or version else "Any (by site)"
    return [
        choice(asked, "site", "Site", {"": "All sites", **sites}),
        choice(asked, "days", "Period", PERIODS, "30"),
        choice(asked, "regime", "Law", laws()),
        choice(asked, "method", "Method", {"": "Any method", **present.METHOD}),
        choice(asked, "language", "Language", _languages(asked)),
        choice(asked, "notice_version", "Version", {"": every, **versions}),
    ]


def _languages(asked: Mapping[str, str]) -> dict[str, str]:
    """Those that are shipped, and the one that is asked for: a site may have written its own."""
    tag = asked.get("language", "")
    own = [tag] if re.fullmatch(LANGUAGE_TAG, tag) else []
    return {"": "Any language"} | {each: _language(each) for each in (*shipped(), *own)}


def wanted_of(operator: Operator, filters: Mapping[str, str], now: dt.datetime) -> queries.Filter:
    """The records of the last days in the workspace's zone: what else is filtered by no index is
    looked for among these alone.
    """
    zone = present.zone(operator.workspace.timezone)
    first = days_back(now, int(filters["days"]), zone)[0]
    return queries.Filter(
        operator.workspace_id,
        filters["site"] or None,
        dt.datetime.combine(first, dt.time(), zone),
        regime=filters["regime"] or None,
        method=filters["method"] or None,
        language=filters["language"] or None,
        notice_version=filters["notice_version"] or None,
    )


async def consent_page(
    session: AsyncSession,
    operator: Operator,
    position: Position,
    sites: dict[str, str],
    choices: list[Choice],
    now: dt.datetime,
    looked_up: str = "",
) -> ConsentPage:
    wanted = wanted_of(operator, position.filters, now)
    zone = present.zone(operator.workspace.timezone)
    days = days_back(now, int(position.filters["days"]), zone)
    per_day: dict[dt.date, list[int]] = {}
    totals = dict.fromkeys(SERIES, 0)
    for each in await queries.daily_counts(session, wanted, zone):
        series = queries.ANSWERS.index(each.answer)
        per_day.setdefault(each.day, [0] * len(SERIES))[series] += each.count
        totals[SERIES[series]] += each.count
    answers = await _answers(session, wanted, position, sites)
    rows, pager = await _records(session, wanted, position, sites)
    record = await _lookup(session, operator.workspace_id, looked_up)
    version = await session.get(NoticeVersion, record.notice_version_id) if record else None
    return ConsentPage(
        chart=stacked_bars(days, per_day, SERIES),
        answers=answers,
        has_shown=any(row.shown is not None for table in answers for row in table.rows),
        uncounted=await _uncounted(session, wanted, sites),
        shares=shares(totals, SERIES),
        total=sum(totals.values()),
        period=PERIODS[position.filters["days"]],
        series=SERIES,
        rows=rows,
        pager=pager,
        choices=choices,
        is_filtered=any(each for name, each in position.filters.items() if name != "days"),
        looked_up=looked_up,
        found=_row(record, sites) if record else None,
        notice=await _notice(session, record, version) if record and version else None,
        here=position.here,
        zone=str(zone),
    )


_ASKED = {
    "opt_in": "asked first",
    "opt_out": "could object",
    "notice": "only told",
}
_ELSEWHERE = {
    "api": "A server recorded this choice. Where it was asked, this banner need not have been.",
    "migrated": "Taken over from another consent manager: it asked in its own words, not in these.",
    "gpc": "Nobody was asked: the browser's signal decided, and this said so.",
}


async def _notice(
    session: AsyncSession, record: ConsentRecord, version: NoticeVersion
) -> NoticeShown:
    site = await session.get(Site, version.site_id)
    is_gone = site is None or site.deleted_at is not None
    notice = notice_of(version)
    shown = audit_trail.shown(record, notice, version)
    texts, mode = shown["texts"], shown["mode"]
    title, body, buttons = _banner(record, notice, texts, mode)
    return NoticeShown(
        number=version.number,
        sha256=version.sha256,
        href="" if is_gone else f"/dashboard/sites/{version.site_id}/versions/{version.number}",
        receipt=f"/v1/receipts/{record.id}",
        asked=_ASKED[mode],
        language=record.language,
        direction=direction(record.language),
        title=title,
        body=body,
        buttons=buttons,
        purposes=[
            PurposeShown(each["name"], each["description"], _answer(record, each))
            for each in shown["purposes"]
        ],
        controller=shown["controller"]["name"],
        policy_url=shown["policy_url"],
        caveat=_ELSEWHERE.get(record.method) or _clock(record, version),
    )


def _clock(record: ConsentRecord, version: NoticeVersion) -> str:
    """A device says itself when it was chosen on it; what cannot be is said, not mended."""
    if record.decided_at >= version.published_at:
        return ""
    return (
        "The device's clock was slow: by it, this was decided before the notice was published. "
        "When it was recorded is by the service's own clock."
    )


def _banner(
    record: ConsentRecord, notice: Notice, texts: dict[str, str], mode: str
) -> tuple[str, str, list[str]]:
    """Title, body and buttons, as the widget puts them (consent_widget/src/view.ts)."""
    if record.method == "gpc":
        return texts["title"], texts["gpc_notice"], [texts["close"], texts["manage"]]
    refuse = [texts[each] for each in ("reject", "do_not_sell") if each in texts]
    if not notice.content["regimes"].get(record.regime, {}).get("shown", True):
        buttons = [*refuse, texts["accept"], texts["save"]]
        return texts["dialog_title"], texts["dialog_body"], buttons
    if mode == "notice":
        answers = [texts.get("understood", texts["close"])]
    else:
        answers = [*refuse, texts["accept"]]
    return texts["title"], texts["body"], [*answers, texts["manage"]]


def _answer(record: ConsentRecord, purpose: Mapping[str, Any]) -> str:
    if purpose["required"]:
        return "always on"
    if purpose["id"] not in record.choices:
        return "left on"  # by who decided on others, where the law does not ask first
    if not record.choices[purpose["id"]]:
        return "denied"
    return "left on" if record.method in {"dismissed", "gpc"} else "granted"


async def _answers(
    session: AsyncSession, wanted: queries.Filter, position: Position, sites: dict[str, str]
) -> list[AnswerTable]:
    """By law, language and version; by site, too, where several have something to tell."""
    found = await queries.groups(session, wanted)
    of = bulk.among(table_of(NoticeVersion).c.id, {each.version for each in found})
    versions = await _version_names(session, of, sites)
    tables: dict[queries.By, tuple[str, str, Callable[[str], str]]] = {
        "site": ("site", "Site", lambda key: sites.get(key, _DELETED)),
        "regime": ("regime", "Law", present.regime),
        "language": ("language", "Language", _language),
        "version": ("notice_version", "Version", lambda key: versions.get(key, key)),
    }
    if len({each.site for each in found}) < 2:
        del tables["site"]
    return [
        AnswerTable(title, _answer_rows(name, position, parameter, queries.answers(found, by)))
        for by, (parameter, title, name) in tables.items()
        if found
    ]


def _answer_rows(
    name: Callable[[str], str], position: Position, parameter: str, found: list[queries.Answers]
) -> list[AnswerRow]:
    counts = [[getattr(each, answer) for answer in queries.ANSWERS] for each in found]
    bars = split_bars([(each.shown, said) for each, said in zip(found, counts, strict=True)])
    return [
        AnswerRow(
            name(each.key),
            position.narrowed(parameter, each.key),
            each.shown,
            _parts(said),
            bar,
        )
        for each, said, bar in zip(found, counts, bars, strict=True)
    ]


def _parts(said: list[int]) -> list[Part]:
    total = sum(said) or 1
    return [Part(of, n, round(100 * n / total)) for of, n in zip(SERIES, said, strict=True)]


async def _uncounted(
    session: AsyncSession, wanted: queries.Filter, sites: dict[str, str]
) -> list[Uncounted]:
    """The sites on the air without the module that counts."""
    live = col(NoticeVersion.content)["modules"]
    rows = await session.execute(
        sa.select(col(Site.id), col(Site.draft)["modules"], live)
        .join(NoticeVersion, col(NoticeVersion.id) == col(Site.published_version_id))
        .where(
            col(Site.workspace_id) == wanted.workspace_id,
            col(Site.deleted_at).is_(None),
            *([col(Site.id) == wanted.site_id] if wanted.site_id else []),
        )
        .order_by(col(Site.name))
    )
    return [
        Uncounted(sites[each], f"/dashboard/sites/{each}#parts", MODULE in (drafted or ()))
        for each, drafted, published in rows
        if each in sites and MODULE not in (published or ())
    ]


def _language(tag: str) -> str:
    return str(shipped().get(tag, {}).get("name", tag))


async def _version_names(
    session: AsyncSession, which: sa.ColumnElement[bool], sites: Mapping[str, str]
) -> dict[str, str]:
    """Of these sites by id, newest first: ``3``; of one site among several, ``Shop, 3``."""
    rows = await session.execute(
        sa.select(col(NoticeVersion.id), col(NoticeVersion.site_id), col(NoticeVersion.number))
        .where(which)
        .order_by(col(NoticeVersion.number).desc(), col(NoticeVersion.id))
    )
    has_several = len(sites) > 1
    return {
        version: f"{sites[site]}, {number}" if has_several else str(number)
        for version, site, number in rows
        if site in sites
    }


async def _records(
    session: AsyncSession,
    wanted: queries.Filter,
    position: Position,
    sites: dict[str, str],
) -> tuple[list[RecordRow], Pager]:
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
        site=sites.get(record.site_id, _DELETED),
        method=present.METHOD.get(record.method, present.words(record.method)),
        granted=sorted(name for name, is_granted in record.choices.items() if is_granted),
        denied=sorted(name for name, is_granted in record.choices.items() if not is_granted),
        regime=present.regime(record.regime),
        language=record.language,
        region=record.region or "",
        page=record.page or "",
        is_gpc_applied=record.is_gpc_applied,
        visitor=f"{record.visitor_id[:4]}•••{record.visitor_id[-4:]}",
    )
