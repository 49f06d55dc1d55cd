"""Consent: numbers, the latest records, lookup by consent id."""

from __future__ import annotations

from fastapi import Request, Response
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.clock import utc_now
from app.core.http import Reading
from app.dashboard import forms
from app.dashboard.access import SignedIn, router
from app.dashboard.render import page
from app.dashboard.views import consent as views
from app.dashboard.views.paging import Position
from app.security.sessions import Operator


@router.get("/consent")
async def consent_page(request: Request, operator: SignedIn, session: Reading) -> Response:
    return await _page(request, operator, session)


@router.post("/consent")
async def look_up(request: Request, operator: SignedIn, session: Reading) -> Response:
    """One record by the id that the visitor was shown."""
    form = await forms.read(request)
    return await _page(request, operator, session, forms.text(form, "consent_id", limit=60))


async def _page(
    request: Request, operator: Operator, session: AsyncSession, looked_up: str = ""
) -> Response:
    asked = request.query_params
    days = asked.get("days", "")
    filters = {"site": asked.get("site", "")[:48], "days": days if days in views.PERIODS else "30"}
    position = Position(
        request.app.state.cursors,
        "/dashboard/consent",
        operator.workspace_id,
        filters,
        asked.get("cursor"),
    )
    view = await views.consent_page(session, operator, position, utc_now(), looked_up)
    return page(request, "consent.html", view=view)
