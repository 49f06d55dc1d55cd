"""Report-only: what visitors' browsers hold that no rule of a site covers, by name alone.

The widget cuts off what looks random before it sends a name; it is done again here, so that no page
can have a visitor's identifier stored.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

import sqlalchemy as sa
from pydantic import Field, model_validator
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.core.db import insert_or_add, table_of
from app.core.http import Schema
from app.sites.config import is_pattern
from app.sites.directory import PublishedSite
from app.sites.models import Site, TrackerSeen

MODULE = "report"
MOST = 500
"""Names kept for a site; further ones are dropped."""
PER_REPORT = 50
KEPT = dt.timedelta(days=30)
"""How long a name stays that is not seen again."""

Kind = Literal["host", "cookie", "storage"]
Names = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=253)], ...], Field(max_length=PER_REPORT)
]


class SeenIn(Schema):
    """Names without a rule: hosts, cookies, keys of web storage; at most 50 together."""

    host: Names = ()
    cookie: Names = ()
    storage: Names = ()

    @model_validator(mode="after")
    def _few(self) -> SeenIn:
        if len(self.host) + len(self.cookie) + len(self.storage) > PER_REPORT:
            raise ValueError("a report has at most 50 names")
        return self


_PART = re.compile(r"[A-Za-z0-9]+")
_RANDOM_HOST = re.compile(r"^(.*\.)?[0-9a-f-]{16,}\.(?=.*\.)")


def reduced(name: str) -> str:
    """``_ga_G1ABC2DEF`` as ``_ga_*``: cut off where a stretch of six or more begins that looks
    random (digits, or letters in no word's order). As ``reduced`` of the widget's report.ts.
    """
    random = [each for each in _PART.finditer(name) if _is_random(each[0])]
    if not random or random[-1].end() - random[0].start() < 6:
        return name
    return f"{name[: random[0].start()]}*"


def _is_random(part: str) -> bool:
    if any(each.isdigit() for each in part):
        return True
    return len(part) > 5 and 4 * len(re.findall("[A-Z]+", part)) > len(part)


def _reduced_host(host: str) -> str:
    """Labels of 16 or more hexadecimal digits stand for somebody, or for nothing."""
    return _RANDOM_HOST.sub("*.", host.lower(), count=1)


def patterns_of(report: SeenIn) -> list[tuple[Kind, str]]:
    """What of a report could be a rule, each once; the rest is passed over."""
    found: list[tuple[Kind, str]] = [("host", _reduced_host(each)) for each in report.host]
    found += [("cookie", reduced(each)) for each in report.cookie if "@" not in each]
    found += [("storage", reduced(each)) for each in report.storage if "@" not in each]
    return [
        (kind, pattern)
        for kind, pattern in dict.fromkeys(found)
        if pattern.isprintable() and is_pattern(kind, pattern)
    ]


async def note(
    session: AsyncSession, site: PublishedSite, patterns: Sequence[tuple[Kind, str]],
    now: dt.datetime,
) -> None:  # fmt: skip
    """Count what was reported; of new names only as many as there is room for."""
    # Reports of one site take turns, so that no two fill the same room.
    await session.execute(
        sa.select(col(Site.id)).where(col(Site.id) == site.id).with_for_update(key_share=True)
    )
    rows = await session.execute(
        sa.select(col(TrackerSeen.kind), col(TrackerSeen.pattern)).where(
            col(TrackerSeen.site_id) == site.id
        )
    )
    known = {(kind, pattern) for kind, pattern in rows}
    new = [each for each in patterns if each not in known][: max(0, MOST - len(known))]
    counted = [
        {
            "site_id": site.id, "kind": kind, "pattern": pattern,
            "workspace_id": site.workspace_id, "first_seen_at": now, "last_seen_at": now,
            "count": 1,
        }
        for kind, pattern in sorted([*(each for each in patterns if each in known), *new])
    ]  # fmt: skip
    if counted:
        statement = insert_or_add(session, table_of(TrackerSeen), "last_seen_at")
        await session.execute(statement, counted)


async def without_rule(session: AsyncSession, site: Site) -> list[TrackerSeen]:
    """What was seen and has no rule in the draft, most often seen first."""
    rows = await session.execute(
        sa.select(TrackerSeen)
        .where(col(TrackerSeen.site_id) == site.id)
        .order_by(col(TrackerSeen.count).desc(), col(TrackerSeen.kind), col(TrackerSeen.pattern))
    )
    rules = site.draft.get("trackers", ())
    return [each for each in rows.scalars() if not is_ruled(rules, each.kind, each.pattern)]


def is_ruled(rules: Iterable[Mapping[str, Any]], kind: str, pattern: str) -> bool:
    """Whether one of the rules covers everything that the pattern stands for."""
    return any(each["kind"] == kind and covers(kind, each["pattern"], pattern) for each in rules)


def covers(kind: str, rule: str, pattern: str) -> bool:
    if rule == pattern:
        return True
    if kind == "host":
        return rule.startswith("*.") and f".{pattern.removeprefix('*.')}".endswith(rule[1:])
    return rule.endswith("*") and pattern.startswith(rule[:-1])


async def sweep(session: AsyncSession, now: dt.datetime) -> None:
    """Forget what has not been seen for a while."""
    await session.execute(sa.delete(TrackerSeen).where(col(TrackerSeen.last_seen_at) < now - KEPT))
