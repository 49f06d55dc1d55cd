"""Asking the suppression list, in batches, without naming anybody in an address."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field, StrictStr

from app.core.clock import rfc3339, utc_now
from app.core.http import Cursors, Reading, Schema, StrictRoute
from app.crypto.keyring import KeyRing
from app.identity.normalise import normalise_each
from app.identity.schemas import IdentifierIn
from app.security.access import Caller, needs
from app.suppression import service

router = APIRouter(prefix="/v1/suppressions", tags=["suppressions"], route_class=StrictRoute)

Reader = Annotated[Caller, Depends(needs("suppressions:read"))]


class CheckIn(Schema):
    identifiers: Annotated[list[IdentifierIn], Field(min_length=1, max_length=1000)]
    destination: StrictStr | None = None
    purpose: StrictStr | None = None


@router.post("/check")
async def check(
    body: CheckIn, caller: Reader, session: Reading, request: Request
) -> dict[str, Any]:
    """Who of up to 1 000 identifiers must not be processed, for everything or for a destination or
    purpose.
    """
    ring: KeyRing = request.app.state.ring
    refs = [
        ring.subject_ref(caller.workspace_id, each.kind, each.value)
        for each in normalise_each(body.identifiers)
    ]
    scopes = ["all"]
    scopes += [f"destination:{body.destination}"] if body.destination else []
    scopes += [f"purpose:{body.purpose}"] if body.purpose else []
    found = await service.check(session, caller.workspace_id, refs, utc_now(), scopes=scopes)
    return {
        "results": [
            {
                "index": index,
                "suppressed": ref in found,
                "since": rfc3339(found[ref].since) if ref in found else None,
                "request_id": found[ref].request_id if ref in found else None,
            }
            for index, ref in enumerate(refs)
        ]
    }


@router.get("")
async def list_suppressions(
    caller: Reader,
    session: Reading,
    request: Request,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: str | None = None,
) -> dict[str, Any]:
    """The list, newest first; entries are digests, so only kinds and dates are shown."""
    cursors: Cursors = request.app.state.cursors
    scope = (caller.workspace_id, "suppressions")
    rows = await service.page(
        session, caller.workspace_id, utc_now(), limit=limit + 1, after=cursors.read(scope, cursor)
    )
    more = cursors.write(scope, rows[limit - 1].id) if len(rows) > limit else None
    items = [
        {
            "id": each.id,
            "kind": each.kind,
            "scope": each.scope,
            "since": rfc3339(each.since),
            "expires_at": rfc3339(each.expires_at),
            "request_id": each.request_id,
        }
        for each in rows[:limit]
    ]
    return {"items": items, "next_cursor": more}
