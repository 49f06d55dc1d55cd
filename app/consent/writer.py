"""The consent writer: many choices, one transaction. Answers come only after the commit.

Choices that arrive within a few milliseconds of each other share a transaction; while it commits,
the next ones gather. A batch that fails is repeated row by row, so that one bad row harms nobody
else. The queue is bounded.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.consent import queries
from app.consent.devices import (
    OnSite,
    Person,
    Visitor,
    people_of,
    said_by,
    take_turns,
    words_of,
)
from app.consent.errors import EventReused, WriterBusy
from app.consent.models import ConsentOutbox, ConsentRecord
from app.consent.state import (
    BY_CHOICE,
    Decision,
    changed,
    combine,
    denials,
    granted_again,
    standing,
    withdrawn,
)
from app.core import bulk
from app.core.courtesy import for_guests
from app.core.db import OUTAGES, Database, hint_after_commit, table_of
from app.core.ids import new_id
from app.core.logging import get_logger

log = get_logger(__name__)

AT_ONCE = 2
"""Transactions at a time, where the database has more than one writer: one gathers, one commits."""
_PAUSE = 0.001
"""Seconds without a new choice after which those that came are written."""
Row = Mapping[str, Any]

_RECORD, _OUTBOX = table_of(ConsentRecord), table_of(ConsentOutbox)


@dataclass(frozen=True, slots=True)
class Draft:
    """A record to be appended. ``granted_by_default``: purposes that ran before the visitor's first
    choice; ``denied_by_signal``: what GPC denies; ``asks_first``: the law lets nothing run before.
    """

    row: dict[str, Any]
    granted_by_default: frozenset[str] = frozenset()
    denied_by_signal: frozenset[str] = frozenset()
    asks_first: bool = True

    @property
    def visitor(self) -> Visitor:
        return self.row["site_id"], self.row["visitor_id"]

    @property
    def event(self) -> tuple[str, str]:
        return self.row["site_id"], self.row["event_id"]

    @property
    def decision(self) -> Decision:
        return Decision(self.row["decided_at"], self.row["choices"])

    @property
    def is_choice(self) -> bool:
        """A person's own, which counts on all their devices."""
        return self.row["method"] in BY_CHOICE

    @property
    def signal(self) -> Decision | None:
        """What the browser's opt-out signal denies, where the record was made because of it."""
        if not self.denied_by_signal or self.is_choice:
            return None
        return Decision(self.row["decided_at"], dict.fromkeys(self.denied_by_signal, False))


@dataclass(slots=True)
class _Waiting:
    draft: Draft
    answer: asyncio.Future[Row] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class ConsentWriter:
    """Appends records. One per process, on the loop that owns the database; started and stopped by
    composition."""

    def __init__(
        self,
        database: Database,
        *,
        capacity: int = 10_000,
        batch: int = 256,
        gather_seconds: float = 0.012,
    ) -> None:
        self._database = database
        self._capacity = capacity
        self._batch = batch
        self._gather_seconds = gather_seconds
        self._queue: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._gathering = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._is_closing = False

    @property
    def depth(self) -> int:
        """Choices waiting to be written."""
        return len(self._queue)

    def start(self) -> None:
        self._is_closing = False
        self._tasks = [
            asyncio.create_task(self._run(), name="consent-writer")
            for _ in range(1 if self._database.is_sqlite else AT_ONCE)
        ]

    async def stop(self) -> None:
        """Refuse new choices, write those that wait, and end."""
        self._is_closing = True
        self._arrived.set()
        await asyncio.gather(*self._tasks)
        self._tasks = []

    async def append(self, draft: Draft) -> Row:
        """The stored record, after its commit: this one, or the one this event made before.

        Raises WriterBusy (503: nothing is known to be stored) or EventReused (409).
        """
        if self._is_closing or not self._tasks or len(self._queue) >= self._capacity:
            raise WriterBusy
        waiting = _Waiting(draft)
        self._queue.append(waiting)
        self._arrived.set()
        stored = await waiting.answer
        if stored["fingerprint"] != draft.row["fingerprint"]:
            raise EventReused
        return stored

    async def _run(self) -> None:
        with for_guests():
            while waiting := await self._next():
                await self._write(waiting)

    async def _next(self) -> list[_Waiting]:
        """The choices of the next transaction; none when all is written and we are closing."""
        async with self._gathering:
            while not self._queue:
                if self._is_closing:
                    return []
                self._arrived.clear()
                await self._arrived.wait()
            await self._gather()
            return [self._queue.popleft() for _ in range(min(self._batch, len(self._queue)))]

    async def _gather(self) -> None:
        """Wait while choices keep coming, for a while: in a rush many share one commit."""
        end = time.monotonic() + self._gather_seconds
        before = 0
        while before < len(self._queue) < self._batch and time.monotonic() < end:
            before = len(self._queue)
            await asyncio.sleep(_PAUSE)

    async def _write(self, waiting: Sequence[_Waiting]) -> None:
        """Write a batch and answer everybody in it; never raises, for the writer must go on."""
        try:
            _answer(waiting, await self._commit([each.draft for each in waiting]))
        except Exception as error:  # whatever it was, row by row tells whose it is
            log.warning("consent_batch_failed", error=type(error).__name__, count=len(waiting))
            await self._write_one_by_one(waiting)

    async def _write_one_by_one(self, waiting: Sequence[_Waiting]) -> None:
        is_out = False
        for each in waiting:
            try:
                if is_out:  # the database is away: do not wait for it once per row
                    raise WriterBusy
                _answer([each], await self._commit([each.draft]))
            except OUTAGES as error:
                is_out = True
                log.error("consent_write_failed", error=type(error).__name__)
                _fail(each, WriterBusy())
            except Exception as error:  # goes to the one caller whose row it is
                _fail(each, error)

    async def _commit(self, drafts: Sequence[Draft]) -> dict[tuple[str, str], Row]:
        """One transaction: records, and outbox rows for what they withdraw or grant again. Returns
        the stored rows by event."""
        first: dict[tuple[str, str], Draft] = {}
        for draft in drafts:
            first.setdefault(draft.event, draft)
        ordered = [
            first[event] for event in sorted(first)
        ]  # one order everywhere: no deadlocks between processes
        async with self._database.writing() as session:
            await take_turns(session, {each.visitor for each in ordered})
            states = await _current_states(session, {each.visitor for each in ordered})
            people = await _people(session, ordered)
            said = await said_by(session, people, ordered[0].row["recorded_at"])
            inserted = await bulk.insert_new(session, ConsentRecord, [each.row for each in ordered])
            stored: dict[tuple[str, str], Row] = {
                each.event: each.row for each in ordered if each.row["id"] in inserted
            }
            new = [each for each in first.values() if each.event in stored]  # in order of arrival
            if outbox := _reversals(states, people, words_of(said), new):
                await session.execute(sa.insert(_OUTBOX), outbox)
                hint_after_commit(session, "withdrawals")
            stored |= await _earlier(session, first.keys() - stored.keys())
        return stored


def _answer(waiting: Iterable[_Waiting], stored: Mapping[tuple[str, str], Row]) -> None:
    for each in waiting:
        if not each.answer.done():  # the caller may have gone
            each.answer.set_result(stored[each.draft.event])


def _fail(waiting: _Waiting, error: Exception) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(error)


async def _current_states(session: AsyncSession, visitors: set[Visitor]) -> dict[Visitor, Decision]:
    """The state of each visitor before this batch. What it costs does not depend on how often a
    visitor has chosen.
    """
    if not visitors:
        return {}
    decisions: dict[Visitor, list[Decision]] = {}
    for site_id, visitor_id, decided_at, choices in await queries.newest_states(session, visitors):
        decisions.setdefault((site_id, visitor_id), []).append(Decision(decided_at, choices))
    found = {visitor: combine(each) for visitor, each in decisions.items()}
    return {visitor: state for visitor, state in found.items() if state is not None}


async def _people(session: AsyncSession, drafts: Sequence[Draft]) -> dict[Visitor, Person]:
    """Who decides now, of those that are somebody we know: they may take back what they granted on
    another device, or grant what they refused there.
    """
    deciding = {each.visitor for each in drafts if each.is_choice or each.signal}
    return await people_of(session, deciding, drafts[0].row["recorded_at"]) if deciding else {}


async def _earlier(
    session: AsyncSession, events: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], Row]:
    """Records that repeated events made before."""
    wanted = set(events)
    if not wanted:
        return {}
    rows = await session.execute(
        sa.select(_RECORD).where(
            col(ConsentRecord.site_id).in_({site for site, _ in wanted}),
            col(ConsentRecord.event_id).in_({event for _, event in wanted}),
        )
    )
    found = {(row["site_id"], row["event_id"]): dict(row) for row in rows.mappings()}
    return {event: row for event, row in found.items() if event in wanted}


def _reversals(
    states: dict[Visitor, Decision],
    people: Mapping[Visitor, Person],
    said: dict[OnSite, list[Decision]],
    drafts: Iterable[Draft],
) -> list[dict[str, Any]]:
    """Outbox rows for what these records, one after the other, take back or grant again: of what
    held for the visitor, and of what the person had chosen on any device.
    """
    found = []
    for draft in drafts:
        was = states.get(draft.visitor)
        here = draft.decision if was is None else combine((was, draft.decision)) or was
        states[draft.visitor] = here
        taken_back = set(withdrawn(was, here, draft.granted_by_default))
        if was is not None and not draft.asks_first:  # what it left be ran until now
            taken_back |= denials(here.choices).keys() - was.choices.keys()
        granted = set(granted_again(was, here)) if draft.is_choice else set()
        word = draft.signal or (draft.decision if draft.is_choice else None)
        if word and (person := people.get(draft.visitor)):
            words = said.setdefault((draft.visitor[0], person), [])
            before = standing(words)
            words.append(word)
            after = standing(words)
            more, again = changed(before, after, asks_first=draft.asks_first)
            # What was chosen later elsewhere holds here too, whichever record came in first.
            now = after.choices if after else {}
            taken_back = {each for each in taken_back | more if not now.get(each)}
            granted = {each for each in granted | again if now.get(each)}
        found += outbox_rows(draft.row, taken_back, granted, draft.row["recorded_at"])
    return found


def outbox_rows(
    record: Row, taken_back: Collection[str], granted: Collection[str], now: dt.datetime
) -> list[dict[str, Any]]:
    """Rows of ``ConsentOutbox`` for the purposes that a record takes back and grants again."""
    return [
        {
            "id": new_id("out"),
            "workspace_id": record["workspace_id"],
            "site_id": record["site_id"],
            "visitor_id": record["visitor_id"],
            "consent_id": record["id"],
            "regime": record["regime"],
            "purposes": sorted(purposes),
            "is_grant": is_grant,
            "created_at": now,
        }
        for purposes, is_grant in ((taken_back, False), (granted, True))
        if purposes
    ]
