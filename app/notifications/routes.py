"""Mail of the embedded form, for eyes on the same machine: ``/dev/mail`` and ``/dev/mail.json``.

It shows addresses and links that confirm requests. So it exists only while mail goes to files, the
service is bound to loopback, and the browser says so too: under a public name (a proxy in front, or
a name rebound to this machine) there is nothing here.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import jinja2
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse
from markupsafe import Markup

from app.core.errors import NotFound
from app.core.http import StrictRoute
from app.core.settings import Settings
from app.notifications.postmen import FilePostman

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_STYLE = """
:root{color-scheme:light dark;--ink:#23291f;--soft:#62685c;--line:#e2e0d7;--paper:#f6f5f1;--sheet:#fff;--green:#17603f}
@media(prefers-color-scheme:dark){:root{--ink:#d9dcd3;--soft:#98a092;--line:#2b302a;--paper:#121512;--sheet:#1a1e1a;--green:#74c69a}}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 "Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:46rem;margin:0 auto;padding:2rem 1rem 4rem}
h1{font:600 1.75rem/1.2 "Iowan Old Style",Palatino,Georgia,serif;margin:0 0 .5rem}
h2{font-size:1rem;margin:1.5rem 0 .5rem}
a{color:var(--green);text-underline-offset:.18em}
.muted,time{color:var(--soft);font-size:.875rem}
.link{margin:.25rem 0;overflow-wrap:anywhere}
.row{display:grid;grid-template-columns:1fr auto;gap:.125rem 1rem;padding:.875rem 1rem;margin-bottom:.5rem;background:var(--sheet);border:1px solid var(--line);border-radius:.5rem;color:inherit;text-decoration:none;overflow-wrap:anywhere}
@media(max-width:30rem){.row{grid-template-columns:1fr}}
.row:hover,.row:focus-visible{border-color:var(--green)}
.row strong{grid-column:1/-1}
.empty{padding:3rem 1rem;text-align:center;color:var(--soft);border:1px dashed var(--line);border-radius:.5rem}
iframe{width:100%;height:34rem;margin-top:1rem;border:1px solid var(--line);border-radius:.5rem;background:#fff}
pre{margin:0;padding:1rem;background:var(--sheet);border:1px solid var(--line);border-radius:.5rem;white-space:pre-wrap;overflow-wrap:anywhere;font-size:.8125rem}
"""  # noqa: E501 (a style sheet)
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_PAGE_CSP = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; frame-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_MAIL_CSP = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'; sandbox allow-popups allow-popups-to-escape-sandbox"
)

router = APIRouter(prefix="/dev", route_class=StrictRoute, include_in_schema=False)


def outbox(request: Request) -> FilePostman:
    """The mail files, or 404 for everybody who is not on this machine."""
    settings: Settings = request.app.state.settings
    found: FilePostman | None = request.app.state.outbox
    host = urlsplit(f"//{request.headers.get('host', '')}").hostname
    if found is None or not settings.is_loopback or host not in _LOOPBACK:
        raise NotFound
    return found


Outbox = Annotated[FilePostman, Depends(outbox)]


@router.get("/mail.json")
async def mail_json(outbox: Outbox) -> dict[str, Any]:
    """The newest 200 mails, newest first."""
    return {"items": await asyncio.to_thread(outbox.read)}


@router.get("/mail")
async def mail_list(outbox: Outbox) -> Response:
    return _page(mails=await asyncio.to_thread(outbox.read), mail=None)


@router.get("/mail/{mail_id}")
async def one_mail(mail_id: str, outbox: Outbox) -> Response:
    return _page(mails=[], mail=await _find(outbox, mail_id))


@router.get("/mail/{mail_id}/html")
async def mail_html(mail_id: str, outbox: Outbox) -> Response:
    """The mail as it is, in a sandbox; its links open in a tab of their own."""
    html = str((await _find(outbox, mail_id))["html"])
    html = html.replace("<head>", '<head><base target="_blank">', 1)
    return HTMLResponse(html, headers={"Content-Security-Policy": _MAIL_CSP})


async def _find(outbox: FilePostman, mail_id: str) -> dict[str, Any]:
    for mail in await asyncio.to_thread(outbox.read):
        if mail["id"] == mail_id:
            return mail
    raise NotFound("This mail is not, or no longer, here.")


def _page(**context: Any) -> Response:
    html = _template().render(style=_style(), **context)
    return HTMLResponse(html, headers={"Content-Security-Policy": _PAGE_CSP})


def _style() -> Markup:
    return Markup(_STYLE)  # noqa: S704 (the constant above)


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template("dev_mail.html")
