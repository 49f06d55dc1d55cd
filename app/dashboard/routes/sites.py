"""Sites: list, edit, publish, preview with the real widget."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from fastapi import Request, Response
from fastapi.responses import HTMLResponse
from markupsafe import Markup
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.clock import utc_now
from app.core.errors import Conflict, Invalid, Problem
from app.core.http import Reading
from app.dashboard import forms
from app.dashboard.access import SignedIn, router
from app.dashboard.render import HEADERS, page, redirect, template
from app.dashboard.routes.destinations import as_problem
from app.dashboard.views import preview as previews
from app.dashboard.views import publishing
from app.dashboard.views import sites as views
from app.security.models import Role
from app.security.sessions import Operator
from app.sites import script, service
from app.sites.config import SiteConfig
from app.sites.directory import directory_of
from app.sites.host_identity import check_reachable, set_host_identity
from app.sites.models import NoticeVersion, Site

_PREVIEW_CSP = (
    "default-src 'none'; script-src 'self' 'nonce-{nonce}'; style-src 'self'; "
    "img-src data:; connect-src 'none'; frame-src 'self'; "
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
    """By its id; a site key, as it stands in the site's own pages, leads there."""
    if site_id.startswith("site_"):
        site = await service.find_site(session, operator.workspace_id, site_id)
        return redirect(f"/dashboard/sites/{site.id}")
    return await _page(request, operator, session, site_id)


@router.post("/sites/{site_id}")
async def save_site(site_id: str, request: Request, operator: SignedIn) -> Response:
    """Name, origins, first-party address and intake act at once; the rest is the draft."""
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


@router.post("/sites/{site_id}/trackers")
async def add_rules(site_id: str, request: Request, operator: SignedIn) -> Response:
    """Rules for what browsers reported, into the draft."""
    form = await forms.read(request)
    try:
        async with request.app.state.database.writing() as session:
            site = await views.find(session, operator.workspace_id, site_id)
            config = SiteConfig.model_validate(views.rules_from(form, site.draft))
            is_new = len(config.trackers) > len(site.draft.get("trackers", ()))
            await service.update_site(
                session, site, config=config if is_new else None, actor=operator.actor,
                now=utc_now(),
            )  # fmt: skip
    except (Problem, ValidationError) as error:
        async with request.app.state.database.reading() as session:
            return await _page(request, operator, session, site_id, as_problem(error))
    return redirect(f"/dashboard/sites/{site_id}", "rules-added" if is_new else "nothing-ticked")


@router.get("/sites/{site_id}/publish")
async def publish_page(
    site_id: str, request: Request, operator: SignedIn, session: Reading
) -> Response:
    """What publishing would change, and who would be asked again."""
    return await _publish_page(request, operator, session, site_id)


@router.post("/sites/{site_id}/publish")
async def publish(site_id: str, request: Request, operator: SignedIn) -> Response:
    form = await forms.read(request)
    asks_again = {"all": True, "nobody": False}.get(forms.text(form, "asks_again", limit=10))
    try:
        async with request.app.state.database.writing() as session:
            site = await views.find(session, operator.workspace_id, site_id)
            if forms.text(form, "draft", limit=64) != publishing.draft_digest(site):
                raise Conflict("The draft has changed since; this is what it says now.")
            await service.publish_site(
                session, site, actor=operator.actor, now=utc_now(), asks_again=asks_again
            )
    except Problem as problem:
        async with request.app.state.database.reading() as session:
            return await _publish_page(request, operator, session, site_id, problem)
    return redirect(f"/dashboard/sites/{site_id}", "published")


async def _publish_page(
    request: Request,
    operator: Operator,
    session: AsyncSession,
    site_id: str,
    problem: Problem | None = None,
) -> Response:
    site = await views.find(session, operator.workspace_id, site_id)
    view = await publishing.page_of(session, site)
    return page(request, "publish.html", view=view, problem=problem)


@router.get("/sites/{site_id}/versions/{number}")
async def version_page(
    site_id: str, number: int, request: Request, operator: SignedIn, session: Reading
) -> Response:
    """What a published version changed, and its script for who hosts that."""
    return await _version_page(request, operator, session, site_id, number)


@router.post("/sites/{site_id}/versions/{number}")
async def take_up(site_id: str, number: int, request: Request, operator: SignedIn) -> Response:
    """The draft begins again with what this version was made of."""
    try:
        async with request.app.state.database.writing() as session:
            site = await views.find(session, operator.workspace_id, site_id)
            version = await service.version_of(session, site, number)
            await service.take_up(session, site, version, actor=operator.actor, now=utc_now())
    except (Conflict, Invalid, ValidationError) as error:
        async with request.app.state.database.reading() as session:
            return await _version_page(
                request, operator, session, site_id, number, as_problem(error)
            )
    return redirect(f"/dashboard/sites/{site_id}", "version-taken")


async def _version_page(
    request: Request,
    operator: Operator,
    session: AsyncSession,
    site_id: str,
    number: int,
    problem: Problem | None = None,
) -> Response:
    site = await views.find(session, operator.workspace_id, site_id)
    view = await publishing.version_page(session, operator, site, number)
    state = request.app.state
    copy = publishing.copy_of(
        await directory_of(state.database).site(site.site_key),
        await service.version_of(session, site, number), request.query_params,
        state.settings.public_url, script.widget_of(state),
    )  # fmt: skip
    return page(request, "version.html", view=view, copy=copy, problem=problem)


@router.get("/sites/{site_id}/preview")
async def preview(site_id: str, request: Request, operator: SignedIn, session: Reading) -> Response:
    """A page for the frame: the saved draft in the real widget, cut off from cookies, storage and
    network.
    """
    site = await views.find(session, operator.workspace_id, site_id)
    return await _preview(request, session, site, site.draft, request.query_params)


@router.post("/sites/{site_id}/preview")
async def preview_unsaved(
    site_id: str, request: Request, operator: SignedIn, session: Reading
) -> Response:
    """The same with what stands in the editor's form, saved or not."""
    form = await forms.read(request)
    site = await views.find(session, operator.workspace_id, site_id)
    try:
        draft = SiteConfig.model_validate(views.draft_from(form, site.draft))
    except (Problem, ValidationError) as error:
        return _framed(name=site.name, problem=as_problem(error))
    names = ("lang", "region", "state")
    asked = {name: forms.text(form, f"preview_{name}", limit=20) for name in names}
    return await _preview(request, session, site, draft.model_dump(mode="json"), asked)


async def _preview(
    request: Request,
    session: AsyncSession,
    site: Site,
    draft: Mapping[str, Any],
    asked: Mapping[str, str],
) -> Response:
    live = await session.get(NoticeVersion, site.published_version_id or "")
    shown = Site(**site.model_dump() | {"draft": draft})
    widget = script.widget_of(request.app.state)
    code = Markup(previews.code_of(shown, live, asked, widget, utc_now()))  # noqa: S704 - our own script, its data escaped for HTML
    return _framed(name=site.name, code=code, embed=previews.embed_of(draft))


def _framed(
    name: str,
    code: Markup | None = None,
    embed: previews.Embed | None = None,
    problem: Problem | None = None,
) -> Response:
    nonce = secrets.token_urlsafe(16)
    html = template("preview.html").render(
        nonce=nonce, name=name, code=code, embed=embed, problem=problem
    )
    policy = _PREVIEW_CSP.format(nonce=nonce)
    return HTMLResponse(html, headers={**HEADERS, "Content-Security-Policy": policy})


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
