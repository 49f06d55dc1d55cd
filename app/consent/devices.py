"""A person's devices: the visitors of a site that are linked to the same ``user_id``, and what was
chosen on any of them.

A visitor linked to several ``user_id`` (only a key can do that) belongs to none of these people
alone: its choices stay its own.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.consent import queries
from app.consent.models import IS_CHOICE, IS_SIGNAL, ConsentRecord, VisitorLink
from app.consent.schemas import Method
from app.consent.state import (
    Choice,
    Decision,
    Signal,
    by_moment,
    denials,
    merge,
    still_denying,
)
from app.core import bulk
from app.core.clock import rfc3339
from app.core.db import Moment, is_postgresql, table_of
from app.identity.models import PersonalValue
from app.sites import regimes
from app.sites.directory import Directory, Notice, PublishedSite, notice_of
from app.sites.models import NoticeVersion
from connectors.contract import Kind

Visitor = tuple[str, str]
"""Site id, visitor id."""

Person = tuple[str, bytes]
"""Workspace id, subject reference of the one ``user_id``."""

OnSite = tuple[str, Person]
"""Site id and a person there."""

_LINK, _VALUE = table_of(VisitorLink), table_of(PersonalValue)
_other = sa.alias(_VALUE, "other")

is_only_user = sa.and_(
    _VALUE.c.kind == Kind.USER_ID,
    ~sa.exists().where(
        _other.c.holder_id == _VALUE.c.holder_id,
        _other.c.kind == Kind.USER_ID,
        _other.c.subject_ref != _VALUE.c.subject_ref,
    ),
)
"""Of a row in ``personal_value``: it is the one ``user_id`` that its holder has."""

_LINKED = (
    sa.select(_LINK.c.site_id, _LINK.c.visitor_id, _VALUE.c.workspace_id, _VALUE.c.subject_ref)
    .join_from(_LINK, _VALUE, _VALUE.c.holder_id == _LINK.c.id)
    .where(is_only_user, _VALUE.c.expires_at > sa.bindparam("now", type_=Moment))
)
_WHO = _LINKED.where(
    bulk.among(_LINK.c.site_id, bulk.named("sites")),
    bulk.among(_LINK.c.visitor_id, bulk.named("visitors")),
)
_WHERE_ELSE = _LINKED.where(
    bulk.among(_VALUE.c.workspace_id, bulk.named("workspaces")),
    _VALUE.c.subject_ref.in_(sa.bindparam("refs", expanding=True)),
)


async def people_of(
    session: AsyncSession, visitors: Collection[Visitor], now: dt.datetime
) -> dict[Visitor, Person]:
    """Who each visitor is; those that are linked to nobody are missing."""
    found = await _linked(session, _WHO, now, **_named(visitors))
    return {visitor: person for visitor, person in found if visitor in visitors}


@dataclass(frozen=True, slots=True)
class Said:
    """A record that counts at destinations: an explicit choice, or with ``signal`` what the opt-out
    signal denied.
    """

    record: ConsentRecord
    signal: Signal | None = None

    @property
    def word(self) -> Decision:
        return self.signal or Decision(self.record.decided_at, self.record.choices)


def words_of(said: Mapping[OnSite, Iterable[Said]]) -> dict[OnSite, list[Decision]]:
    return {on_site: [each.word for each in found] for on_site, found in said.items()}


async def said_by(
    session: AsyncSession, people: Mapping[Visitor, Person], now: dt.datetime
) -> dict[OnSite, list[Said]]:
    """The newest explicit choice and the newest signal on each device of each of the people on the
    visitor's site; where a choice left purposes be, also what was chosen of them before. Whoever
    calls it takes turns with others at these people.
    """
    await take_turns(session, {(site_id, person) for (site_id, _), person in people.items()})
    return await _said_by(session, people, now)


async def _said_by(
    session: AsyncSession, people: Mapping[Visitor, Person], now: dt.datetime
) -> dict[OnSite, list[Said]]:
    devices = await _devices(session, people, now)
    if not devices:
        return {}
    choices = await queries.newest_records(session, devices, IS_CHOICE)
    signals = await queries.newest_records(session, devices, IS_SIGNAL)
    partial = [each for each in choices if each.method == Method.CUSTOM]
    notices = await _notices(session, [*partial, *signals])
    asked = {_device(each): notices[each.notice_version_id].choices for each in partial}
    said: dict[OnSite, list[Said]] = defaultdict(list)
    for each in await _until_all_is_named(session, choices, asked):
        said[devices[_device(each)]].append(Said(each))
    for each in sorted(signals, key=_device):
        refused = notices[each.notice_version_id].denied_by_gpc & denials(each.choices).keys()
        signal = Signal(each.decided_at, dict.fromkeys(sorted(refused), False), each.id)
        said[devices[_device(each)]].append(Said(each, signal))
    return said


_BACK = 100
"""Choices of one device that are looked at. A page names again what was chosen on it before, unless
that has lapsed: then as many partial ones in a row hide what is older.
"""


async def _until_all_is_named(
    session: AsyncSession,
    newest: Sequence[ConsentRecord],
    asked: Mapping[Visitor, Collection[str]],
) -> list[ConsentRecord]:
    """The newest choice of each device; where it left purposes be that were ``asked`` about, those
    before it as well, back to where all are named.
    """
    named = _by_device(newest)
    open_ = {each for each in asked if not _names(named[each]).issuperset(asked[each])}
    if open_:
        earlier = await queries.newest_records(session, open_, IS_CHOICE, most=_BACK)
        for device, records in _by_device(earlier).items():
            named[device] = []
            for made in by_moment(records)[::-1]:
                if _names(named[device]).issuperset(asked[device]):
                    break
                named[device] += made
    return [each for device in sorted(named) for each in named[device]]


def _device(record: ConsentRecord) -> Visitor:
    return record.site_id, record.visitor_id


def _by_device(records: Iterable[ConsentRecord]) -> dict[Visitor, list[ConsentRecord]]:
    found: dict[Visitor, list[ConsentRecord]] = defaultdict(list)
    for each in records:
        found[_device(each)].append(each)
    return found


def _names(records: Iterable[ConsentRecord]) -> set[str]:
    return {purpose for each in records for purpose in each.choices}


async def _notices(session: AsyncSession, records: Sequence[ConsentRecord]) -> dict[str, Notice]:
    """The notice versions that the records name."""
    ids = {each.notice_version_id for each in records}
    if not ids:
        return {}
    rows = await session.execute(
        sa.select(NoticeVersion).where(col(NoticeVersion.id).in_(sorted(ids)))
    )
    return {each.id: notice_of(each) for each in rows.scalars()}


async def take_turns(session: AsyncSession, whose: Collection[Visitor | OnSite]) -> None:
    """Two processes take turns at one visitor and at one person, so that each sees what the other's
    record granted. Visitors come first everywhere, so that nobody waits in a circle.
    """
    if whose and is_postgresql(session):
        await session.execute(_LOCK, {"keys": sorted(map(_lock_key, whose))})


_LOCK = sa.text("SELECT pg_advisory_xact_lock(key) FROM unnest(cast(:keys as bigint[])) AS key")


def _lock_key(whose: Visitor | OnSite) -> int:
    return int.from_bytes(
        hashlib.blake2b(repr(whose).encode(), digest_size=8).digest(), "big", signed=True
    )


async def _devices(
    session: AsyncSession, people: Mapping[Visitor, Person], now: dt.datetime
) -> dict[Visitor, OnSite]:
    """Each device that each of the people uses on the visitor's site, and whose it is."""
    if not people:
        return {}
    refs = {
        "workspaces": sorted({workspace_id for workspace_id, _ in people.values()}),
        "refs": sorted({ref for _, ref in people.values()}),
    }
    wanted = {(site_id, person) for (site_id, _), person in people.items()}
    return {
        (site_id, visitor_id): (site_id, person)
        for (site_id, visitor_id), person in await _linked(session, _WHERE_ELSE, now, **refs)
        if (site_id, person) in wanted
    }


def _named(visitors: Iterable[Visitor]) -> dict[str, list[str]]:
    sites, ids = zip(*visitors, strict=True)
    return {"sites": sorted(set(sites)), "visitors": sorted(set(ids))}


async def _linked(
    session: AsyncSession, query: Any, now: dt.datetime, **parameters: Any
) -> list[tuple[Visitor, Person]]:
    rows = await session.execute(query, {"now": now} | parameters)
    return [((site, visitor), (workspace, ref)) for site, visitor, workspace, ref in rows]


@dataclass(frozen=True, slots=True)
class Held:
    """What holds for a visitor: ``state``, and over it what ``signal`` denies, of any browser of
    the person.
    """

    state: queries.CurrentState | None
    signal: Signal | None = None


async def held_by(
    session: AsyncSession,
    directory: Directory,
    site: PublishedSite,
    visitor_id: str,
    now: dt.datetime,
) -> Held:
    """For a visitor that is linked to a person who has chosen, the newest choice on any of their
    devices; else its own records alone. What a signal denied in any of the person's browsers is
    denied in all until they choose otherwise.
    """
    own = await queries.current_state(session, site.id, visitor_id)
    people = await people_of(session, [(site.id, visitor_id)], now)
    said = [each for found in (await _said_by(session, people, now)).values() for each in found]
    records = {each.record.id: each.record for each in said if each.signal is None}
    published = await directory.notice(site.version_id)
    choices = []
    for each in records.values():
        answered = await directory.notice(each.notice_version_id)
        has_lapsed = queries.CurrentState(each, each.choices).has_lapsed(answered, published, now)
        choices.append(Choice(each.decided_at, each.choices, each.id, may_grant=not has_lapsed))
    asked = published.choices if published else ()
    merged = merge(choices, _denied_by_signal(own, published), asked)
    state = queries.CurrentState(records[merged.consent_id], merged.choices) if merged else own
    return Held(state, still_denying((each.signal for each in said if each.signal), choices))


def _denied_by_signal(own: queries.CurrentState | None, notice: Notice | None) -> Collection[str]:
    """What the signal denies in this browser: its last record was made under it, and did not grant
    that against it.
    """
    if own is None or notice is None or not own.record.gpc:
        return ()
    if not regimes.known(own.record.regime).honours_gpc:
        return ()
    return {each for each in notice.denied_by_gpc if own.choices.get(each) is False}


def signal_json(held: Held) -> dict[str, Any]:
    """Nothing where no signal has a say."""
    if held.signal is None:
        return {}
    said = {
        "denied": sorted(held.signal.choices),
        "decided_at": rfc3339(held.signal.decided_at),
        "consent_id": held.signal.consent_id,
    }
    return {"signal": said}
