"""Reading ``ready``: the first deliveries of queues, by need, through its index alone."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import bulk
from app.core.db import Id, Moment, is_postgresql, table_of
from app.delivery.models import Delivery, Ready
from app.delivery.order import FRESH, STARTED, URGENT, WAITING, last_urgent

ready, delivery = table_of(Ready), table_of(Delivery)


@dataclass(slots=True)
class Member:
    """One live delivery, with what its attempt needs."""

    delivery_id: str
    operation: str
    rank: int
    attempt: int
    seq: int
    expires_at: dt.datetime
    job: str | None
    job_since: dt.datetime | None
    call_id: str | None
    request_id: str
    workspace_id: str
    identifier_ids: Sequence[str]
    deadline: dt.datetime | None

    @property
    def is_started(self) -> bool:
        """Its person is begun with: a retry, a poll, a later phase, or another destination's."""
        return self.rank in {URGENT, STARTED, WAITING}

    @property
    def is_retry(self) -> bool:
        return self.attempt > 0 and self.job is None


def _member(row: Any) -> Member:
    return Member(*row)


_MEMBER = (
    ready.c.delivery_id,
    ready.c.operation,
    ready.c.rank,
    ready.c.attempt,
    ready.c.seq,
    ready.c.expires_at,
    ready.c.job,
    ready.c.job_since,
    ready.c.call_id,
)
_JOB = (
    delivery.c.request_id,
    delivery.c.workspace_id,
    delivery.c.identifier_ids,
    delivery.c.due_at.label("deadline"),
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """How many deliveries of a queue: in all, and of those already started. On top of that come up
    to ``most`` that wait for a job.
    """

    queue_id: str
    most: int
    most_started: int
    eager_before: dt.datetime | None = None


async def first(
    session: AsyncSession, wanted: Sequence[Wanted], now: dt.datetime
) -> dict[str, list[Member]]:
    """Queue id -> its first deliveries that may go now, locked; by need (``app.delivery.order``).

    A row that is being moved or taken out at this moment is left alone.
    """
    found: dict[str, list[Member]] = defaultdict(list)
    bounds = {"now": now, "last_urgent": last_urgent(now)}
    if is_postgresql(session):
        given = [
            {
                "queue_id": each.queue_id,
                "most": each.most,
                "most_started": each.most_started,
                "eager_before": each.eager_before,
            }
            for each in wanted
        ]
        if given:
            rows = await session.execute(_of_all(), {**bounds, **bulk.document(given)})
            for row in rows:
                found[row[0]].append(_member(row[1:]))
        return found
    for each in wanted:
        rows = await session.execute(
            _of_one(is_eager=each.eager_before is not None),
            {
                **bounds,
                "queue_id": each.queue_id,
                "most": each.most,
                "most_started": each.most_started,
                "eager_before": each.eager_before,
            },
        )
        found[each.queue_id] = [_member(row) for row in rows]
    return found


async def carried(session: AsyncSession, delivery_ids: Collection[str]) -> list[Member]:
    """Those of the deliveries that are still live and carried by a call."""
    rows = await session.execute(
        sa.select(*_MEMBER, *_JOB)
        .join(delivery, delivery.c.id == ready.c.delivery_id)
        .where(bulk.among(ready.c.delivery_id, delivery_ids), ready.c.call_id.is_not(None))
        .order_by(ready.c.delivery_id)
    )
    return [_member(row) for row in rows]


@cache
def _of_all() -> sa.Select[Any]:
    """PostgreSQL: all queues in one statement. Parameters: ``rows`` (see ``bulk.document``),
    ``now``, ``last_urgent``.
    """
    given = (
        sa.func.json_to_recordset(sa.cast(sa.bindparam("rows", type_=sa.String), sa.JSON))
        .table_valued(
            sa.column("queue_id", Id),
            sa.column("most", sa.Integer),
            sa.column("most_started", sa.Integer),
            sa.column("eager_before", Moment()),
        )
        .render_derived(name="given", with_types=True)
    )
    mine = _picked(
        given, given.c.queue_id, given.c.most, given.c.most_started, given.c.eager_before
    ).lateral("mine")
    return sa.select(given.c.queue_id, *mine.c).select_from(given.join(mine, sa.true()))


@cache
def _of_one(*, is_eager: bool) -> sa.Select[Any]:
    """Any database: one queue. Parameters: ``queue_id``, ``most``, ``most_started``,
    ``eager_before``, ``now``, ``last_urgent``.
    """
    eager = sa.bindparam("eager_before", type_=Moment()) if is_eager else None
    return _picked(
        None,
        sa.bindparam("queue_id", type_=Id),
        sa.bindparam("most", type_=sa.Integer),
        sa.bindparam("most_started", type_=sa.Integer),
        eager,
    )


def _picked(
    given: Any, queue_id: Any, most: Any, most_started: Any, eager_before: Any
) -> sa.Select[Any]:
    """One index range per kind of need, so that rows that wait are never walked. ``given``: where
    the other arguments come from, None when they are parameters.
    """
    now = sa.bindparam("now", type_=Moment())
    urgent = sa.bindparam("last_urgent", type_=sa.Integer)
    is_due = ready.c.due_at <= now
    parts = [
        _part(given, 0, most, queue_id, ready.c.rank == 0, is_due),
        _part(given, 1, most_started, queue_id, ready.c.rank == URGENT, is_due),
        _part(given, 2, most, queue_id, ready.c.rank.between(FRESH, urgent), is_due),
        _part(given, 3, most_started, queue_id, ready.c.rank == STARTED, is_due),
        _part(given, 5, most, queue_id, ready.c.rank > urgent, is_due),
    ]
    if eager_before is not None:
        waits = (ready.c.due_at > now, ready.c.placed_at < eager_before)
        parts.append(
            _part(
                given,
                4,
                most_started,
                queue_id,
                ready.c.rank.in_([URGENT, STARTED]),
                *waits,
                sa.type_coerce(eager_before, Moment()).is_not(None),
            )
        )
    is_waiting = ready.c.rank == WAITING
    polls = [_part(given, 6, most, queue_id, is_waiting, is_due)]
    if eager_before is not None:
        polls.append(
            _part(
                given,
                7,
                most,
                queue_id,
                is_waiting,
                *waits,
                sa.type_coerce(eager_before, Moment()).is_not(None),
            )
        )
    found = sa.union_all(_first_of(parts, most), _first_of(polls, most)).subquery("found")
    return sa.select(*(found.c[each.name] for each in (*_MEMBER, *_JOB))).order_by(*_order(found))


def _first_of(parts: Sequence[Any], most: Any) -> sa.Select[Any]:
    all_parts = sa.union_all(*parts).subquery()
    return sa.select(sa.select(all_parts).order_by(*_order(all_parts)).limit(most).subquery())


def _order(found: sa.Subquery) -> list[Any]:
    return [found.c.place, found.c.rank, found.c.due_at, found.c.delivery_id]


def _part(given: Any, place: int, most: Any, queue_id: Any, *conditions: Any) -> sa.Select[Any]:
    chosen = (
        sa.select(*_MEMBER, ready.c.due_at, *_JOB)
        .join(delivery, delivery.c.id == ready.c.delivery_id)
        .where(ready.c.queue_id == queue_id, ready.c.call_id.is_(None), *conditions)
        .order_by(ready.c.rank, ready.c.due_at, ready.c.delivery_id)
        .limit(most)
        .with_for_update(skip_locked=True, of=ready)
        .correlate(given)
        .subquery()
    )
    return sa.select(chosen, sa.literal_column(str(place)).label("place"))


async def heads(
    session: AsyncSession, queue_ids: Iterable[str]
) -> dict[str, tuple[dt.datetime | None, dt.datetime | None]]:
    """Queue id -> when its first delivery already started, and its first other one, are due; those
    that a call carries are counted too.
    """
    ids = list(queue_ids)
    if is_postgresql(session):
        given = sa.select(sa.func.unnest(bulk.values_of(ids)).label("queue_id")).subquery()
        rows = await session.execute(sa.select(given.c.queue_id, *heads_of(given.c.queue_id)))
        return {row[0]: _earliest(row[1:]) for row in rows}
    statement = _heads_of_one()
    return {
        each: _earliest((await session.execute(statement, {"queue_id": each})).one())
        for each in ids
    }


@cache
def _heads_of_one() -> sa.Select[Any]:
    return sa.select(*heads_of(sa.bindparam("queue_id", type_=Id)))


def heads_of(queue_id: Any) -> list[sa.ScalarSelect[Any]]:
    """Since when a queue's next deliveries are due, one of each kind: boosted, urgent, started,
    waiting, fresh; NULL: there is none.
    """
    return [
        sa.select(ready.c.due_at)
        .where(ready.c.queue_id == queue_id, ranks)
        .order_by(ready.c.rank, ready.c.due_at, ready.c.delivery_id)
        .limit(1)
        .scalar_subquery()
        for ranks in (
            ready.c.rank == 0,
            ready.c.rank == URGENT,
            ready.c.rank == STARTED,
            ready.c.rank == WAITING,
            ready.c.rank >= FRESH,
        )
    ]


def _earliest(row: Any) -> tuple[dt.datetime | None, dt.datetime | None]:
    boosted, urgent, started, waiting, fresh = row
    return (
        min(filter(None, (urgent, started, waiting)), default=None),
        min(filter(None, (boosted, fresh)), default=None),
    )
