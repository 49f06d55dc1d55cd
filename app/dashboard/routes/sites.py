"""Sites: list, edit, publish, preview with the real widget."""

from __future__ import annotations

import hashlib

from fastapi import Request, Response
from fastapi.responses import HTMLResponse
from itsdangerous import BadData, URLSafeTimedSerializer
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.clock import utc_now
from app.core.errors import NotFound, Problem
from app.core.http import Reading
from app.dashboard import forms
from app.dashboard.access import SignedIn, router
from app.dashboard.render import HEADERS, page, redirect, template
from app.dashboard.routes.destinations import as_problem
from app.dashboard.views import sites as views
from app.security.models import Role
from app.security.sessions import Operator
from app.sites import script, service
from app.sites.config import SiteConfig
from app.sites.host_identity import check_reachable, set_host_identity
from app.sites.models import Site

_PREVIEW_SECONDS = 600
_PREVIEW_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'none'; "
    "form-action 'none'; frame-ancestors 'self'; base-uri 'none'; sandbox allow-scripts"
)


@router.get("/sites")
async def site_list(request: Request, operator: SignedIn, session: Reading) -> Response:
    return await _list(request, operator, session)


@router.post("/sites")
async def create_site(request: Request, operator: SignedIn) -> Response:
    form = await forms.read(request)
    try:
        async with request.app.state.database.writing() as session:
            site = await service.create_site(
                session,
                workspace_id=operator.workspace_id,
                name=forms.text(form, "name", limit=200),
                origins=forms.lines(form, "origins"),
                actor=operator.actor,
                now=utc_now(),
            )
    except (Problem, ValidationError) as error:
        async with request.app.state.database.reading() as session:
            return await _list(request, operator, session, as_problem(error))
    return redirect(f"/dashboard/sites/{site.id}", "site-added")


@router.get("/sites/{site_id}")
async def site_page(
    site_id: str, request: Request, operator: SignedIn, session: Reading
) -> Response:
    return await _page(request, operator, session, site_id)


@router.post("/sites/{site_id}")
async def save_site(site_id: str, request: Request, operator: SignedIn) -> Response:
    """Name, origins and intake act at once; the rest is the draft."""
    form = await forms.read(request)
    try:
        async with request.app.state.database.writing() as session:
            site = await views.find(session, operator.workspace_id, site_id)
            config = SiteConfig.model_validate(views.draft_from(form, site.draft))
            await service.update_site(
                session,
                site,
                name=forms.text(form, "name", limit=200),
                origins=forms.lines(form, "origins"),
                config=config,
                is_intake_open=forms.text(form, "is_intake_open") == "on",
                actor=operator.actor,
                now=utc_now(),
            )
    except (Problem, ValidationError) as error:
        async with request.app.state.database.reading() as session:
            return await _page(request, operator, session, site_id, as_problem(error))
    language = forms.text(form, "lang", limit=20)
    suffix = f"?lang={language}" if language in config.languages else ""
    return redirect(f"/dashboard/sites/{site_id}{suffix}", "site-saved")


@router.post("/sites/{site_id}/host")
async def save_host(site_id: str, request: Request, operator: SignedIn) -> Response:
    """Whose tokens say who is signed in on the site; an empty issuer: nobody's."""
    form = await forms.read(request)
    try:
        identity = views.host_from(form)
        await check_reachable(identity, request.app.state.outbound)
        async with request.app.state.database.writing() as session:
            site = await views.find(session, operator.workspace_id, site_id)
            await set_host_identity(session, site, identity, actor=operator.actor, now=utc_now())
    except (Problem, ValidationError) as error:
        async with request.app.state.database.reading() as session:
            return await _page(request, operator, session, site_id, as_problem(error))
    return redirect(f"/dashboard/sites/{site_id}", "host-saved")


@router.post("/sites/{site_id}/publish")
async def publish(site_id: str, request: Request, operator: SignedIn) -> Response:
    try:
        async with request.app.state.database.writing() as session:
            site = await views.find(session, operator.workspace_id, site_id)
            await service.publish_site(session, site, actor=operator.actor, now=utc_now())
    except Problem as problem:
        async with request.app.state.database.reading() as session:
            return await _page(request, operator, session, site_id, problem)
    return redirect(f"/dashboard/sites/{site_id}", "published")


@router.get("/sites/{site_id}/preview")
async def preview(site_id: str, request: Request, operator: SignedIn, session: Reading) -> Response:
    """A page for the frame: the draft in the real widget, cut off from cookies, storage and
    network.
    """
    site = await views.find(session, operator.workspace_id, site_id)
    asked = request.query_params
    token = _signer(request).dumps(
        [site.id, asked.get("lang", "")[:20], asked.get("region", "")[:8]]
    )
    html = template("preview.html").render(name=site.name, token=token)
    headers = {**HEADERS, "Content-Security-Policy": _PREVIEW_CSP}
    return HTMLResponse(html, headers=headers)


@router.get("/preview/{token}.js")
async def preview_script(token: str, request: Request, session: Reading) -> Response:
    """The widget with the draft. The frame has no origin and so no cookie: its signed token stands
    in.
    """
    try:
        site_id, language, region = _signer(request).loads(token, max_age=_PREVIEW_SECONDS)
    except BadData:
        raise NotFound from None
    site = await session.get(Site, site_id)
    if site is None:
        raise NotFound
    widget = script.widget_of(request.app.state)
    config = script.config_of(
        service.banner(site, None, language or None, region or None),
        base_url="", region=region or None, gpc=False, widget=widget,
    )  # fmt: skip
    body, _ = script.script(config, (), widget)
    headers = {"Cache-Control": "no-store", "Cross-Origin-Resource-Policy": "cross-origin"}
    return Response(body, media_type="text/javascript; charset=utf-8", headers=headers)


def _signer(request: Request) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(
        request.app.state.ring.derive("preview"),
        salt="preview",
        signer_kwargs={"digest_method": hashlib.sha256, "key_derivation": "hmac"},
    )


async def _list(
    request: Request, operator: Operator, session: AsyncSession, problem: Problem | None = None
) -> Response:
    rows = await views.site_list(session, operator)
    return page(
        request, "sites.html", rows=rows, problem=problem, may_edit=operator.may(Role.OPERATOR)
    )


async def _page(
    request: Request,
    operator: Operator,
    session: AsyncSession,
    site_id: str,
    problem: Problem | None = None,
) -> Response:
    site = await views.find(session, operator.workspace_id, site_id)
    public_url = request.app.state.settings.public_url
    view = await views.site_page(session, operator, site, public_url, dict(request.query_params))
    return page(request, "site.html", view=view, problem=problem)
