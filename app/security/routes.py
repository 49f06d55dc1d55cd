"""API keys over HTTP."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import Field, StrictStr
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.core.clock import rfc3339, utc_now
from app.core.http import Cursors, Reading, Schema, StrictRoute, Writing
from app.security import api_keys, audit, idempotency
from app.security.access import Caller, needs
from app.security.models import ApiKey

router = APIRouter(prefix="/v1/keys", tags=["keys"], route_class=StrictRoute)

Keeper = Annotated[Caller, Depends(needs("keys:write"))]


class KeyIn(Schema):
    name: Annotated[StrictStr, Field(min_length=1, max_length=100)]
    scopes: Annotated[list[StrictStr], Field(min_length=1, max_length=20)]
    expires_at: dt.datetime | None = None


def key_json(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "hint": key.hint,
        "scopes": key.scopes,
        "created_at": rfc3339(key.created_at),
        "last_used_at": rfc3339(key.last_used_at),
        "expires_at": rfc3339(key.expires_at),
        "revoked_at": rfc3339(key.revoked_at),
    }


@router.post("", status_code=201)
async def create_key(body: KeyIn, caller: Keeper, request: Request) -> JSONResponse:
    """A new key; its secret is in this answer and nowhere else."""
    now = utc_now()

    async def work(session: AsyncSession) -> tuple[int, dict[str, Any]]:
        key, secret = await api_keys.create(
            session,
            workspace_id=caller.workspace_id,
            name=body.name,
            scopes=body.scopes,
            created_by=caller.actor,
            grantor_scopes=caller.scopes,
            now=now,
            expires_at=body.expires_at,
        )
        audit.record(
            session,
            workspace_id=caller.workspace_id,
            actor=caller.actor,
            verb="create_key",
            target=key.id,
            now=now,
        )
        return 201, key_json(key) | {"key": secret}

    return await idempotency.once(request, caller, body.model_dump(mode="json"), work, now)


@router.get("")
async def list_keys(
    caller: Keeper,
    session: Reading,
    request: Request,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: str | None = None,
) -> dict[str, Any]:
    """Keys, newest first, without their secrets."""
    cursors: Cursors = request.app.state.cursors
    scope = (caller.workspace_id, "keys")
    query = sa.select(ApiKey).where(col(ApiKey.workspace_id) == caller.workspace_id)
    if (after := cursors.read(scope, cursor)) is not None:
        query = query.where(col(ApiKey.id) < after)
    rows = list(
        (await session.execute(query.order_by(col(ApiKey.id).desc()).limit(limit + 1))).scalars()
    )
    more = cursors.write(scope, rows[limit - 1].id) if len(rows) > limit else None
    return {"items": [key_json(each) for each in rows[:limit]], "next_cursor": more}


@router.delete("/{key_id}", status_code=204)
async def revoke_key(key_id: str, caller: Keeper, session: Writing) -> Response:
    """End a key at once."""
    now = utc_now()
    await api_keys.revoke(session, caller.workspace_id, key_id, now)
    audit.record(
        session,
        workspace_id=caller.workspace_id,
        actor=caller.actor,
        verb="revoke_key",
        target=key_id,
        now=now,
    )
    return Response(status_code=204)
