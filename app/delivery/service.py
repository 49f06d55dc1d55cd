"""What operators and requests may do with deliveries and queues."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.core import bulk
from app.core.db import table_of
from app.core.errors import Conflict, Gone, NotFound
from app.delivery.finish import OnSettled, Settled
from app.delivery.models import (
    Archived,
    Delivery,
    DeliveryTransition,
    Ready,
)
from app.delivery.order import BOOSTED
from app.delivery.plan import enqueue
from app.delivery.states import SETTLED, Assurance, State
from app.destinations import human_tasks
from app.identity.models import PersonalValue

REPLAY_BITE = 500
STEPS_SHOWN = 100
"""Steps of one delivery that a page or an answer lists."""
"""Deliveries put back in one transaction."""


class NotReplayable(Conflict):
    slug, title = "not-replayable", "Only archived deliveries can be replayed"


async def latest(
    session: AsyncSession, delivery_ids: Collection[str]
) -> dict[str, DeliveryTransition]:
    """The present transition of each delivery."""
    if not delivery_ids:
        return {}
    newest = (
        sa.select(
            col(DeliveryTransition.delivery_id),
            sa.func.max(col(DeliveryTransition.seq)).label("seq"),
        )
        .where(bulk.among(table_of(DeliveryTransition).c.delivery_id, delivery_ids))
        .group_by(col(DeliveryTransition.delivery_id))
        .subquery()
    )
    rows = await session.execute(
        sa.select(DeliveryTransition).join(
            newest,
            (col(DeliveryTransition.delivery_id) == newest.c.delivery_id)
            & (col(DeliveryTransition.seq) == newest.c.seq),
        )
    )
    return {each.delivery_id: each for each in rows.scalars()}


async def of_requests(session: AsyncSession, request_ids: Collection[str]) -> list[Delivery]:
    """Deliveries of requests, in the order they were planned."""
    rows = await session.execute(
        sa.select(Delivery)
        .where(bulk.among(table_of(Delivery).c.request_id, request_ids))
        .order_by(col(Delivery.phase), col(Delivery.id))
    )
    return list(rows.scalars())


async def standing(session: AsyncSession, request_ids: Collection[str]) -> Sequence[Any]:
    """Deliveries of requests with their present transition, as plain rows: ``request_id,
    destination_id, operation, created_at, state, detail, assurance, attempt, reason, at,
    evidence``, in the order they were planned.
    """
    delivery, step = table_of(Delivery), table_of(DeliveryTransition)
    other = step.alias("other")
    newest = (
        sa.select(sa.func.max(other.c.seq))
        .where(other.c.delivery_id == delivery.c.id)
        .scalar_subquery()
    )
    rows = await session.execute(
        sa.select(
            delivery.c.request_id,
            delivery.c.destination_id,
            delivery.c.operation,
            delivery.c.created_at,
            step.c.state,
            step.c.detail,
            step.c.assurance,
            step.c.attempt,
            step.c.reason,
            step.c.at,
            step.c.evidence,
        )
        .select_from(
            delivery.join(step, (step.c.delivery_id == delivery.c.id) & (step.c.seq == newest))
        )
        .where(bulk.among(delivery.c.request_id, request_ids))
        .order_by(delivery.c.phase, delivery.c.id)
    )
    return rows.all()


async def get(session: AsyncSession, workspace_id: str, delivery_id: str) -> Delivery:
    found = await session.get(Delivery, delivery_id)
    if found is None or found.workspace_id != workspace_id:
        raise NotFound("There is no delivery with this id.")
    return found


async def trace(session: AsyncSession, delivery_id: str) -> list[DeliveryTransition]:
    """A delivery's newest steps, at most ``STEPS_SHOWN``, oldest of them first."""
    return (await traces(session, [delivery_id])).get(delivery_id, [])


async def traces(
    session: AsyncSession, delivery_ids: Collection[str]
) -> dict[str, list[DeliveryTransition]]:
    """``trace`` of many: what asked about a job for weeks has more steps than anybody reads."""
    step = table_of(DeliveryTransition)
    back = sa.func.row_number().over(partition_by=step.c.delivery_id, order_by=step.c.seq.desc())
    places = (
        sa.select(step.c.delivery_id, step.c.seq, back.label("back"))
        .where(bulk.among(step.c.delivery_id, delivery_ids))
        .subquery()
    )
    rows = await session.execute(
        sa.select(DeliveryTransition)
        .join(places, (step.c.delivery_id == places.c.delivery_id) & (step.c.seq == places.c.seq))
        .where(places.c.back <= STEPS_SHOWN)
        .order_by(step.c.delivery_id, step.c.seq)
    )
    found: dict[str, list[DeliveryTransition]] = {}
    for each in rows.scalars():
        found.setdefault(each.delivery_id, []).append(each)
    return found


def left_out(trace: Sequence[DeliveryTransition]) -> int:
    """How many steps were before those of ``trace``: they are numbered from 1."""
    return trace[0].seq - 1 if trace else 0


@dataclass(frozen=True, slots=True)
class Selection:
    """Archived deliveries of a workspace: all, one, of one queue, or by time of expiry (``since``
    is in, ``until`` is not).
    """

    workspace_id: str
    delivery_id: str | None = None
    queue_id: str | None = None
    since: dt.datetime | None = None
    until: dt.datetime | None = None

    @property
    def condition(self) -> sa.ColumnElement[bool]:
        wanted = [col(Archived.workspace_id) == self.workspace_id]
        if self.delivery_id is not None:
            wanted.append(col(Archived.delivery_id) == self.delivery_id)
        if self.queue_id is not None:
            wanted.append(col(Archived.queue_id) == self.queue_id)
        if self.since is not None:
            wanted.append(col(Archived.archived_at) >= self.since)
        if self.until is not None:
            wanted.append(col(Archived.archived_at) < self.until)
        return sa.and_(*wanted)


REPLAYABLE = sa.and_(
    sa.exists().where(col(Delivery.id) == col(Archived.delivery_id)).correlate(Archived),
    sa.exists()
    .where(
        col(PersonalValue.holder_id) == col(Archived.request_id),
        col(PersonalValue.purpose) == "identifier",
    )
    .correlate(Archived),
)
"""Of an archived delivery: there is still somebody to ask for."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a bite did; ``forgotten``: nobody is left to ask for, only waiving remains."""

    replayed: int
    forgotten: int
    remaining: int


async def archived(session: AsyncSession, which: Selection, limit: int = 1000) -> list[Archived]:
    """Archived deliveries, oldest first."""
    rows = await session.execute(
        sa.select(Archived)
        .where(which.condition)
        .order_by(col(Archived.archived_at), col(Archived.delivery_id))
        .limit(limit)
    )
    return list(rows.scalars())


async def unreplayable(session: AsyncSession, which: Selection, after: str = "") -> list[Archived]:
    """Archived deliveries that the main database alone cannot bring back, some 500 in id order."""
    rows = await session.execute(
        sa.select(Archived)
        .where(which.condition, ~REPLAYABLE, col(Archived.delivery_id) > after)
        .order_by(col(Archived.delivery_id))
        .limit(REPLAY_BITE)
    )
    return list(rows.scalars())


async def replay(
    session: AsyncSession, workspace_id: str, delivery_id: str, now: dt.datetime
) -> Delivery:
    """Put an archived delivery back into its queue with a fresh expiry."""
    delivery = await get(session, workspace_id, delivery_id)
    if await _is_forgotten(session, delivery):
        raise Gone("The person was forgotten: there is nobody left to ask for.")
    if not await _leave_archive(session, [delivery_id]):
        raise NotReplayable("Look at the delivery's `state`: it must be `archived`.")
    await _put_back(session, [delivery], now)
    return delivery


async def replay_many(session: AsyncSession, which: Selection, now: dt.datetime) -> Replayed:
    """Put the next bite of archived deliveries back into their queues, oldest first."""
    rows = await session.execute(
        sa.select(Delivery)
        .join(Archived, col(Archived.delivery_id) == col(Delivery.id))
        .where(which.condition, REPLAYABLE)
        .order_by(col(Archived.archived_at), col(Archived.delivery_id))
        .limit(REPLAY_BITE)
        .with_for_update(of=Archived, skip_locked=True)
    )
    found = list(rows.scalars())
    await _leave_archive(session, [each.id for each in found])
    await _put_back(session, found, now)
    left = sa.select(sa.func.count()).select_from(Archived).where(which.condition)
    forgotten = (await session.execute(left.where(~REPLAYABLE))).scalar_one()
    remaining = (await session.execute(left.where(REPLAYABLE))).scalar_one()
    return Replayed(len(found), forgotten, remaining)


async def _put_back(session: AsyncSession, found: Sequence[Delivery], now: dt.datetime) -> None:
    present = await latest(session, [each.id for each in found])
    session.add_all(
        _transition(each, State.AWAITING_SCHEDULING, None, now, reason="replayed")
        for each in present.values()
    )
    await session.flush()
    await enqueue(
        session,
        [
            {
                "queue_id": each.destination_id,
                "rank": BOOSTED,
                "due_at": now,
                "placed_at": now,
                "delivery_id": each.id,
                "operation": each.operation,
                "attempt": 0,
                "seq": present[each.id].seq + 1,
                "expires_at": now + (each.expires_at - each.created_at),
            }
            for each in found
        ],
        {each.destination_id: each.workspace_id for each in found},
        now,
    )


async def _leave_archive(session: AsyncSession, delivery_ids: Collection[str]) -> bool:
    """Whether any of them was there; from here on nobody else can replay, waive or stop them."""
    left = await session.execute(
        sa.delete(Archived)
        .where(col(Archived.delivery_id).in_(delivery_ids))
        .returning(col(Archived.delivery_id))
        .execution_options(synchronize_session=False)
    )
    return bool(left.all())


async def _is_forgotten(session: AsyncSession, delivery: Delivery) -> bool:
    """Whether it named identifiers, and none of them is kept any more."""
    if not delivery.identifier_ids:
        return False
    kept = sa.select(sa.literal(1)).where(col(PersonalValue.id).in_(delivery.identifier_ids))
    return (await session.execute(kept.limit(1))).first() is None


async def waive(
    session: AsyncSession,
    workspace_id: str,
    delivery_id: str,
    reason: str,
    on_settled: OnSettled,
    now: dt.datetime,
) -> None:
    """An operator accepts that an archived delivery will not happen; it counts as an exception in
    the receipt.
    """
    delivery = await get(session, workspace_id, delivery_id)
    if not await _leave_archive(session, [delivery_id]):
        raise Conflict("Only an archived delivery can be waived.")
    present = (await latest(session, [delivery_id]))[delivery_id]
    session.add(_transition(present, State.DISCARDED, "expired", now, reason=reason))
    await session.flush()
    await on_settled(
        session, [Settled(delivery.id, delivery.request_id, delivery.workspace_id)], now
    )


async def stop_all(
    session: AsyncSession,
    request_ids: Collection[str],
    detail: str,
    now: dt.datetime,
    *,
    reason: str,
    destination_ids: Collection[str] | None = None,
) -> list[Settled]:
    """Take the unsettled deliveries of requests (at some destinations, or all) out of their queues.
    A call already under way is not recalled.
    """
    deliveries = {
        each.id: each
        for each in await of_requests(session, request_ids)
        if destination_ids is None or each.destination_id in destination_ids
    }
    await _leave_archive(session, deliveries)
    # Their places next, locked: from here on nobody can claim one of them.
    places = await session.execute(
        sa.select(col(Ready.delivery_id), col(Ready.call_id))
        .where(col(Ready.delivery_id).in_(list(deliveries)))
        .order_by(col(Ready.delivery_id))
        .with_for_update()
    )
    in_call = {delivery_id for delivery_id, call_id in places if call_id is not None}
    await _leave_archive(session, deliveries)  # what expired until their places were locked
    present = await latest(session, list(deliveries))
    open_ids = [each for each, transition in present.items() if transition.state not in SETTLED]
    stopped = [each for each in open_ids if each not in in_call]
    for delivery_id in stopped:
        session.add(_transition(present[delivery_id], State.DISCARDED, detail, now, reason=reason))
    await session.execute(
        sa.delete(Ready)
        .where(col(Ready.delivery_id).in_(stopped))
        .execution_options(synchronize_session=False)
    )
    await human_tasks.take_back(session, stopped)
    await session.flush()
    return [
        Settled(each, deliveries[each].request_id, deliveries[each].workspace_id)
        for each in stopped
    ]


async def in_call(
    session: AsyncSession, request_ids: Collection[str], destination_ids: Collection[str]
) -> bool:
    """Whether a call for these requests to one of these destinations is under way."""
    delivery = table_of(Delivery)
    found = await session.execute(
        sa.select(delivery.c.id)
        .join(Ready, col(Ready.delivery_id) == delivery.c.id)
        .where(
            bulk.among(delivery.c.request_id, request_ids),
            delivery.c.destination_id.in_(destination_ids),
            col(Ready.call_id).is_not(None),
        )
        .limit(1)
    )
    return found.first() is not None


def _transition(
    before: DeliveryTransition, state: State, detail: str | None, now: dt.datetime, *, reason: str
) -> DeliveryTransition:
    return DeliveryTransition(
        delivery_id=before.delivery_id,
        seq=before.seq + 1,
        at=now,
        state=state,
        detail=detail,
        assurance=before.assurance or Assurance.REQUESTED,
        attempt=before.attempt,
        reason=reason,
    )
