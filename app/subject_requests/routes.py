"""Requests over HTTP, for programs."""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.clock import utc_now
from app.core.errors import Invalid, Problem, TooLarge
from app.core.failpoints import failpoint
from app.core.http import Cursors, Reading, StrictRoute, Writing, wrong_members
from app.core.ids import new_id
from app.identity.normalise import normalise_all, normalise_at
from app.security import idempotency
from app.security.access import Caller, needs
from app.security.models import Workspace
from app.sites import regimes
from app.subject_requests import decide, intake, proof, queries
from app.subject_requests.models import Batch, SubjectRequest
from app.subject_requests.schemas import (
    BulkIn,
    DenyIn,
    ExtendIn,
    HoldIn,
    RequestIn,
    SearchIn,
    SubjectIn,
)
from app.subject_requests.services import Services
from app.subject_requests.states import Kind, Status

router = APIRouter(prefix="/v1", tags=["requests"], route_class=StrictRoute)

Reader = Annotated[Caller, Depends(needs("requests:read"))]
Writer = Annotated[Caller, Depends(needs("requests:write"))]

MAX_BULK = 5000


def services_of(request: Request) -> Services:
    return request.app.state.services  # type: ignore[no-any-return]


Shared = Annotated[Services, Depends(services_of)]


@router.post("/requests", status_code=201)
async def create_request(
    body: RequestIn, caller: Writer, services: Shared, request: Request
) -> JSONResponse:
    """Ask for one person; the key vouches for who asks."""
    now = utc_now()
    async with services.database.reading() as session:
        workspace = await session.get_one(Workspace, caller.workspace_id)
        await intake.check_destinations(session, caller.workspace_id, body.destinations)
    ask = intake.Ask(
        workspace=workspace,
        kind=body.kind,
        regime=regimes.get(body.regime or intake.DEFAULT_REGIME),
        identifiers=normalise_all(body.identifiers),
        channel="api",
        verification="api_key",
        received_at=intake.received(body.received_at, now),
        is_verified=True,
        contact_email=_contact(body.contact_email),
        external_id=body.external_id,
        destination_ids=body.destinations,
        asked_by=caller.actor,
    )
    keys = await intake.take_in(services, [ask], now)

    async def work(session: AsyncSession) -> tuple[int, dict[str, Any]]:
        (made,) = await intake.write(session, services, [ask], keys, now)
        return 201, queries.request_json(made, [])

    answer = await idempotency.once(request, caller, body.model_dump(mode="json"), work, now)
    failpoint("intake.after_commit")
    return answer


@router.post("/requests/bulk", status_code=202)
async def create_bulk(
    body: BulkIn, caller: Writer, services: Shared, request: Request
) -> JSONResponse:
    """Ask for up to 5 000 people at once; the accepted ones are committed when this answers."""
    if len(body.subjects) > MAX_BULK:
        raise TooLarge(f"Send at most {MAX_BULK} subjects in one call.")
    if not body.subjects:
        raise Invalid("`subjects` is empty.")
    now = utc_now()
    async with services.database.reading() as session:
        workspace = await session.get_one(Workspace, caller.workspace_id)
    batch_id = new_id("bat")
    asks, rejected = _asks(body, workspace, batch_id, now)
    threshold = services.settings.bulk_approval_above
    if body.kind is Kind.ERASURE and 0 < threshold < len(asks):
        asks = [replace(ask, approval_reason=decide.BULK) for ask in asks]
    asks = [replace(ask, asked_by=caller.actor) for ask in asks]
    keys = await intake.take_in(services, asks, now)

    async def work(session: AsyncSession) -> tuple[int, dict[str, Any]]:
        session.add(Batch(id=batch_id, workspace_id=workspace.id, total=len(asks), created_at=now))
        await session.flush()
        await intake.write(session, services, asks, keys, now)
        return 202, {"batch_id": batch_id, "accepted": len(asks), "rejected": rejected}

    answer = await idempotency.once(request, caller, body.model_dump(mode="json"), work, now)
    failpoint("intake.after_commit")
    return answer


def _asks(
    body: BulkIn, workspace: Workspace, batch_id: str, now: dt.datetime
) -> tuple[list[intake.Ask], list[dict[str, Any]]]:
    regime = regimes.get(body.regime or intake.DEFAULT_REGIME)
    asks, rejected = [], []
    for index, raw in enumerate(body.subjects):
        try:
            # As FastAPI reads a body, so that the words of a refusal are the same.
            subject = SubjectIn.model_validate(raw, from_attributes=True)
            identifiers = normalise_all(subject.identifiers)
        except (ValidationError, Problem) as error:
            rejected.append({"index": index} | _why(error))
            continue
        asks.append(
            intake.Ask(
                workspace=workspace,
                kind=body.kind,
                regime=regime,
                identifiers=identifiers,
                channel="bulk",
                verification="api_key",
                received_at=now,
                is_verified=True,
                external_id=subject.external_id,
                batch_id=batch_id,
            )
        )
    return asks, rejected


def _why(error: ValidationError | Problem) -> dict[str, Any]:
    """``type``, ``detail`` and, where single members are wrong, ``errors``."""
    if isinstance(error, ValidationError):
        error = Invalid(
            "A subject is {identifiers: [{kind, value}] (1 to 50), external_id?}.",
            errors=wrong_members(error.errors()).errors,
        )
    told = error.as_dict()
    return {name: told[name] for name in ("type", "detail", "errors") if name in told}


def _contact(address: str | None) -> str | None:
    return normalise_at("contact_email", "email", address).value if address else None


@router.get("/batches/{batch_id}")
async def get_batch(batch_id: str, caller: Reader, session: Reading) -> dict[str, Any]:
    """How far a bulk intake is."""
    return await queries.batch_json(session, caller.workspace_id, batch_id)


@router.post("/batches/{batch_id}/approve")
async def approve_batch(batch_id: str, caller: Writer, services: Shared) -> dict[str, Any]:
    """Let the requests of a bulk intake go on that wait for approval, a hundred at a time."""
    while True:
        async with services.database.writing() as session:
            batch = await queries.batch_json(session, caller.workspace_id, batch_id)
            waiting = await queries.waiting_in_batch(session, batch_id, limit=100)
            if not waiting:
                return batch
            for request_id in waiting:
                await decide.approve(
                    session, caller.workspace_id, request_id, caller.actor, utc_now()
                )


@router.get("/requests")
async def list_requests(
    caller: Reader,
    session: Reading,
    request: Request,
    status: Status | None = None,
    batch_id: str | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: str | None = None,
) -> dict[str, Any]:
    """Requests, newest first."""
    cursors: Cursors = request.app.state.cursors
    scope = (caller.workspace_id, "requests", status or "", batch_id or "")
    rows = await queries.page(
        session,
        caller.workspace_id,
        status=status,
        batch_id=batch_id,
        limit=limit + 1,
        after=cursors.read(scope, cursor),
    )
    more = cursors.write(scope, rows[limit - 1].id) if len(rows) > limit else None
    return {"items": await queries.as_json(session, rows[:limit]), "next_cursor": more}


@router.post("/requests/search")
async def search_requests(
    body: SearchIn, caller: Reader, session: Reading, services: Shared
) -> dict[str, Any]:
    """Requests of a person, found without naming them in an address."""
    found = await queries.search(
        session, services.ring, caller.workspace_id, normalise_all(body.identifiers)
    )
    return {"items": await queries.as_json(session, found), "next_cursor": None}


@router.get("/requests/{request_id}")
async def get_request(request_id: str, caller: Reader, session: Reading) -> dict[str, Any]:
    """One request with its deliveries."""
    return (
        await queries.as_json(
            session, [await queries.get(session, caller.workspace_id, request_id)]
        )
    )[0]


@router.get("/requests/{request_id}/timeline")
async def get_timeline(request_id: str, caller: Reader, session: Reading) -> dict[str, Any]:
    """Everything that happened to a request; of each delivery its newest 100 steps, and
    `steps_left_out` counts those before them.
    """
    await queries.get(session, caller.workspace_id, request_id)
    return await queries.timeline(session, request_id)


@router.get(
    "/requests/{request_id}/receipt", responses={200: {"content": {"application/jose": {}}}}
)
async def get_receipt(
    request_id: str, caller: Reader, services: Shared, request: Request
) -> Response:
    """The final receipt, or else an interim one; as JSON with the openings while they exist."""
    with_openings = "application/json" in request.headers.get("accept", "")
    answer = await proof.receipt_of(
        services, caller.workspace_id, request_id, utc_now(), with_openings=with_openings
    )
    if with_openings:
        return JSONResponse({"receipt": answer.jws, "openings": answer.openings})
    return Response(answer.jws, media_type="application/jose")


async def _changed(session: AsyncSession, change: Awaitable[SubjectRequest]) -> dict[str, Any]:
    changed = await change
    await session.flush()
    return (await queries.as_json(session, [changed]))[0]


@router.post("/requests/{request_id}/approve")
async def approve_request(request_id: str, caller: Writer, session: Writing) -> dict[str, Any]:
    """Let a request go on that waits for approval."""
    return await _changed(
        session, decide.approve(session, caller.workspace_id, request_id, caller.actor, utc_now())
    )


@router.post("/requests/{request_id}/deny")
async def deny_request(
    request_id: str, body: DenyIn, caller: Writer, session: Writing, services: Shared
) -> dict[str, Any]:
    """Refuse a request, with a coded reason."""
    return await _changed(
        session,
        decide.deny(
            session,
            services,
            caller.workspace_id,
            request_id,
            caller.actor,
            body.reason,
            body.note,
            utc_now(),
        ),
    )


@router.post("/requests/{request_id}/cancel")
async def cancel_request(
    request_id: str, caller: Writer, session: Writing, services: Shared
) -> dict[str, Any]:
    """Stop a request: no further calls."""
    return await _changed(
        session,
        decide.cancel(session, services, caller.workspace_id, request_id, caller.actor, utc_now()),
    )


@router.post("/requests/{request_id}/extend")
async def extend_request(
    request_id: str, body: ExtendIn, caller: Writer, session: Writing
) -> dict[str, Any]:
    """Move the deadline, once and within what the law allows."""
    return await _changed(
        session,
        decide.extend(
            session,
            caller.workspace_id,
            request_id,
            caller.actor,
            body.days,
            body.reason,
            utc_now(),
        ),
    )


@router.post("/requests/{request_id}/hold")
async def hold_request(
    request_id: str, body: HoldIn, caller: Writer, session: Writing
) -> dict[str, Any]:
    """Put a legal hold on a request."""
    return await _changed(
        session,
        decide.hold(session, caller.workspace_id, request_id, caller.actor, body.reason, utc_now()),
    )


@router.post("/requests/{request_id}/release")
async def release_request(request_id: str, caller: Writer, session: Writing) -> dict[str, Any]:
    """End a legal hold."""
    return await _changed(
        session, decide.release(session, caller.workspace_id, request_id, caller.actor, utc_now())
    )
