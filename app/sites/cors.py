"""CORS of the public paths: an origin is answered to only when it stands, letter by letter, on the
site's list."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from fastapi import Request, Response

from app.core.db import Database
from app.sites.directory import PublishedSite, is_listed_anywhere

EXPOSED = "X-Quittance-Regime, Retry-After, ETag"


class Listing(Protocol):
    """What knows a site's origins."""

    @property
    def origins(self) -> frozenset[str]: ...


def allows(site: Listing, origin: str | None) -> bool:
    """``null`` is nobody's origin: sandboxed frames and local files send it."""
    return origin is not None and origin != "null" and origin in site.origins


def headers(site: Listing, request: Request, *, with_credentials: bool = False) -> dict[str, str]:
    """Headers of an answer about ``site``. ``with_credentials``: pages may send and get cookies,
    which one route alone allows."""
    origin = request.headers.get("origin")
    if origin is None or not allows(site, origin):
        return {"Vary": "Origin"}
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Expose-Headers": EXPOSED,
        "Vary": "Origin",
        **(_CREDENTIALS if with_credentials else {}),
    }


_CREDENTIALS = {"Access-Control-Allow-Credentials": "true"}


def of_refusal(request: Request) -> dict[str, str]:
    """Headers of an answer that is about no site: a page must be able to tell it from an outage."""
    if request.headers.get("origin") is None:
        return {}
    return {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": EXPOSED}


async def preflight(
    request: Request,
    methods: Iterable[str],
    site: PublishedSite | None = None,
    *,
    with_credentials: bool = False,
    allowed: str = "Content-Type",
) -> Response:
    """Answer OPTIONS. Where the path names no site, any published site's list will do: the call
    itself is checked. ``allowed``: the request headers a page may set."""
    origin = request.headers.get("origin")
    answer = {"Vary": "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"}
    if origin and origin != "null" and await _is_listed(request, origin, site):
        answer |= {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Allow-Methods": ", ".join(methods),
            "Access-Control-Allow-Headers": allowed,
            "Access-Control-Max-Age": "600",
            **(_CREDENTIALS if with_credentials else {}),
        }
    return Response(status_code=204, headers=answer)


async def _is_listed(request: Request, origin: str, site: PublishedSite | None) -> bool:
    if site is not None:
        return allows(site, origin)
    database: Database = request.app.state.database
    async with database.reading() as session:
        return await is_listed_anywhere(session, origin)
