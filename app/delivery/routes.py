"""Deliveries and queues over HTTP."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends

from app.core.clock import rfc3339, utc_now
from app.core.http import Reading, StrictRoute, Writing
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


@router.post("/deliveries/{delivery_id}/replay")
async def replay_delivery(
    delivery_id: str, caller: Annotated[Caller, Depends(needs("requests:write"))], session: Writing
) -> dict[str, Any]:
    """Put an archived delivery back into its queue."""
    now = utc_now()
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
