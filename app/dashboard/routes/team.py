"""API keys and the team: owners only."""

from __future__ import annotations

import datetime as dt

from fastapi import Request, Response
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.clock import utc_now
from app.core.errors import Invalid, Problem
from app.core.http import Reading
from app.dashboard import forms
from app.dashboard.access import SignedIn, router
from app.dashboard.render import page, redirect
from app.dashboard.routes.account import type_password_again
from app.dashboard.views import team as views
from app.security import accounts, api_keys, audit
from app.security.models import Role
from app.security.sessions import Operator

_LIFETIMES = {"": None, "30": 30, "90": 90, "365": 365}


@router.get("/keys")
async def key_list(request: Request, operator: SignedIn, session: Reading) -> Response:
    return await _keys(request, operator, session)


@router.post("/keys")
async def create_key(request: Request, operator: SignedIn) -> Response:
    """The secret is shown on the answering page, once."""
    form = await forms.read(request)
    now = utc_now()
    database = request.app.state.database
    secret, problem = "", None
    try:
        await type_password_again(request, operator, form)
        days = _LIFETIMES.get(forms.text(form, "lifetime"))
        async with database.writing() as session:
            key, secret = await api_keys.create(
                session,
                workspace_id=operator.workspace_id,
                name=forms.text(form, "name", limit=100),
                scopes=forms.texts(form, "scopes"),
                created_by=operator.actor,
                grantor_scopes=operator.scopes,
                now=now,
                expires_at=now + dt.timedelta(days=days) if days else None,
            )
            audit.record(
                session,
                workspace_id=operator.workspace_id,
                actor=operator.actor,
                verb="create_key",
                target=key.id,
                now=now,
                scopes=key.scopes,
            )
    except Problem as found:
        problem = found
    async with database.reading() as session:
        return await _keys(
            request, operator, session, secret, problem, forms.text(form, "name", limit=500)
        )


@router.post("/keys/{key_id}/revoke")
async def revoke_key(key_id: str, request: Request, operator: SignedIn) -> Response:
    now = utc_now()
    async with request.app.state.database.writing() as session:
        await api_keys.revoke(session, operator.workspace_id, key_id, now)
        audit.record(
            session,
            workspace_id=operator.workspace_id,
            actor=operator.actor,
            verb="revoke_key",
            target=key_id,
            now=now,
        )
    return redirect("/dashboard/keys", "key-revoked")


@router.get("/team")
async def team_page(request: Request, operator: SignedIn, session: Reading) -> Response:
    return await _team(request, operator, session)


@router.post("/team/invites")
async def invite(request: Request, operator: SignedIn) -> Response:
    """The link is shown on the answering page, once."""
    form = await forms.read(request)
    database = request.app.state.database
    link, problem = "", None
    try:
        await type_password_again(request, operator, form)
        async with database.writing() as session:
            token = await accounts.create_invite(
                session,
                operator.workspace_id,
                _role(forms.text(form, "role")),
                now=utc_now(),
                actor=operator.actor,
                email=forms.text(form, "email", limit=320) or None,
            )
        link = f"{request.app.state.settings.public_url}/dashboard/invite/{token}"
    except Problem as found:
        problem = found
    async with database.reading() as session:
        return await _team(request, operator, session, link, problem)


@router.post("/team/{admin_id}/role")
async def change_role(admin_id: str, request: Request, operator: SignedIn) -> Response:
    form = await forms.read(request)
    try:
        async with request.app.state.database.writing() as session:
            role = _role(forms.text(form, "role"))
            await accounts.set_role(
                session, operator.workspace_id, admin_id, role, operator.actor, utc_now()
            )
    except Problem as problem:
        async with request.app.state.database.reading() as session:
            return await _team(request, operator, session, problem=problem)
    return redirect(
        "/dashboard/team" if admin_id != operator.admin_id else "/dashboard", "role-changed"
    )


@router.post("/team/{admin_id}/disable")
async def disable(admin_id: str, request: Request, operator: SignedIn) -> Response:
    try:
        async with request.app.state.database.writing() as session:
            await accounts.disable(
                session, operator.workspace_id, admin_id, operator.actor, utc_now()
            )
    except Problem as problem:
        async with request.app.state.database.reading() as session:
            return await _team(request, operator, session, problem=problem)
    return redirect("/dashboard/team", "disabled")


def _role(name: str) -> Role:
    try:
        return Role(name)
    except ValueError:
        raise Invalid("Choose one of the roles owner, operator, viewer.") from None


async def _keys(
    request: Request,
    operator: Operator,
    session: AsyncSession,
    secret: str = "",
    problem: Problem | None = None,
    name: str = "",
) -> Response:
    rows = await views.keys(session, operator, utc_now())
    return page(
        request,
        "keys.html",
        rows=rows,
        scopes=views.SCOPES,
        secret=secret,
        problem=problem,
        name=name if problem else "",
        is_fresh=operator.is_fresh(utc_now()),
    )


async def _team(
    request: Request,
    operator: Operator,
    session: AsyncSession,
    link: str = "",
    problem: Problem | None = None,
) -> Response:
    view = await views.team(session, operator, utc_now())
    return page(
        request,
        "team.html",
        view=view,
        link=link,
        problem=problem,
        roles=views.ROLES,
        is_fresh=operator.is_fresh(utc_now()),
    )
