"""Reading requests: lists, one whole request, search by identifier, timeline, batches."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.core.clock import rfc3339
from app.core.errors import NotFound
from app.crypto.keyring import KeyRing
from app.delivery import service as deliveries
from app.delivery.states import SETTLED
from app.destinations.models import Destination
from app.identity import vault
from app.subject_requests.models import Batch, RequestEvent, SubjectRequest
from app.subject_requests.states import Status
from connectors.contract import Identifier


async def get(session: AsyncSession, workspace_id: str, request_id: str) -> SubjectRequest:
    found = await session.get(SubjectRequest, request_id)
    if found is None or found.workspace_id != workspace_id:
        raise NotFound("There is no request with this id.")
    return found


async def page(
    session: AsyncSession,
    workspace_id: str,
    *,
    status: str | None = None,
    kind: str | None = None,
    regime: str | None = None,
    batch_id: str | None = None,
    limit: int,
    after: str | None,
) -> list[SubjectRequest]:
    """Newest first; ``after`` is the id of the last one seen."""
    query = sa.select(SubjectRequest).where(col(SubjectRequest.workspace_id) == workspace_id)
    for column, value in (
        ("status", status),
        ("kind", kind),
        ("regime", regime),
        ("batch_id", batch_id),
    ):
        if value is not None:
            query = query.where(col(getattr(SubjectRequest, column)) == value)
    if after is not None:
        query = query.where(col(SubjectRequest.id) < after)
    return list(
        (
            await session.execute(query.order_by(col(SubjectRequest.id).desc()).limit(limit))
        ).scalars()
    )


async def search(
    session: AsyncSession, ring: KeyRing, workspace_id: str, identifiers: Sequence[Identifier]
) -> list[SubjectRequest]:
    """Requests of anybody with one of the identifiers, newest first; forgotten people cannot be
    found.
    """
    holders = await vault.holders_of(session, ring, workspace_id, identifiers)
    rows = await session.execute(
        sa.select(SubjectRequest)
        .where(
            col(SubjectRequest.id).in_(holders), col(SubjectRequest.workspace_id) == workspace_id
        )
        .order_by(col(SubjectRequest.id).desc())
    )
    return list(rows.scalars())


async def as_json(
    session: AsyncSession, requests: Sequence[SubjectRequest]
) -> list[dict[str, Any]]:
    """The Request shape of design section 7, deliveries included."""
    found = await deliveries.of_requests(session, [each.id for each in requests])
    present = await deliveries.latest(session, [each.id for each in found])
    rows = await session.execute(
        sa.select(Destination).where(
            col(Destination.id).in_({each.destination_id for each in found})
        )
    )
    destinations = {each.id: each for each in rows.scalars()}
    by_request: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for each in found:
        now, destination = present[each.id], destinations[each.destination_id]
        by_request[each.request_id].append(
            {
                "id": each.id,
                "destination": {
                    "id": destination.id,
                    "name": destination.name,
                    "connector": destination.connector,
                },
                "operation": each.operation,
                "state": now.state,
                "detail": now.detail,
                "assurance": now.assurance,
                "attempt_count": now.attempt,
                "next_attempt_at": rfc3339(now.retry_at),
                "settled_at": rfc3339(now.at) if now.state in SETTLED else None,
                "reason": now.reason,
            }
        )
    return [request_json(each, by_request[each.id]) for each in requests]


def request_json(request: SubjectRequest, deliveries_json: list[dict[str, Any]]) -> dict[str, Any]:
    """The Request shape of design section 7."""
    return {
        "id": request.id,
        "kind": request.kind,
        "regime": request.regime,
        "status": request.status,
        "channel": request.channel,
        "identifier_kinds": request.identifier_kinds,
        "received_at": rfc3339(request.received_at),
        "acknowledge_by": rfc3339(request.acknowledge_by),
        "due_at": rfc3339(request.due_at),
        "extended_until": rfc3339(request.extended_until),
        "verified_at": rfc3339(request.verified_at),
        "completed_at": rfc3339(request.completed_at),
        "outcome": request.outcome,
        "forget_at": rfc3339(request.forget_at),
        "forgotten_at": rfc3339(request.forgotten_at),
        "duplicate_of": request.duplicate_of,
        "batch_id": request.batch_id,
        "hold_reason": request.hold_reason,
        "denial_reason": request.denial_reason,
        "receipt_id": request.receipt_id,
        "deliveries": deliveries_json,
    }


async def timeline(session: AsyncSession, request_id: str) -> dict[str, Any]:
    """Everything that happened, oldest first: the request's events and its deliveries' newest
    transitions.
    """
    events = await session.execute(
        sa.select(RequestEvent)
        .where(col(RequestEvent.request_id) == request_id)
        .order_by(col(RequestEvent.id))
    )
    items = [
        (
            each.at,
            {
                "at": rfc3339(each.at),
                "type": each.type,
                "actor": each.actor,
                "delivery_id": each.delivery_id,
                "data": each.data,
            },
        )
        for each in events.scalars()
    ]
    planned = await deliveries.of_requests(session, [request_id])
    traces = await deliveries.traces(session, [each.id for each in planned])
    for trace in traces.values():
        for step in trace:
            data = {
                "state": step.state,
                "detail": step.detail,
                "attempt": step.attempt,
                "reason": step.reason,
            }
            items.append(
                (
                    step.at,
                    {
                        "at": rfc3339(step.at),
                        "type": f"delivery_{step.state}",
                        "actor": "engine",
                        "delivery_id": step.delivery_id,
                        "data": data,
                    },
                )
            )
    return {
        "items": [item for _, item in sorted(items, key=_moment)],
        "steps_left_out": sum(map(deliveries.left_out, traces.values())),
    }


def _moment(item: tuple[dt.datetime, dict[str, Any]]) -> tuple[dt.datetime, int]:
    """Of one transaction, plans come before deliveries' steps, and a completion after them."""
    at, event = item
    order = {"received": 0, "verified": 0, "resolved": 0, "planned": 1}
    return at, order.get(event["type"], 2 if event["delivery_id"] else 3)


async def waiting_in_batch(session: AsyncSession, batch_id: str, *, limit: int) -> list[str]:
    """Requests of a batch that wait for approval, oldest first."""
    rows = await session.execute(
        sa.select(col(SubjectRequest.id))
        .where(
            col(SubjectRequest.batch_id) == batch_id,
            col(SubjectRequest.status) == Status.AWAITING_APPROVAL,
        )
        .order_by(col(SubjectRequest.id))
        .limit(limit)
    )
    return list(rows.scalars())


async def batch_json(session: AsyncSession, workspace_id: str, batch_id: str) -> dict[str, Any]:
    batch = await session.get(Batch, batch_id)
    if batch is None or batch.workspace_id != workspace_id:
        raise NotFound("There is no batch with this id.")
    rows = await session.execute(
        sa.select(col(SubjectRequest.status), sa.func.count())
        .where(col(SubjectRequest.batch_id) == batch_id)
        .group_by(col(SubjectRequest.status))
    )
    return {
        "id": batch.id,
        "total": batch.total,
        "by_status": dict(rows.all()),
    }
