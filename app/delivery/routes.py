"""Deliveries and queues over HTTP."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import AwareDatetime, Field

from app.core.clock import rfc3339, utc_now
from app.core.http import Reading, Schema, StrictRoute, Writing
from app.delivery import service
from app.delivery.models import Delivery, DeliveryTransition
from app.security import audit
from app.security.access import Caller, needs

router = APIRouter(prefix="/v1", tags=["deliveries"], route_class=StrictRoute)

Reader = Annotated[Caller, Depends(needs("requests:read"))]
Operator = Annotated[Caller, Depends(needs("destinations:write"))]


@router.get("/deliveries/{delivery_id}")
async def get_delivery(delivery_id: str, caller: Reader, session: Reading) -> dict[str, Any]:
    """A delivery with every step it took."""
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
async def list_queues(
    caller: Annotated[Caller, Depends(needs("destinations:read"))], session: Reading
) -> dict[str, Any]:
    """All queues with depth, age and health."""
    rows = await service.queues(session, caller.workspace_id, utc_now())
    for row in rows:
        row["oldest_due_at"], row["next_due_at"] = (
            rfc3339(row["oldest_due_at"]),
            rfc3339(row["next_due_at"]),
        )
    return {"items": rows, "next_cursor": None}


@router.post("/queues/{destination_id}/{action}")
async def change_queue(
    destination_id: str, action: service.QueueAction, caller: Operator, session: Writing
) -> dict[str, Any]:
    """Pause, resume, boost or flush a queue: one UPDATE each."""
    now = utc_now()
    await service.change_queue(session, caller.workspace_id, destination_id, action, now)
    audit.record(
        session,
        workspace_id=caller.workspace_id,
        actor=caller.actor,
        verb=f"queue_{action}",
        target=destination_id,
        now=now,
    )
    rows = await service.queues(session, caller.workspace_id, now)
    row = next(each for each in rows if each["destination_id"] == destination_id)
    row["oldest_due_at"], row["next_due_at"] = (
        rfc3339(row["oldest_due_at"]),
        rfc3339(row["next_due_at"]),
    )
    return row


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
