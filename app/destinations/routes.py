"""HTTP: connectors to choose from, destinations, and their test."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.clock import utc_now
from app.core.db import Database
from app.core.http import Cursors, Reading, StrictRoute, Writing, route_template
from app.destinations import service
from app.destinations.instances import Instances
from app.destinations.running import Runner
from app.destinations.schemas import (
    ConnectorList,
    DestinationChange,
    DestinationIn,
    DestinationList,
    DestinationOut,
    PreviewIn,
    PreviewOut,
    TestOut,
)
from app.destinations.settings import Prepared, prepare
from app.identity.normalise import normalise_all
from app.security.access import Caller, needs
from app.security.errors import StillInProgress
from app.security.idempotency import once
from app.security.models import IdempotencyRecord

router = APIRouter(prefix="/v1", tags=["destinations"], route_class=StrictRoute)

Reader = Annotated[Caller, Depends(needs("destinations:read"))]
Writer = Annotated[Caller, Depends(needs("destinations:write"))]


@router.get("/connectors", response_model=ConnectorList)
async def list_connectors(request: Request, caller: Reader) -> JSONResponse:
    """What a destination can be, with the JSON schema of its settings."""
    catalogue = _instances(request).catalogue
    items = await asyncio.to_thread(catalogue.describe)
    broken = [{"name": name, "problem": text} for name, text in sorted(catalogue.broken.items())]
    return JSONResponse({"items": items, "next_cursor": None, "broken": broken})


@router.get("/destinations", response_model=DestinationList)
async def list_destinations(
    request: Request,
    caller: Reader,
    session: Reading,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: str | None = None,
) -> JSONResponse:
    cursors: Cursors = request.app.state.cursors
    scope = ("destinations", caller.workspace_id)
    after = cursors.read(scope, cursor)
    found = await service.page(session, caller.workspace_id, limit=limit + 1, after=after)
    more = cursors.write(scope, found[limit - 1].id) if len(found) > limit else None
    return JSONResponse(
        {"items": [service.view(each) for each in found[:limit]], "next_cursor": more}
    )


@router.post("/destinations", status_code=201, response_model=DestinationOut)
async def create_destination(
    request: Request, caller: Writer, wanted: DestinationIn
) -> JSONResponse:
    """Settings are checked (for databases by looking) before anything is written."""
    now = utc_now()
    prepared: Prepared | None = None
    if not await _is_repeat(request, caller):
        prepared = await prepare(
            _instances(request), caller.workspace_id, wanted.connector, wanted.settings
        )

    async def work(session: AsyncSession) -> tuple[int, dict[str, Any]]:
        if prepared is None:
            raise StillInProgress("Wait a moment and repeat the call.")
        made = await service.create(
            session, workspace_id=caller.workspace_id, actor=caller.actor, wanted=wanted,
            prepared=prepared, now=now,
        )  # fmt: skip
        return 201, service.view(made)

    return await once(request, caller, wanted.model_dump(mode="json"), work, now)


@router.get("/destinations/{destination_id}", response_model=DestinationOut)
async def get_destination(destination_id: str, caller: Reader, session: Reading) -> JSONResponse:
    return JSONResponse(
        service.view(await service.get(session, caller.workspace_id, destination_id))
    )


@router.patch("/destinations/{destination_id}", response_model=DestinationOut)
async def change_destination(
    request: Request, destination_id: str, caller: Writer, change: DestinationChange
) -> JSONResponse:
    """``settings``, when sent, are all of them; a secret left out stays, ``null`` removes it."""
    database: Database = request.app.state.database
    prepared: Prepared | None = None
    if "settings" in change.model_fields_set:
        async with database.reading() as session:
            present = await service.get(session, caller.workspace_id, destination_id)
        prepared = await prepare(
            _instances(request), caller.workspace_id, present.connector, change.settings, present
        )
    async with database.writing() as session:
        changed = await service.update(
            session, workspace_id=caller.workspace_id, destination_id=destination_id,
            actor=caller.actor, change=change, prepared=prepared, now=utc_now(),
        )  # fmt: skip
        return JSONResponse(service.view(changed))


@router.delete("/destinations/{destination_id}", status_code=204)
async def delete_destination(
    request: Request, destination_id: str, caller: Writer, session: Writing
) -> Response:
    """It takes no more requests, and its secrets are gone; past deliveries keep its name."""
    await service.delete(
        session, workspace_id=caller.workspace_id, destination_id=destination_id,
        actor=caller.actor, ring=_instances(request).ring, now=utc_now(),
    )  # fmt: skip
    return Response(status_code=204)


@router.post("/destinations/{destination_id}/test", response_model=TestOut)
async def test_destination(request: Request, destination_id: str, caller: Writer) -> JSONResponse:
    """Asks the destination for a sign of life; 200 also when it fails."""
    database: Database = request.app.state.database
    runner: Runner = request.app.state.runner
    async with database.reading() as session:
        destination = await service.get(session, caller.workspace_id, destination_id)
    result = await service.test(_instances(request), runner, destination)
    async with database.writing() as session:
        await service.note_test(session, destination.id, result, utc_now())
    return JSONResponse({"ok": result.ok, "latency_ms": result.latency_ms, "detail": result.detail})


def _instances(request: Request) -> Instances:
    instances: Instances = request.app.state.instances
    return instances


async def _is_repeat(request: Request, caller: Caller) -> bool:
    """Whether an answer is kept for this Idempotency-Key: then nothing is checked again."""
    key = request.headers.get("idempotency-key")
    if not key:
        return False
    database: Database = request.app.state.database
    route = f"{request.method} {route_template(request.scope)}"
    async with database.reading() as session:
        found = await session.get(IdempotencyRecord, (caller.workspace_id, route, key))
    return found is not None and found.status is not None


@router.post("/destinations/{destination_id}/preview", response_model=PreviewOut)
async def preview_destination(
    request: Request, destination_id: str, caller: Writer, body: PreviewIn
) -> JSONResponse:
    """How many records of a person an erasure would touch, by table or file; changes nothing."""
    database: Database = request.app.state.database
    runner: Runner = request.app.state.runner
    async with database.reading() as session:
        destination = await service.get(session, caller.workspace_id, destination_id)
    identifiers = tuple(normalise_all(body.identifiers))
    counts = await service.preview(_instances(request), runner, destination, identifiers)
    return JSONResponse({"counts": counts})
