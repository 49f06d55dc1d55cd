"""Addresses of a site's own: origins as browsers send them, and the base address of a first-party
host."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from app.sites.errors import InvalidOrigin

_HOST = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*\.?")
_BASE = re.compile(
    r"(?P<origin>[a-zA-Z]+://[^/?#\\]+)(?P<path>(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*)/?"
)


def clean_origin(text: str) -> str:
    """``scheme://host[:port]`` as browsers send it: lower case, A-labels, no default port, nothing
    behind.

    ``http`` only for hosts on this machine, where no certificate can be had.
    """
    refusal = InvalidOrigin(
        "An origin is scheme, host and port only, such as https://shop.example or http://localhost:3000."
    )
    try:
        parts = urlsplit(text.strip())
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise refusal from None
    if (
        parts.scheme not in {"http", "https"}
        or parts.path not in {"", "/"}
        or parts.query
        or parts.fragment
    ):
        raise refusal
    if "@" in parts.netloc or "\\" in text or "?" in text or "#" in text:
        raise refusal
    host = _clean_host(host, refusal)
    if parts.scheme == "http" and not _is_loopback(host):
        raise InvalidOrigin(
            "Use https; http is only for hosts on this machine (localhost, 127.0.0.1)."
        )
    default = {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{host}" + (f":{port}" if port not in {None, default} else "")


def clean_base(text: str) -> str:
    """``clean_origin`` with an optional path behind it, such as ``https://shop.example/consent``;
    without a slash at the end."""
    found = _BASE.fullmatch(text.strip())
    if found is None:
        raise InvalidOrigin(
            "Give scheme, host and at most a plain path, such as https://privacy.shop.example or "
            "https://shop.example/consent."
        )
    return clean_origin(found["origin"]) + found["path"]


def _clean_host(host: str, refusal: InvalidOrigin) -> str:
    try:
        address = ipaddress.ip_address(host)
        return f"[{address.compressed}]" if address.version == 6 else address.compressed
    except ValueError:
        pass
    try:
        name = host.encode("idna").decode("ascii").lower() if not host.isascii() else host
    except UnicodeError:
        raise refusal from None
    if len(name) > 253 or not _HOST.fullmatch(name):
        raise refusal
    return name


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
