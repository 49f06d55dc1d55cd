"""Requests: list, search, one request and every step an operator may take."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import urlencode

from fastapi import Request, Response
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.datastructures import FormData, UploadFile

from app.core.clock import utc_now
from app.core.errors import Invalid, Problem
from app.core.http import Reading
from app.dashboard import forms
from app.dashboard.access import SignedIn, router
from app.dashboard.render import HEADERS, page, redirect
from app.dashboard.views import requests as views
from app.dashboard.views.choices import chosen, has_unknown, refuse_unknown
from app.dashboard.views.paging import Position
from app.identity import vault
from app.identity.normalise import normalise
from app.security import audit
from app.security.sessions import Operator
from app.subject_requests import decide
from app.subject_requests.services import Services

Work = Callable[[AsyncSession], Awaitable[object]]
LIST = "/dashboard/requests"


@router.get("/requests")
async def request_list(request: Request, operator: SignedIn, session: Reading) -> Response:
    return await _list(request, operator, session)


@router.get("/requests.csv")
async def export(request: Request, operator: SignedIn, session: Reading) -> Response:
    choices = views.choices(request.query_params)
    refuse_unknown(choices)
    content = await views.as_csv(session, operator.workspace_id, chosen(choices), utc_now())
    headers = {**HEADERS, "Content-Disposition": 'attachment; filename="requests.csv"'}
    return Response(content, media_type="text/csv; charset=utf-8", headers=headers)


@router.post("/requests/search")
async def search(request: Request, operator: SignedIn, session: Reading) -> Response:
    """By identifier: posted, so that it stands in no address or log."""
    form = await forms.read(request)
    try:
        identifier = normalise(
            forms.text(form, "kind", limit=32), forms.text(form, "value", limit=2048)
        )
    except Problem as problem:
        return await _list(request, operator, session, problem)
    holders = await vault.holders_of(
        session, request.app.state.ring, operator.workspace_id, [identifier]
    )
    rows = await views.of_holders(session, operator.workspace_id, holders, utc_now())
    return page(request, "search.html", rows=rows, kind=identifier.kind)


@router.get("/requests/{request_id}")
async def request_page(
    request_id: str, request: Request, operator: SignedIn, session: Reading
) -> Response:
    return await _page(request, operator, session, request_id)


@router.post("/requests/{request_id}/reveal")
async def reveal(request_id: str, request: Request, operator: SignedIn) -> Response:
    """Show the identifiers in clear, once, and write down who looked."""
    now = utc_now()
    async with request.app.state.database.writing() as session:
        await views.find(session, operator.workspace_id, request_id)
        audit.record(
            session,
            workspace_id=operator.workspace_id,
            actor=operator.actor,
            verb="reveal_identifiers",
            target=request_id,
            now=now,
        )
    async with request.app.state.database.reading() as session:
        return await _page(request, operator, session, request_id, is_revealed=True)


@router.post("/requests/{request_id}/approve")
async def approve(request_id: str, request: Request, operator: SignedIn) -> Response:
    now = utc_now()
    return await _step(
        request,
        operator,
        request_id,
        "approved",
        lambda session: decide.approve(
            session, operator.workspace_id, request_id, operator.actor, now
        ),
    )


@router.post("/requests/{request_id}/deny")
async def deny(request_id: str, request: Request, operator: SignedIn) -> Response:
    form = await forms.read(request)
    now = utc_now()

    async def work(session: AsyncSession) -> object:
        reason = forms.text(form, "reason", limit=100)
        if reason not in views.DENY_REASONS:
            raise Invalid("Choose a reason; the person is told it.")
        note = forms.text(form, "note", limit=2000) or None
        return await decide.deny(
            session,
            _services(request),
            operator.workspace_id,
            request_id,
            operator.actor,
            reason,
            note,
            now,
        )

    return await _step(request, operator, request_id, "denied", work)


@router.post("/requests/{request_id}/extend")
async def extend(request_id: str, request: Request, operator: SignedIn) -> Response:
    form = await forms.read(request)
    now = utc_now()

    async def work(session: AsyncSession) -> object:
        days = forms.text(form, "days", limit=4)
        if not (days.isascii() and days.isdigit() and 1 <= int(days) <= 365):
            raise Invalid("Give a number of days from 1 to 365.")
        return await decide.extend(
            session,
            operator.workspace_id,
            request_id,
            operator.actor,
            int(days),
            reason_of(form),
            now,
        )

    return await _step(request, operator, request_id, "extended", work)


@router.post("/requests/{request_id}/hold")
async def hold(request_id: str, request: Request, operator: SignedIn) -> Response:
    form = await forms.read(request)
    now = utc_now()

    async def work(session: AsyncSession) -> object:
        return await decide.hold(
            session, operator.workspace_id, request_id, operator.actor, reason_of(form), now
        )

    return await _step(request, operator, request_id, "held", work)


@router.post("/requests/{request_id}/release")
async def release(request_id: str, request: Request, operator: SignedIn) -> Response:
    now = utc_now()
    return await _step(
        request,
        operator,
        request_id,
        "released",
        lambda session: decide.release(
            session, operator.workspace_id, request_id, operator.actor, now
        ),
    )


@router.post("/requests/{request_id}/cancel")
async def cancel(request_id: str, request: Request, operator: SignedIn) -> Response:
    now = utc_now()
    services = _services(request)
    return await _step(
        request,
        operator,
        request_id,
        "cancelled",
        lambda session: decide.cancel(
            session, services, operator.workspace_id, request_id, operator.actor, now
        ),
    )


@router.post("/requests/{request_id}/answer")
async def answer(request_id: str, request: Request, operator: SignedIn) -> Response:
    """A text or a file for the person; sealed under the request's key."""
    form = await forms.read(request)
    now = utc_now()
    upload = form.get("file")
    content = await upload.read(decide.MAX_ANSWER + 1) if isinstance(upload, UploadFile) else b""
    name = upload.filename if isinstance(upload, UploadFile) else None

    async def work(session: AsyncSession) -> object:
        return await decide.answer(
            session,
            _services(request),
            operator.workspace_id,
            request_id,
            operator.actor,
            forms.text(form, "text", limit=20_000),
            name,
            content or None,
            now,
        )

    return await _step(request, operator, request_id, "answered", work)


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


def reason_of(form: FormData) -> str:
    reason = forms.text(form, "reason", limit=500)
    if not reason:
        raise Invalid("Give a reason; it stands in the timeline and the audit log.")
    return reason


async def _step(
    request: Request, operator: Operator, request_id: str, notice: str, work: Work
) -> Response:
    """One step in one transaction; what goes wrong is shown on the request's own page."""
    try:
        async with request.app.state.database.writing() as session:
            await work(session)
    except Problem as problem:
        async with request.app.state.database.reading() as session:
            return await _page(request, operator, session, request_id, problem=problem)
    return redirect(f"/dashboard/requests/{request_id}", notice)


async def _page(
    request: Request,
    operator: Operator,
    session: AsyncSession,
    request_id: str,
    problem: Problem | None = None,
    *,
    is_revealed: bool = False,
) -> Response:
    view = await views.request_page(
        session,
        request.app.state.key_store,
        operator,
        request_id,
        utc_now(),
        is_revealed=is_revealed,
    )
    return page(request, "request.html", view=view, problem=problem)


async def _list(
    request: Request, operator: Operator, session: AsyncSession, problem: Problem | None = None
) -> Response:
    choices = views.choices(request.query_params)
    if has_unknown(choices):
        return page(request, "unknown.html", title="Requests", path=LIST, choices=choices)
    filters = chosen(choices)
    position = Position(
        request.app.state.cursors,
        LIST,
        operator.workspace_id,
        filters,
        request.query_params.get("cursor"),
    )
    query = urlencode({name: value for name, value in filters.items() if value})
    view = await views.request_list(session, operator, position, choices, utc_now(), query)
    return page(request, "requests.html", view=view, problem=problem)
