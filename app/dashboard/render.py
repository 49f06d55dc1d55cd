"""Templates to answers: the Jinja environment, the headers of every page, versioned static files,
error pages.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import mimetypes
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import jinja2
from fastapi import Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from markupsafe import Markup

from app.core.clock import rfc3339, utc_now
from app.core.errors import Problem
from app.dashboard import present
from app.dashboard.access import RULES
from app.dashboard.notices import NOTICES
from app.security.models import Role
from app.security.sessions import NotSignedIn, Operator

_HERE = Path(__file__).parent
CSP = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; frame-src 'self'; base-uri 'none'"
)
HEADERS = {
    "Content-Security-Policy": CSP,
    "Cache-Control": "no-store",
    # Not no-referrer: under that a browser sends `Origin: null` with our own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=()",
}


class Asset(NamedTuple):
    content: bytes
    media_type: str
    version: str


@cache
def assets() -> dict[str, Asset]:
    """Every static file by name; only what was here at start is ever served."""
    found = {}
    for path in sorted((_HERE / "static").rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            media_type = mimetypes.guess_type(path.name)[0] or "text/plain"
            name = path.relative_to(_HERE / "static").as_posix()
            found[name] = Asset(content, media_type, hashlib.sha256(content).hexdigest()[:12])
    return found


def asset_url(name: str) -> str:
    """The address of a static file; it changes with the content, so it may be kept for good."""
    return f"/dashboard/static/{name}?v={assets()[name].version}"


class NavItem(NamedTuple):
    href: str
    text: str
    is_current: bool


_NAV = (
    (
        "Work",
        (
            ("/dashboard", "Overview"),
            ("/dashboard/requests", "Requests"),
            ("/dashboard/tasks", "Human tasks"),
            ("/dashboard/queues", "Queues"),
            ("/dashboard/archived", "Archived deliveries"),
            ("/dashboard/alerts", "Alerts"),
        ),
    ),
    (
        "Data",
        (
            ("/dashboard/destinations", "Destinations"),
            ("/dashboard/sites", "Sites"),
            ("/dashboard/consent", "Consent"),
            ("/dashboard/suppressions", "Suppression list"),
        ),
    ),
    (
        "Access",
        (
            ("/dashboard/keys", "API keys"),
            ("/dashboard/team", "Team"),
            ("/dashboard/audit", "Audit log"),
        ),
    ),
)


def navigation(operator: Operator, path: str) -> list[tuple[str, list[NavItem]]]:
    """The sections this role may open."""
    sections = []
    for title, entries in _NAV:
        items = [
            NavItem(
                href, text, path == href or (href != "/dashboard" and path.startswith(f"{href}/"))
            )
            for href, text in entries
            if operator.may(RULES[("GET", href)] or Role.VIEWER)
        ]
        if items:
            sections.append((title, items))
    return sections


@jinja2.pass_context
def _time(
    context: jinja2.runtime.Context, moment: dt.datetime | None, style: str = "minute"
) -> Markup:
    """``<time>`` in the workspace's zone; the exact second is in its title."""
    if moment is None:
        return Markup('<span class="muted">&ndash;</span>')
    operator: Operator | None = context.get("operator")
    tz = present.zone(operator.workspace.timezone) if operator else dt.UTC
    text = {
        "day": present.day(moment, tz),
        "minute": present.minute(moment, tz),
        "second": present.second(moment, tz),
        "relative": present.relative(moment, utc_now()),
        "upcoming": present.upcoming(moment, utc_now()),
    }[style]
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        rfc3339(moment), present.second(moment, tz), text
    )


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(asset=asset_url, time=_time, words=present.words)
    environment.filters["number"] = present.number
    environment.filters["regime"] = present.regime
    environment.filters["words"] = present.words
    return environment


def template(name: str) -> jinja2.Template:
    return _environment().get_template(name)


def page(request: Request, name: str, /, **context: Any) -> HTMLResponse:
    """A whole page. A ``problem`` in the context is shown above it and gives the status."""
    operator: Operator | None = getattr(request.state, "operator", None)
    problem: Problem | None = context.setdefault("problem", None)
    context.setdefault("operator", operator)
    html = (
        _environment()
        .get_template(name)
        .render(
            nav=navigation(operator, request.url.path) if operator else [],
            csrf=operator.csrf if operator else "",
            notice=NOTICES.get(request.query_params.get("notice", "")),
            **context,
        )
    )
    return HTMLResponse(html, problem.status if problem else 200, headers=HEADERS)


def redirect(path: str, notice: str | None = None) -> Response:
    """303 to a page of ours, with one of our notices; a reload then repeats nothing."""
    separator = "&" if "?" in path else "?"
    target = f"{path}{separator}notice={notice}" if notice else path
    return RedirectResponse(target, 303, headers={"Cache-Control": "no-store"})


def render_problem(request: Request, problem: Problem) -> Response | None:
    """An error page where a person is looking: dashboard and public pages, asked for as HTML."""
    path = request.url.path
    is_dashboard = path == "/dashboard" or path.startswith("/dashboard/")
    if not (is_dashboard or path.startswith("/privacy/")) or "text/html" not in request.headers.get(
        "accept", ""
    ):
        return None
    if is_dashboard and isinstance(problem, NotSignedIn):
        return _to_sign_in(request)
    if not is_dashboard:
        request.state.operator = None
    answer = page(request, "error.html", problem=problem, is_dashboard=is_dashboard)
    answer.headers.update(
        {k: v for k, v in problem.headers.items() if k.lower() in {"retry-after", "allow"}}
    )
    return answer


def _to_sign_in(request: Request) -> Response:
    path = request.url.path if request.method == "GET" else "/dashboard"
    target = (
        f"/dashboard/sign-in?next={quote(path)}" if path != "/dashboard" else "/dashboard/sign-in"
    )
    if request.headers.get("hx-request"):
        return Response(status_code=200, headers={**HEADERS, "HX-Redirect": target})
    if request.method == "GET" and request.headers.get("sec-fetch-site") in {
        "cross-site",
        "same-site",
    }:
        # The strict cookie stays away when another site's link leads here; one step from our own
        # page brings it.
        return page(request, "bounce.html", target=path)
    return redirect(target)
