"""The status page's facts: one request as its person may see it, as JSON and as words."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.core.clock import rfc3339
from app.delivery import service as deliveries
from app.delivery.models import Delivery, DeliveryTransition
from app.delivery.states import SETTLED
from app.destinations.models import Destination
from app.identity import vault
from app.receipts import claims
from app.security.models import Workspace
from app.sites.models import Site
from app.subject_requests import mails, proof
from app.subject_requests.models import RequestEvent, SubjectRequest
from app.subject_requests.services import Services
from app.subject_requests.states import BEFORE_FAN_OUT, FINAL, OPERATIONS, Kind, Status
from app.subject_requests.words import Words

MANUAL = "manual"


@dataclass(frozen=True, slots=True)
class Place:
    """One destination: ``state`` is the receipt's word, ``wording`` the key of a text."""

    label: str
    state: str
    wording: str
    counts_as: str
    kept: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What an operator answered; a file is read apart."""

    text: str | None
    file: tuple[str, bytes] | None


@dataclass(frozen=True, slots=True)
class Seen:
    """A request with everything its status link shows."""

    request: SubjectRequest
    workspace: Workspace
    site: str
    site_key: str | None
    places: tuple[Place, ...]
    events: tuple[RequestEvent, ...]
    openings: tuple[dict[str, str], ...]
    answer: Answer

    @property
    def can_cancel(self) -> bool:
        return self.request.status in BEFORE_FAN_OUT

    @property
    def has_receipt(self) -> bool:
        """A final one, or what an interim one can be made of."""
        request = self.request
        is_under_way = request.verified_at is not None and request.status not in FINAL
        return request.receipt_id is not None or is_under_way

    @property
    def due_at(self) -> dt.datetime:
        return self.request.extended_until or self.request.due_at

    @property
    def done_count(self) -> int:
        return sum(each.counts_as != "open" for each in self.places)


async def look(session: AsyncSession, services: Services, request: SubjectRequest) -> Seen:
    """Everything at once; of a forgotten person only what names nobody is left."""
    workspace = await session.get_one(Workspace, request.workspace_id)
    site = await session.get(Site, request.site_id) if request.site_id else None
    events = await session.execute(
        sa.select(RequestEvent)
        .where(col(RequestEvent.request_id) == request.id)
        .order_by(col(RequestEvent.at), col(RequestEvent.id))
    )
    openings = await proof.openings_of(session, services, request)
    return Seen(
        request=request,
        workspace=workspace,
        site=site.name if site else workspace.name,
        site_key=site.site_key if site and site.deleted_at is None else None,
        places=await _places(session, request),
        events=tuple(events.scalars()),
        openings=tuple(openings or ()),
        answer=await answer_of(session, services, request),
    )


async def answer_of(session: AsyncSession, services: Services, request: SubjectRequest) -> Answer:
    opened = await vault.open_holder(session, services.keys, [request.id], ("answer",))
    texts = [each.value for each in opened if each.kind == "text"]
    files = [vault.unpack_file(each.value) for each in opened if each.kind == "file"]
    return Answer("\n\n".join(texts) or None, files[-1] if files else None)


async def _places(session: AsyncSession, request: SubjectRequest) -> tuple[Place, ...]:
    """Where the request went; a duplicate shows the deliveries it settles with."""
    found = await deliveries.of_requests(session, [request.duplicate_of or request.id])
    present = await deliveries.latest(session, [each.id for each in found])
    rows = await session.execute(
        sa.select(Destination).where(
            col(Destination.id).in_({each.destination_id for each in found})
        )
    )
    destinations = {each.id: each for each in rows.scalars()}
    return tuple(
        _place(each, present[each.id], destinations[each.destination_id]) for each in found
    )


def _place(delivery: Delivery, now: DeliveryTransition, destination: Destination) -> Place:
    evidence = now.evidence or {}
    told = claims.tell(
        claims.DeliveryFact(
            ref="",
            connector=destination.connector,
            operation=delivery.operation,
            state=now.state,
            detail=now.detail,
            assurance=now.assurance,
            attempt=now.attempt,
            reason=now.reason,
            requested_at=delivery.created_at,
            settled_at=now.at if now.state in SETTLED else None,
            evidence=evidence,
        )
    )
    return Place(
        label=destination.name,
        state=told.state,
        wording=_wording(told, now, destination.connector),
        counts_as="open" if now.state == "archived" else told.counts_as,
        kept=tuple(evidence.get("residuals", ())),
    )


_UNDER_WAY = {
    "awaiting_scheduling": "place.pending",
    "executing": "place.executing",
    "awaiting_retry": "place.retrying",
    "awaiting_confirmation": "place.confirming",
    "archiving": "place.attention",
    "archived": "place.attention",
}


def _wording(told: claims.Told, now: DeliveryTransition, connector: str) -> str:
    if now.state == "awaiting_confirmation" and connector == MANUAL:
        return "place.person"
    if now.state in _UNDER_WAY:
        return _UNDER_WAY[now.state]
    if told.state == "not_applicable" and now.reason == claims.NO_IDENTIFIER:
        return "place.no_identifier"
    if told.assurance == "verified_absent" and told.state in {"deleted", "anonymised"}:
        return f"place.{told.state}.checked"
    return f"place.{told.state}"


def as_json(seen: Seen, receipt_url: str | None) -> dict[str, Any]:
    """The shape of design section 7."""
    return {
        "id": seen.request.id,
        "status": seen.request.status,
        "due_at": rfc3339(seen.due_at),
        "destinations": [{"label": each.label, "state": each.state} for each in seen.places],
        "can_cancel": seen.can_cancel,
        "receipt_url": receipt_url,
    }


# In words


@dataclass(frozen=True, slots=True)
class Line:
    """A destination on the page; ``tone``: good, warn or open."""

    label: str
    text: str
    tone: str
    kept: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Step:
    at: str
    moment: str
    text: str


@dataclass(frozen=True, slots=True)
class Told:
    """The page's sentences. ``tone`` of the whole: good, warn, open or quiet."""

    kind: str
    title: str
    lead: str
    tone: str
    lines: tuple[Line, ...]
    steps: tuple[Step, ...]
    reason: tuple[str, ...]


def tell(seen: Seen, words: Words) -> Told:
    request = seen.request
    title, lead = _headline(seen, words)
    reason: tuple[str, ...] = ()
    if request.status == Status.DENIED:
        note = request.denial_note or ""
        reason = (mails.denial(words, request), *([note] if note else []))
    return Told(
        kind=words.first(f"kind.{request.kind}", "kind.other"),
        title=title,
        lead=lead,
        tone=_tone(request),
        lines=tuple(_line(each, words) for each in seen.places),
        steps=_steps(seen, words),
        reason=reason,
    )


def _headline(seen: Seen, words: Words) -> tuple[str, str]:
    title, lead = _outcome(seen, words)
    request = seen.request
    if request.forgotten_at is None or request.status == Status.EXPIRED:
        return title, lead
    if request.status == Status.COMPLETED:
        title = words("status.forgotten")
    return title, f"{lead} {words('status.forgotten.text')}"


def _outcome(seen: Seen, words: Words) -> tuple[str, str]:
    request, status = seen.request, seen.request.status
    is_manual = Kind(request.kind) not in OPERATIONS
    if status == Status.COMPLETED and request.outcome == "complete_with_residuals":
        return words("status.completed"), words("status.completed.residuals")
    if status == Status.COMPLETED:
        manual = ("status.completed.manual",) if is_manual else ()
        lead = words.first(f"status.completed.{request.kind}", *manual, "status.completed.other")
        return words("status.completed"), lead
    key = f"status.{status}"
    if status == Status.IN_PROGRESS and is_manual:
        key = "status.in_progress.manual"
    begins = request.next_step_at or request.received_at
    values = {
        "site": seen.site,
        "done": seen.done_count,
        "total": len(seen.places),
        "date": words.minute(begins, seen.workspace.timezone),
    }
    return words(key, **values), words(f"{key}.text", **values)


_TONES = {
    Status.COMPLETED: "good",
    Status.COMPLETED_WITH_EXCEPTIONS: "warn",
    Status.DENIED: "warn",
    Status.CANCELLED: "quiet",
    Status.EXPIRED: "quiet",
}


def _tone(request: SubjectRequest) -> str:
    return _TONES.get(Status(request.status), "open")


def _line(place: Place, words: Words) -> Line:
    tone = {"complete": "good", "residual": "good", "open": "open"}.get(place.counts_as, "warn")
    kept = tuple(
        words("place.kept", what=each["what"], reason=each["reason"]) for each in place.kept
    )
    return Line(place.label, words(place.wording), tone, kept)


def _steps(seen: Seen, words: Words) -> tuple[Step, ...]:
    """The timeline in plain words; what happened inside the engine is told by the places.

    A decision is noted when it is made and again when the request closes: told once.
    """
    zone = seen.workspace.timezone
    steps: list[Step] = []
    previous = ""
    for event in seen.events:
        if f"step.{event.type}" in words.texts and event.type != previous:
            text = words(f"step.{event.type}", reason=event.data.get("reason", ""))
            steps.append(Step(words.minute(event.at, zone), rfc3339(event.at) or "", text))
            previous = event.type
    return tuple(steps)
