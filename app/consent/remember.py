"""Remembering a choice from a site's own host: a cookie set by an answer outlives one that a script
wrote, where browsers cut those short. The one public route that takes and sets cookies.

It says nothing the caller could choose: the record decides, and a token from the answer to the
choice shows that the caller made it.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Annotated

from fastapi import APIRouter, Request, Response
from itsdangerous import BadData, URLSafeTimedSerializer
from pydantic import Field, ValidationError

from app.consent import cookie, queries
from app.consent.errors import (
    ChoiceSuperseded,
    NoFirstParty,
    OriginNotAllowed,
    RememberTokenNotValid,
)
from app.consent.models import ConsentRecord
from app.core import errors
from app.core.clock import utc_now
from app.core.db import Database
from app.core.http import Schema, StrictRoute, client_network, json_body
from app.crypto.keyring import KeyRing
from app.security.limits import RateLimits
from app.sites import cors
from app.sites.directory import PublishedSite, directory_of

router = APIRouter(route_class=StrictRoute, tags=["public"])

_SECONDS = 300


class RememberIn(Schema):
    """Which choice; ``token`` is the ``remember_token`` of its answer."""

    consent_id: Annotated[str, Field(min_length=1, max_length=64)]
    token: Annotated[str, Field(min_length=1, max_length=512)]


def token_for(ring: KeyRing, site_id: str, consent_id: str) -> str:
    """Good for five minutes, this site and this record. Using it again changes nothing more."""
    return str(_signer(ring).dumps([site_id, consent_id]))


def _is_good(ring: KeyRing, token: str, site_id: str, consent_id: str) -> bool:
    try:
        return bool(_signer(ring).loads(token, max_age=_SECONDS) == [site_id, consent_id])
    except BadData:
        return False


@lru_cache(maxsize=4)
def _signer(ring: KeyRing) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(
        ring.derive("remember"),
        salt="remember",
        signer_kwargs={"digest_method": hashlib.sha256, "key_derivation": "hmac"},
    )


@router.post(
    "/b/{site_key}/remember",
    status_code=204,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": RememberIn.model_json_schema()}},
        }
    },
)
async def remember(request: Request, site_key: str) -> Response:
    """Set the widget's cookie from the site's first-party host, with what the record says, and
    expire the HttpOnly cookies of denied purposes. 409, and nothing is set, when the visitor has
    chosen anew since."""
    site = await _site(request, site_key)
    headers = cors.headers(site, request, with_credentials=True)
    try:
        cookies = await _cookies(request, site)
    except errors.Problem as problem:
        problem.headers |= headers
        raise
    answer = Response(status_code=204, headers=headers)
    for each in cookies:
        answer.headers.append("Set-Cookie", each)
    return answer


@router.options("/b/{site_key}/remember", include_in_schema=False)
async def remember_preflight(request: Request, site_key: str) -> Response:
    site = await _site(request, site_key)
    return await cors.preflight(request, ["POST"], site, with_credentials=True)


async def _site(request: Request, site_key: str) -> PublishedSite:
    site = await directory_of(request.app.state.database).site(site_key)
    if not site.first_party:
        raise NoFirstParty
    return site


async def _cookies(request: Request, site: PublishedSite) -> list[str]:
    """``Set-Cookie`` values: ours first, then what is taken away."""
    limits: RateLimits = request.app.state.limits
    await limits.spend("consent", client_network(request))
    origin = request.headers.get("origin")
    if origin is None or not cors.allows(site, origin):
        raise OriginNotAllowed
    try:
        asked = RememberIn.model_validate(await json_body(request))
    except ValidationError:
        raise errors.Invalid("Send `consent_id` and `token` as text.") from None
    if not _is_good(request.app.state.ring, asked.token, site.id, asked.consent_id):
        raise RememberTokenNotValid
    where = cookie.place(site.first_party, origin)
    database: Database = request.app.state.database
    async with database.reading() as session:
        record = await session.get_one(ConsentRecord, asked.consent_id)
        current = await queries.current_state(session, site.id, record.visitor_id)
    if current is None or current.record.id != record.id:
        raise ChoiceSuperseded
    notice = await directory_of(database).notice(record.notice_version_id)
    assert notice is not None  # noqa: S101 (a record names one, by foreign key)
    ends_at = max(record.expires_at, queries.left_alone_until(record))
    seconds = max(0, round((ends_at - utc_now()).total_seconds()))
    names = cookie.denied_names(
        "; ".join(request.headers.getlist("cookie")),
        notice.content.get("trackers", ()),
        current.choices,
    )
    line = cookie.line(record, current.choices, notice)
    return [
        cookie.kept(where, site.site_key, line, seconds),
        *cookie.expired(where, names),
    ]
