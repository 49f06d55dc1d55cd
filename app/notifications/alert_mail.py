"""Alerts by mail: what was raised and what is over since the last look, in one letter."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import jinja2

from app.core.db import Database
from app.core.settings import Settings
from app.notifications import alerts
from app.notifications.alerts import Kind
from app.notifications.models import Alert, OutgoingMail
from app.notifications.service import Letter

LISTED = 20


async def compose(database: Database, settings: Settings, mail: OutgoingMail) -> Letter | None:
    """The letter to all addresses in the settings; None when there are none any more."""
    if not settings.alert_mail:
        return None
    async with database.reading() as session:
        news = await alerts.at(session, mail.workspace_id, mail.created_at)
    raised = [each for each in news if each.raised_at == mail.created_at]
    over = [each for each in news if each.resolved_at == mail.created_at]
    everything = f"{settings.public_url}/dashboard/alerts"
    listed = [(each, f"{settings.public_url}{alerts.path_of(each)}") for each in raised[:LISTED]]
    listed_over = [(each, f"{settings.public_url}{alerts.path_of(each)}") for each in over[:LISTED]]
    subject = _subject(raised, over)
    facts = {
        "raised": [_line(*each) for each in listed],
        "over": [_line(*each) for each in listed_over],
        "left_out": len(raised) + len(over) - len(listed) - len(listed_over),
        "everything": everything,
        "subject": subject,
    }
    return Letter(
        to=", ".join(settings.alert_mail),
        subject=subject,
        text=_template("alert.txt").render(facts),
        html=_template("alert.html").render(facts),
        links=(*(link for _, link in (*listed, *listed_over)), everything),
    )


def _subject(raised: Sequence[Alert], over: Sequence[Alert]) -> str:
    """``Quittance: 2 alerts, 1 over``; one alone is named."""
    said = []
    if len(raised) == 1:
        said.append(alerts.TITLES[Kind(raised[0].kind)])
    elif raised:
        said.append(f"{len(raised)} alerts")
    if over:
        said.append(f"{len(over)} over")
    return f"Quittance: {', '.join(said)}"


def _line(alert: Alert, link: str) -> dict[str, str]:
    kind = Kind(alert.kind)
    return {
        "title": alerts.TITLES[kind],
        "meaning": alerts.MEANINGS[kind],
        "details": alerts.details_of(alert),
        "link": link,
    }


@cache
def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=jinja2.select_autoescape(),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(name)
