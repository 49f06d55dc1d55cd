"""Claiming: lease due queues, take what may go now, and write the calls down, in one transaction.

Nothing is sent before its ``call`` row is committed, so that whatever happens next, the same call
can be made again under the same idempotency key. A queue's lease is the only lock: while it is held
nobody else reads its rows.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.core import bulk
from app.core.db import table_of
from app.core.ids import new_id
from app.delivery import due, limits
from app.delivery.due import Member
from app.delivery.health import Breaker, Sign, sign_of
from app.delivery.limits import Budget
from app.delivery.models import Call, OpenCall, Ready, VirtualQueue
from app.delivery.states import WISH_CAP
from app.delivery.turns import share
from app.delivery.waiting import is_free, is_running
from app.destinations.models import Destination
from connectors.contract import Outcome, Verdict, Window

QUANTUM = 8
"""Calls that a queue may make in one lease when as many others wait as there is room for."""
DEFICIT_CAP = 8 * QUANTUM
TURNS = 4
"""How often a queue's concurrency fits into one claim."""
MAX_QUEUES = 64
MAX_LEASES = 5
ERRORS_KEPT = 5
CONNECTOR_MISSING = "connector_missing"
DESTINATION_DISABLED = "destination_disabled"
NEVER_RETURNS = "call_never_returns"


@dataclass(frozen=True, slots=True)
class Traits:
    """What the engine needs to know of a connector class."""

    batch: int
    limits: tuple[Window, ...]
    concurrency: int
    timeout: dt.timedelta
    poll_every: dt.timedelta
    gives_up_after: dt.timedelta


GONE = Traits(1, (), 1, dt.timedelta(), dt.timedelta(), dt.timedelta())
"""Of a deleted destination whose connector is gone, too: nothing is called any more."""
TraitsOf = Callable[[str], Traits | None]
"""Connector name -> traits; None when the connector is not installed."""


@dataclass(slots=True)
class Claimed:
    """A committed call, ready to be sent (again)."""

    id: str
    operation: str
    attempt: int
    job: str | None
    members: list[Member]
    leases: int = 0
    """Earlier leases that tried it. A crash left it open then: it may have been sent, and keeps its
    key until it is answered.
    """

    @property
    def is_repeat(self) -> bool:
        return self.leases > 0

    @property
    def is_retry(self) -> bool:
        """Whether it was charged to the retry budget."""
        return any(member.is_retry for member in self.members)


@dataclass(slots=True)
class Lease:
    """A leased queue with its calls, and what they taught; ``token`` guards all that is written
    about it.
    """

    queue_id: str
    workspace_id: str
    token: int
    destination: Destination
    traits: Traits
    concurrency: int
    deficit: int
    windows: Mapping[str, Any]
    budget: Budget
    breaker: Breaker
    was_open: bool
    not_before: dt.datetime | None
    eager_before: dt.datetime | None
    is_boosted: bool
    lag: dt.timedelta
    """How long it had been due."""
    good_until: float = 0.0
    """``time.monotonic()`` after which somebody else may hold the queue: nothing is sent any more.
    """
    calls: list[Claimed] = field(default_factory=list)
    is_drained: bool = False
    """There was no more to take than what was taken."""
    open: int = 0
    signs: list[Sign] = field(default_factory=list)
    retries_gone_well: int = 0
    errors: list[tuple[float, str, int | None]] = field(default_factory=list)
    """Unix seconds, reason, HTTP status; oldest first."""
    told_to_wait: dt.datetime | None = None
    """The destination's own wish (Retry-After)."""
    parked: str | None = None

    @property
    def key(self) -> tuple[str, int]:
        return self.queue_id, self.token

    @property
    def is_held_back(self) -> bool:
        """What this lease has learnt forbids to send the calls that it has not sent yet."""
        is_open = self.breaker.until is not None and not self.breaker.probing
        return is_open or self.parked is not None or self.told_to_wait is not None

    def learn(
        self,
        call: Claimed,
        outcomes: Collection[Outcome],
        took: dt.timedelta,
        now: dt.datetime,
        jitter: float,
    ) -> None:
        """What an answer says of the destination; ``jitter`` in 0..1."""
        sign = sign_of(outcomes, took, self.traits.timeout)
        went_well = sign in {Sign.WELL, Sign.SLOW}
        # A poll that fails keeps nobody from being erased.
        if call.job is None or went_well or self.breaker.probing:
            self.signs.append(sign)
            self.breaker = self.breaker.after(sign, now, jitter)
        self.retries_gone_well += went_well and call.is_retry
        for each in outcomes:
            if each.parks:
                self.parked = each.reason or "refused"
            if each.retry_after is not None and each.http_status in {429, 503}:
                wish = now + min(each.retry_after, WISH_CAP)
                self.told_to_wait = max(wish, self.told_to_wait or wish)
        worst = next((each for each in outcomes if each.verdict is Verdict.RETRY), None)
        if worst is not None:
            error = (now.timestamp(), worst.reason or "retry", worst.http_status)
            self.errors = [*self.errors, error][-ERRORS_KEPT:]


async def claim(
    session: AsyncSession,
    *,
    owner: str,
    room: int,
    traits_of: TraitsOf,
    now: dt.datetime,
    lease: dt.timedelta,
) -> list[Lease]:
    """Lease due queues and claim about ``room`` calls from them, fairly."""
    rows = await _lease(session, owner, min(MAX_QUEUES, max(1, room // QUANTUM)), now, lease)
    if not rows:
        return []
    destinations = await _destinations(session, [row.id for row in rows])
    leases = []
    for row in rows:
        destination = destinations[row.id]
        traits = traits_of(destination.connector)
        if destination.deleted_at is not None:
            traits = traits or GONE
        if traits is None or not (destination.is_enabled or destination.deleted_at):
            reason = CONNECTOR_MISSING if traits is None else DESTINATION_DISABLED
            await _park(session, row, reason, destination.version, now)
            continue
        leases.append(_held(row, destination, traits, now))
    await _resume(session, leases, now)
    fresh = [held for held in leases if not held.calls and not held.parked]
    await _take(session, fresh, max(QUANTUM, room // len(rows)), now)
    spent = [
        {"id": held.queue_id, "windows": held.windows, "budget": held.budget.dump()}
        for held in leases
        if held.calls and held.traits.limits
    ]
    await bulk.update(session, VirtualQueue, ("id",), spent)  # a crash must not forget them
    return leases


def _held(row: Any, destination: Destination, traits: Traits, now: dt.datetime) -> Lease:
    return Lease(
        queue_id=row.id,
        workspace_id=row.workspace_id,
        token=row.token,
        destination=destination,
        traits=traits,
        concurrency=min(row.concurrency_limit, traits.concurrency),
        deficit=row.deficit,
        windows=row.windows,
        budget=Budget.load(row.budget).counted(now),
        breaker=(breaker := Breaker.load(row.breaker).at_lease(now)),
        was_open=breaker.until is not None,
        not_before=row.not_before,
        eager_before=row.eager_before,
        is_boosted=row.is_boosted,
        lag=dt.timedelta() if row.is_boosted else now - row.was_due,
    )


async def _lease(
    session: AsyncSession, owner: str, queues: int, now: dt.datetime, lease: dt.timedelta
) -> Sequence[Any]:
    queue = table_of(VirtualQueue)
    found = (
        sa.select(queue.c.id, queue.c.next_due.label("was_due"))
        .where(
            queue.c.next_due <= now,
            is_free(now),
            is_running(),
        )
        .order_by(queue.c.next_due)
        .limit(queues)
        .with_for_update(skip_locked=True)
    )
    was_due = {row.id: row.was_due for row in await session.execute(found)}
    if not was_due:
        return []
    until = now + lease
    # next_due moves to the lease's end: a plan made meanwhile brings it forward, a crash lets it
    # come due by itself.
    leased = await session.execute(
        sa.update(queue)
        .where(bulk.among(queue.c.id, was_due))
        .values(
            lease_owner=owner,
            lease_until=until,
            leased_at=now,
            next_due=until,
            token=queue.c.token + 1,
        )
        .returning(queue)
    )
    rows = [_Row(dict(row._mapping), was_due[row.id]) for row in leased]
    return sorted(rows, key=lambda row: row.was_due)


class _Row:
    """A queue's row as it was leased, with the moment it had been due."""

    __slots__ = ("__dict__", "was_due")

    def __init__(self, values: dict[str, Any], was_due: dt.datetime) -> None:
        self.__dict__.update(values)
        self.was_due = was_due


async def _destinations(session: AsyncSession, ids: Sequence[str]) -> dict[str, Destination]:
    rows = await session.execute(
        sa.select(Destination).where(bulk.among(table_of(Destination).c.id, ids))
    )
    return {each.id: each for each in rows.scalars()}


async def _park(
    session: AsyncSession, row: Any, reason: str, version: int, now: dt.datetime
) -> None:
    """Stop a queue until somebody mends its destination; its deliveries keep their places."""
    await session.execute(
        sa.update(VirtualQueue)
        .where(col(VirtualQueue.id) == row.id, col(VirtualQueue.token) == row.token)
        .values(
            parked_reason=reason,
            parked_at=now,
            parked_version=version,
            next_due=None,
            lease_until=None,
            lease_owner=None,
        )
        .execution_options(synchronize_session=False)
    )


# Calls that a crash left open


async def _resume(session: AsyncSession, leases: Sequence[Lease], now: dt.datetime) -> None:
    """Calls left open by a crash are made again, unchanged but for people already settled, before
    any new work.
    """
    by_queue = {held.queue_id: held for held in leases}
    open_call = table_of(OpenCall)
    left = await session.execute(
        sa.select(open_call).where(bulk.among(open_call.c.queue_id, by_queue))
    )
    tries = {row.call_id: row.leases for row in left}
    if not tries:
        return
    calls = (
        (
            await session.execute(
                sa.select(Call).where(bulk.among(table_of(Call).c.id, tries)).order_by(col(Call.id))
            )
        )
        .scalars()
        .all()
    )
    members: dict[str, list[Member]] = {call.id: [] for call in calls}
    waiting = await due.carried(session, [each for call in calls for each in call.delivery_ids])
    for member in waiting:
        if member.call_id in members:
            members[member.call_id].append(member)
    repeated = []
    for call in calls:
        held, mine = by_queue[call.queue_id], members[call.id]
        if not mine or tries[call.id] >= MAX_LEASES:
            await _break_up(session, held, call, mine, now)
            continue
        repeated.append(
            {"queue_id": held.queue_id, "call_id": call.id, "leases": tries[call.id] + 1}
        )
        again = Claimed(
            call.id, call.operation, call.attempt, call.job, mine, leases=tries[call.id]
        )
        held.calls.append(again)
    await bulk.update(session, OpenCall, ("queue_id", "call_id"), repeated)
    for held in leases:
        if held.calls and not held.is_held_back:  # they may reach the destination once more
            _spend(held, 1 if held.breaker.probing else len(held.calls), now)


async def _break_up(
    session: AsyncSession, held: Lease, call: Call, members: list[Member], now: dt.datetime
) -> None:
    """A call that never came to an outcome: its people go one by one; a single one parks
    the queue.
    """
    if len(members) == 1:
        held.parked = NEVER_RETURNS
        return
    await bulk.delete(
        session, OpenCall, ("queue_id", "call_id"),
        [{"queue_id": held.queue_id, "call_id": call.id}],
    )  # fmt: skip
    await _write_calls(session, [(held, [member]) for member in members], now)


# New work


async def _take(
    session: AsyncSession, leases: Sequence[Lease], quantum: int, now: dt.datetime
) -> None:
    """New work, by need, within each queue's share, rate windows, retry budget and health."""
    allowed = {held.queue_id: _allowed(held, quantum, now) for held in leases}
    wanted = {
        held.queue_id: _wanted(held, allowed[held.queue_id])
        for held in leases
        if allowed[held.queue_id]
    }
    found = await due.first(session, list(wanted.values()), now)
    taken: list[tuple[Lease, list[Member]]] = []
    for held in leases:
        if held.queue_id not in wanted:
            _spend(held, 0, now)  # a spent window says when it opens again
            continue
        members = found.get(held.queue_id, [])
        calls = _shared(group(members, held.traits.batch), allowed[held.queue_id])
        _charge(held, calls, allowed[held.queue_id], quantum, now)
        held.is_drained = not _may_have_more(wanted[held.queue_id], members)
        taken += [(held, each) for each in calls]
    await _write_calls(session, taken, now)


def _shared(calls: Sequence[list[Member]], room: int) -> list[list[Member]]:
    work = [each for each in calls if each[0].job is None]
    polls = [each for each in calls if each[0].job is not None]
    return share(work, polls, room)


def _wanted(held: Lease, calls: int) -> due.Wanted:
    batch = held.traits.batch
    started = min(calls, held.budget.calls) * batch
    return due.Wanted(held.queue_id, calls * batch, started, held.eager_before)


def _may_have_more(wanted: due.Wanted, members: Sequence[Member]) -> bool:
    """Whether a limit of ours ended the reading, and not the queue."""
    polls = sum(member.job is not None for member in members)
    started = sum(member.is_started and member.job is None for member in members)
    most_of_a_kind = max(polls, len(members) - polls)
    return most_of_a_kind >= wanted.most or started >= wanted.most_started


def _allowed(held: Lease, quantum: int, now: dt.datetime) -> int:
    """Calls the queue may make in this lease."""
    if held.not_before is not None and held.not_before > now:
        return 0
    if held.breaker.until is not None:
        return 1 if held.breaker.probing else 0
    # No more than it gets through soon: what is claimed is out of everybody else's reach. What is
    # counted against a rate window is sent at once.
    turns = 1 if held.traits.limits else TURNS
    left = limits.room(held.windows, held.traits.limits, now)
    calls = min(held.deficit + quantum, turns * held.concurrency)
    return calls if left is None else min(calls, left)


def _charge(
    held: Lease, calls: Sequence[Sequence[Member]], allowed: int, quantum: int, now: dt.datetime
) -> None:
    """Spend what the calls cost; what a queue with more work left of its share stays its own."""
    _spend(held, len(calls), now)
    held.budget = held.budget.take(sum(any(each.is_retry for each in call) for call in calls))
    left = held.deficit + quantum - len(calls)
    held.deficit = min(DEFICIT_CAP, left) if len(calls) == allowed else 0


def _spend(held: Lease, calls: int, now: dt.datetime) -> None:
    """Count calls in the rate windows."""
    held.windows, window_opens = limits.spend(held.windows, held.traits.limits, calls, now)
    held.not_before = max(
        (each for each in (held.not_before, window_opens) if each is not None), default=None
    )


def group(members: Iterable[Member], batch: int) -> list[list[Member]]:
    """Calls of up to ``batch`` people with one operation, in the order of their first; people who
    wait for the same vendor job share its poll.
    """
    alike: dict[tuple[str, str | None], list[list[Member]]] = {}
    calls: list[list[Member]] = []
    for member in members:
        mine = alike.setdefault((member.operation, member.job), [])
        if not mine or (member.job is None and len(mine[-1]) >= batch):
            mine.append([])
            calls.append(mine[-1])
        mine[-1].append(member)
    return calls


async def _write_calls(
    session: AsyncSession, calls: Sequence[tuple[Lease, list[Member]]], now: dt.datetime
) -> None:
    """Write each call and mark its people's rows with it."""
    rows, open_rows, marks = [], [], []
    for held, members in calls:
        made = Claimed(
            new_id("call"),
            members[0].operation,
            1 + max(each.attempt for each in members),
            members[0].job,
            members,
        )
        held.calls.append(made)
        rows.append(
            {
                "id": made.id,
                "queue_id": held.queue_id,
                "token": held.token,
                "operation": made.operation,
                "delivery_ids": [member.delivery_id for member in members],
                "attempt": made.attempt,
                "job": made.job,
                "created_at": now,
            }
        )
        open_rows.append({"queue_id": held.queue_id, "call_id": made.id, "leases": 1})
        marks += [{"delivery_id": each.delivery_id, "call_id": made.id} for each in members]
    await bulk.insert(session, Call, rows)
    await bulk.insert(session, OpenCall, open_rows)
    await bulk.update(session, Ready, ("delivery_id",), marks)
