"""Routes of consent: posting and reading choices in public, listing records by key."""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict, astuple, replace
from functools import lru_cache
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import AwareDatetime, TypeAdapter, ValidationError
from pydantic_core import to_json

from app.consent import audit_trail, devices, export, queries
from app.consent.errors import NotFromAPage, OriginNotAllowed
from app.consent.remember import token_for
from app.consent.schemas import ConsentIn, ConsentOut, Method, Uuid
from app.consent.service import draft, fingerprint
from app.consent.writer import ConsentWriter, Row
from app.core import errors
from app.core.clock import rfc3339, utc_now
from app.core.db import Database
from app.core.http import (
    Cursors,
    Reading,
    StrictRoute,
    client_network,
    strict_json,
    wrong_members,
)
from app.core.settings import Settings
from app.crypto.keyring import KeyRing
from app.security import api_keys
from app.security.access import Caller, caller_of, needs
from app.security.limits import RateLimits
from app.sites import cors, unlisted
from app.sites import service as sites
from app.sites.directory import PublishedSite, directory_of
from app.sites.errors import UnknownSite
from app.sites.genuine import genuine
from app.sites.region import region_of
from app.sites.visitor import has_gpc

router = APIRouter(route_class=StrictRoute)

_MAX_BODY = 16_384
_SERVER_METHODS = frozenset({Method.API, Method.MIGRATED})
_CONSENT = TypeAdapter(ConsentIn)
_UUID: TypeAdapter[str] = TypeAdapter(Uuid)


# --- a choice -------------------------------------------------------------------------------------


async def post_consent(request: Request) -> Response:
    """Record a choice. Answered only once it is stored; the same event and body get the same
    answer. ``accept_all`` grants every purpose, ``reject_all`` and ``withdrawal`` grant none, else
    422: a choice purpose by purpose is ``custom``.

    The application comes here by a ``Shortcut``.

    The body is read here rather than by a parameter, so that every refusal can be read by the page
    that caused it: a widget that cannot tell 422 from an outage would try again for ever.
    """
    limits: RateLimits = request.app.state.limits
    try:
        await limits.spend("consent", client_network(request))
        body = await _read(request)
        site = await directory_of(request.app.state.database).site(_site_key(body))
    except errors.Problem as problem:
        problem.headers |= cors.of_refusal(request)
        raise
    headers = await _admit(request, site, body)
    try:
        stored = await _store(request, site, body)
    except errors.Problem as problem:
        problem.headers |= headers
        raise
    answer = _answer(stored)
    if site.first_party and "origin" in request.headers:
        answer["remember_token"] = token_for(request.app.state.ring, site.id, stored["id"])
    return Response(to_json(answer), 201, headers, "application/json")


def _schema() -> dict[str, Any]:
    """The body's JSON schema in one piece: a reference would point out of the place it is put
    in."""
    schema = ConsentIn.model_json_schema()
    schema["properties"]["method"] = schema.pop("$defs")["Method"]
    return schema


router.add_api_route(
    "/v1/consent",
    post_consent,
    methods=["POST"],
    tags=["public"],
    status_code=201,
    response_model=ConsentOut,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _schema()}},
        }
    },
)


async def _read(request: Request) -> Any:
    """The JSON body. Only under its own type: that forces browsers to ask first (a preflight)."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise errors.WrongType("Send the body as `Content-Type: application/json`.")
    body = await request.body()
    if len(body) > _MAX_BODY:
        raise errors.TooLarge(f"Send at most {_MAX_BODY} bytes.")
    return strict_json(body)


def _site_key(body: Any) -> str:
    """Read before the rest is checked: it decides whose origins count."""
    site_key = body.get("site_key") if isinstance(body, dict) else None
    if not isinstance(site_key, str) or not 1 <= len(site_key) <= 64:
        raise errors.Invalid(
            "Send a JSON object with the `site_key`, as the site's page in the dashboard shows it."
        )
    return site_key


async def _admit(request: Request, site: PublishedSite, body: Any) -> dict[str, str]:
    """Browsers by the site's list of origins; without an origin only servers, by key. Returns CORS
    headers."""
    method = body.get("method")
    if request.headers.get("origin") is not None:
        if not cors.allows(site, request.headers.get("origin")):
            await unlisted.notice(request, site)
            raise OriginNotAllowed
        headers = cors.headers(site, request)
        if method == Method.API:
            raise errors.Invalid(
                "Method `api` is for servers, which send a key and no Origin.", headers=headers
            )
        return headers
    if not request.headers.get("authorization") or method not in _SERVER_METHODS:
        raise NotFromAPage
    caller = await caller_of(request)
    if not api_keys.allows(caller.scopes, "sites:write"):
        raise NotFromAPage
    if caller.workspace_id != site.workspace_id:
        raise UnknownSite
    return {"Vary": "Origin"}


async def _store(request: Request, site: PublishedSite, raw: Any) -> Row:
    state = request.app.state
    try:
        body = _CONSENT.validate_python(raw)
    except ValidationError as error:
        raise wrong_members(error.errors()) from None
    record = draft(
        site,
        await directory_of(state.database).notice(body.notice_version),
        body,
        digest=fingerprint(_fingerprint_key(state.ring), body),
        has_gpc=has_gpc(request),
        region=None if body.region else region_of(request),
        now=utc_now(),
    )
    writer: ConsentWriter = state.consents
    return await writer.append(record)


@lru_cache(maxsize=4)
def _fingerprint_key(ring: KeyRing) -> bytes:
    return ring.derive("consent-event")[-1]


def _answer(stored: Row) -> dict[str, Any]:
    return {
        "consent_id": stored["id"],
        "recorded_at": rfc3339(stored["recorded_at"]),
        "expires_at": rfc3339(stored["expires_at"]),
        "choices": dict(sorted(stored["choices"].items())),  # JSONB keeps an order of its own
        "regime": stored["regime"],
        "gpc_applied": stored["is_gpc_applied"],
    }


@router.options("/v1/consent", tags=["public"], include_in_schema=False)
async def consent_preflight(request: Request) -> Response:
    return await cors.preflight(request, ["POST"])


# --- a visitor's state
# ------------------------------------------------------------------------------------------


@router.get("/v1/sites/{site_key}/visitors/{visitor_id}/consent", tags=["public"])
async def read_consent(request: Request, site_key: str, visitor_id: str) -> JSONResponse:
    """What holds for a visitor; nulls when nothing is known. ``stale``: ask again.

    Where the law has nobody asked again so soon after a refusal, ``stale`` stays false, and
    ``choices`` hold only what is denied once the rest has lapsed.

    For a linked visitor that is the newest explicit choice on any of the person's devices, less
    what an opt-out signal in any of their browsers has denied since (``signal``). It is open
    because only the browser and the site know a visitor id (122 random bits), and the answer
    says what was chosen and when, never by whom.
    """
    database: Database = request.app.state.database
    directory = directory_of(database)
    site, published = await directory.published(site_key)
    headers = cors.headers(site, request)
    try:
        visitor_id = _UUID.validate_python(visitor_id)
    except ValidationError:
        raise errors.Invalid(
            "Put the `visitor_id` into the address as a UUID, such as "
            "6f1f0a52-3c1d-4c0b-9a53-0d8a3f1c2b7e.",
            headers=headers,
        ) from None
    now = utc_now()
    async with database.reading() as session:
        held = await devices.held_by(session, directory, site, visitor_id, now)
    state = held.state
    answered = await directory.notice(state.record.notice_version_id) if state else None
    has_lapsed = state and state.has_lapsed(answered, published, now)
    is_left_alone = state and state.is_left_alone(now)
    is_lapsed = bool(has_lapsed and is_left_alone)
    choices = state and state.told(published, is_lapsed=is_lapsed)
    if held.signal:
        choices = {**(choices or {}), **held.signal.choices}
    answer = {
        "visitor_id": visitor_id,
        "consent_id": state and state.record.id,
        "choices": choices,
        "notice_version": state and state.record.notice_version_id,
        "decided_at": state and rfc3339(state.record.decided_at),
        "expires_at": state and rfc3339(state.record.expires_at),
        "stale": state and bool(has_lapsed and not is_left_alone),
    }
    return JSONResponse(answer | devices.signal_json(held), headers=headers)


@router.options(
    "/v1/sites/{site_key}/visitors/{visitor_id}/consent", tags=["public"], include_in_schema=False
)
async def visitor_preflight(request: Request, site_key: str, visitor_id: str) -> Response:
    site = await directory_of(request.app.state.database).site(site_key)
    return await cors.preflight(request, ["GET"], site)


# --- by key ---------------------------------------------------------------------------------------
# --------------


Auditor = Annotated[Caller, Depends(needs("consents:read"))]


async def _wanted(
    caller: Auditor,
    session: Reading,
    site_key: str | None = None,
    since: AwareDatetime | None = None,
    until: AwareDatetime | None = None,
    purpose: Annotated[str | None, Query(pattern=r"^[a-z][a-z0-9_]{0,31}$")] = None,
) -> queries.Filter:
    site_id = (
        (await sites.find_site(session, caller.workspace_id, site_key)).id if site_key else None
    )
    return queries.Filter(caller.workspace_id, site_id, since, until, purpose)


Wanted = Annotated[queries.Filter, Depends(_wanted)]


@router.get("/v1/consents", tags=["consent"])
async def list_consents(
    request: Request,
    session: Reading,
    wanted: Wanted,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: str | None = None,
) -> dict[str, Any]:
    """Consent records, newest first. ``since`` and ``until`` bound ``recorded_at``."""
    cursors: Cursors = request.app.state.cursors
    scope = ("consents", *(str(each or "") for each in astuple(wanted)))
    after = cursors.read(scope, cursor)
    found = await queries.records(session, wanted, limit=limit + 1, after=after)
    page = found[:limit]
    return {
        "items": [queries.record_json(record, key) for record, key in page],
        "next_cursor": cursors.write(scope, queries.position(page[-1][0]))
        if len(found) > limit
        else None,
    }


@router.get("/v1/consents/export", tags=["consent"])
async def export_consents(
    request: Request,
    wanted: Wanted,
    format: export.Format = "ndjson",
) -> StreamingResponse:
    """All matching records as a file, newest first: one JSON object a line, or CSV.

    ``iso_27560``: one JSON object a line, each as ``GET /v1/consents/{consent_id}`` has it under
    that name.
    """
    return await export.answer(request.app.state.database, wanted, format, _kept(request))


def _kept(request: Request) -> dt.timedelta:
    settings: Settings = request.app.state.settings
    return dt.timedelta(days=settings.consent_record_days)


@router.get("/v1/consents/stats", tags=["consent"])
async def read_stats(
    caller: Auditor,
    session: Reading,
    site_key: str | None = None,
    since: AwareDatetime | None = None,
    until: AwareDatetime | None = None,
    by: queries.By = "regime",
) -> dict[str, Any]:
    """How often the banner was shown and what was answered, by law, language, notice version or
    site.

    An own selection is ``accepted`` or ``rejected`` where it grants all or nothing, else
    ``partial``. ``rejected``: also withdrawn, or closed unanswered where the law asks first;
    ``other``: closed under any other law, by the GPC signal, taken over from elsewhere, or by a
    server. ``shown`` is null where the site's module ``counts`` never told; it is kept by the UTC
    day.
    """
    wanted = await _wanted(caller, session, site_key, since, until)
    found = queries.answers(await queries.groups(session, wanted), by)
    if by == "site":
        keys = await queries.site_keys(session, [each.key for each in found])
        found = [replace(each, key=keys[each.key]) for each in found]
    return {"items": [asdict(each) for each in found], "next_cursor": None}


@router.get("/v1/consents/{consent_id}", tags=["consent"])
async def read_consent_record(
    request: Request, caller: Auditor, session: Reading, consent_id: str
) -> dict[str, Any]:
    """One record: who chose what, when, the words that were shown (``notice``), and all of it by
    the names of ISO/IEC TS 27560 (``iso_27560``).

    500 ``notice-altered``: the words are no longer those that were published.
    """
    record, site, version = await queries.get(session, caller.workspace_id, consent_id)
    notice = genuine(version)
    before = await queries.previous(session, [record])
    told = audit_trail.Told(record, notice, site.site_key, site.name, before.get(record.id))
    destinations = await queries.destinations(session, caller.workspace_id)
    return queries.record_json(record, site.site_key) | {
        "notice": audit_trail.shown(record, notice, version),
        "iso_27560": audit_trail.for_auditor(told, destinations, _kept(request)),
    }
