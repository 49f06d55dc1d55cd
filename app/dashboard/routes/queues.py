"""Queues: list, one with all that is known of it, and what an operator may do with them."""

from __future__ import annotations

from fastapi import Request, Response
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.clock import utc_now
from app.core.errors import Invalid, Problem
from app.core.http import Reading
from app.dashboard import forms
from app.dashboard.access import SignedIn, router
from app.dashboard.render import page, redirect
from app.dashboard.views import queues as views
from app.dashboard.views.choices import chosen, has_unknown
from app.dashboard.views.paging import Position
from app.delivery import queue_view, queues
from app.security import audit
from app.security.sessions import Operator
from app.subject_requests.services import Services

LIST = "/dashboard/queues"


@router.get("/queues")
async def queue_list(request: Request, operator: SignedIn, session: Reading) -> Response:
    asked = request.query_params
    choices, name = views.choices(asked), asked.get("name", "").strip()[:200]
    if has_unknown(choices):
        rest = {"name": name}
        return page(request, "unknown.html", title="Queues", path=LIST, choices=choices, rest=rest)
    position = Position(
        request.app.state.cursors,
        LIST,
        operator.workspace_id,
        {**chosen(choices), "name": name},
        asked.get("cursor"),
    )
    return page(
        request,
        "queues.html",
        view=await views.queue_list(session, operator, position, choices, utc_now()),
    )


@router.get("/queues/{destination_id}")
async def queue_page(
    destination_id: str, request: Request, operator: SignedIn, session: Reading
) -> Response:
    return await _page(request, operator, session, destination_id)


@router.post("/queues/{destination_id}")
async def act_on_queue(destination_id: str, request: Request, operator: SignedIn) -> Response:
    """Pause, resume, boost or flush; back to where the button was."""
    form = await forms.read(request)
    try:
        action = await change(request, operator, destination_id)
    except Problem as problem:
        async with request.app.state.database.reading() as session:
            return await _page(request, operator, session, destination_id, problem)
    is_list = forms.text(form, "back", limit=10) == "list"
    return redirect(LIST if is_list else f"{LIST}/{destination_id}", action)


async def change(request: Request, operator: Operator, destination_id: str) -> str:
    """What the form asks for, done and written down; returns its name."""
    form = await forms.read(request)
    now = utc_now()
    action = forms.text(form, "action", limit=10)
    if action not in set(queues.QueueAction):
        raise Invalid("Choose one of pause, resume, boost, flush.")
    async with request.app.state.database.writing() as session:
        await queue_view.find(session, operator.workspace_id, destination_id)
        await queues.change(
            session, operator.workspace_id, destination_id, queues.QueueAction(action), now
        )
        audit.record(
            session,
            workspace_id=operator.workspace_id,
            actor=operator.actor,
            verb=f"queue_{action}",
            target=destination_id,
            now=now,
        )
    return action


async def _page(
    request: Request,
    operator: Operator,
    session: AsyncSession,
    destination_id: str,
    problem: Problem | None = None,
) -> Response:
    _, destination = await queue_view.find(session, operator.workspace_id, destination_id)
    services: Services = request.app.state.services
    connector = services.class_of(destination.connector)
    view = await views.queue_page(session, operator, destination_id, connector, utc_now())
    return page(request, "queue.html", view=view, problem=problem)
