"""What vendors say of their jobs unasked: kept until the next poll of the job, which reads it.

A report may come before our own record that the job was begun, or while a call about it is under
way. The poll decides; whoever stores a report only makes the next one due.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any, cast

import sqlalchemy as sa
from pydantic import TypeAdapter
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.core.bulk import nibble
from app.core.clock import utc_now
from app.core.db import Database, is_postgresql, table_of
from app.delivery.models import Call, DeliveryTransition, JobReport, Ready, VirtualQueue
from app.delivery.plan import look_at
from app.destinations.human_tasks import Answer
from app.destinations.models import Destination, HumanTask
from connectors.contract import (
    AnyConnector,
    Outcome,
    Verdict,
    absent,
    accepted,
    done,
    failed,
    supports,
)
from connectors.contract import Call as Asking

LONGEST = 600
"""Characters of a handle that can be looked up; the index ``ix_ready_job`` says the same."""
KEPT = dt.timedelta(days=14)
"""How long a report stays that nobody waits for, or no longer waits for."""
MOST = 10_000
"""Reports of a destination that are kept though nobody waits for them; the oldest go first."""
SETTLED_FOR = dt.timedelta(minutes=10)
"""Within this time a second report of a job changes nothing, so that no callback can be replayed:
genuine ones are at most five minutes old or ahead.
"""
RECORDING = dt.timedelta(minutes=1)
"""Longer than any answer is on its way to being recorded."""
SOON = dt.timedelta(seconds=1)

_ANSWERED: Mapping[Answer, Outcome] = {
    "done": done(),
    "absent": absent(),
    "refused": failed("refused_by_operator"),
}
_ENDS = frozenset({Verdict.DONE, Verdict.ABSENT, Verdict.FAILED, Verdict.SKIPPED})
_OUTCOME = TypeAdapter(Outcome)
_IS_INDEXED = sa.text("length(ready.job) <= 600")

Ask = Callable[..., Awaitable[Any]]
ClassOf = Callable[[str], type[AnyConnector] | None]


def can_be_woken(job: str) -> bool:
    """Whether a report finds the deliveries that wait for this job. Several jobs of one delivery
    (``states.JOBS``) are one handle, which no report names.
    """
    return len(job) <= LONGEST and job.isprintable()


def key_of(job: str) -> str:
    """The handle, or its digest where it is long or odd."""
    if can_be_woken(job):
        return job
    return f"sha256:{hashlib.sha256(job.encode(errors='surrogatepass')).hexdigest()}"


# A callback


async def store(
    session: AsyncSession,
    destination_id: str,
    told: Mapping[str, Outcome],
    now: dt.datetime,
    longest_wait: dt.timedelta,
) -> None:
    """Keep the ends among the outcomes by job, and let the deliveries that wait ask now.

    ``longest_wait``: after that nothing can wait any more.
    """
    told = {job: each for job, each in told.items() if each.verdict is not Verdict.ACCEPTED}
    waiting = await _wake(session, destination_id, filter(can_be_woken, told), now)
    ends = {
        key_of(job): {
            "destination_id": destination_id,
            "job": key_of(job),
            "at": now,
            # Telling is not looking again.
            "outcome": _OUTCOME.dump_python(replace(each, read_back=False), mode="json"),
            "expires_at": now + (longest_wait if job in waiting else KEPT),
        }
        for job, each in told.items()
        if each.verdict in _ENDS
    }
    if not ends:
        return
    insert = (postgresql if is_postgresql(session) else sqlite).insert(JobReport)
    insert = insert.values(list(ends.values()))
    await session.execute(
        insert.on_conflict_do_update(
            index_elements=["destination_id", "job"],
            set_={name: insert.excluded[name] for name in ("at", "outcome", "expires_at")},
            where=col(JobReport.at) < now - SETTLED_FOR,
        )
    )
    if not ends.keys() <= waiting:
        await _keep_to(session, destination_id, MOST, now)


async def task_ended(session: AsyncSession, task: HumanTask, now: dt.datetime) -> None:
    """A human task was ticked off. Its poll reads the answer from the task; the report wakes it,
    also where a call about it is under way (see ``wake_recent``).
    """
    told = _ANSWERED[cast("Answer", task.state)]
    await store(session, task.destination_id, {task.id: told}, now, KEPT)


async def _wake(
    session: AsyncSession, queue_id: str, jobs: Iterable[str], now: dt.datetime
) -> set[str]:
    """Those of the jobs that deliveries wait for; they are due now."""
    ready = table_of(Ready)
    mine = (ready.c.queue_id == queue_id, ready.c.job.in_(list(jobs)), _IS_INDEXED)
    # The queue first, as whoever holds it does: it is neither released nor recorded meanwhile.
    await session.execute(
        sa.select(col(VirtualQueue.id)).where(col(VirtualQueue.id) == queue_id).with_for_update()
    )
    waiting = set((await session.execute(sa.select(ready.c.job).where(*mine))).scalars())
    if waiting:
        await session.execute(
            sa.update(ready).where(*mine, ready.c.call_id.is_(None)).values(due_at=now)
        )
        await look_at(session, [queue_id], now)
    return waiting


async def _keep_to(session: AsyncSession, destination_id: str, most: int, now: dt.datetime) -> None:
    report = table_of(JobReport)
    mine = report.c.destination_id == destination_id
    last_kept = (
        sa.select(report.c.expires_at)
        .where(mine, report.c.expires_at <= now + KEPT)
        .order_by(report.c.expires_at.desc())
        .offset(most - 1)
        .limit(1)
        .scalar_subquery()
    )
    await session.execute(sa.delete(report).where(mine, report.c.expires_at < last_kept))


async def wake_recent(session: AsyncSession, now: dt.datetime) -> None:
    """Let deliveries ask now whose job was reported while a call about it was being recorded."""
    ready, report = table_of(Ready), table_of(JobReport)
    asleep = await session.execute(
        sa.select(report.c.destination_id, report.c.job, report.c.at, ready.c.placed_at)
        .join(ready, (ready.c.queue_id == report.c.destination_id) & (ready.c.job == report.c.job))
        .where(
            report.c.at > now - 2 * RECORDING,
            _IS_INDEXED,
            ready.c.call_id.is_(None),
            ready.c.due_at > now,
        )
        .order_by(report.c.at.desc())
        .limit(1000)
    )
    jobs: dict[str, set[str]] = {}
    for destination_id, job, told_at, placed_at in asleep:
        if placed_at < told_at + RECORDING:  # later ones had every chance to read it
            jobs.setdefault(destination_id, set()).add(job)
    for destination_id in sorted(jobs):
        await _wake(session, destination_id, jobs[destination_id], now)


async def drop_expired(database: Database, now: dt.datetime) -> None:
    await nibble(database, table_of(JobReport), lambda row: row.expires_at <= now)


# Polls


def hearing(
    database: Database, class_of: ClassOf, ask: Ask, now: Callable[[], dt.datetime] = utc_now
) -> Ask:
    """``ask``, but a job that was reported is not asked about, and neither is one of a destination
    that only calls back.
    """

    async def answer(destination: Destination, call: Asking, method: str, *args: Any) -> Any:
        connector = class_of(destination.connector)
        if connector is None or not supports(connector, "callback"):
            return await ask(destination, call, method, *args)
        if method != "poll":
            answered = await ask(destination, call, method, *args)
            return await _hastened(database, destination.id, answered)
        (job,) = args
        if told := await _told(database, destination.id, call.id, job, now()):
            return told
        return (
            await ask(destination, call, "poll", job)
            if supports(connector, "poll")
            else accepted(job)
        )

    return answer


async def _told(
    database: Database, destination_id: str, call_id: str, job: str, now: dt.datetime
) -> Outcome | None:
    """The report that the call would otherwise ask for. One that is older than the job (a handle
    that is used twice) says nothing of it.
    """
    key = (destination_id, key_of(job))
    async with database.reading() as session:
        report = await session.get(JobReport, key)
        if report is None:
            return None
        begun = await _begun(session, call_id)
    if begun is not None and report.at < begun:
        return None
    if abs(report.expires_at - now - KEPT) > dt.timedelta(days=1):
        async with database.writing() as session:
            await session.execute(
                sa.update(JobReport)
                .where(
                    col(JobReport.destination_id) == destination_id, col(JobReport.job) == key[1]
                )
                .values(expires_at=now + KEPT)
                .execution_options(synchronize_session=False)
            )
    outcome = _OUTCOME.validate_python(report.outcome)
    return replace(outcome, facts={**outcome.facts, "told_by": "callback"})


async def _begun(session: AsyncSession, call_id: str) -> dt.datetime | None:
    """When the newest of the calls was written down that began the jobs this call is about."""
    asked = await session.get(Call, call_id)
    ready, step, call = table_of(Ready), table_of(DeliveryTransition), table_of(Call)
    begun = await session.execute(
        sa.select(sa.func.max(sa.func.coalesce(call.c.created_at, ready.c.job_since)))
        .outerjoin(
            step,
            (step.c.delivery_id == ready.c.delivery_id) & (step.c.at == ready.c.job_since),
        )
        .outerjoin(call, call.c.id == step.c.call_id)
        .where(ready.c.delivery_id.in_(asked.delivery_ids if asked else []))
    )
    found: dt.datetime | None = begun.scalar_one()
    return found


async def _hastened(database: Database, destination_id: str, answered: Any) -> Any:
    """Jobs that were reported before we knew of them are asked about at once."""
    each_answer = answered.values() if isinstance(answered, Mapping) else [answered]
    jobs = {each.job for each in each_answer if each.verdict is Verdict.ACCEPTED and each.job}
    if not jobs:
        return answered
    reported = await _reported(database, destination_id, jobs)

    def hastened(outcome: Outcome) -> Outcome:
        return replace(outcome, retry_after=SOON) if outcome.job in reported else outcome

    if isinstance(answered, Mapping):
        return {who: hastened(each) for who, each in answered.items()}
    return hastened(answered)


async def _reported(database: Database, destination_id: str, jobs: Collection[str]) -> set[str]:
    report = table_of(JobReport)
    keys = {key_of(job): job for job in jobs}
    async with database.reading() as session:
        found = await session.execute(
            sa.select(report.c.job).where(
                report.c.destination_id == destination_id, report.c.job.in_(list(keys))
            )
        )
    return {keys[key] for key in found.scalars()}
