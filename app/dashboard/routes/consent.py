"""Consent: numbers, the latest records, lookup by consent id, records as a file."""

from __future__ import annotations

import datetime as dt
from typing import cast, get_args

from fastapi import Request, Response
from sqlalchemy.ext.asyncio import AsyncSession

from app.consent import export
from app.core.clock import utc_now
from app.core.errors import Invalid
from app.core.http import Reading
from app.dashboard import forms
from app.dashboard.access import SignedIn, router
from app.dashboard.render import HEADERS, page
from app.dashboard.views import consent as views
from app.dashboard.views.choices import chosen, has_unknown, refuse_unknown
from app.dashboard.views.paging import Position
from app.dashboard.views.sites import names as site_names
from app.security import audit
from app.security.sessions import Operator

LIST = "/dashboard/consent"


@router.get("/consent")
async def consent_page(request: Request, operator: SignedIn, session: Reading) -> Response:
    return await _page(request, operator, session)


@router.post("/consent")
async def look_up(request: Request, operator: SignedIn, session: Reading) -> Response:
    """One record by the id that the visitor was shown."""
    form = await forms.read(request)
    return await _page(request, operator, session, forms.text(form, "consent_id", limit=60))


@router.post("/consent/export")
async def export_records(request: Request, operator: SignedIn) -> Response:
    """The records of the page's filter as a file. Visitor ids stand in it whole, so the audit log
    says who took it.
    """
    form = await forms.read(request)
    now = utc_now()
    format = forms.text(form, "format", limit=10)
    if format not in get_args(export.Format):
        raise Invalid("Choose CSV or NDJSON.")
    asked = {name: forms.text(form, name, limit=48) for name in views.FILTERS}
    database = request.app.state.database
    async with database.writing() as session:
        sites = await site_names(session, operator.workspace_id)
        choices = await views.choices(session, sites, asked)
        refuse_unknown(choices)
        filters = chosen(choices)
        wanted = views.wanted_of(operator, filters, now)
        audit.record(
            session, workspace_id=operator.workspace_id, actor=operator.actor,
            verb="export_consents", target=wanted.site_id or operator.workspace_id, now=now,
            format=format, days=int(filters.pop("days")),
            **{name: value for name, value in filters.items() if value},
        )  # fmt: skip
    kept = dt.timedelta(days=request.app.state.settings.consent_record_days)
    return await export.answer(database, wanted, cast(export.Format, format), kept, HEADERS)


async def _page(
    request: Request, operator: Operator, session: AsyncSession, looked_up: str = ""
) -> Response:
    asked = request.query_params
    sites = await site_names(session, operator.workspace_id)
    choices = await views.choices(session, sites, asked)
    if has_unknown(choices):
        return page(request, "unknown.html", title="Consent", path=LIST, choices=choices)
    position = Position(
        request.app.state.cursors,
        LIST,
        operator.workspace_id,
        chosen(choices),
        asked.get("cursor"),
    )
    view = await views.consent_page(
        session, operator, position, sites, choices, utc_now(), looked_up
    )
    return page(request, "consent.html", view=view)
