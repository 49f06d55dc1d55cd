"""Alerts: a page to read."""

from __future__ import annotations

from fastapi import Request, Response

from app.core.clock import utc_now
from app.core.http import Reading
from app.dashboard.access import SignedIn, router
from app.dashboard.render import page
from app.dashboard.views.alerts import alert_page


@router.get("/alerts")
async def alerts(request: Request, operator: SignedIn, session: Reading) -> Response:
    view = await alert_page(session, operator.workspace_id, utc_now())
    return page(request, "alerts.html", view=view)
