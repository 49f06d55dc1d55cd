"""``Idempotency-Key``: the same key and body give the same answer for seven days
(draft-ietf-httpapi-idempotency-key-header-07).

The record is inserted first, in the transaction that does the work: of two parallel calls the
second waits for the first to commit, then finds its answer. A failed call rolls its record back, so
a repeat does the work again.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Awaitable, Callable
from typing import Any

import sqlalchemy as sa
from fastapi import Request
from fastapi.responses import JSONResponse
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.core.bulk import nibble
from app.core.db import Database, insert_or_ignore, table_of
from app.core.errors import Invalid
from app.core.http import route_template
from app.crypto.keyring import KeyRing
from app.security.access import Caller
from app.security.errors import KeyReused, StillInProgress
from app.security.models import IdempotencyRecord

KEPT = dt.timedelta(days=7)

Work = Callable[[AsyncSession], Awaitable[tuple[int, dict[str, Any]]]]
"""Does the work in the session; returns status and JSON answer, which is kept sealed."""


async def once(
    request: Request, caller: Caller, body: Any, work: Work, now: dt.datetime
) -> JSONResponse:
    """Run ``work`` in one transaction, once per Idempotency-Key if the request has one."""
    database: Database = request.app.state.database
    key = request.headers.get("idempotency-key")
    if key is None:
        async with database.writing() as session:
            status, answer = await work(session)
        return JSONResponse(answer, status)
    if not 1 <= len(key) <= 255 or not key.isprintable():
        raise Invalid("An Idempotency-Key has 1 to 255 printable characters.")
    ring: KeyRing = request.app.state.ring
    fingerprint = ring.digest(
        "idempotency", json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    )
    identity = {
        "workspace_id": caller.workspace_id,
        "route": f"{request.method} {route_template(request.scope)}",
        "key": key,
    }
    try:
        async with database.writing() as session:
            inserted = await session.execute(
                insert_or_ignore(session, IdempotencyRecord)
                .values(**identity, fingerprint=fingerprint, created_at=now)
                .returning(col(IdempotencyRecord.key))
            )
            if inserted.first() is not None:
                status, answer = await work(session)
                await session.execute(
                    sa.update(IdempotencyRecord)
                    .where(
                        *(
                            col(getattr(IdempotencyRecord, name)) == value
                            for name, value in identity.items()
                        )
                    )
                    .values(status=status, body=_seal(ring, identity, answer))
                )
                return JSONResponse(answer, status)
            kept = await session.get(IdempotencyRecord, tuple(identity.values()))
    except OperationalError as error:
        if "lock" not in str(error.orig).lower():
            raise
        raise StillInProgress(
            "Wait a moment and repeat the call.", headers={"Retry-After": "1"}
        ) from None
    if kept is None or kept.status is None:
        raise StillInProgress("Wait a moment and repeat the call.", headers={"Retry-After": "1"})
    if kept.fingerprint != fingerprint:
        raise KeyReused("Use a fresh key for a different body.")
    answer = _unseal(ring, identity, kept.body)
    return JSONResponse(answer, kept.status, headers={"Idempotency-Replayed": "true"})


def _seal(ring: KeyRing, identity: dict[str, str], answer: dict[str, Any]) -> dict[str, Any]:
    """An answer may hold a secret that is shown once: it is kept sealed, for its own record."""
    return {"sealed": ring.seal(json.dumps(answer).encode(), _place(identity)).hex()}


def _unseal(ring: KeyRing, identity: dict[str, str], body: dict[str, Any] | None) -> Any:
    return json.loads(ring.unseal(bytes.fromhex((body or {})["sealed"]), _place(identity)))


def _place(identity: dict[str, str]) -> str:
    return "|".join(("idempotency_record", *identity.values()))


async def sweep(database: Database, now: dt.datetime) -> None:
    await nibble(database, table_of(IdempotencyRecord), lambda row: row.created_at < now - KEPT)
