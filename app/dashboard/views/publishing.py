"""Publishing a site: what the draft changes, who is asked again, and what a version was."""

from __future__ import annotations

import datetime as dt
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from sqlalchemy.ext.asyncio import AsyncSession

from app.dashboard import present
from app.dashboard.views import preview
from app.dashboard.views.choices import Option, options
from app.dashboard.views.people import names_of
from app.security.models import Role
from app.security.sessions import Operator
from app.sites import script, service
from app.sites.changes import CONTROLLER, changes, is_material, left_behind, news, sha256_of
from app.sites.config import SiteConfig, unsaid, untranslated
from app.sites.directory import PublishedSite, notice_of
from app.sites.genuine import is_genuine
from app.sites.languages import shipped
from app.sites.models import NoticeVersion, Site


@dataclass(frozen=True, slots=True)
class Change:
    """``before`` or ``after`` is None where something is new or gone."""

    what: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Publishing:
    """``live_number`` is 0 while nothing is published; ``is_material``: publishing asks everybody
    again unless the operator says otherwise. ``news``: the purposes they are told of.
    """

    id: str
    name: str
    number: int
    live_number: int
    changes: list[Change]
    more: int
    is_material: bool
    news: list[str]
    untranslated: list[str]
    """Purposes that people who read another language hear of in the default one."""
    left_behind: list[str]
    """Purposes whose words changed, and the languages in which they did not."""
    unsaid: list[str]
    """What visitors are not told of the controller."""
    draft: str
    """Digest of what is shown; something else is not published unseen."""


@dataclass(frozen=True, slots=True)
class VersionPage:
    id: str
    name: str
    number: int
    sha256: str
    published_at: dt.datetime
    published_by: str
    is_live: bool
    is_genuine: bool
    before_number: int
    asked_again: str
    changes: list[Change]
    may_take_up: bool
    would_lose: bool
    """The draft is not what visitors see."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A version's script as a site may host it itself: for one language and one region."""

    languages: list[Option]
    regions: list[Option]
    address: str
    tag: str


_SHOWN_CHANGES = 100


async def page_of(session: AsyncSession, site: Site) -> Publishing:
    """What publishing the draft would change."""
    content = service.content_of(site)
    history = await service.version_history(session, site, 1)
    live = await session.get(NoticeVersion, site.published_version_id or "")
    found = _changes(live.content, content) if live else []
    said = content["languages"][content["default_language"]]["purposes"]
    config = SiteConfig.model_validate(site.draft)
    return Publishing(
        id=site.id,
        name=site.name,
        number=history[0].number + 1 if history else 1,
        live_number=live.number if live else 0,
        changes=found[:_SHOWN_CHANGES],
        more=max(0, len(found) - _SHOWN_CHANGES),
        is_material=live is not None and is_material(live.content, content),
        news=[
            "the controller" if each == CONTROLLER else said[each]["name"]
            for each in (news(live.content, content) if live else [])
        ],
        untranslated=_untranslated(config, said),
        left_behind=[
            f"{said[purpose]['name']}: {_languages(tags)}"
            for purpose, tags in (left_behind(live.content, content) if live else {}).items()
        ],
        unsaid=unsaid(config),
        draft=draft_digest(site),
    )


def _untranslated(config: SiteConfig, said: Mapping[str, Any]) -> list[str]:
    default = _language(config.default_language)
    return [
        f"{said[purpose]['name']}: in {default} for readers of {_language(tags[0])}"
        + _and_more(len(tags) - 1)
        for purpose, tags in untranslated(config).items()
    ]


def _language(tag: str) -> str:
    return str(shipped().get(tag, {}).get("name", tag))


def _languages(tags: list[str]) -> str:
    few = tags if len(tags) <= _NAMED_LANGUAGES else tags[: _NAMED_LANGUAGES - 1]
    return ", ".join(map(_language, few)) + _and_more(len(tags) - len(few))


_NAMED_LANGUAGES = 6


def _and_more(others: int) -> str:
    return f" and {others} more" if others else ""


def draft_digest(site: Site) -> str:
    return sha256_of(service.content_of(site))


async def version_page(
    session: AsyncSession, operator: Operator, site: Site, number: int
) -> VersionPage:
    """One published version beside the one before it."""
    version = await service.version_of(session, site, number)
    before = await service.version_of(session, site, number - 1) if number > 1 else None
    live = await session.get(NoticeVersion, site.published_version_id or "")
    names = await names_of(session, operator.workspace_id, {version.published_by})
    asked_again = "Nobody: it was the first"
    if before:
        is_same = notice_of(before).material == notice_of(version).material
        asked_again = "Nobody" if is_same else "Everybody who had chosen"
    return VersionPage(
        id=site.id,
        name=site.name,
        number=number,
        sha256=version.sha256,
        published_at=version.published_at,
        published_by=names[version.published_by],
        is_live=version.id == site.published_version_id,
        is_genuine=is_genuine(version.content, version.sha256),
        before_number=before.number if before else 0,
        asked_again=asked_again,
        changes=_changes(before.content, version.content) if before else [],
        may_take_up=operator.may(Role.OPERATOR) and version.config is not None,
        would_lose=service.has_unpublished_changes(site, live),
    )


def copy_of(
    site: PublishedSite, version: NoticeVersion, asked: Mapping[str, str], public_url: str,
    widget: Path,
) -> Copy:  # fmt: skip
    """``asked``: ``lang`` and ``region``; what is not offered counts as not said."""
    notice = notice_of(version)
    spoken = {each: _language(each) for each in notice.content["languages"]}
    places = {each.code: each.name for each in preview.regions(notice.content["regimes"])}
    language, region = asked.get("lang", ""), asked.get("region")
    language = language if language in spoken else notice.content["default_language"]
    region = region if region in places else next(iter(places))
    body, _ = script.pinned(
        site, notice, lang=language, region=region, base_url=public_url, widget=widget
    )
    query = urlencode({"lang": language, "region": region})
    return Copy(
        languages=options(spoken, language),
        regions=options(places, region),
        address=f"{public_url}/b/{site.site_key}/{version.id}.js?{query}",
        tag=script.tag("/consent.js", body, notice.content),
    )


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """What differs, languages last; what is the same change in several languages stands once."""
    default = after["default_language"]
    languages: dict[tuple[str, str | None, str | None], list[str]] = defaultdict(list)
    found = []
    for each in changes(before, after):
        first, *rest = each["at"].split(".")
        said = _said(each, "before"), _said(each, "after")
        if first == "languages" and rest:
            languages[_words(rest[1:]), *said].append(rest[0])
        else:
            where = _words(rest)
            what = f"{present.words(first)}: {where}" if where else present.words(first)
            found.append(Change(what, *said))
    for (where, *texts), tags in languages.items():
        tag = default if default in tags else tags[0]
        spoken = _language(tag) + _and_more(len(tags) - 1)
        found.append(Change(f"{spoken}: {where or 'the whole language'}", *texts))
    return found


def _words(parts: Sequence[str]) -> str:
    return ", ".join(present.words(each) for each in parts if each != "texts").lower()


def _said(change: Mapping[str, Any], when: str) -> str | None:
    if when not in change:
        return None
    value = change[when]
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text or "(empty)"
