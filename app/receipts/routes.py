"""Receipts and keys for anybody: both are made to be shown."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from app.core.errors import NotFound
from app.core.http import Reading, StrictRoute
from app.receipts import signing
from app.receipts.models import Receipt

router = APIRouter(tags=["receipts"], route_class=StrictRoute)


@router.get("/v1/receipts/{receipt_id}", responses={200: {"content": {"application/jose": {}}}})
async def get_receipt(receipt_id: str, session: Reading) -> Response:
    """A signed receipt by its unguessable id; it names nobody."""
    receipt = await session.get(Receipt, receipt_id)
    if receipt is None or receipt.jws is None:
        raise NotFound("There is no signed receipt with this id.")
    return Response(
        receipt.jws,
        media_type="application/jose",
        headers={"Cache-Control": "public, max-age=3600"},
    )


@router.get("/.well-known/jwks.json")
async def get_jwks(session: Reading) -> JSONResponse:
    """The keys that receipts are signed with, retired ones too (RFC 7517)."""
    keys: dict[str, Any] = await signing.jwks(session)
    return JSONResponse(
        keys,
        headers={"Cache-Control": "public, max-age=300", "Access-Control-Allow-Origin": "*"},
        media_type="application/jwk-set+json",
    )
