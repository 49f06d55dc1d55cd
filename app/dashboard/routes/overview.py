"""The first page."""

from __future__ import annotations

from fastapi import Request, Response

from app.core.clock import utc_now
from app.core.http import Reading
from app.dashboard.access import SignedIn, router
from app.dashboard.render import page
from app.dashboard.views.overview import overview


@router.get("")
async def overview_page(request: Request, operator: SignedIn, session: Reading) -> Response:
    return page(request, "overview.html", view=await overview(session, operator, utc_now()))
