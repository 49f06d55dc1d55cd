"""Finishing: settled calls are recorded together, each guarded by its queue's fencing token.

One transaction writes transitions, changes or removes ``ready`` rows, closes the calls, tells the
owner of the deliveries (``on_settled``), and gives back queues whose calls are all done. An answer
that arrives under an old token changes nothing: the new holder of the queue makes the same call
again, under the same key.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import random
import secrets
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import bulk
from app.core.db import table_of
from app.delivery import due, expiry, health, order
from app.delivery.carry import Answered
from app.delivery.claim import ERRORS_KEPT, Lease
from app.delivery.due import Member
from app.delivery.health import Sign
from app.delivery.limits import Budget
from app.delivery.models import Delivery, DeliveryTransition, OpenCall, Ready, VirtualQueue
from app.delivery.states import Assurance, Situation, State, Step, judge
from app.destinations import human_tasks
from connectors.contract import Outcome, Verdict

BOOSTED_AT = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
"""``next_due`` of a boosted queue with work: before everybody else's."""


NEVER_SENT = Step(
    State.DISCARDED, "cancelled", Assurance.REQUESTED, "cancelled", counts_attempt=False
)
NOTHING = Outcome(Verdict.SKIPPED, reason="cancelled")
"""What is known of a call that was not sent."""


@dataclass(frozen=True, slots=True)
class Settled:
    """A delivery that reached its end."""

    delivery_id: str
    request_id: str
    workspace_id: str


OnSettled = Callable[[AsyncSession, Sequence[Settled], dt.datetime], Awaitable[None]]
Stopped = Callable[[AsyncSession, Collection[str]], Awaitable[set[str]]]
"""Which of these requests were stopped; it locks them all, so that none can be stopped meanwhile.
"""


@dataclass(slots=True)
class Recorded:
    """What a commit wrote. ``fenced``: leases (queue and token) that were no longer held."""

    fenced: set[tuple[str, int]]
    steps: list[tuple[Answered, Member, Step]]
    has_more: bool = False
    """A queue that was given back has work that is due."""


@dataclass(slots=True)
class _Rows:
    """What a commit is going to write."""

    transitions: list[dict[str, Any]] = field(default_factory=list)
    unsent: list[dict[str, Any]] = field(default_factory=list)
    held_back: list[dict[str, Any]] = field(default_factory=list)
    """Repeats that were not sent: this lease has not tried them."""
    gone: list[dict[str, Any]] = field(default_factory=list)
    moved: list[dict[str, Any]] = field(default_factory=list)
    closed: list[dict[str, Any]] = field(default_factory=list)
    settled: list[Settled] = field(default_factory=list)
    expired: list[expiry.Expired] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    """Deliveries whose request was stopped while they were called."""


async def record(
    session: AsyncSession,
    answered: Sequence[Answered],
    released: Sequence[Lease],
    on_settled: OnSettled,
    stopped: Stopped,
    now: dt.datetime,
    chance: random.Random,
) -> Recorded:
    """Write down what came back, and give back the queues that are done."""
    leases = {each.lease.key for each in answered} | {lease.key for lease in released}
    held = await _still_held(session, leases)
    answered = [each for each in answered if each.lease.key in held]
    # Requests are locked before any place: whoever cancels one takes the same way.
    ended = await stopped(
        session, {member.request_id for each in answered for member in each.call.members}
    )
    steps = _steps(answered, ended, now, chance)
    rows = _rows(answered, steps, now)
    await bulk.insert(session, DeliveryTransition, rows.transitions)
    await bulk.delete(session, Ready, ("delivery_id",), rows.gone)
    await bulk.update(session, Ready, ("delivery_id",), rows.moved)
    await bulk.delete(session, OpenCall, ("queue_id", "call_id"), rows.closed)
    await bulk.update(session, Ready, ("delivery_id",), rows.unsent)
    await bulk.update(session, OpenCall, ("queue_id", "call_id"), rows.held_back)
    await _hurry_siblings(session, [each for each in answered if each.outcomes], now)
    await expiry.archive(session, rows.expired, now)
    if rows.cancelled:
        await human_tasks.take_back(session, rows.cancelled)
    if rows.settled:
        await on_settled(session, rows.settled, now)
    has_more = await _release(
        session, [lease for lease in released if lease.key in held], held, now
    )
    return Recorded(leases - held.keys(), steps, has_more)


async def _still_held(
    session: AsyncSession, leases: set[tuple[str, int]]
) -> dict[tuple[str, int], Any]:
    """The leases whose token is still their queue's, with what others may have changed meanwhile.

    One process may hold two on the same queue: one that ran out under it, and the one it took after
    that.
    """
    queue = table_of(VirtualQueue)
    rows = await session.execute(
        sa.select(
            queue.c.id, queue.c.token, queue.c.is_paused, queue.c.is_boosted, queue.c.eager_before,
            queue.c.last_errors,
        )
        .where(bulk.among(queue.c.id, {queue_id for queue_id, _ in leases}))
        .order_by(queue.c.id)
        .with_for_update()
    )  # fmt: skip
    return {(row.id, row.token): row for row in rows if (row.id, row.token) in leases}


def _steps(
    answered: Sequence[Answered], ended: Collection[str], now: dt.datetime, chance: random.Random
) -> list[tuple[Answered, Member, Step]]:
    """Everybody's next step. Who would be tried again, or was not tried yet, though the request was
    stopped meanwhile, is not.
    """
    steps = []
    for each in answered:
        for member in each.call.members:
            is_ended = member.request_id in ended
            if each.outcomes:
                outcome = each.outcomes[member.delivery_id]
                step = judge(outcome, _situation(each, member, now), chance)
                if is_ended and not step.is_settled:
                    step = replace(
                        step, state=State.DISCARDED, detail="cancelled", due_at=None, job=None
                    )
                steps.append((each, member, step))
            elif is_ended and not each.call.is_repeat:
                steps.append((each, member, NEVER_SENT))
    return steps


def _situation(each: Answered, member: Member, now: dt.datetime) -> Situation:
    traits = each.lease.traits
    return Situation(
        now,
        member.attempt,
        member.expires_at,
        member.job,
        member.job_since,
        traits.poll_every,
        traits.gives_up_after,
    )


def _rows(
    answered: Sequence[Answered],
    steps: Sequence[tuple[Answered, Member, Step]],
    now: dt.datetime,
) -> _Rows:
    rows = _Rows()
    rows.closed = [
        {"queue_id": each.lease.queue_id, "call_id": each.call.id}
        for each in answered
        if each.outcomes or not each.call.is_repeat
    ]
    rows.held_back = [
        {
            "queue_id": each.lease.queue_id,
            "call_id": each.call.id,
            "leases": each.call.leases,
        }
        for each in answered
        if each.call.is_repeat and not each.outcomes
    ]
    over = {member.delivery_id for _, member, _ in steps}
    rows.unsent = [
        {"delivery_id": member.delivery_id, "call_id": None}
        for each in answered
        if not (each.outcomes or each.call.is_repeat)
        for member in each.call.members
        if member.delivery_id not in over
    ]
    for each, member, step in steps:
        rows.transitions.append(
            _transition(each, member, each.outcomes.get(member.delivery_id, NOTHING), step, now)
        )
        if step.due_at is None:
            rows.gone.append({"delivery_id": member.delivery_id})
        else:
            rows.moved.append(_moved(member, step, now))
        if step.is_settled:
            rows.settled.append(Settled(member.delivery_id, member.request_id, member.workspace_id))
        if step.detail == "cancelled":
            rows.cancelled.append(member.delivery_id)
        if step.state is State.ARCHIVING:
            rows.expired.append(
                expiry.Expired(
                    member.delivery_id,
                    member.workspace_id,
                    member.request_id,
                    each.lease.queue_id,
                )
            )
    return rows


def _transition(
    each: Answered, member: Member, outcome: Outcome, step: Step, now: dt.datetime
) -> dict[str, Any]:
    return {
        "delivery_id": member.delivery_id,
        "seq": member.seq + 1,
        "at": now,
        "state": step.state,
        "detail": step.detail,
        "assurance": step.assurance,
        "attempt": attempt_of(member, step),
        "duration_ms": each.duration_ms,
        "http_status": outcome.http_status,
        "reason": step.reason,
        "retry_at": step.due_at,
        "call_id": each.call.id,
        "evidence": _evidence(outcome),
    }


def attempt_of(member: Member, step: Step) -> int:
    """How often the delivery was tried by now; asking about a job is no try."""
    return member.attempt + (1 if step.counts_attempt and member.job is None else 0)


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def _evidence(outcome: Outcome) -> dict[str, Any]:
    """What was seen, as codes and counts, with a salted digest that fixes it in the receipt."""
    seen: dict[str, Any] = {"verdict": outcome.verdict, "read_back": outcome.read_back}
    if outcome.anonymised:
        seen["anonymised"] = True
    if outcome.facts:
        seen["facts"] = dict(outcome.facts)
    if outcome.residuals:
        seen["residuals"] = [
            {"what": each.what, "reason": each.reason, "until": each.until}
            for each in outcome.residuals
        ]
    salt = secrets.token_hex(16)
    canonical = _ENCODER.encode(seen | {"http_status": outcome.http_status})
    return seen | {"salt": salt, "sha256": hashlib.sha256((salt + canonical).encode()).hexdigest()}


def _moved(member: Member, step: Step, now: dt.datetime) -> dict[str, Any]:
    started = order.rank_of(member.deadline, now, is_started=True)
    return {
        "delivery_id": member.delivery_id,
        "rank": order.WAITING if step.job else started,
        "due_at": step.due_at,
        "placed_at": now,
        "attempt": attempt_of(member, step),
        "seq": member.seq + 1,
        "job": step.job,
        "job_since": (member.job_since or now) if step.job else None,
        "call_id": None,
    }


async def _hurry_siblings(
    session: AsyncSession, answered: Sequence[Answered], now: dt.datetime
) -> None:
    """Depth first: what else waits for people whose first call has come back goes before people
    nobody has begun with.
    """
    begun = {
        member.request_id: order.rank_of(member.deadline, now, is_started=True)
        for each in answered
        for member in each.call.members
        if not member.is_started
    }
    ready, delivery = table_of(Ready), table_of(Delivery)
    for rank in sorted(set(begun.values())):
        requests = [request_id for request_id, each in begun.items() if each == rank]
        siblings = sa.select(delivery.c.id).where(bulk.among(delivery.c.request_id, requests))
        await session.execute(
            sa.update(ready)
            .where(
                ready.c.delivery_id.in_(siblings),
                ready.c.rank >= order.FRESH,
                ready.c.call_id.is_(None),
            )
            .values(rank=rank)
        )


# Giving queues back


async def _release(
    session: AsyncSession,
    leases: Sequence[Lease],
    queues: dict[tuple[str, int], Any],
    now: dt.datetime,
) -> bool:
    """Give queues back with what was learnt: windows, budget, concurrency, breaker, and when to
    look again. True when one of them has work that is due.
    """
    heads = await due.heads(session, [lease.queue_id for lease in leases])
    rows = [_released(lease, queues[lease.key], heads[lease.queue_id], now) for lease in leases]
    await bulk.update(session, VirtualQueue, ("id",), rows)
    return any(row["next_due"] is not None and row["next_due"] <= now for row in rows)


def _released(
    lease: Lease,
    queue: Any,
    heads: tuple[dt.datetime | None, dt.datetime | None],
    now: dt.datetime,
) -> dict[str, Any]:
    has_closed = lease.was_open and lease.breaker.until is None
    well = sum(each in {Sign.WELL, Sign.SLOW} for each in lease.signs)
    budget = lease.budget.earn(well, lease.retries_gone_well)
    # An order to hurry that was given during the lease stands; what hurried was taken, or waits on.
    eager = queue.eager_before
    if eager == lease.eager_before and (lease.is_drained or lease.breaker.until is not None):
        eager = None
    if has_closed:
        eager = now
    floors = (lease.not_before, lease.told_to_wait, lease.breaker.opens_again_at)
    not_before = max((each for each in floors if each and each > now), default=None)
    next_due = None if queue.is_paused or lease.parked else _next_due(budget, heads, eager, now)
    is_boosted = queue.is_boosted and next_due is not None and next_due <= now
    if next_due is not None:
        next_due = max(next_due, not_before) if not_before else next_due
        next_due = BOOSTED_AT if is_boosted and not_before is None else max(next_due, now)
    return {
        "id": lease.queue_id,
        "lease_owner": None,
        "lease_until": None,
        "next_due": next_due,
        "not_before": not_before,
        "eager_before": eager,
        "is_boosted": is_boosted,
        "windows": lease.windows,
        "budget": budget.dump(),
        "deficit": lease.deficit,
        "concurrency_limit": health.concurrency_after(
            lease.concurrency, lease.signs, lease.traits.concurrency
        ),
        "breaker": lease.breaker.dump(),
        "last_errors": [*lease.errors[::-1], *queue.last_errors][:ERRORS_KEPT],
        "parked_reason": lease.parked,
        "parked_at": now if lease.parked else None,
        "parked_version": lease.destination.version if lease.parked else None,
    }


def _next_due(
    budget: Budget,
    heads: tuple[dt.datetime | None, dt.datetime | None],
    eager: dt.datetime | None,
    now: dt.datetime,
) -> dt.datetime | None:
    started, other = heads
    if started is not None:
        started = now if eager is not None else started
        if not budget.calls:
            started = max(started, budget.next_at)
    return min(filter(None, (started, other)), default=None)
