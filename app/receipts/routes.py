"""Receipts and keys for anybody: both are made to be shown."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from typing import Any, Protocol
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from app.core.db import Database
from app.core.errors import NotFound
from app.core.http import Reading, StrictRoute
from app.receipts import signing
from app.receipts.models import Receipt
from app.sites import cors

router = APIRouter(tags=["receipts"], route_class=StrictRoute)


class ConsentReceipt(cors.Listing, Protocol):
    """The receipt of a consent record, as composition's ``consent_receipt`` finds it."""

    @property
    def jws(self) -> str: ...


FindConsentReceipt = Callable[[str], Awaitable[ConsentReceipt | None]]

_UNKNOWN = "There is no signed receipt with this id."


@router.get("/v1/receipts/{receipt_id}", responses={200: {"content": {"application/jose": {}}}})
async def get_receipt(request: Request, receipt_id: str) -> Response:
    """A signed receipt by its unguessable id, or that of a consent record by the consent's; it
    names nobody. As `application/jose`, or as JSON with its `claims` beside it. A browser that
    opens the receipt of a consent (`Accept: text/html`) is sent to its page."""
    if receipt_id.startswith("con_"):
        return await _of_consent(request, receipt_id)
    database: Database = request.app.state.database
    async with database.reading() as session:
        receipt = await session.get(Receipt, receipt_id)
    if receipt is None or receipt.jws is None:
        raise NotFound(_UNKNOWN)
    return _answer(request, receipt_id, receipt.jws, {"Cache-Control": "public, max-age=3600"})


async def _of_consent(request: Request, consent_id: str) -> Response:
    """Only its visitor and the controller know the id, so no shared cache keeps it; pages of its
    site may read it."""
    if _is_opened(request):
        headers = {"Vary": "Accept", "Cache-Control": "no-store"}
        return RedirectResponse(f"/privacy/receipt/{quote(consent_id)}", 303, headers)
    find: FindConsentReceipt = request.app.state.consent_receipt
    receipt = await find(consent_id)
    if receipt is None:
        raise NotFound(_UNKNOWN, headers=cors.of_refusal(request))
    headers = cors.headers(receipt, request)
    headers |= {"Cache-Control": "private, max-age=3600"}
    return _answer(request, consent_id, receipt.jws, headers)


def _is_opened(request: Request) -> bool:
    """By a person in a browser; scripts ask for JSON or for anything."""
    accept = request.headers.get("accept", "")
    return "text/html" in accept and "application/json" not in accept


def _answer(request: Request, name: str, jws: str, headers: dict[str, str]) -> Response:
    headers["Vary"] = ", ".join(filter(None, (headers.get("Vary"), "Accept")))
    if "application/json" not in request.headers.get("accept", ""):
        headers["Content-Disposition"] = f'attachment; filename="{name}.jws"'
        return Response(jws, media_type="application/jose", headers=headers)
    payload = jws.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return JSONResponse({"receipt": jws, "claims": claims}, headers=headers)


@router.options("/v1/receipts/{receipt_id}", include_in_schema=False)
async def receipt_preflight(request: Request) -> Response:
    return await cors.preflight(request, ["GET"])


@router.get("/.well-known/jwks.json")
async def get_jwks(session: Reading) -> JSONResponse:
    """The keys that receipts are signed with, retired ones too (RFC 7517)."""
    keys: dict[str, Any] = await signing.jwks(session)
    return JSONResponse(
        keys,
        headers={"Cache-Control": "public, max-age=300", "Access-Control-Allow-Origin": "*"},
        media_type="application/jwk-set+json",
    )
