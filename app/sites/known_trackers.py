"""Well-known trackers, as data: whose a name is, and the purpose it usually serves."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.sites.models import Site
from app.sites.seen import covers

_FILE = Path(__file__).with_name("known_trackers.toml")


class _Entry(BaseModel):
    """``names``: of cookies and keys of web storage, for vendors move between the two."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vendor: Annotated[str, Field(min_length=1)]
    purpose: Literal["necessary", "functional", "analytics", "advertising"]
    names: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Known:
    """``purpose`` is one of those that a new site starts with, or None where a site has none of
    that name."""

    vendor: str
    purpose: str | None


@cache
def entries() -> tuple[_Entry, ...]:
    listed = tomllib.loads(_FILE.read_text(encoding="utf-8"))["tracker"]
    return tuple(_Entry.model_validate(each) for each in listed)


@cache
def _patterns() -> dict[str, dict[str, Known]]:
    names: dict[str, Known] = {}
    hosts: dict[str, Known] = {}
    for each in entries():
        known = Known(each.vendor, each.purpose)
        names |= dict.fromkeys(each.names, known)
        hosts |= dict.fromkeys(each.hosts, known)
    return {"host": hosts, "cookie": names, "storage": names}


def known(kind: str, pattern: str) -> Known | None:
    """Whose it is: the same name, else the longest that covers it."""
    patterns = _patterns()[kind]
    if same := patterns.get(pattern):
        return same
    covering = [each for each in patterns if covers(kind, each, pattern)]
    return patterns[max(covering, key=len)] if covering else None


def suggested(site: Site, kind: str, pattern: str) -> Known | None:
    """``known``, as far as the site's draft has the purpose."""
    found = known(kind, pattern)
    if found is None or any(each["id"] == found.purpose for each in site.draft["purposes"]):
        return found
    return replace(found, purpose=None)
