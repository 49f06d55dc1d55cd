"""Deliveries and queues over HTTP."""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import AwareDatetime, Field
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.clock import rfc3339, utc_now
from app.core.http import Reading, Schema, StrictRoute, Writing
from app.delivery import activity, queue_view, queues, service, stats
from app.delivery.models import Delivery, DeliveryTransition
from app.security import audit
from app.security.access import Caller, needs

router = APIRouter(prefix="/v1", tags=["deliveries"], route_class=StrictRoute)

Reader = Annotated[Caller, Depends(needs("requests:read"))]
Watcher = Annotated[Caller, Depends(needs("destinations:read"))]
Operator = Annotated[Caller, Depends(needs("destinations:write"))]


@router.get("/deliveries/{delivery_id}")
async def get_delivery(delivery_id: str, caller: Reader, session: Reading) -> dict[str, Any]:
    """A delivery with its newest 100 steps; `transitions_left_out` counts those before them."""
    delivery = await service.get(session, caller.workspace_id, delivery_id)
    return delivery_json(delivery, await service.trace(session, delivery_id))


Replayer = Annotated[Caller, Depends(needs("requests:write"))]


class ReplayIn(Schema):
    """Which archived deliveries: all, or those of one destination, or that expired in a time."""

    destination_id: str | None = Field(None, max_length=48)
    since: AwareDatetime | None = Field(None, description="Expired at this moment or later.")
    until: AwareDatetime | None = Field(None, description="Expired before this moment.")


@router.post("/deliveries/replay")
async def replay_deliveries(
    body: ReplayIn, request: Request, caller: Replayer, session: Writing
) -> dict[str, Any]:
    """Put archived deliveries back into their queues, at most 500 in one call: call again while
    `remaining` is not 0. `forgotten` ones can only be waived.
    """
    now = utc_now()
    which = service.Selection(
        caller.workspace_id, queue_id=body.destination_id, since=body.since, until=body.until
    )
    await request.app.state.archive.mend(which)
    done = await service.replay_many(session, which, now)
    audit.record(
        session,
        workspace_id=caller.workspace_id,
        actor=caller.actor,
        verb="replay_archived",
        target=body.destination_id or caller.workspace_id,
        now=now,
        replayed=done.replayed,
        since=rfc3339(body.since),
        until=rfc3339(body.until),
    )
    return asdict(done)


@router.post("/deliveries/{delivery_id}/replay")
async def replay_delivery(
    delivery_id: str, request: Request, caller: Replayer, session: Writing
) -> dict[str, Any]:
    """Put an archived delivery back into its queue."""
    now = utc_now()
    await request.app.state.archive.mend(service.Selection(caller.workspace_id, delivery_id))
    delivery = await service.replay(session, caller.workspace_id, delivery_id, now)
    audit.record(
        session,
        workspace_id=caller.workspace_id,
        actor=caller.actor,
        verb="replay",
        target=delivery_id,
        now=now,
    )
    return delivery_json(delivery, await service.trace(session, delivery_id))


@router.get("/queues")
async def list_queues(caller: Watcher, session: Reading) -> dict[str, Any]:
    """All queues with depth, age and health; `in_flight` are calls under way, `rate_per_minute`
    calls at present, `last_errors` the newest few `{at, reason, http_status}`, `not_before` when
    the next call may go out (null: now).
    """
    return {"items": await _queues(session, caller.workspace_id, utc_now()), "next_cursor": None}


@router.get("/queues/{destination_id}/activity")
async def queue_activity(
    destination_id: str,
    caller: Watcher,
    session: Reading,
    hours: Annotated[int, Query(ge=1, le=168)] = 24,
) -> dict[str, Any]:
    """What a queue did in the last `hours`, per five minutes; times without any activity are left
    out. `succeeded`, `retried` and `discarded` count deliveries, `attempts` those that succeeded
    by the number of their attempt.
    """
    await queue_view.find(session, caller.workspace_id, destination_id)
    since = stats.slot_of(utc_now()) - dt.timedelta(hours=hours)
    counts = (await activity.counts_of(session, [destination_id], since))[destination_id]
    slots: dict[dt.datetime, activity.Tally] = {}
    for each in counts:
        slots.setdefault(each.at, activity.Tally()).add(each.event, each.count)
    items = [{"at": rfc3339(at)} | activity.tally_json(tally) for at, tally in slots.items()]
    return {"since": rfc3339(since), "slot_seconds": int(stats.SLOT.total_seconds())} | {
        "items": items,
        "next_cursor": None,
    }


@router.get("/stats/deliveries")
async def delivery_stats(
    caller: Watcher, session: Reading, days: Annotated[int, Query(ge=1, le=30)] = 7
) -> dict[str, Any]:
    """How many deliveries succeeded in the last `days`, how many of them only on a retry (`share`:
    of those that succeeded, null if none did), and on which attempt.
    """
    since = stats.slot_of(utc_now()) - dt.timedelta(days=days)
    total = await activity.total_of_all(session, caller.workspace_id, since)
    return {
        "since": rfc3339(since),
        "succeeded": total.succeeded_count,
        "saved_by_retry": total.saved_count,
        "share": total.saved_share,
        "attempts": activity.attempts_json(total),
    }


@router.post("/queues/{destination_id}/{action}")
async def change_queue(
    destination_id: str, action: queues.QueueAction, caller: Operator, session: Writing
) -> dict[str, Any]:
    """Pause, resume, boost or flush a queue."""
    now = utc_now()
    await queues.change(session, caller.workspace_id, destination_id, action, now)
    audit.record(
        session,
        workspace_id=caller.workspace_id,
        actor=caller.actor,
        verb=f"queue_{action}",
        target=destination_id,
        now=now,
    )
    rows = await _queues(session, caller.workspace_id, now)
    return next(each for each in rows if each["destination_id"] == destination_id)


async def _queues(
    session: AsyncSession, workspace_id: str, now: dt.datetime
) -> list[dict[str, Any]]:
    rows = await queues.shown(session, workspace_id, now)
    notes = await queue_view.notes(session, workspace_id)
    rates = await activity.rates(session, workspace_id, now)
    for row in rows:
        note = notes.get(row["destination_id"], queue_view.Note(None, []))
        row |= {
            "oldest_due_at": rfc3339(row["oldest_due_at"]),
            "next_due_at": rfc3339(row["next_due_at"]),
            "not_before": rfc3339(note.not_before) if note.is_held(now) else None,
            "rate_per_minute": round(rates.get(row["destination_id"], 0.0), 2),
            "last_errors": [
                {"at": rfc3339(each.at), "reason": each.reason, "http_status": each.http_status}
                for each in note.last_errors
            ],
        }
    return rows


def delivery_json(delivery: Delivery, transitions: list[DeliveryTransition]) -> dict[str, Any]:
    present = transitions[-1]
    return {
        "id": delivery.id,
        "request_id": delivery.request_id,
        "destination_id": delivery.destination_id,
        "operation": delivery.operation,
        "state": present.state,
        "detail": present.detail,
        "assurance": present.assurance,
        "expires_at": rfc3339(delivery.expires_at),
        "transitions_left_out": service.left_out(transitions),
        "transitions": [transition_json(each) for each in transitions],
    }


def transition_json(each: DeliveryTransition) -> dict[str, Any]:
    return {
        "seq": each.seq,
        "at": rfc3339(each.at),
        "state": each.state,
        "attempt": each.attempt,
        "duration_ms": each.duration_ms,
        "http_status": each.http_status,
        "reason": each.reason,
        "retry_at": rfc3339(each.retry_at),
    }
