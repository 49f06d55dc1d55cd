"""Suppression list and audit log: read, page by page."""

from __future__ import annotations

from fastapi import Request, Response

from app.core.clock import utc_now
from app.core.http import Reading
from app.dashboard.access import SignedIn, router
from app.dashboard.render import page
from app.dashboard.views import lists as views
from app.dashboard.views.paging import Position


@router.get("/suppressions")
async def suppressions(request: Request, operator: SignedIn, session: Reading) -> Response:
    position = Position(
        request.app.state.cursors,
        "/dashboard/suppressions",
        operator.workspace_id,
        {},
        request.query_params.get("cursor"),
    )
    rows, pager, total = await views.suppressions(session, operator, position, utc_now())
    return page(
        request,
        "suppressions.html",
        rows=rows,
        pager=pager,
        total=min(total, views.COUNTED),
        is_more=total > views.COUNTED,
    )


@router.get("/audit")
async def audit_log(request: Request, operator: SignedIn, session: Reading) -> Response:
    position = Position(
        request.app.state.cursors,
        "/dashboard/audit",
        operator.workspace_id,
        {},
        request.query_params.get("cursor"),
    )
    rows, pager = await views.audit_log(session, operator, position)
    return page(request, "audit.html", rows=rows, pager=pager)
