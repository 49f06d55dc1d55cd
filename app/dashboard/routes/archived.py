"""Archived deliveries: the list, and putting a selection of them back."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import Request, Response

from app.core.clock import utc_now
from app.core.errors import Invalid
from app.core.http import Reading
from app.dashboard import forms
from app.dashboard.access import SignedIn, router
from app.dashboard.render import page, redirect
from app.dashboard.views import archived as views
from app.dashboard.views.choices import has_unknown
from app.delivery.service import Selection, replay_many
from app.security import audit
from app.security.sessions import Operator

LIST = "/dashboard/archived"
BITES = 20
"""Transactions that one press of the button may take; what is left then is still listed."""


@router.get("/archived")
async def archived_list(request: Request, operator: SignedIn, session: Reading) -> Response:
    asked = {name: request.query_params.get(name, "") for name in views.FILTERS}
    choices = await views.choices(session, operator.workspace_id, asked)
    if has_unknown(choices):
        rest = {name: asked[name] for name in ("since", "until")}
        return page(
            request, "unknown.html", title="Archived deliveries", path=LIST, choices=choices,
            rest=rest,
        )  # fmt: skip
    view = await views.archived(session, operator, _selection(operator, asked), asked, choices)
    return page(request, "archived.html", view=view)


@router.post("/archived/replay")
async def replay_archived(request: Request, operator: SignedIn) -> Response:
    form = await forms.read(request)
    asked = {name: forms.text(form, name, limit=48) for name in views.FILTERS}
    which = _selection(operator, asked)
    await request.app.state.archive.mend(which)
    for _ in range(BITES):
        now = utc_now()
        async with request.app.state.database.writing() as session:
            done = await replay_many(session, which, now)
            audit.record(
                session,
                workspace_id=operator.workspace_id,
                actor=operator.actor,
                verb="replay_archived",
                target=which.queue_id or operator.workspace_id,
                now=now,
                replayed=done.replayed,
                since=asked["since"],
                until=asked["until"],
            )
        if not done.remaining:
            break
    return redirect(LIST, "archive-replayed")


def _selection(operator: Operator, asked: Mapping[str, str]) -> Selection:
    try:
        return views.selection(operator.workspace_id, asked)
    except (ValueError, OverflowError):
        raise Invalid("Write days as 2026-11-25.") from None
