"""Where a visitor is, as far as the service can tell: by the edge's headers, the operator's own
resolver, or a GeoIP database."""

from __future__ import annotations

from fastapi import Request

from app.core.http import client_address, is_from_trusted_proxy
from app.core.settings import Settings
from app.sites import geoip, resolver
from app.sites.regimes import region_named


def region_of(request: Request) -> str | None:
    """ISO 3166 code, or None: unknown. What a trusted edge says is final, also that it does not
    know: behind Tor (Cloudflare: ``T1``) a look-up would find the exit, not the visitor.
    """
    settings: Settings = request.app.state.settings
    if said := _edge(request, settings.region_headers):
        return region_named(*said)
    address = client_address(request)
    if settings.region_resolver:
        found = resolver.load(settings.region_resolver).region(request.headers, address)
        if found:
            return found
    return geoip.load(settings.geoip_file).region(address) if settings.geoip_file else None


def _edge(request: Request, names: tuple[str, ...]) -> list[str]:
    """The headers' values; empty unless a trusted proxy sent the first one."""
    if not names or not is_from_trusted_proxy(request):
        return []
    said = [request.headers.get(name, "") for name in names]
    return said if said[0].strip() else []
