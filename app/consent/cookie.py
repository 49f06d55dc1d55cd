"""The cookie that a site's own host sets: the line the widget would write, where it is to be known,
and which other cookies go with a denied purpose. Pure functions."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from app.consent.audit_trail import mode_of
from app.consent.errors import NoSharedDomain
from app.consent.models import ConsentRecord
from app.sites.directory import Notice

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MILLISECOND = dt.timedelta(milliseconds=1)
_LETTER = {"opt_in": "i", "opt_out": "o", "notice": "n"}
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_MOST = 20
"""How many names one answer expires: a longer head would be too much for some proxies."""


def line(record: ConsentRecord, choices: Mapping[str, bool], notice: Notice) -> str:
    """What holds after this record."""
    ids = [each["id"] for each in notice.content["purposes"]]
    asked = {each: choices[each] for each in ids if each in choices}
    return encoded(
        mode_of(record, notice), asked,
        version_id=record.notice_version_id, material=notice.material, has_gpc=record.gpc,
        visitor_id=record.visitor_id, decided_at=record.decided_at, method=record.method,
        consent_id=record.id,
    )  # fmt: skip


def encoded(
    mode: str, choices: Mapping[str, bool], *, version_id: str, material: str, visitor_id: str,
    decided_at: dt.datetime, method: str, consent_id: str = "", has_gpc: bool = False,
) -> str:  # fmt: skip
    """As ``encode`` in ``consent_widget/src/storage.ts`` writes it, which explains the format."""
    fields = (
        "2",
        _LETTER[mode] + ("g" if has_gpc else ""),
        _escaped(version_id),
        visitor_id,
        str((decided_at - _EPOCH) // _MILLISECOND),
        method,
        ":".join(("+" if granted else "-") + _escaped(each) for each, granted in choices.items()),
        _escaped(consent_id),
        _escaped(material),
    )
    return "|".join(fields)


def _escaped(text: str) -> str:
    """JavaScript's ``encodeURIComponent``."""
    return quote(text, safe="!*'()")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a host sets cookies for a page. ``domain``: what both have in common; None when they
    are one host."""

    host: str
    domain: str | None
    is_secure: bool

    def attributes(self, domain: str | None) -> str:
        return (
            "; Path=/; SameSite=Lax"
            + (f"; Domain={domain}" if domain else "")
            + ("; Secure" if self.is_secure else "")
        )


def place(first_party: str, origin: str) -> Place:
    """``NoSharedDomain`` when no cookie of this host can be read by pages of this origin."""
    ours, page = urlsplit(first_party), urlsplit(origin)
    host, page_host = ours.hostname or "", page.hostname or ""
    domain = None if host == page_host else _shared(host, page_host)
    return Place(host, domain, ours.scheme == "https")


_UNDER_COUNTRIES = frozenset({"ac", "co", "com", "edu", "gov", "ne", "net", "or", "org"})


def _shared(one: str, other: str) -> str:
    """The longest name both end with, if it looks like one that can be registered: ``co.uk`` does
    not. Browsers know the whole list of public suffixes and refuse such a cookie anyway."""
    found: list[str] = []
    for label, same in zip(_labels(one), _labels(other), strict=False):
        if label != same:
            break
        found.insert(0, label)
    is_suffix = len(found) == 2 and len(found[1]) == 2 and found[0] in _UNDER_COUNTRIES
    if len(found) < 2 or is_suffix or found[-1].isdigit():
        raise NoSharedDomain
    return ".".join(found)


def _labels(host: str) -> list[str]:
    """From the right."""
    return host.rstrip(".").split(".")[::-1]


def kept(where: Place, site_key: str, value: str, seconds: int) -> str:
    """A ``Set-Cookie`` value. Not HttpOnly: the widget reads it."""
    return f"qt_{site_key}={value}; Max-Age={seconds}{where.attributes(where.domain)}"


def expired(where: Place, names: Iterable[str]) -> list[str]:
    """``Set-Cookie`` values that take these cookies away from the host and its parents. Which of
    them set a cookie cannot be seen; browsers pass over what is not there or nobody's own."""
    labels = where.host.rstrip(".").split(".")
    parents = [".".join(labels[start:]) for start in range(len(labels) - 1)]
    is_name = where.host.isascii() and not labels[-1].isdigit() and ":" not in where.host
    domains: list[str | None] = [None, *(parents if is_name else [])]
    return [f"{name}=; Max-Age=0{where.attributes(domain)}" for name in names for domain in domains]


def denied_names(
    header: str, trackers: Iterable[Mapping[str, Any]], choices: Mapping[str, bool]
) -> list[str]:
    """Of the cookies that came with a request, those that scripts cannot remove and whose purpose
    is denied. What did not come is set for another host or path, and cannot be expired from here.
    """
    patterns = [
        each["pattern"]
        for each in trackers
        if each["kind"] == "cookie" and each["http_only"] and choices.get(each["purpose"]) is False
    ]
    names = dict.fromkeys(each.partition("=")[0].strip() for each in header.split(";"))
    found = [
        name
        for name in names
        if _TOKEN.fullmatch(name)
        and not name.startswith("qt_")
        and any(_fits(each, name) for each in patterns)
    ]
    return found[:_MOST]


def _fits(pattern: str, name: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
