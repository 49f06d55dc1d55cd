"""What a public request tells about its visitor: region, languages and the GPC signal; and what the
answer varies by."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request

from app.core.settings import Settings
from app.sites.directory import Notice
from app.sites.languages import accepted, best
from app.sites.regimes import clean_region
from app.sites.region import region_of


@dataclass(frozen=True, slots=True)
class Visitor:
    """``vary``: the request headers that were looked at."""

    region: str | None
    languages: tuple[str, ...]
    gpc: bool
    vary: tuple[str, ...]


def has_gpc(request: Request) -> bool:
    """Only the exact value ``1`` counts (W3C GPC); of several headers one is enough."""
    return "1" in request.headers.getlist("sec-gpc")


def visitor_of(request: Request, notice: Notice, lang: str | None, region: str | None) -> Visitor:
    """An explicit ``?region=`` or ``?lang=`` counts before headers; nonsense is passed over."""
    settings: Settings = request.app.state.settings
    vary = ["Sec-GPC"]
    if (found := clean_region(region)) is None:
        vary += settings.region_headers
        found = region_of(request)
    languages = [lang[:35]] if lang else []
    if best(list(notice.content["languages"]), languages) is None:
        vary.append("Accept-Language")
        languages = accepted(request.headers.get("accept-language"))
    return Visitor(found, tuple(languages), has_gpc(request), tuple(vary))
