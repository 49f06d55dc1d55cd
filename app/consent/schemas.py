"""What crosses HTTP about consent."""

from __future__ import annotations

import datetime as dt
import re
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, StrictBool

from app.core.http import Says, Schema
from app.identity.schemas import Identifiers
from app.sites.regimes import clean_region

_RFC3339 = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]")
_EARLIEST = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
_LATEST = dt.datetime(9000, 1, 1, tzinfo=dt.UTC)


class Method(StrEnum):
    """How a choice came about."""

    ACCEPT_ALL = "accept_all"
    REJECT_ALL = "reject_all"
    CUSTOM = "custom"
    GPC = "gpc"
    WITHDRAWAL = "withdrawal"
    DISMISSED = "dismissed"
    MIGRATED = "migrated"
    API = "api"


def _text_only(value: Any) -> Any:
    if not isinstance(value, str) or not _RFC3339.match(value):
        raise ValueError("give a moment as RFC 3339 text")
    return value


def _sane(moment: dt.datetime) -> dt.datetime:
    if not _EARLIEST <= moment <= _LATEST:
        raise ValueError("give a moment of this century")
    return moment.astimezone(dt.UTC)


@lru_cache(maxsize=256)
def reduce_page(address: str) -> str:
    """Origin and path of a page; user, password, query and fragment are dropped. A bare path may
    stay one."""
    if any(not each.isprintable() or each.isspace() or each == "\\" for each in address):
        raise ValueError("a page address holds no spaces, backslashes or control characters")
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("this is not a page address") from None
    if not parts.scheme and not parts.netloc and address.startswith("/"):
        return parts.path
    if parts.scheme not in {"http", "https"} or not host:
        raise ValueError("a page address begins with https:// or http://")
    name = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{name}{f':{port}' if port else ''}{parts.path or '/'}"


def _region(text: str) -> str:
    if (region := clean_region(text)) is None:
        raise ValueError("give an ISO 3166 code such as DE or US-CA")
    return region


Moment = Annotated[AwareDatetime, BeforeValidator(_text_only), AfterValidator(_sane)]
Uuid = Annotated[
    str,
    Field(pattern=r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"),
    Says("send a UUID, such as 6f1f0a52-3c1d-4c0b-9a53-0d8a3f1c2b7e"),
    AfterValidator(str.lower),
]
SiteKey = Annotated[str, Field(min_length=1, max_length=64)]


class ConsentIn(Schema):
    """One choice, as the widget posts it. ``choices`` names every purpose that is not required; by
    ``custom``, under a law that does not ask first, those that the person has decided on.
    """

    event_id: Uuid
    site_key: SiteKey
    visitor_id: Uuid
    notice_version: Annotated[str, Field(min_length=1, max_length=64)]
    choices: Annotated[dict[Annotated[str, Field(max_length=64)], StrictBool], Field(max_length=50)]
    method: Method
    language: Annotated[str, Field(min_length=2, max_length=35)]
    region: Annotated[str, Field(max_length=10), AfterValidator(_region)] | None = None
    regime: Annotated[str, Field(max_length=32)] | None = None
    """The law that the browser's time zone called for, where it is stricter than the region's."""
    gpc: StrictBool
    decided_at: Moment
    page: Annotated[str, Field(max_length=2048), AfterValidator(reduce_page)] | None = None


class ConsentOut(Schema):
    """The answer: what holds from now on."""

    consent_id: str
    recorded_at: str
    expires_at: str
    choices: dict[str, bool]
    regime: str
    gpc_applied: bool
    remember_token: str | None = None
    """For sites with a first-party host: what ``POST /b/{site_key}/remember`` asks for."""


class LinkIn(Schema):
    """Who a visitor is: ``identifiers`` by key; with a host token none, for it says who signed
    in.
    """

    site_key: SiteKey
    visitor_id: Uuid
    identifiers: Identifiers | None = None
