"""One delivery: what happened to it, step by step, and where it stands now."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from app.core.errors import NotFound
from app.dashboard import present
from app.dashboard.present import Badge
from app.dashboard.views.conditions import Condition, condition
from app.dashboard.views.queues import next_at, place_of, ready_badge
from app.dashboard.views.requests import delivery_badge, flat
from app.delivery import queue_view
from app.delivery import service as deliveries
from app.delivery.models import Call, DeliveryTransition, Ready
from app.delivery.states import SETTLED, State
from app.destinations.models import Destination
from app.security.models import Role
from app.security.sessions import Operator

PLANNED = Badge("Planned", "neutral")


@dataclass(frozen=True, slots=True)
class CallView:
    """The vendor call that carried the delivery, and how many people shared it."""

    id: str
    people: int
    is_poll: bool


@dataclass(frozen=True, slots=True)
class TraceStep:
    at: dt.datetime
    state: Badge
    attempt: int
    duration: str
    http_status: int | None
    reason: str
    retry_at: dt.datetime | None
    facts: str
    residuals: list[str]
    digest: str
    call: CallView | None


@dataclass(frozen=True, slots=True)
class Place:
    """Where it waits now. ``next_at`` None: not before somebody resumes the queue."""

    badge: Badge
    why: str
    ahead: int
    is_capped: bool
    next_at: dt.datetime | None
    since: dt.datetime
    call: CallView | None
    queue: Condition


@dataclass(frozen=True, slots=True)
class DeliveryPage:
    id: str
    request_id: str
    destination_id: str
    destination: str
    operation: str
    badge: Badge
    assurance: str
    reason: str
    attempt_count: int
    created_at: dt.datetime
    deadline: dt.datetime | None
    expires_at: dt.datetime
    identifier_count: int
    is_identity_source_last: bool
    has_queue: bool
    place: Place | None
    steps: list[TraceStep]
    left_out: int
    is_archived: bool
    may_act: bool


async def delivery_page(
    session: AsyncSession, operator: Operator, delivery_id: str, now: dt.datetime
) -> DeliveryPage:
    delivery = await deliveries.get(session, operator.workspace_id, delivery_id)
    destination = await session.get_one(Destination, delivery.destination_id)
    trace = await deliveries.trace(session, delivery_id)
    if not trace:
        raise NotFound("The history of this delivery is older than what is kept.")
    ready = await session.get(Ready, delivery_id)
    used = {each.call_id for each in trace if each.call_id}
    if ready is not None and ready.call_id:
        used.add(ready.call_id)
    calls = await queue_view.calls(session, used)
    last = trace[-1]
    return DeliveryPage(
        id=delivery.id,
        request_id=delivery.request_id,
        destination_id=delivery.destination_id,
        destination=destination.name,
        operation=present.words(delivery.operation),
        badge=delivery_badge(last),
        assurance=present.ASSURANCE.get(last.assurance, last.assurance),
        reason=present.words(last.reason) if last.reason else "",
        attempt_count=last.attempt,
        created_at=delivery.created_at,
        deadline=delivery.due_at,
        expires_at=ready.expires_at if ready else delivery.expires_at,
        identifier_count=len(delivery.identifier_ids),
        is_identity_source_last=delivery.phase > 1,
        has_queue=ready is not None or last.state not in SETTLED,
        place=await _place(session, operator, ready, calls, now) if ready else None,
        steps=[_step(each, calls) for each in trace],
        left_out=deliveries.left_out(trace),
        is_archived=last.state in {State.ARCHIVING, State.ARCHIVED},
        may_act=operator.may(Role.OPERATOR),
    )


async def _place(
    session: AsyncSession,
    operator: Operator,
    ready: Ready,
    calls: Mapping[str, Call],
    now: dt.datetime,
) -> Place:
    queue, destination = await queue_view.find(session, operator.workspace_id, ready.queue_id)
    ahead = await queue_view.ahead(session, ready, now)
    standing = queue_view.standing_of(queue, destination)
    looks_at = next_at(standing)
    return Place(
        badge=ready_badge(ready),
        why=place_of(ready.rank),
        ahead=ahead,
        is_capped=ahead >= queue_view.AHEAD_CAP,
        next_at=max(queue_view.goes_at(ready, queue.eager_before), looks_at) if looks_at else None,
        since=ready.placed_at,
        call=_call(calls, ready.call_id),
        queue=condition(standing, now),
    )


def _call(calls: Mapping[str, Call], call_id: str | None) -> CallView | None:
    found = calls.get(call_id or "")
    if found is None:
        return CallView(call_id, 0, is_poll=False) if call_id else None
    return CallView(found.id, len(found.delivery_ids), is_poll=found.job is not None)


def _step(transition: DeliveryTransition, calls: Mapping[str, Call]) -> TraceStep:
    evidence = dict(transition.evidence or {})
    is_read_back = evidence.pop("read_back", False)
    for known in ("verdict", "salt"):  # the state says the one, the other is of no use to people
        evidence.pop(known, None)
    facts = {**evidence.pop("facts", {}), **({"read_back": True} if is_read_back else {})}
    return TraceStep(
        at=transition.at,
        state=_state(transition),
        attempt=transition.attempt,
        duration=duration(transition.duration_ms),
        http_status=transition.http_status,
        reason=present.words(transition.reason) if transition.reason else "",
        retry_at=transition.retry_at,
        digest=str(evidence.pop("sha256", "")),
        residuals=[_residual(each) for each in evidence.pop("residuals", [])],
        facts=flat({**facts, **evidence}),
        call=_call(calls, transition.call_id),
    )


def _state(transition: DeliveryTransition) -> Badge:
    is_first = transition.seq == 1 and transition.state == State.AWAITING_SCHEDULING
    return PLANNED if is_first else delivery_badge(transition)


def duration(milliseconds: int | None) -> str:
    """``87 ms``, ``12.4 s``"""
    if milliseconds is None:
        return ""
    return f"{milliseconds} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.1f} s"


def _residual(kept: Mapping[str, Any]) -> str:
    """``Order lines, tax law, until 2031-12-31``"""
    parts = (kept.get("what"), kept.get("reason"), kept.get("until") and f"until {kept['until']}")
    return ", ".join(str(each) for each in parts if each)
