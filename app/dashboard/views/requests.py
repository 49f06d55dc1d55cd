"""Requests: the list, the page of one, search by identifier, the CSV export."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased
from sqlmodel import col

from app.core import sheets
from app.core.errors import NotFound
from app.crypto.keystore import KeyStore
from app.dashboard import present
from app.dashboard.present import Badge
from app.dashboard.views.choices import Choice, choice, laws
from app.dashboard.views.paging import SIZE, Pager, Position
from app.dashboard.views.people import names_of
from app.delivery import service as deliveries
from app.delivery.models import Delivery, DeliveryTransition, Ready
from app.delivery.states import SETTLED
from app.destinations.models import Destination
from app.identity import vault
from app.identity.models import PersonalValue
from app.security.models import Role
from app.security.sessions import Operator
from app.subject_requests.decide import BULK
from app.subject_requests.models import RequestEvent, SubjectRequest
from app.subject_requests.resolve import TOO_MANY
from app.subject_requests.states import FINAL, MOVES, OPERATIONS, Kind, Status

SOON = dt.timedelta(hours=72)
EXPORT_LIMIT = 10_000

DUE_AT = sa.func.coalesce(col(SubjectRequest.extended_until), col(SubjectRequest.due_at))
"""The deadline that counts."""
IS_OPEN = col(SubjectRequest.status).in_(present.OPEN_STATUSES)
MANUAL_KINDS = tuple(kind.value for kind in Kind if kind not in OPERATIONS)
WAITS_FOR_ANSWER = (col(SubjectRequest.status) == "in_progress") & col(SubjectRequest.kind).in_(
    MANUAL_KINDS
)

DENY_REASONS = {
    "identity_not_proven": "Identity not proven",
    "manifestly_unfounded": "Manifestly unfounded (GDPR 12(5))",
    "excessive": "Excessive, repeated (GDPR 12(5))",
    "legal_obligation": "A law requires keeping the data",
    "legal_claims": "Needed for legal claims",
    "freedom_of_expression": "Freedom of expression",
    "public_interest": "Public interest or research",
    "other_peoples_rights": "Rights of other people",
    "not_covered": "The law does not cover this request",
}
APPROVAL_REASONS = {
    TOO_MANY: "more identifiers than usual were found",
    BULK: "it came with more people at once than one person may ask to erase",
}


def due_before(moment: dt.datetime) -> sa.ColumnElement[bool]:
    """Open, and the deadline that counts lies before ``moment``: an extension only moves it back.

    Said twice, so that either database begins with the index of deadlines: PostgreSQL by the plain
    condition, SQLite by the list of ids, or it would rather read all that is open.
    """
    near = aliased(SubjectRequest)
    ids = sa.select(col(near.id)).where(_is_near(near, moment))
    return (
        col(SubjectRequest.id).in_(ids)
        & _is_near(SubjectRequest, moment)
        & IS_OPEN
        & (moment > DUE_AT)
    )


def _is_near(request: type[SubjectRequest], moment: dt.datetime) -> sa.ColumnElement[bool]:
    return col(request.completed_at).is_(None) & (col(request.due_at) < moment)


@dataclass(frozen=True, slots=True)
class Due:
    """The deadline with its urgency: bad (passed), warn (72 hours), else neutral."""

    at: dt.datetime
    tone: str
    is_running: bool


@dataclass(frozen=True, slots=True)
class RequestRow:
    id: str
    short_id: str
    kind: str
    status: Badge
    regime: str
    channel: str
    received_at: dt.datetime
    due: Due
    completed_at: dt.datetime | None


def row_of(request: SubjectRequest, now: dt.datetime) -> RequestRow:
    return RequestRow(
        id=request.id,
        short_id=f"…{request.id[-8:]}",
        kind=present.REQUEST_KIND.get(request.kind, present.words(request.kind)),
        status=present.badge(present.REQUEST_STATUS, request.status),
        regime=present.regime(request.regime),
        channel=present.words(request.channel),
        received_at=request.received_at,
        due=due_of(request, now),
        completed_at=request.completed_at,
    )


def due_of(request: SubjectRequest, now: dt.datetime) -> Due:
    at = request.extended_until or request.due_at
    is_running = request.status in present.OPEN_STATUSES
    tone = "neutral"
    if is_running:
        tone = "bad" if at < now else "warn" if at < now + SOON else "neutral"
    return Due(at, tone, is_running)


STATUS_FILTER = {
    "": "Any status",
    "open": "Open",
    "overdue": "Overdue",
    "soon": "Due within 72 hours",
    "answer": "Waiting for an answer",
    **{name: badge.text for name, badge in present.REQUEST_STATUS.items()},
}
KIND_FILTER = {"": "Any kind", **present.REQUEST_KIND}


@dataclass(frozen=True, slots=True)
class RequestList:
    rows: list[RequestRow]
    pager: Pager
    choices: list[Choice]
    is_filtered: bool
    may_search: bool
    identifier_kinds: list[str]
    export_query: str


def choices(asked: Mapping[str, str]) -> list[Choice]:
    return [
        choice(asked, "status", "Status", STATUS_FILTER),
        choice(asked, "kind", "Kind", KIND_FILTER),
        choice(asked, "regime", "Law", laws()),
    ]


async def request_list(
    session: AsyncSession,
    operator: Operator,
    position: Position,
    choices: list[Choice],
    now: dt.datetime,
    export_query: str,
) -> RequestList:
    """One page, newest first."""
    query = filtered(operator.workspace_id, position.filters, now)
    if after := position.after:
        query = query.where(col(SubjectRequest.id) < after)
    rows = (await session.execute(query.limit(SIZE + 1))).scalars().all()
    found, pager = position.page(rows, rows[min(len(rows), SIZE) - 1].id if rows else "")
    return RequestList(
        rows=[row_of(each, now) for each in found],
        pager=pager,
        choices=choices,
        is_filtered=any(position.filters.values()),
        may_search=operator.may(Role.OPERATOR),
        identifier_kinds=["email", "user_id", "phone", "anonymous_id", "device_id"],
        export_query=export_query,
    )


def filtered(
    workspace_id: str, filters: Mapping[str, str], now: dt.datetime
) -> sa.Select[SubjectRequest]:
    """The workspace's requests under a filter, newest first."""
    query = sa.select(SubjectRequest).where(col(SubjectRequest.workspace_id) == workspace_id)
    status = filters.get("status", "")
    special = {
        "open": IS_OPEN,
        "overdue": due_before(now),
        "soon": due_before(now + SOON) & (now <= DUE_AT),
        "answer": WAITS_FOR_ANSWER,
    }
    if status in special:
        query = query.where(special[status])
    elif status:
        query = query.where(col(SubjectRequest.status) == status)
    if kind := filters.get("kind"):
        query = query.where(col(SubjectRequest.kind) == kind)
    if regime := filters.get("regime"):
        query = query.where(col(SubjectRequest.regime) == regime)
    return query.order_by(col(SubjectRequest.id).desc())


async def of_holders(
    session: AsyncSession, workspace_id: str, holder_ids: Sequence[str], now: dt.datetime
) -> list[RequestRow]:
    """The requests among holders of personal values, newest first."""
    query = (
        sa.select(SubjectRequest)
        .where(
            col(SubjectRequest.workspace_id) == workspace_id, col(SubjectRequest.id).in_(holder_ids)
        )
        .order_by(col(SubjectRequest.id).desc())
        .limit(100)
    )
    return [row_of(each, now) for each in (await session.execute(query)).scalars()]


async def as_csv(
    session: AsyncSession, workspace_id: str, filters: Mapping[str, str], now: dt.datetime
) -> str:
    """The filtered list as CSV (RFC 4180), at most 10 000 rows; no cell is read as a formula."""
    names = (
        "id",
        "kind",
        "regime",
        "status",
        "channel",
        "received_at",
        "due_at",
        "extended_until",
        "verified_at",
        "completed_at",
        "outcome",
        "hold_reason",
        "denial_reason",
        "denial_note",
    )
    rows = await session.execute(filtered(workspace_id, filters, now).limit(EXPORT_LIMIT))
    lines = [sheets.line(names)]
    lines += [sheets.line(getattr(each, name) for name in names) for each in rows.scalars()]
    return "".join(lines)


# One request


@dataclass(frozen=True, slots=True)
class Step:
    """One transition of a delivery."""

    seq: int
    at: dt.datetime
    state: Badge
    attempt: int
    duration: str
    http_status: int | None
    reason: str
    retry_at: dt.datetime | None
    evidence: str


@dataclass(frozen=True, slots=True)
class DeliveryView:
    id: str
    destination_id: str
    destination: str
    connector: str
    operation: str
    badge: Badge
    assurance: str
    reason: str
    attempt: int
    next_at: dt.datetime | None
    expires_at: dt.datetime
    steps: list[Step]
    left_out: int
    can_replay: bool


@dataclass(frozen=True, slots=True)
class Event:
    at: dt.datetime
    text: str
    who: str
    details: str


@dataclass(frozen=True, slots=True)
class Shown:
    """An identifier, masked unless revealed."""

    kind: str
    value: str
    origin: str


@dataclass(frozen=True, slots=True)
class RequestPage:
    id: str
    kind: str
    status: Badge
    outcome: Badge | None
    facts: list[tuple[str, Any]]
    due: Due
    approval: str
    """Why it needs an operator's approval; empty: it waits for none."""
    hold_reason: str | None
    denial: str | None
    identifiers: list[Shown]
    identifier_kinds: list[str]
    is_revealed: bool
    is_forgotten: bool
    deliveries: list[DeliveryView]
    no_deliveries: str
    """What to say where there are none."""
    events: list[Event]
    receipt_id: str | None
    duplicate_of: str | None
    duplicate_ids: list[str]
    answer_count: int
    can: frozenset[str]
    """Steps this operator may take now: approve, deny, extend, hold, release, cancel, answer,
    reveal.
    """
    may_decide: bool
    deny_reasons: Mapping[str, str]
    is_moving: bool
    """Whether the page is worth a reload by itself."""


async def request_page(
    session: AsyncSession,
    keys: KeyStore,
    operator: Operator,
    request_id: str,
    now: dt.datetime,
    *,
    is_revealed: bool = False,
) -> RequestPage:
    request = await find(session, operator.workspace_id, request_id)
    events = await _events(session, operator.workspace_id, request_id)
    identifiers = []
    if operator.may(Role.OPERATOR) and request.forgotten_at is None:
        opened = await vault.open_holder(session, keys, [request_id], ("identifier", "contact"))
        identifiers = [
            Shown(
                present.words(each.kind) if each.purpose == "identifier" else "Contact",
                each.value if is_revealed else masked(each.value),
                each.origin,
            )
            for each in sorted(opened, key=lambda each: (each.purpose, each.origin, each.kind))
        ]
    can = steps(request, operator)
    duplicates = await session.execute(
        sa.select(col(SubjectRequest.id))
        .where(col(SubjectRequest.duplicate_of) == request_id)
        .limit(20)
    )
    return RequestPage(
        id=request.id,
        kind=present.REQUEST_KIND.get(request.kind, present.words(request.kind)),
        status=present.badge(present.REQUEST_STATUS, request.status),
        outcome=present.badge(present.OUTCOME, request.outcome) if request.outcome else None,
        facts=_facts(request),
        due=due_of(request, now),
        approval=_approval(request),
        hold_reason=request.hold_reason if request.status == Status.ON_HOLD else None,
        denial=_denial(request),
        identifiers=identifiers,
        identifier_kinds=[present.words(kind) for kind in request.identifier_kinds],
        is_revealed=is_revealed,
        is_forgotten=request.forgotten_at is not None,
        deliveries=await _deliveries(session, request, operator),
        no_deliveries=_no_deliveries(request),
        events=events,
        receipt_id=request.receipt_id,
        duplicate_of=request.duplicate_of,
        duplicate_ids=[each for (each,) in duplicates],
        answer_count=await _answer_count(session, request_id),
        can=can,
        may_decide=bool(can - {"reveal"}),
        deny_reasons=DENY_REASONS,
        is_moving=request.status in {"resolving", "in_progress", "cooling_off"},
    )


async def find(session: AsyncSession, workspace_id: str, request_id: str) -> SubjectRequest:
    request = await session.get(SubjectRequest, request_id)
    if request is None or request.workspace_id != workspace_id:
        raise NotFound("There is no request with this id in your workspace.")
    return request


def steps(request: SubjectRequest, operator: Operator) -> frozenset[str]:
    """What the state machine and the role allow now."""
    if not operator.may(Role.OPERATOR):
        return frozenset()
    status = Status(request.status)
    can = {event for event, moves in MOVES.items() if status in moves} - {"verify"}
    if request.extended_until is not None:
        can -= {"extend"}
    if request.forgotten_at is None:
        can |= {"reveal"}
    if status is Status.IN_PROGRESS and request.kind in MANUAL_KINDS:
        can |= {"answer"}
    return frozenset(can)


def masked(value: str) -> str:
    """Enough to recognise, too little to use: ``l•••@e•••.br``."""
    if "@" in value:
        local, _, domain = value.rpartition("@")
        host, _, top = domain.rpartition(".")
        return f"{local[:1]}•••@{host[:1]}•••.{top}" if host else f"{local[:1]}•••@•••"
    return f"{value[:1]}•••{value[-1:]}" if len(value) > 5 else "•••"


def _facts(request: SubjectRequest) -> list[tuple[str, Any]]:
    return [
        ("Law", present.regime(request.regime)),
        ("Channel", present.words(request.channel)),
        ("Verified by", present.words(request.verification) if request.verified_at else "not yet"),
        ("Received", request.received_at),
        ("Acknowledge by", request.acknowledge_by),
        ("Verified", request.verified_at),
        ("Extended until", request.extended_until),
        ("Completed", request.completed_at),
        ("Receipt delivered", request.delivered_at),
        ("To be forgotten", request.forget_at if request.forgotten_at is None else None),
        ("Forgotten", request.forgotten_at),
        ("Purposes", ", ".join(request.purposes)),
        ("Language", request.language),
        ("Batch", request.batch_id),
    ]


def _approval(request: SubjectRequest) -> str:
    if request.status != Status.AWAITING_APPROVAL:
        return ""
    reason = request.approval_reason or request.hold_reason or ""
    return APPROVAL_REASONS.get(reason, present.words(reason))


def _no_deliveries(request: SubjectRequest) -> str:
    if request.kind in MANUAL_KINDS:
        return "There are none: a request of this kind is answered by hand."
    if request.status in FINAL:
        return "There are none: no destination was asked."
    return (
        "Nothing is planned yet: deliveries appear once the request is verified and the person is "
        "resolved."
    )


def _denial(request: SubjectRequest) -> str | None:
    if request.denial_reason is None:
        return None
    reason = DENY_REASONS.get(request.denial_reason, present.words(request.denial_reason))
    return f"{reason}. {request.denial_note}" if request.denial_note else f"{reason}."


async def _deliveries(
    session: AsyncSession, request: SubjectRequest, operator: Operator
) -> list[DeliveryView]:
    planned = await deliveries.of_requests(session, [request.duplicate_of or request.id])
    if not planned:
        return []
    ids = [each.id for each in planned]
    places = await _by_id(session, Destination, {each.destination_id for each in planned})
    steps_of = await deliveries.traces(session, ids)
    rows = await session.execute(
        sa.select(col(Ready.delivery_id), col(Ready.due_at)).where(col(Ready.delivery_id).in_(ids))
    )
    waiting = dict(rows.all())
    return [
        _delivery(
            each,
            places.get(each.destination_id),
            steps_of.get(each.id, []),
            waiting.get(each.id),
            operator,
        )
        for each in planned
    ]


def _delivery(
    delivery: Delivery,
    destination: Destination | None,
    transitions: list[DeliveryTransition],
    next_at: dt.datetime | None,
    operator: Operator,
) -> DeliveryView:
    last = transitions[-1] if transitions else None
    state = last.state if last else "awaiting_scheduling"
    is_settled = state in SETTLED
    return DeliveryView(
        id=delivery.id,
        destination_id=delivery.destination_id,
        destination=destination.name if destination else "a deleted destination",
        connector=destination.connector if destination else "",
        operation=present.words(delivery.operation),
        badge=delivery_badge(last) if last else present.badge(present.DELIVERY_STATE, state),
        assurance=present.ASSURANCE.get(last.assurance if last else "requested", ""),
        reason=present.words(last.reason) if last and last.reason else "",
        attempt=last.attempt if last else 0,
        next_at=None if is_settled else next_at,
        expires_at=delivery.expires_at,
        steps=[_step(each) for each in transitions],
        left_out=deliveries.left_out(transitions),
        can_replay=state in {"archiving", "archived"} and operator.may(Role.OPERATOR),
    )


def delivery_badge(last: DeliveryTransition) -> Badge:
    """The state; once settled, what came out."""
    if last.state in SETTLED and last.detail:
        return present.badge(present.DELIVERY_DETAIL, last.detail)
    return present.badge(present.DELIVERY_STATE, last.state)


def _step(transition: DeliveryTransition) -> Step:
    evidence = transition.evidence or {}
    return Step(
        seq=transition.seq,
        at=transition.at,
        state=present.badge(present.DELIVERY_STATE, transition.state),
        attempt=transition.attempt,
        duration="" if transition.duration_ms is None else f"{transition.duration_ms} ms",
        http_status=transition.http_status,
        reason=" · ".join(
            present.words(each) for each in (transition.detail, transition.reason) if each
        ),
        retry_at=transition.retry_at,
        evidence=flat(evidence),
    )


def flat(data: Mapping[str, Any]) -> str:
    """Facts on one line: ``rows 3, tables 2``."""
    parts = []
    for name, value in data.items():
        if isinstance(value, Mapping):
            parts.append(f"{present.words(name)}: {flat(value)}")
        elif isinstance(value, list):
            inner = "; ".join(
                flat(each) if isinstance(each, Mapping) else str(each) for each in value
            )
            parts.append(f"{present.words(name)}: {inner or 'none'}")
        elif value is not None:
            said = present.regime(str(value)) if name == "regime" else _said(value)
            parts.append(f"{present.words(name)}: {said}")
    return ", ".join(parts)


_CODE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


def _said(value: Any) -> str:
    """Codes in words, long digests cut."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = str(value)
    if _CODE.fullmatch(text) and len(text) <= 40:
        return present.phrase(text) if "_" in text else present.words(text)
    return f"{text[:12]}…" if len(text) > 40 and " " not in text else text


async def _by_id(
    session: AsyncSession, model: type[Destination], ids: set[str]
) -> dict[str, Destination]:
    rows = await session.execute(sa.select(model).where(col(model.id).in_(ids)))
    return {each.id: each for each in rows.scalars()}


async def _events(session: AsyncSession, workspace_id: str, request_id: str) -> list[Event]:
    rows = (
        (
            await session.execute(
                sa.select(RequestEvent)
                .where(col(RequestEvent.request_id) == request_id)
                .order_by(col(RequestEvent.id).desc())
                .limit(200)
            )
        )
        .scalars()
        .all()
    )
    names = await names_of(session, workspace_id, {each.actor for each in rows})
    return [
        Event(each.at, present.words(each.type), names[each.actor], flat(each.data))
        for each in rows
    ]


async def _answer_count(session: AsyncSession, request_id: str) -> int:
    query = sa.select(sa.func.count()).where(
        col(PersonalValue.holder_id) == request_id, col(PersonalValue.purpose) == "answer"
    )
    return int((await session.execute(query)).scalar_one())
