"""Who may do what in the dashboard: one table of route and role, and the guard that every route
passes.

A route that is not in the table is refused, whoever asks. Signing in comes first, then the role,
then for a POST the proof that the form is our own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Request

from app.core.clock import utc_now
from app.core.db import Database
from app.core.errors import BadRequest, Forbidden
from app.core.logging import get_logger
from app.core.settings import Settings
from app.security import sessions
from app.security.models import Role
from app.security.sessions import NotSignedIn, Operator

log = get_logger(__name__)

_OPEN = None
_VIEWER, _OPERATOR, _OWNER = Role.VIEWER, Role.OPERATOR, Role.OWNER

RULES: dict[tuple[str, str], Role | None] = {
    ("GET", "/dashboard/static/{name:path}"): _OPEN,
    ("GET", "/dashboard/sign-in"): _OPEN,
    ("POST", "/dashboard/sign-in"): _OPEN,
    ("GET", "/dashboard/invite/{token}"): _OPEN,
    ("POST", "/dashboard/invite/{token}"): _OPEN,
    ("POST", "/dashboard/sign-out"): _VIEWER,
    ("GET", "/dashboard/account"): _VIEWER,
    ("POST", "/dashboard/account/password"): _VIEWER,
    ("POST", "/dashboard/account/second-factor"): _VIEWER,
    ("GET", "/dashboard"): _VIEWER,
    ("GET", "/dashboard/alerts"): _VIEWER,
    ("GET", "/dashboard/requests"): _VIEWER,
    ("GET", "/dashboard/requests.csv"): _VIEWER,
    ("POST", "/dashboard/requests/search"): _OPERATOR,
    ("GET", "/dashboard/requests/{request_id}"): _VIEWER,
    ("POST", "/dashboard/requests/{request_id}/approve"): _OPERATOR,
    ("POST", "/dashboard/requests/{request_id}/deny"): _OPERATOR,
    ("POST", "/dashboard/requests/{request_id}/extend"): _OPERATOR,
    ("POST", "/dashboard/requests/{request_id}/hold"): _OPERATOR,
    ("POST", "/dashboard/requests/{request_id}/release"): _OPERATOR,
    ("POST", "/dashboard/requests/{request_id}/cancel"): _OPERATOR,
    ("POST", "/dashboard/requests/{request_id}/answer"): _OPERATOR,
    ("POST", "/dashboard/requests/{request_id}/reveal"): _OPERATOR,
    ("GET", "/dashboard/deliveries/{delivery_id}"): _VIEWER,
    ("GET", "/dashboard/archived"): _VIEWER,
    ("POST", "/dashboard/archived/replay"): _OPERATOR,
    ("POST", "/dashboard/deliveries/{delivery_id}/replay"): _OPERATOR,
    ("POST", "/dashboard/deliveries/{delivery_id}/waive"): _OPERATOR,
    ("GET", "/dashboard/queues"): _VIEWER,
    ("GET", "/dashboard/queues/{destination_id}"): _VIEWER,
    ("POST", "/dashboard/queues/{destination_id}"): _OPERATOR,
    ("GET", "/dashboard/destinations"): _VIEWER,
    ("GET", "/dashboard/destinations/new"): _OPERATOR,
    ("GET", "/dashboard/destinations/new/{connector}"): _OPERATOR,
    ("POST", "/dashboard/destinations/new/{connector}"): _OPERATOR,
    ("GET", "/dashboard/destinations/{destination_id}"): _VIEWER,
    ("POST", "/dashboard/destinations/{destination_id}"): _OPERATOR,
    ("POST", "/dashboard/destinations/{destination_id}/test"): _OPERATOR,
    ("POST", "/dashboard/destinations/{destination_id}/queue"): _OPERATOR,
    ("POST", "/dashboard/destinations/{destination_id}/delete"): _OPERATOR,
    ("GET", "/dashboard/tasks"): _VIEWER,
    ("POST", "/dashboard/tasks/{task_id}"): _OPERATOR,
    ("POST", "/dashboard/tasks/{task_id}/reveal"): _OPERATOR,
    ("GET", "/dashboard/sites"): _VIEWER,
    ("POST", "/dashboard/sites"): _OPERATOR,
    ("GET", "/dashboard/sites/{site_id}"): _VIEWER,
    ("POST", "/dashboard/sites/{site_id}"): _OPERATOR,
    ("GET", "/dashboard/sites/{site_id}/publish"): _OPERATOR,
    ("POST", "/dashboard/sites/{site_id}/publish"): _OPERATOR,
    ("GET", "/dashboard/sites/{site_id}/versions/{number}"): _VIEWER,
    ("POST", "/dashboard/sites/{site_id}/versions/{number}"): _OPERATOR,
    ("POST", "/dashboard/sites/{site_id}/host"): _OPERATOR,
    ("POST", "/dashboard/sites/{site_id}/trackers"): _OPERATOR,
    ("GET", "/dashboard/sites/{site_id}/preview"): _VIEWER,
    ("POST", "/dashboard/sites/{site_id}/preview"): _OPERATOR,
    ("GET", "/dashboard/consent"): _VIEWER,
    ("POST", "/dashboard/consent"): _VIEWER,
    ("POST", "/dashboard/consent/export"): _VIEWER,
    ("GET", "/dashboard/suppressions"): _VIEWER,
    ("GET", "/dashboard/keys"): _OWNER,
    ("POST", "/dashboard/keys"): _OWNER,
    ("POST", "/dashboard/keys/{key_id}/revoke"): _OWNER,
    ("GET", "/dashboard/team"): _OWNER,
    ("POST", "/dashboard/team/invites"): _OWNER,
    ("POST", "/dashboard/team/{admin_id}/role"): _OWNER,
    ("POST", "/dashboard/team/{admin_id}/disable"): _OWNER,
    ("GET", "/dashboard/audit"): _OPERATOR,
}
"""The least role for a method and route; None: open to everybody."""


class NotAllowed(Forbidden):
    slug, title = "role-too-small", "Your role does not include this"


async def guard(request: Request) -> AsyncIterator[None]:
    """Let the request through, or refuse it; uploaded files are closed afterwards."""
    try:
        await _admit(request)
        yield
    finally:
        await request.close()


async def _admit(request: Request) -> None:
    """Set ``request.state.operator`` where somebody must be signed in."""
    request.state.operator = None
    if any("\x00" in each for each in (request.url.path, *request.query_params.values())):
        raise BadRequest("Take the zero bytes out of the address.")
    rule = RULES.get((request.method, request.scope["route"].path), Ellipsis)
    if rule is Ellipsis:
        raise NotAllowed("This page is not open to anybody.")
    is_change = request.method not in {"GET", "HEAD"}
    if is_change:
        sessions.check_same_origin(request)
    if rule is None:
        return
    operator = await _operator(request)
    request.state.operator = operator
    if not operator.may(rule):
        log.warning(
            "dashboard_refused", admin_id=operator.admin_id, route=request.scope["route"].path
        )
        raise NotAllowed(
            f"It needs the role {rule.value}; yours is {operator.role.value}. Ask an owner."
        )
    if is_change:
        token = (await request.form(max_fields=2000)).get("csrf", "")
        sessions.check_csrf(operator, token if isinstance(token, str) else "")


async def _operator(request: Request) -> Operator:
    settings: Settings = request.app.state.settings
    database: Database = request.app.state.database
    token = request.cookies.get(sessions.cookie_name(settings))
    if not token:
        raise NotSignedIn
    now = utc_now()
    async with database.reading() as session:
        found = await sessions.find(session, token, now)
    if found is None:
        raise NotSignedIn
    operator, seen_at = found
    if now - seen_at > sessions.TOUCH:
        async with database.writing() as session:
            await sessions.touch(session, operator.session_id, now)
    return operator


async def signed_in(request: Request, _: Annotated[None, Depends(guard)]) -> Operator:
    operator: Operator | None = request.state.operator
    if operator is None:
        raise NotSignedIn
    return operator


SignedIn = Annotated[Operator, Depends(signed_in)]

router = APIRouter(prefix="/dashboard", dependencies=[Depends(guard)], include_in_schema=False)
"""Every page of the dashboard is a route of this one router, so that none escapes the guard."""
