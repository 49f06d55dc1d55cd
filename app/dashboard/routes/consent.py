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
from app.dashboard.views.paging import Position
from app.security import audit
from app.security.sessions import Operator


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
    """The records of the chosen site and period as a file. Visitor ids stand in it whole, so the
    audit log says who took it.
    """
    form = await forms.read(request)
    now = utc_now()
    site_id = forms.text(form, "site", limit=48)
    format, days = forms.text(form, "format", limit=10), forms.text(form, "days", limit=3)
    if format not in get_args(export.Format) or days not in views.PERIODS:
        raise Invalid("Choose CSV or NDJSON, and one of the periods.")
    database = request.app.state.database
    async with database.writing() as session:
        wanted = await views.exported(session, operator, site_id, days, now)
        audit.record(
            session, workspace_id=operator.workspace_id, actor=operator.actor,
            verb="export_consents", target=site_id or operator.workspace_id, now=now,
            format=format, days=int(days),
        )  # fmt: skip
    kept = dt.timedelta(days=request.app.state.settings.consent_record_days)
    return await export.answer(database, wanted, cast(export.Format, format), kept, HEADERS)


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
