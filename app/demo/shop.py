"""The demo shop's pages: trackers to hold back, and a look at what the shop knows."""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import mimetypes
import secrets
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import jinja2
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from app.core.errors import NotFound
from app.core.http import Reading
from app.core.settings import Settings
from app.demo import cast, newsletter, store
from app.demo.find import demo_workspace, first_site
from app.demo.past import TIMEZONE
from app.demo.store import Places

router = APIRouter(prefix="/demo", include_in_schema=False)

_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Shop:
    """The demo as its pages need it."""

    name: str
    site_key: str
    places: Places


async def _shop(request: Request, session: Reading) -> Shop:
    """404 wherever there is no demo."""
    workspace = await demo_workspace(session)
    site = await first_site(session, workspace.id) if workspace else None
    places = Places.of(request.app.state.settings)
    if workspace is None or site is None or not places.shop.is_file():
        raise NotFound
    return Shop(workspace.name, site.site_key, places)


Demo = Annotated[Shop, Depends(_shop)]


@router.get("")
async def without_slash(_: Demo) -> Response:
    return RedirectResponse("/demo/", 307)


@router.get("/")
async def shop_page(request: Request, shop: Demo) -> HTMLResponse:
    """The shop: whatever tracks is held back until the banner's answer."""
    return _page(request, shop, "shop.html", products=_products())


@router.get("/film")
async def film(request: Request, shop: Demo) -> HTMLResponse:
    """What the page's frame shows once it may."""
    return _page(request, shop, "film.html", frame_ancestors="'self'")


@router.get("/customers")
async def customers(request: Request, shop: Demo) -> HTMLResponse:
    """The customer database as it is now."""
    seen = await asyncio.to_thread(store.overview, shop.places)
    subscribers = await asyncio.to_thread(newsletter.subscriber_count, shop.places.newsletter)
    return _page(request, shop, "customers.html", seen=seen, subscriber_count=subscribers)


@router.get("/customers/{customer_id}")
async def customer(request: Request, shop: Demo, customer_id: int) -> HTMLResponse:
    """Everything the demo's places hold about one customer, or that it is nothing."""
    found = (
        await asyncio.to_thread(store.dossier, shop.places, customer_id)
        if customer_id < 2**31
        else None
    )
    if found is None:
        return _page(request, shop, "gone.html", status=404)
    is_subscribed = await asyncio.to_thread(
        newsletter.is_subscribed, shop.places.newsletter, str(found.customer["email"])
    )
    return _page(request, shop, "customer.html", found=found, is_subscribed=is_subscribed)


@router.get("/received")
async def received(request: Request, shop: Demo) -> HTMLResponse:
    """What the newsletter service was sent."""
    calls = await asyncio.to_thread(newsletter.received, shop.places.newsletter)
    return _page(request, shop, "received.html", calls=calls)


@router.get("/static/{name}")
async def static_file(request: Request, name: str) -> Response:
    found = _assets().get(name)
    if found is None:
        raise NotFound
    is_versioned = request.query_params.get("v") == found.version
    headers = {
        "Cache-Control": "public, max-age=31536000, immutable" if is_versioned else "no-cache",
        "ETag": f'"{found.version}"',
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(found.content, media_type=found.media_type, headers=headers)


# Rendering


@dataclass(frozen=True, slots=True)
class _Asset:
    content: bytes
    media_type: str
    version: str


@cache
def _assets() -> dict[str, _Asset]:
    """Every static file by name; only what was here at start is served."""
    found = {}
    for path in sorted((_HERE / "static").iterdir()):
        content = path.read_bytes()
        media_type = mimetypes.guess_type(path.name)[0] or "text/plain"
        found[path.name] = _Asset(content, media_type, hashlib.sha256(content).hexdigest()[:12])
    return found


def _asset_url(name: str) -> str:
    return f"/demo/static/{name}?v={_assets()[name].version}"


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(asset=_asset_url)
    environment.filters.update(euro=_euro, day=_day, moment=_moment)
    return environment


def _euro(cents: int) -> str:
    return f"€\u202f{cents / 100:,.2f}"


def _day(text: str) -> str:
    return f"{dt.date.fromisoformat(text):%-d %b %Y}"


def _moment(at: dt.datetime | str) -> str:
    moment = dt.datetime.fromisoformat(at) if isinstance(at, str) else at
    return f"{moment.astimezone(ZoneInfo(TIMEZONE)):%-d %b %Y, %H:%M:%S}"


def _products() -> list[dict[str, Any]]:
    """The shelf; ``art`` numbers the drawing of each product."""
    kinds = ("bag", "bag", "bag", "bag", "paper", "mug", "grinder", "bag")
    return [
        {"name": name, "cents": cents, "kind": kind, "art": number % 4}
        for number, ((name, cents), kind) in enumerate(zip(cast.PRODUCTS, kinds, strict=True))
    ]


def _page(
    request: Request,
    shop: Shop,
    template: str,
    *,
    status: int = 200,
    frame_ancestors: str = "'none'",
    **context: Any,
) -> HTMLResponse:
    settings: Settings = request.app.state.settings
    nonce = secrets.token_urlsafe(16)
    html = (
        _environment()
        .get_template(template)
        .render(
            shop=shop,
            nonce=nonce,
            path=request.url.path,
            has_mail=request.app.state.outbox is not None,
            **context,
        )
    )
    policy = (
        f"default-src 'none'; script-src 'self' 'nonce-{nonce}'; style-src 'self'; "
        f"img-src 'self' data:; frame-src 'self'; connect-src 'self' {settings.public_url}; "
        f"form-action 'self'; base-uri 'none'; frame-ancestors {frame_ancestors}; "
        "require-trusted-types-for 'script'; trusted-types quittance"
    )
    headers = {
        "Content-Security-Policy": policy,
        "Cache-Control": "no-store",
        "Referrer-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=()",
    }
    return HTMLResponse(html, status, headers=headers)
