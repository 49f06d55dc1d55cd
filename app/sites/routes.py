"""Routes of sites: the embedded script, the banner and GPC statement in public; configuration by
key."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.background import BackgroundTask

from app.core.clock import utc_now
from app.core.errors import NotFound
from app.core.http import Cursors, Reading, StrictRoute, Writing
from app.core.settings import Settings
from app.security.access import Caller, needs
from app.security.idempotency import once
from app.sites import beacons, cors, script, seen, service, unlisted
from app.sites.banner import show
from app.sites.beacons import described
from app.sites.changes import changes
from app.sites.directory import PublishedSite, directory_of
from app.sites.genuine import genuine
from app.sites.host_identity import check_reachable, set_host_identity
from app.sites.schemas import SiteIn, SitePatch, seen_json, site_json, version_json
from app.sites.visitor import visitor_of

router = APIRouter(route_class=StrictRoute)

Reader = Annotated[Caller, Depends(needs("sites:read"))]
Editor = Annotated[Caller, Depends(needs("sites:write"))]
Limit = Annotated[int, Query(ge=1, le=200)]

_GPC_SINCE = "2026-11-23"

# --- public ---------------------------------------------------------------------------------------
# --------------


@router.head("/b/{site_key}.js", include_in_schema=False)
@router.get("/b/{site_key}.js", tags=["public"], response_class=Response)
async def widget_script(
    request: Request, site_key: str, lang: str | None = None, region: str | None = None
) -> Response:
    """The consent widget with the site's configuration for this visitor's law and language."""
    site, notice = await directory_of(request.app.state.database).published(site_key)
    settings: Settings = request.app.state.settings
    visitor = visitor_of(request, notice, lang, region)
    widget = script.widget_of(request.app.state)
    config = script.config_for(
        site, notice, languages=visitor.languages, region=visitor.region, gpc=visitor.gpc,
        base_url=settings.public_url, widget=widget,
    )  # fmt: skip
    body, tag = script.script(config, script.modules_of(notice.content), widget)
    is_packed = script.takes_gzip(request.headers.get("accept-encoding", ""))
    if is_packed:
        tag = f'{tag[:-1]}-gzip"'
    headers = {
        "X-Quittance-Regime": config["regime"],
        # An old banner while we are away, and never a wait for a newer one.
        "Cache-Control": "private, max-age=300, stale-while-revalidate=86400, "
        "stale-if-error=604800",
        "ETag": tag,
        "Vary": ", ".join((*visitor.vary, "Accept-Encoding")),
        "Cross-Origin-Resource-Policy": "cross-origin",
    }
    afterwards = BackgroundTask(unlisted.notice, request, site)
    if _is_known(request, tag):
        return Response(status_code=304, headers=headers, background=afterwards)
    if is_packed:
        headers["Content-Encoding"] = "gzip"
        body = script.packed(body)
    return Response(body, 200, headers, "text/javascript; charset=utf-8", afterwards)


@router.get("/b/{site_key}/{version}.js", tags=["public"], response_class=Response)
async def pinned_script(
    request: Request, site_key: str, version: str, lang: str, region: str
) -> Response:
    """The script of one notice version for one language and region (empty: unknown), for sites
    that keep a copy of their own: `Integrity` is its Subresource Integrity value.
    """
    directory = directory_of(request.app.state.database)
    site, notice = await directory.site(site_key), await directory.notice(version)
    if notice is None or notice.site_id != site.id:
        raise NotFound("This site has no such notice version.")
    settings: Settings = request.app.state.settings
    body, regime = script.pinned(
        site, notice, lang=lang, region=region, base_url=settings.public_url,
        widget=script.widget_of(request.app.state),
    )  # fmt: skip
    headers = {"X-Quittance-Regime": regime, "Integrity": script.integrity(body)}
    return _shared_script(request, body, _FOR_EVER, headers)


@router.get("/b/w/{digest}/dialog.js", tags=["public"], response_class=Response)
async def widget_dialog(request: Request, digest: str) -> Response:
    """The widget's preference dialog. Its address changes with it, so it may be kept for ever."""
    body = script.dialog(script.widget_of(request.app.state))
    is_current = hashlib.sha256(body).hexdigest()[:16] == digest
    # A page of before an upgrade still gets a dialog, though not one to keep.
    return _shared_script(request, body, _FOR_EVER if is_current else "public, max-age=300", {})


_FOR_EVER = "public, max-age=31536000, immutable"


def _shared_script(
    request: Request, body: bytes, caching: str, headers: dict[str, str]
) -> Response:
    """JavaScript that is the same for everybody; any page may load it, with or without CORS."""
    headers = headers | {
        "Cache-Control": caching,
        "Access-Control-Allow-Origin": "*",
        "Cross-Origin-Resource-Policy": "cross-origin",
        "Vary": "Accept-Encoding",
    }
    if script.takes_gzip(request.headers.get("accept-encoding", "")):
        headers["Content-Encoding"] = "gzip"
        body = script.packed(body)
    return Response(body, headers=headers, media_type="text/javascript; charset=utf-8")


def _is_known(request: Request, tag: str) -> bool:
    """If-None-Match (RFC 9110, 13.1.2), compared weakly."""
    known = [
        each.strip().removeprefix("W/")
        for each in request.headers.get("if-none-match", "").split(",")
    ]
    return tag in known or "*" in known


@router.post(
    "/b/{site_key}/seen", tags=["public"], status_code=204, openapi_extra=described(seen.SeenIn)
)
async def report_seen(request: Request, site_key: str) -> Response:
    """What a page holds that no rule of the site covers, by name: sent by the module `report`, from
    one page view in ten, and about nobody in particular."""

    async def store(site: PublishedSite, body: seen.SeenIn) -> None:
        async with request.app.state.database.writing() as session:
            await seen.note(session, site, seen.patterns_of(body), utc_now())

    return await beacons.take(request, site_key, seen.MODULE, seen.SeenIn, store)


@router.options("/b/{site_key}/seen", tags=["public"], include_in_schema=False)
async def seen_preflight(request: Request, site_key: str) -> Response:
    return await beacons.preflight(request, site_key)


@router.get("/v1/sites/{site_key}/banner", tags=["public"])
async def read_banner(
    request: Request, site_key: str, lang: str | None = None, region: str | None = None
) -> JSONResponse:
    """What this visitor is shown before any choice."""
    site, notice = await directory_of(request.app.state.database).published(site_key)
    visitor = visitor_of(request, notice, lang, region)
    answer = show(notice, visitor.languages, visitor.region, gpc=visitor.gpc)
    headers = cors.headers(site, request)
    headers |= {
        "Vary": ", ".join((headers["Vary"], *visitor.vary)),
        "X-Quittance-Regime": answer["regime"],
    }
    return JSONResponse(answer, headers=headers)


@router.options("/v1/sites/{site_key}/banner", tags=["public"], include_in_schema=False)
async def banner_preflight(request: Request, site_key: str) -> Response:
    site = await directory_of(request.app.state.database).site(site_key)
    return await cors.preflight(request, ["GET"], site)


@router.get("/.well-known/gpc.json", tags=["public"])
async def gpc_statement() -> dict[str, Any]:
    """This service honours Global Privacy Control."""
    return {"gpc": True, "lastUpdate": _GPC_SINCE}


# --- configuration
# ----------------------------------------------------------------------------------------------


@router.get("/v1/sites", tags=["sites"])
async def list_sites(
    request: Request, caller: Reader, session: Reading, limit: Limit = 50, cursor: str | None = None
) -> dict[str, Any]:
    """Sites, newest first."""
    cursors: Cursors = request.app.state.cursors
    scope = ("sites", caller.workspace_id)
    found = await service.list_sites(
        session, caller.workspace_id, limit=limit + 1, after=cursors.read(scope, cursor)
    )
    page = found[:limit]
    versions = await service.versions_of(session, [each.id for each in page])
    return {
        "items": [site_json(each, versions.get(each.published_version_id or "")) for each in page],
        "next_cursor": cursors.write(scope, page[-1].id) if len(found) > limit else None,
    }


@router.post("/v1/sites", tags=["sites"], status_code=201)
async def create_site(request: Request, caller: Editor, body: SiteIn) -> JSONResponse:
    """A new site; publish it to put its banner on the air."""
    now = utc_now()

    async def work(session: AsyncSession) -> tuple[int, dict[str, Any]]:
        site = await service.create_site(
            session, workspace_id=caller.workspace_id, name=body.name, origins=body.origins,
            config=body.config, actor=caller.actor, now=now,
        )  # fmt: skip
        return 201, site_json(site, None)

    return await once(request, caller, body.model_dump(mode="json"), work, now)


@router.get("/v1/sites/{site_key}", tags=["sites"])
async def read_site(caller: Reader, session: Reading, site_key: str) -> dict[str, Any]:
    return await _described(session, caller, site_key)


@router.patch("/v1/sites/{site_key}", tags=["sites"])
async def change_site(
    request: Request, caller: Editor, session: Writing, site_key: str, body: SitePatch
) -> dict[str, Any]:
    """Change what is given; a `config` replaces the whole draft, so read it, change it and send all
    of it. Origins, `first_party` and host identity act at once; the rest of the configuration is a
    draft until it is published."""
    await check_reachable(body.host_identity, request.app.state.outbound)
    site = await service.find_site(session, caller.workspace_id, site_key)
    now = utc_now()
    await service.update_site(
        session, site, name=body.name, origins=body.origins, config=body.config,
        is_intake_open=body.is_intake_open, actor=caller.actor, now=now,
    )  # fmt: skip
    if "host_identity" in body.model_fields_set:
        await set_host_identity(session, site, body.host_identity, actor=caller.actor, now=now)
    return await _described(session, caller, site_key)


@router.delete("/v1/sites/{site_key}", tags=["sites"], status_code=204)
async def delete_site(caller: Editor, session: Writing, site_key: str) -> None:
    """Take the site off the air; its consent records stay."""
    site = await service.find_site(session, caller.workspace_id, site_key)
    await service.delete_site(session, site, actor=caller.actor, now=utc_now())


@router.post("/v1/sites/{site_key}/publish", tags=["sites"])
async def publish_site(
    caller: Editor, session: Writing, site_key: str, asks_again: bool | None = None
) -> dict[str, Any]:
    """Show the draft to visitors, as an immutable, hashed notice version; unchanged content keeps
    its version, unless others are to be asked again.

    ``asks_again``: whether visitors who have chosen are asked anew; left out: if the change is
    material (who asks, the purposes, their own words in any language); false: only the wording
    changed.
    """
    site = await service.find_site(session, caller.workspace_id, site_key)
    version = await service.publish_site(
        session, site, actor=caller.actor, now=utc_now(), asks_again=asks_again
    )
    return version_json(version)


@router.get("/v1/sites/{site_key}/versions", tags=["sites"])
async def list_versions(caller: Reader, session: Reading, site_key: str) -> dict[str, Any]:
    """The newest 50 notice versions."""
    site = await service.find_site(session, caller.workspace_id, site_key)
    history = await service.version_history(session, site)
    return {"items": [version_json(each) for each in history], "next_cursor": None}


@router.get("/v1/sites/{site_key}/versions/{number}", tags=["sites"])
async def read_version(
    caller: Reader,
    session: Reading,
    site_key: str,
    number: int,
    since: Annotated[int | None, Query(ge=1)] = None,
) -> dict[str, Any]:
    """One notice version: its whole ``content``, whose SHA-256 as canonical JSON is
    ``version_hash``, and what it ``changes`` against version ``since`` (default: the one before).
    ``config`` is the draft it was made of (null: of before 2026-11-27); to go back to it, PATCH the
    site with it, but with the ``first_party`` of today, which acts at once, and publish.

    500 ``notice-altered``: the content is no longer what was published.
    """
    site = await service.find_site(session, caller.workspace_id, site_key)
    version = await service.version_of(session, site, number)
    content = genuine(version).content
    earlier = number - 1 if since is None else since
    before = genuine(await service.version_of(session, site, earlier)).content if earlier else {}
    return version_json(version) | {
        "content": content,
        "config": version.config,
        "changes_since": earlier or None,
        "changes": changes(before, content) if earlier else [],
    }


@router.get("/v1/sites/{site_key}/trackers/seen", tags=["sites"])
async def list_seen(caller: Reader, session: Reading, site_key: str) -> dict[str, Any]:
    """What browsers reported and has no rule in the draft, most often seen first; at most 500.

    ``suggestion``: whose it usually is, and for which of the site's purposes; null: not known.
    """
    site = await service.find_site(session, caller.workspace_id, site_key)
    found = await seen.without_rule(session, site)
    return {"items": [seen_json(each, site) for each in found], "next_cursor": None}


async def _described(session: AsyncSession, caller: Caller, site_key: str) -> dict[str, Any]:
    site = await service.find_site(session, caller.workspace_id, site_key)
    versions = await service.versions_of(session, [site.id])
    return site_json(site, versions.get(site.published_version_id or ""))
