"""One delivery: its whole trace, and what an operator may do with an archived one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import Request, Response
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.clock import utc_now
from app.core.errors import Problem
from app.core.http import Reading
from app.dashboard import forms
from app.dashboard.access import SignedIn, router
from app.dashboard.render import page, redirect
from app.dashboard.routes.requests import reason_of
from app.dashboard.views import deliveries as views
from app.delivery import service as deliveries
from app.security import audit
from app.security.sessions import Operator
from app.subject_requests import decide

Work = Callable[[AsyncSession], Awaitable[object]]


@router.get("/deliveries/{delivery_id}")
async def delivery_page(
    delivery_id: str, request: Request, operator: SignedIn, session: Reading
) -> Response:
    return await _page(request, operator, session, delivery_id)


@router.post("/deliveries/{delivery_id}/replay")
async def replay(delivery_id: str, request: Request, operator: SignedIn) -> Response:
    now = utc_now()
    await request.app.state.archive.mend(deliveries.Selection(operator.workspace_id, delivery_id))

    async def work(session: AsyncSession) -> None:
        await deliveries.replay(session, operator.workspace_id, delivery_id, now)
        audit.record(
            session,
            workspace_id=operator.workspace_id,
            actor=operator.actor,
            verb="replay",
            target=delivery_id,
            now=now,
        )

    return await _step(request, operator, delivery_id, "replayed", work)


@router.post("/deliveries/{delivery_id}/waive")
async def waive(delivery_id: str, request: Request, operator: SignedIn) -> Response:
    form = await forms.read(request)
    now = utc_now()

    async def work(session: AsyncSession) -> None:
        await decide.waive(
            session,
            request.app.state.services,
            operator.workspace_id,
            delivery_id,
            operator.actor,
            reason_of(form),
            now,
        )

    return await _step(request, operator, delivery_id, "waived", work)


async def _step(
    request: Request, operator: Operator, delivery_id: str, notice: str, work: Work
) -> Response:
    """One step in one transaction, then back to where the button was; what goes wrong is shown on
    the delivery's own page.
    """
    form = await forms.read(request)
    try:
        async with request.app.state.database.writing() as session:
            delivery = await deliveries.get(session, operator.workspace_id, delivery_id)
            await work(session)
    except Problem as problem:
        async with request.app.state.database.reading() as session:
            return await _page(request, operator, session, delivery_id, problem)
    if forms.text(form, "back", limit=10) == "request":
        return redirect(f"/dashboard/requests/{delivery.request_id}", notice)
    return redirect(f"/dashboard/deliveries/{delivery_id}", notice)


async def _page(
    request: Request,
    operator: Operator,
    session: AsyncSession,
    delivery_id: str,
    problem: Problem | None = None,
) -> Response:
    view = await views.delivery_page(session, operator, delivery_id, utc_now())
    return page(request, "delivery.html", view=view, problem=problem)
