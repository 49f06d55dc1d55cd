"""Reading consent records back: a visitor's state, lists, counts for the dashboard, exports."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased
from sqlalchemy.sql.selectable import TextualSelect
from sqlmodel import col

from app.consent.models import ConsentRecord, ConsentView
from app.consent.state import denials, deny_wins, refused_since
from app.core import bulk
from app.core.clock import rfc3339
from app.core.db import Moment, is_postgresql, table_of
from app.core.errors import NotFound
from app.destinations.models import Destination
from app.sites import regimes
from app.sites.directory import Notice
from app.sites.models import NoticeVersion, Site

_QUARTER = 15 * 60 * 1_000_000  # microseconds: every zone is whole quarters of an hour off UTC
_RECORD = table_of(ConsentRecord)

Answer = Literal["accepted", "partial", "rejected", "other"]
ANSWERS: tuple[Answer, ...] = get_args(Answer)
By = Literal["regime", "language", "version", "site"]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which records; ``since`` is included, ``until`` is not, both by ``recorded_at``."""

    workspace_id: str
    site_id: str | None = None
    since: dt.datetime | None = None
    until: dt.datetime | None = None
    purpose: str | None = None
    regime: str | None = None
    method: str | None = None
    language: str | None = None
    notice_version: str | None = None


@dataclass(frozen=True, slots=True)
class DayCount:
    """How many records with one answer one site got on one day."""

    day: dt.date
    site_id: str
    answer: Answer
    count: int


@dataclass(frozen=True, slots=True)
class CurrentState:
    """What holds for a visitor: the newest record, with the denials of any other of the same
    moment."""

    record: ConsentRecord
    choices: dict[str, bool]

    def has_lapsed(
        self, answered: Notice | None, published: Notice | None, now: dt.datetime
    ) -> bool:
        """Whether what is granted no longer is. ``answered``: the notice that was shown."""
        asked = [each and each.material for each in (answered, published)]
        return asked[0] != asked[1] or self.record.expires_at <= now

    def told(self, published: Notice, *, is_lapsed: bool) -> dict[str, bool]:
        """What a page may act on; of what is ``is_lapsed`` the denials alone."""
        holding = denials(self.choices) if is_lapsed else self.choices
        if self.record.notice_version_id == published.id:
            return holding
        asked = published.choices | published.required
        return holding | refused_since(self.choices, asked, published.denied_by_gpc)

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
    session: AsyncSession, visitors: Collection[tuple[str, str]], which: str, *, most: int = 1
) -> Sequence[ConsentRecord]:
    """The newest records (``most`` of them) of each of these visitors among those that ``which``
    holds for, as an index says it (``models.IS_CHOICE``); more where they were decided at once.
    """
    statement = newest_of(
        tuple(_RECORD.c.keys()), which, most, on_postgresql=is_postgresql(session)
    )
    rows = await session.execute(
        sa.select(ConsentRecord).from_statement(statement), _asked(visitors)
    )
    return rows.scalars().all()


def _asked(visitors: Collection[tuple[str, str]]) -> dict[str, str]:
    return bulk.document(
        [{"site_id": site_id, "visitor_id": each} for site_id, each in sorted(visitors)]
    )


@cache
def newest_of(
    names: tuple[str, ...], which: str, most: int = 1, *, on_postgresql: bool
) -> TextualSelect:
    """What it costs does not depend on how often a visitor has chosen."""
    given = bulk.given_rows(_RECORD, ("site_id", "visitor_id"), on_postgresql=on_postgresql)
    columns = ", ".join(f"record.{name}" for name in names)
    return sa.text(
        f"""
        WITH newest AS MATERIALIZED (
          SELECT given.site_id, given.visitor_id, (
            SELECT MIN(latest.decided_at) FROM (
              SELECT one.decided_at FROM consent_record AS one
              WHERE one.site_id = given.site_id AND one.visitor_id = given.visitor_id AND {which}
              ORDER BY one.decided_at DESC LIMIT {most}
            ) AS latest
          ) AS decided_at FROM {given}
        )
        SELECT {columns}
        FROM newest CROSS JOIN consent_record AS record
        WHERE record.site_id = newest.site_id AND record.visitor_id = newest.visitor_id
          AND record.decided_at >= newest.decided_at AND {which}
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


async def pages(
    session: AsyncSession, wanted: Filter, page: int = 1000
) -> AsyncIterator[list[tuple[ConsentRecord, str]]]:
    """All matching records with their site keys, newest first, read a page at a time."""
    after = None
    while True:
        found = await records(session, wanted, limit=page, after=after)
        yield found
        if len(found) < page:
            return
        after = position(found[-1][0])
        session.expunge_all()


async def export(
    session: AsyncSession, wanted: Filter, page: int = 1000
) -> AsyncIterator[dict[str, Any]]:
    """All matching records as JSON objects, newest first."""
    async for found in pages(session, wanted, page):
        for record, site_key in found:
            yield record_json(record, site_key)


async def get(
    session: AsyncSession, workspace_id: str, consent_id: str
) -> tuple[ConsentRecord, Site, NoticeVersion]:
    """A record with its site and the notice version it names; ``NotFound``."""
    found = await session.execute(
        sa.select(ConsentRecord, Site, NoticeVersion)
        .join(Site, col(Site.id) == col(ConsentRecord.site_id))
        .join(NoticeVersion, col(NoticeVersion.id) == col(ConsentRecord.notice_version_id))
        .where(col(ConsentRecord.id) == consent_id, col(ConsentRecord.workspace_id) == workspace_id)
    )
    row = found.one_or_none()
    if row is None:
        raise NotFound("There is no consent record with this id.")
    return row[0], row[1], row[2]


async def previous(
    session: AsyncSession, records: Sequence[ConsentRecord]
) -> dict[str, ConsentRecord]:
    """By the id of each of these records, the same visitor's choice before it."""
    earlier = aliased(ConsentRecord)
    before = (
        sa.select(col(earlier.id))
        .where(
            col(earlier.site_id) == col(ConsentRecord.site_id),
            col(earlier.visitor_id) == col(ConsentRecord.visitor_id),
            col(earlier.decided_at) < col(ConsentRecord.decided_at),
        )
        .order_by(col(earlier.decided_at).desc(), col(earlier.id).desc())
        .limit(1)
        .correlate(ConsentRecord)
        .scalar_subquery()
    )
    ids = [each.id for each in records]
    rows = await session.execute(
        sa.select(col(ConsentRecord.id), before).where(col(ConsentRecord.id).in_(ids))
    )
    found = {record_id: before_id for record_id, before_id in rows if before_id is not None}
    named = await session.execute(
        sa.select(ConsentRecord).where(col(ConsentRecord.id).in_(set(found.values())))
    )
    by_id = {each.id: each for each in named.scalars()}
    return {record_id: by_id[before_id] for record_id, before_id in found.items()}


async def destinations(session: AsyncSession, workspace_id: str) -> list[Destination]:
    """Those that are in use today, oldest first."""
    rows = await session.execute(
        sa.select(Destination)
        .where(
            col(Destination.workspace_id) == workspace_id,
            col(Destination.deleted_at).is_(None),
            col(Destination.is_enabled),
        )
        .order_by(col(Destination.created_at), col(Destination.id))
    )
    return list(rows.scalars())


async def daily_counts(
    session: AsyncSession, wanted: Filter, zone: dt.tzinfo = dt.UTC
) -> list[DayCount]:
    """Records per day of ``zone``, site and answer, oldest day first; days without records are left
    out.
    """
    recorded_at = col(ConsentRecord.recorded_at)
    at: Any
    if is_postgresql(session):
        at = sa.cast(sa.func.timezone(str(zone), recorded_at), sa.Date)
    else:
        at = sa.cast(sa.type_coerce(recorded_at, sa.BigInteger).op("/")(_QUARTER), sa.Integer)
    sums: dict[tuple[dt.date, str, Answer], int] = {}
    for (found, site), answer, count in await _answered(
        session, wanted, at.label("at"), col(ConsentRecord.site_id)
    ):
        key = (_date(found, zone), site, answer)
        sums[key] = sums.get(key, 0) + count
    return [DayCount(*key, sums[key]) for key in sorted(sums)]


async def daily_totals(
    session: AsyncSession, workspace_id: str, days: Sequence[dt.date], zone: dt.tzinfo = dt.UTC
) -> list[int]:
    """Records of all sites on each of these days of ``zone``: a range of one index for each."""
    starts = [dt.datetime.combine(each, dt.time(), zone) for each in days]
    wanted = [Filter(workspace_id, None, each, each + dt.timedelta(days=1)) for each in starts]
    counts = [
        sa.select(sa.func.count()).where(*_conditions(session, each)).scalar_subquery()
        for each in wanted
    ]
    return list((await session.execute(sa.select(*counts))).one())


_ANSWER_OF: dict[str, Answer] = {
    "accept_all": "accepted",
    "reject_all": "rejected",
    "withdrawal": "rejected",
}
_BY_CHOICES: dict[str, Answer] = {"all": "accepted", "some": "partial", "none": "rejected"}


def answer_of(method: str, granted: str | None, mode: str) -> Answer:
    """What a record says. ``granted``: whether an own selection grants ``all``, ``some`` or
    ``none``; ``mode``: how the visitor was asked.

    Closing the banner refuses where the law asks first. Elsewhere it answers nothing: what ran goes
    on. What is not named came by a signal, from elsewhere or from a server.
    """
    if method == "custom":
        return _BY_CHOICES[granted or "some"]
    if method == "dismissed" and mode == "opt_in":
        return "rejected"
    return _ANSWER_OF.get(method, "other")


def _selection(session: AsyncSession) -> tuple[Any, Any]:
    """Of own selections only: ``all``, ``some`` or ``none`` of their purposes are granted, and how
    many these are. The choices are searched as text: no purpose's id holds a colon.
    """
    choices = col(ConsentRecord.choices)
    text: Any
    if is_postgresql(session):
        text, place, mark = sa.cast(choices, sa.Text), sa.func.strpos, ": "
    else:
        text, place, mark = sa.type_coerce(choices, sa.String), sa.func.instr, ":"
    is_other = (col(ConsentRecord.method) != "custom", sa.null())
    granted = sa.case(
        is_other,
        (place(text, f"{mark}false") == 0, "all"),
        (place(text, f"{mark}true") == 0, "none"),
        else_="some",
    )
    colons = sa.func.length(text) - sa.func.length(sa.func.replace(text, ":", ""))
    return granted, sa.case(is_other, else_=colons)


async def _answered(
    session: AsyncSession, wanted: Filter, *columns: Any
) -> list[tuple[tuple[Any, ...], Answer, int]]:
    """Records counted by these columns and by answer; the same key may come several times."""
    law = (col(ConsentRecord.notice_version_id), col(ConsentRecord.regime))
    granted, decided = _selection(session)
    said = (col(ConsentRecord.method), granted.label("granted"), decided.label("decided"))
    grouped = [
        sa.literal_column(each.name) if isinstance(each, sa.Label) else each
        for each in (*columns, *law, *said)
    ]
    rows = await session.execute(
        sa.select(*columns, *law, *said, sa.func.count())
        .where(*_conditions(session, wanted))
        .group_by(*grouped)
    )
    found = [(tuple(row[:-6]), *row[-6:]) for row in rows]
    looked_up = {each[1] for each in found if each[3] in {"custom", "dismissed"}}
    asked = await _asked_by(session, looked_up)
    answered = []
    for key, version, regime, method, selected, decided_on, count in found:
        modes, optional = asked.get(version, ({}, 0))
        is_partial = selected == "all" and decided_on < optional
        answer = answer_of(method, "some" if is_partial else selected, modes.get(regime, "opt_in"))
        answered.append((key, answer, count))
    return answered


async def _asked_by(
    session: AsyncSession, versions: Collection[str]
) -> dict[str, tuple[dict[str, str], int]]:
    """How notice versions asked under each of their laws, and about how many purposes."""
    if not versions:
        return {}
    content = col(NoticeVersion.content)
    rows = await session.execute(
        sa.select(col(NoticeVersion.id), content["regimes"], content["purposes"]).where(
            bulk.among(table_of(NoticeVersion).c.id, versions)
        )
    )
    return {
        version: (
            {law: said["mode"] for law, said in laws.items()},
            sum(not each["required"] for each in purposes),
        )
        for version, laws, purposes in rows
    }


@dataclass(frozen=True, slots=True)
class Group:
    """Records with one answer, or displays of the banner (``shown``), of one site, under one law,
    in one language, of one notice version; sites and versions by their ids.
    """

    site: str
    regime: str
    language: str
    version: str
    kind: Answer | Literal["shown"]
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
    counts as a whole. They have no ``method``, so that none is told beside one."""
    chosen, shown = (
        (col(each.site_id), col(each.regime), col(each.language), col(each.notice_version_id))
        for each in (ConsentRecord, ConsentView)
    )
    counted = (
        sa.select(*shown, sa.func.sum(col(ConsentView.count)))
        .where(*_views(wanted))
        .group_by(*shown)
    )
    displays = [] if wanted.method else (await session.execute(counted)).all()
    answered = await _answered(session, wanted, *chosen)
    return [
        Group(site, law, tag, version, answer, count)
        for (site, law, tag, version), answer, count in answered
    ] + [
        Group(site, law, tag, version, "shown", int(count))
        for site, law, tag, version, count in displays
    ]


def answers(found: Iterable[Group], by: By) -> list[Answers]:
    """The groups summed up by one of their members, the most answered first."""
    sums: dict[str, dict[str, int]] = {}
    for each in found:
        sum_of = sums.setdefault(getattr(each, by), {})
        sum_of[each.kind] = sum_of.get(each.kind, 0) + each.count
    rows = [
        Answers(key, said.get("shown"), *(said.get(kind, 0) for kind in ANSWERS))
        for key, said in sums.items()
    ]
    return sorted(rows, key=lambda row: (-row.total, -(row.shown or 0), row.key))


async def site_keys(session: AsyncSession, site_ids: Collection[str]) -> dict[str, str]:
    rows = await session.execute(
        sa.select(col(Site.id), col(Site.site_key)).where(bulk.among(table_of(Site).c.id, site_ids))
    )
    return dict(rows.all())


def _same(model: type[ConsentRecord | ConsentView], wanted: Filter) -> list[Any]:
    """What records and displays share."""
    pairs = (
        (col(model.workspace_id), wanted.workspace_id),
        (col(model.site_id), wanted.site_id),
        (col(model.regime), wanted.regime),
        (col(model.language), wanted.language),
        (col(model.notice_version_id), wanted.notice_version),
    )
    return [column == value for column, value in pairs if value is not None]


def _views(wanted: Filter) -> list[Any]:
    found = _same(ConsentView, wanted)
    if wanted.since is not None:
        found.append(col(ConsentView.day) >= wanted.since.astimezone(dt.UTC).date())
    if wanted.until is not None:
        last = wanted.until.astimezone(dt.UTC) - dt.timedelta(microseconds=1)
        found.append(col(ConsentView.day) <= last.date())
    return found


def _date(found: dt.date | int, zone: dt.tzinfo) -> dt.date:
    """The day itself, or that of so many quarters of an hour since 1970."""
    if isinstance(found, dt.date):
        return found
    return dt.datetime.fromtimestamp(found * 900, zone).date()


def _conditions(session: AsyncSession, wanted: Filter) -> list[Any]:
    found = _same(ConsentRecord, wanted)
    if wanted.method is not None:
        found.append(col(ConsentRecord.method) == wanted.method)
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
