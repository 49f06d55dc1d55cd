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
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.core.db import Moment, hint_after_commit, table_of
from app.delivery import expiry, health
from app.delivery.carry import Answered
from app.delivery.claim import Lease, Member
from app.delivery.models import DeliveryTransition, OpenCall, Ready, VirtualQueue
from app.delivery.order import FRESH, rank_of
from app.delivery.states import Situation, State, Step, judge
from connectors.contract import Outcome


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


async def record(
    session: AsyncSession,
    answered: Sequence[Answered],
    released: Sequence[Lease],
    on_settled: OnSettled,
    stopped: Stopped,
    now: dt.datetime,
    chance: random.Random,
) -> set[tuple[str, int]]:
    """Write down what came back; returns the leases (queue and token) that were fenced out."""
    leases = {each.lease.key for each in answered} | {lease.key for lease in released}
    valid = await _still_held(session, leases)
    transitions: list[dict[str, Any]] = []
    gone: list[dict[str, Any]] = []
    moved: list[dict[str, Any]] = []
    settled: list[Settled] = []
    expired: list[expiry.Expired] = []
    answered = [each for each in answered if each.lease.key in valid]
    closed = [{"b_queue_id": each.lease.queue_id, "b_call_id": each.call.id} for each in answered]
    for each, member, step in await _steps(session, answered, stopped, now, chance):
        outcome = each.outcomes[member.delivery_id]
        transitions.append(_transition(each, member, outcome, step, now))
        key = {"b_delivery_id": member.delivery_id}
        if step.due_at is None:
            gone.append(key)
        else:
            moved.append(key | _moved(member, step, now))
        if step.is_settled:
            settled.append(Settled(member.delivery_id, member.request_id, member.workspace_id))
        if step.state is State.ARCHIVING:
            expired.append(
                expiry.Expired(
                    member.delivery_id,
                    member.workspace_id,
                    member.request_id,
                    each.lease.queue_id,
                )
            )
    await _write(session, transitions, gone, moved, closed)
    await expiry.archive(session, expired, now)
    if settled:
        await on_settled(session, settled, now)
    for lease in released:
        if lease.key in valid:
            await _release(session, lease, now, chance)
    hint_after_commit(session, "dispatch")
    return leases - valid


async def _steps(
    session: AsyncSession,
    answered: Sequence[Answered],
    stopped: Stopped,
    now: dt.datetime,
    chance: random.Random,
) -> list[tuple[Answered, Member, Step]]:
    """Everybody's next step. Who would be tried again, though the request was stopped while the
    call was under way, is not.
    """
    steps = [
        (
            each,
            member,
            judge(each.outcomes[member.delivery_id], _situation(each, member, now), chance),
        )
        for each in answered
        for member in each.call.members
    ]
    if all(step.is_settled for _, _, step in steps):
        return steps
    ended = await stopped(session, {member.request_id for _, member, _ in steps})
    return [
        (each, member, step)
        if step.is_settled or member.request_id not in ended
        else (
            each,
            member,
            replace(step, state=State.DISCARDED, detail="cancelled", due_at=None, job=None),
        )
        for each, member, step in steps
    ]


async def _still_held(session: AsyncSession, leases: set[tuple[str, int]]) -> set[tuple[str, int]]:
    """The leases whose token is still their queue's. One process may hold two on the same queue:
    one that ran out under it, and the one it took after that.
    """
    rows = await session.execute(
        sa.select(col(VirtualQueue.id), col(VirtualQueue.token))
        .where(col(VirtualQueue.id).in_(sorted({queue_id for queue_id, _ in leases})))
        .order_by(col(VirtualQueue.id))
        .with_for_update()
    )
    return leases & {(queue_id, token) for queue_id, token in rows}


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
        "attempt": member.attempt + (1 if step.counts_attempt and member.job is None else 0),
        "duration_ms": each.duration_ms,
        "http_status": outcome.http_status,
        "reason": step.reason,
        "retry_at": step.due_at,
        "call_id": each.call.id,
        "evidence": _evidence(outcome),
    }


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
    canonical = json.dumps(
        seen | {"http_status": outcome.http_status}, sort_keys=True, separators=(",", ":")
    )
    return seen | {"salt": salt, "sha256": hashlib.sha256((salt + canonical).encode()).hexdigest()}


def _moved(member: Member, step: Step, now: dt.datetime) -> dict[str, Any]:
    is_try = step.counts_attempt and member.job is None
    return {
        "v_rank": rank_of(member.deadline, now, is_started=True),
        "v_due_at": step.due_at,
        "v_placed_at": now,
        "v_attempt": member.attempt + is_try,
        "v_seq": member.seq + 1,
        "v_job": step.job,
        "v_job_since": (member.job_since or now) if step.job else None,
    }


async def _write(
    session: AsyncSession,
    transitions: list[Any],
    gone: list[Any],
    moved: list[Any],
    closed: list[Any],
) -> None:
    ready, open_call = table_of(Ready), table_of(OpenCall)
    by_key = ready.c.delivery_id == sa.bindparam("b_delivery_id")
    if transitions:
        await session.execute(sa.insert(DeliveryTransition), transitions)
    if gone:
        await session.execute(sa.delete(ready).where(by_key), gone)
    if moved:
        values: dict[str, Any] = {
            name: sa.bindparam(f"v_{name}")
            for name in ("rank", "due_at", "placed_at", "attempt", "seq", "job", "job_since")
        }
        await session.execute(sa.update(ready).where(by_key).values(call_id=None, **values), moved)
    if closed:
        await session.execute(
            sa.delete(open_call).where(
                open_call.c.queue_id == sa.bindparam("b_queue_id"),
                open_call.c.call_id == sa.bindparam("b_call_id"),
            ),
            closed,
        )


async def _release(
    session: AsyncSession, lease: Lease, now: dt.datetime, chance: random.Random
) -> None:
    """Give the queue back with what was learnt: windows, concurrency, breaker, and when to look
    again.
    """
    breaker = lease.breaker
    for healthy in lease.answers:
        breaker = breaker.after(healthy, now, chance.random())
    values: dict[str, Any] = {
        "lease_owner": None,
        "lease_until": None,
        "windows": lease.windows,
        "concurrency_limit": health.concurrency_after(
            lease.concurrency, lease.answers, lease.traits.concurrency
        ),
        "breaker": breaker.dump(),
    }
    if lease.parked:
        values |= {
            "parked_reason": lease.parked,
            "parked_version": lease.destination.version,
            "next_due": None,
        }
    else:
        head = await next_due(session, lease.queue_id)
        floor = max(filter(None, (breaker.until, lease.next_window)), default=None)
        due = max(head, floor) if head and floor else head
        values["next_due"] = sa.case(
            (~col(VirtualQueue.is_paused), sa.literal(due, Moment())), else_=None
        )
    await session.execute(
        sa.update(VirtualQueue)
        .where(col(VirtualQueue.id) == lease.queue_id)
        .values(**values)
        .execution_options(synchronize_session=False)
    )


async def next_due(session: AsyncSession, queue_id: str) -> dt.datetime | None:
    """When the queue's first row is due, one index look-up per rank."""
    table = table_of(Ready)
    heads = [
        sa.select(table.c.due_at)
        .where(table.c.queue_id == queue_id, ranks)
        .order_by(table.c.rank, table.c.due_at, table.c.delivery_id)
        .limit(1)
        .scalar_subquery()
        for ranks in (*(table.c.rank == rank for rank in range(FRESH)), table.c.rank >= FRESH)
    ]
    found = [each for each in (await session.execute(sa.select(*heads))).one() if each is not None]
    return min(found, default=None)
