"""Alerts over HTTP."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request

from app.core.clock import rfc3339
from app.core.http import Cursors, Reading, StrictRoute
from app.notifications import alerts
from app.notifications.models import Alert
from app.security.access import Caller, needs

router = APIRouter(prefix="/v1", tags=["operations"], route_class=StrictRoute)


@router.get("/alerts")
async def list_alerts(
    caller: Annotated[Caller, Depends(needs("ops:read"))],
    session: Reading,
    request: Request,
    open: bool | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: str | None = None,
) -> dict[str, Any]:
    """What an operator must know of, newest first; `open` leaves out what is over, or the rest."""
    cursors: Cursors = request.app.state.cursors
    scope = ("alerts", caller.workspace_id, str(open))
    rows = await alerts.page(
        session,
        caller.workspace_id,
        is_open=open,
        limit=limit + 1,
        after=cursors.read(scope, cursor),
    )
    more = cursors.write(scope, rows[limit - 1].id) if len(rows) > limit else None
    return {"items": [alert_json(each) for each in rows[:limit]], "next_cursor": more}


def alert_json(alert: Alert) -> dict[str, Any]:
    return {
        "id": alert.id,
        "kind": alert.kind,
        "subject": {"type": alerts.SUBJECTS[alerts.Kind(alert.kind)], "id": alert.subject_id},
        "detail": alert.detail,
        "raised_at": rfc3339(alert.raised_at),
        "resolved_at": rfc3339(alert.resolved_at),
    }
