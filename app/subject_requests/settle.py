"""Settling: deliveries count down, the next phase starts, and a finished request gets its receipt,
in one transaction.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from importlib.metadata import version
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.core import bulk
from app.core.clock import rfc3339
from app.core.db import hint_after_commit, table_of
from app.core.ids import new_id
from app.delivery import plan
from app.delivery import service as deliveries
from app.delivery.finish import Settled
from app.destinations.models import Destination
from app.identity.models import PersonalValue
from app.notifications import service as notifications
from app.receipts import claims as wording
from app.receipts.models import Receipt
from app.security.models import Workspace
from app.subject_requests.models import RequestEvent, SubjectRequest
from app.subject_requests.services import Services
from app.subject_requests.states import FINAL, Status
from app.subject_requests.timeline import event
from app.suppression.models import Suppression

SOFTWARE = {"name": "quittance", "version": version("quittance")}
DEEMED_DELIVERED = dt.timedelta(days=14)


async def on_settled(
    services: Services, session: AsyncSession, settled: Sequence[Settled], now: dt.datetime
) -> None:
    """Called by the engine in the transaction that records the deliveries' end."""
    counts = Counter(each.request_id for each in settled)
    request = table_of(SubjectRequest)
    rows = await session.execute(
        sa.select(
            request.c.id,
            request.c.open_count,
            request.c.phase_open_count,
            request.c.phase,
            request.c.status,
            request.c.completed_at,
        )
        .where(bulk.among(request.c.id, counts))
        .order_by(request.c.id)
        .with_for_update()
    )
    done: list[str] = []
    next_phase: list[str] = []
    counted: list[dict[str, Any]] = []
    for row in rows:
        left, phase = row.open_count - counts[row.id], row.phase
        left_of_phase = row.phase_open_count - counts[row.id]
        is_closed = row.completed_at is not None  # before its last call came home
        if left <= 0 and not is_closed:
            done.append(row.id)
        # Cancelled or denied: nothing new starts.
        elif left_of_phase <= 0 and phase == 1 and row.status not in FINAL and not is_closed:
            phase, left_of_phase = 2, left
            next_phase.append(row.id)
        counted.append(
            {
                "id": row.id,
                "open_count": left,
                "phase": phase,
                "phase_open_count": left_of_phase,
            }
        )
    await bulk.update(session, SubjectRequest, ("id",), counted)
    if next_phase:
        await plan.release_phase(session, next_phase, 2, now)
    if done:
        closing = await session.execute(
            sa.select(SubjectRequest)
            .where(bulk.among(request.c.id, done))
            .order_by(request.c.id)
            .execution_options(populate_existing=True)
        )
        await finalise(session, services, closing.scalars().all(), now)


async def stopped(session: AsyncSession, request_ids: Collection[str]) -> set[str]:
    """Which of these were cancelled or denied; all are locked, in the order of ``on_settled``."""
    rows = await session.execute(
        sa.select(col(SubjectRequest.id), col(SubjectRequest.status))
        .where(bulk.among(table_of(SubjectRequest).c.id, request_ids))
        .order_by(col(SubjectRequest.id))
        .with_for_update()
    )
    return {request_id for request_id, status in rows if status in FINAL}


async def finalise(
    session: AsyncSession,
    services: Services,
    requests: Sequence[SubjectRequest],
    now: dt.datetime,
    *,
    gave_up: bool = False,
) -> None:
    """Close requests whose deliveries are all settled, and their duplicates with them.

    ``gave_up``: not because all is done, but because their time is over.
    """
    duplicates = (
        (
            await session.execute(
                sa.select(SubjectRequest)
                .where(
                    col(SubjectRequest.duplicate_of).in_([each.id for each in requests]),
                    col(SubjectRequest.status).not_in(FINAL),
                )
                .order_by(col(SubjectRequest.id))
                .with_for_update()
            )
        )
        .scalars()
        .all()
    )
    by_id = {each.id: each for each in requests}
    for duplicate in duplicates:
        if by_id[duplicate.duplicate_of or ""].status in {Status.CANCELLED, Status.DENIED}:
            duplicate.status, duplicate.duplicate_of, duplicate.next_step_at = (
                Status.RESOLVING,
                None,
                now,
            )
            hint_after_commit(session, "advance")
    closing = [*requests, *(each for each in duplicates if each.duplicate_of)]
    facts = await gather(session, closing)
    receipts = [
        _close(session, services, request, facts, now, gave_up=gave_up) for request in closing
    ]
    await session.flush()
    await bulk.insert(session, Receipt, receipts)
    await bulk.insert(
        session,
        RequestEvent,
        [event(each.id, each.status, "service", now, outcome=each.outcome) for each in closing],
    )
    hint_after_commit(session, "sign")


def _close(
    session: AsyncSession,
    services: Services,
    request: SubjectRequest,
    facts: Facts,
    now: dt.datetime,
    *,
    gave_up: bool,
) -> dict[str, Any]:
    """Close one; returns the row of its receipt."""
    claims = receipt_claims(services, request, facts, new_id("rcp"), now, is_final=True)
    if gave_up:
        claims["outcome"] = "partial"
    request.outcome = claims["outcome"]
    if request.status not in FINAL:
        is_partial = request.outcome == "partial"
        request.status = Status.COMPLETED_WITH_EXCEPTIONS if is_partial else Status.COMPLETED
    request.completed_at = now
    request.receipt_id = claims["jti"]
    if request.has_contact:
        notifications.queue(
            session, request.workspace_id, request.id, "receipt", request.language, now
        )
    request.next_step_at = now + DEEMED_DELIVERED
    return {
        "id": claims["jti"],
        "workspace_id": request.workspace_id,
        "request_id": request.id,
        "is_final": True,
        "claims": claims,
        "created_at": now,
    }


# Facts for receipts


class Facts:
    """Everything a batch of receipts states, read together."""

    def __init__(self) -> None:
        self.workspaces: dict[str, Workspace] = {}
        self.deliveries: dict[str, list[wording.DeliveryFact]] = defaultdict(list)
        self.commitments: dict[str, list[dict[str, str]]] = defaultdict(list)
        self.interim: dict[str, str] = {}
        self.suppressed_until: dict[str, dt.datetime] = {}


async def gather(session: AsyncSession, requests: Sequence[SubjectRequest]) -> Facts:
    facts = Facts()
    ids = [each.id for each in requests]
    for workspace_id in {each.workspace_id for each in requests}:
        facts.workspaces[workspace_id] = await session.get_one(Workspace, workspace_id)
    found = await deliveries.standing(session, {each.duplicate_of or each.id for each in requests})
    kinds = await _connectors(session, {each.destination_id for each in found})
    for each in found:
        facts.deliveries[each.request_id].append(_fact(each, kinds[each.destination_id]))
    values = await session.execute(
        sa.select(
            col(PersonalValue.holder_id), col(PersonalValue.kind), col(PersonalValue.commitment)
        )
        .where(col(PersonalValue.holder_id).in_(ids), col(PersonalValue.purpose) == "identifier")
        .order_by(col(PersonalValue.id))
    )
    for holder_id, kind, value in values:
        assert value is not None  # noqa: S101 (an invariant of ours)
        facts.commitments[holder_id].append(
            {"id_type": kind, "alg": "HMAC-SHA256-v1", "value": value}
        )
    facts.suppressed_until = await _suppressed_until(session, ids)
    receipts = await session.execute(
        sa.select(col(Receipt.request_id), col(Receipt.id)).where(
            col(Receipt.request_id).in_(ids), ~col(Receipt.is_final)
        )
    )
    facts.interim = dict(receipts.all())
    return facts


async def _suppressed_until(
    session: AsyncSession, request_ids: Sequence[str]
) -> dict[str, dt.datetime]:
    """Request id -> when the last entry of its person leaves our own list; nobody listed: none."""
    rows = await session.execute(
        sa.select(col(PersonalValue.holder_id), sa.func.max(col(Suppression.expires_at)))
        .join(
            Suppression,
            (col(Suppression.workspace_id) == col(PersonalValue.workspace_id))
            & (col(Suppression.subject_ref) == col(PersonalValue.subject_ref)),
        )
        .where(col(PersonalValue.holder_id).in_(request_ids))
        .group_by(col(PersonalValue.holder_id))
    )
    return {row[0]: row[1] for row in rows}


async def _connectors(session: AsyncSession, destination_ids: set[str]) -> dict[str, str]:
    rows = await session.execute(
        sa.select(col(Destination.id), col(Destination.connector)).where(
            col(Destination.id).in_(destination_ids)
        )
    )
    return dict(rows.all())


def _fact(row: Any, connector: str) -> wording.DeliveryFact:
    """``row``: see ``app.delivery.service.standing``."""
    return wording.DeliveryFact(
        ref=new_id("ref"),
        connector=connector,
        operation=row.operation,
        state=row.state,
        detail=row.detail,
        assurance=row.assurance,
        attempt=row.attempt,
        reason=row.reason,
        requested_at=row.created_at,
        settled_at=row.at if row.state in {"succeeded", "discarded"} else None,
        evidence=row.evidence or {},
    )


def receipt_claims(
    services: Services,
    request: SubjectRequest,
    facts: Facts,
    jti: str,
    now: dt.datetime,
    *,
    is_final: bool,
) -> dict[str, Any]:
    """The claims of one receipt (security.md 3.3)."""
    settings = services.settings
    workspace = facts.workspaces[request.workspace_id]
    mine = facts.deliveries[request.duplicate_of or request.id]
    residuals = wording.residuals_json(mine)
    outcome = wording.outcome_of(
        [wording.tell(each) for each in mine],
        is_refused=request.status == Status.DENIED,
        has_residuals=bool(residuals),
    )
    if not is_final or (request.status == Status.CANCELLED):
        outcome = "partial"
    claims: dict[str, Any] = {
        "iss": settings.public_url,
        "jti": jti,
        "iat": int(now.timestamp()),
        "ver": wording.VERSION,
        "controller": {
            "name": workspace.name,
            "contact": workspace.contact,
            "jurisdiction": workspace.jurisdiction,
        },
        "request": {
            "id": request.id,
            "right": request.kind,
            "regime": request.regime,
            "channel": request.channel,
            "received_at": rfc3339(request.received_at),
            "verified_at": rfc3339(request.verified_at),
            "verification": request.verification,
            "due_at": rfc3339(request.due_at),
        },
        "subject": {"commitments": facts.commitments[request.id]},
        "scope": "listed_destinations" if request.destination_ids else "all",
        "destinations": wording.destinations_json(mine),
        "residuals": residuals,
        "own_records": wording.own_records_json(
            suppression_until=facts.suppressed_until.get(request.id),
            record_until=now + dt.timedelta(days=settings.request_record_days),
            forget_after_days=grace(services, workspace).days,
        ),
        "outcome": outcome,
        "policy": wording.policy_json(
            forget_grace_days=grace(services, workspace).days,
            identifier_max_days=settings.identifier_max_days,
            request_record_days=settings.request_record_days,
            suppression_months=settings.suppression_months,
            suppress_after_erasure=workspace.suppress_after_erasure,
        ),
        "software": SOFTWARE,
    }
    if request.extended_until:
        claims["request"]["extended_until"] = rfc3339(request.extended_until)
    if is_final:
        claims["request"]["closed_at"] = rfc3339(now)
    if interim := facts.interim.get(request.id):
        claims["supersedes"] = interim
    if request.purposes:
        claims["purposes"] = list(request.purposes)
    if request.status == Status.DENIED:
        claims["denial_basis"] = request.denial_reason
    return claims


def grace(services: Services, workspace: Workspace) -> dt.timedelta:
    """How long identifiers stay after the receipt was delivered."""
    return dt.timedelta(days=0 if workspace.is_demo else services.settings.forget_grace_days)


def delivered(
    request: SubjectRequest, workspace: Workspace, services: Services, now: dt.datetime
) -> None:
    """The final receipt reached the person: the forgetting clock starts."""
    if request.delivered_at is None and request.status in FINAL:
        request.delivered_at = now
        request.forget_at = now + grace(services, workspace)
        request.next_step_at = request.forget_at
