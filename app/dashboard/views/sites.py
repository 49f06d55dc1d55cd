"""Sites: the list, the editor's form in one language, its versions, and the draft back from the
form.
"""

from __future__ import annotations

import copy
import datetime as dt
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col
from starlette.datastructures import FormData

from app.core.clock import utc_now
from app.core.errors import BadRequest, Invalid, NotFound
from app.core.http import strict_json
from app.dashboard import forms, present
from app.dashboard.present import Badge
from app.dashboard.views import preview
from app.dashboard.views.choices import Option, options
from app.dashboard.views.people import names_of
from app.security.models import Role
from app.security.sessions import Operator
from app.sites import regimes, seen, service, unlisted
from app.sites.config import LONG_TEXTS, MAX_CONTACT, MAX_SHORT, ConsentMode, SiteConfig
from app.sites.consent_mode import stub
from app.sites.host_identity import HostIdentity
from app.sites.known_trackers import suggested
from app.sites.languages import OPTIONAL_TEXT_KEYS, TEXT_KEYS, shipped
from app.sites.models import NoticeVersion, Site, TrackerSeen
from app.sites.script import live_tag

_TEXT_KEYS = (*TEXT_KEYS, *OPTIONAL_TEXT_KEYS)
_MODULES = {
    "consent_mode": "Google Consent Mode v2",
    "gpp": "IAB GPP, for the United States",
    "uet": "Microsoft UET consent mode",
    "segment": "Segment: withConsent, and in place of its consent manager",
    "migrate": "Take over choices made with another consent manager",
    "report": "Report what is there without a rule, from one page view in ten",
    "counts": "Count how often the banner is shown",
}


@dataclass(frozen=True, slots=True)
class SiteRow:
    id: str
    name: str
    site_key: str
    origins: str
    state: Badge
    version: str


@dataclass(frozen=True, slots=True)
class PurposeRow:
    index: int
    id: str
    is_required: bool
    is_denied_by_gpc: bool
    is_sensitive: bool
    name: str
    description: str


@dataclass(frozen=True, slots=True)
class TextRow:
    key: str
    label: str
    value: str
    default: str
    is_long: bool
    limit: int


@dataclass(frozen=True, slots=True)
class Version:
    number: int
    sha256: str
    published_at: dt.datetime
    published_by: str
    is_live: bool


@dataclass(frozen=True, slots=True)
class HostForm:
    """Whose tokens are believed; ``audience`` is what they say in ``aud``."""

    issuer: str
    jwks_url: str
    jwks: str
    audience: str


@dataclass(frozen=True, slots=True)
class SeenRow:
    """What browsers reported and no rule covers; ``value`` is its ``kind name``, as in a form."""

    value: str
    kind: str
    pattern: str
    vendor: str
    last_seen_at: dt.datetime
    count: int
    purposes: list[Option]


@dataclass(frozen=True, slots=True)
class Seen:
    """``is_on``: the published site reports; ``more``: rows that are not shown."""

    rows: list[SeenRow]
    more: int
    is_on: bool


@dataclass(frozen=True, slots=True)
class RegionOption:
    """A place of the preview; not offered while the draft does not name its law."""

    value: str
    text: str
    law: str
    is_offered: bool
    is_chosen: bool


@dataclass(frozen=True, slots=True)
class SitePage:
    id: str
    name: str
    site_key: str
    state: Badge
    has_changes: bool
    origins: str
    is_intake_open: bool
    draft: Mapping[str, Any]
    contact_limit: int
    language: str
    languages: list[Option]
    offered: list[Option]
    regimes: list[Option]
    purposes: list[PurposeRow]
    texts: list[TextRow]
    mapping: str
    trackers: str
    tags: str
    modules: list[Option]
    consent_mode: ConsentMode
    seen: Seen
    stub: str
    """Google Consent Mode's stub, for sites that use it."""
    versions: list[Version]
    snippet: str
    unlisted: list[tuple[str, dt.datetime]]
    """Origins its banner was used from that it does not list, and when last."""
    privacy_url: str
    preview: str
    regions: list[RegionOption]
    states: list[Option]
    may_edit: bool
    host: HostForm


def _host(site: Site, public_url: str) -> HostForm:
    known = site.host_identity or {}
    keys = json.dumps(known["jwks"], indent=1) if "jwks" in known else ""
    return HostForm(known.get("issuer", ""), known.get("jwks_url", ""), keys, public_url)


def host_from(form: FormData) -> HostIdentity | None:
    """Back from the form; ``Invalid`` or pydantic's ``ValidationError``."""
    issuer = forms.text(form, "issuer")
    url, keys = forms.text(form, "jwks_url", limit=2000), forms.text(form, "jwks", limit=20_000)
    if not (issuer or url or keys):
        return None
    given = {"issuer": issuer} | ({"jwks_url": url} if url else {})
    try:
        return HostIdentity.model_validate(
            given | ({"jwks": strict_json(keys.encode())} if keys else {})
        )
    except BadRequest:
        raise Invalid('Give the keys as JSON: {"keys": [...]}.') from None


async def site_list(session: AsyncSession, operator: Operator) -> list[SiteRow]:
    sites = await service.list_sites(session, operator.workspace_id, limit=200)
    versions = await service.versions_of(session, [each.id for each in sites])
    return [_row(each, versions.get(each.published_version_id or "")) for each in sites]


def _row(site: Site, published: NoticeVersion | None) -> SiteRow:
    return SiteRow(
        id=site.id,
        name=site.name,
        site_key=site.site_key,
        origins=", ".join(site.origins) or "none yet",
        state=_state(site, published),
        version=f"version {published.number}" if published else "",
    )


def _state(site: Site, published: NoticeVersion | None) -> Badge:
    if published is None:
        return Badge("Not published", "warn")
    if service.has_unpublished_changes(site, published):
        return Badge("Unpublished changes", "warn")
    return Badge("Live", "good")


async def find(session: AsyncSession, workspace_id: str, site_id: str) -> Site:
    site = await session.get(Site, site_id)
    if site is None or site.workspace_id != workspace_id or site.deleted_at is not None:
        raise NotFound("There is no site with this id in your workspace.")
    return site


async def names(session: AsyncSession, workspace_id: str) -> dict[str, str]:
    """By the id of each site, deleted ones too; one that shares its name says its site key."""
    rows = await session.execute(
        sa.select(col(Site.id), col(Site.name), col(Site.site_key))
        .where(col(Site.workspace_id) == workspace_id)
        .order_by(col(Site.name), col(Site.id))
    )
    found = rows.all()
    count = Counter(name for _, name, _ in found)
    return {each: f"{name} ({key})" if count[name] > 1 else name for each, name, key in found}


async def site_page(
    session: AsyncSession, operator: Operator, site: Site, public_url: str, asked: Mapping[str, str]
) -> SitePage:
    """The editor. ``asked`` may name the language to edit (``lang``)."""
    history = await service.version_history(session, site, 20)
    published = next((each for each in history if each.id == site.published_version_id), None)
    names = await names_of(session, operator.workspace_id, {each.published_by for each in history})
    draft = site.draft
    language = asked.get("lang", "")
    language = language if language in draft["languages"] else draft["default_language"]
    titles = {tag: said.get("name", tag) for tag, said in shipped().items()}
    return SitePage(
        id=site.id,
        name=site.name,
        site_key=site.site_key,
        state=_state(site, published),
        has_changes=service.has_unpublished_changes(site, published),
        origins="\n".join(site.origins),
        is_intake_open=site.is_intake_open,
        draft=draft,
        contact_limit=MAX_CONTACT,
        language=language,
        languages=[
            Option(tag, str(titles.get(tag, tag)), tag == language) for tag in draft["languages"]
        ],
        offered=[
            Option(tag, str(titles.get(tag, tag)), tag in draft["languages"])
            for tag in dict.fromkeys([*titles, *draft["languages"]])
        ],
        regimes=[
            Option(each.id, each.name, each.id in draft["regimes"])
            for each in regimes.load().values()
        ],
        purposes=_purposes(draft, language),
        texts=_texts(draft, language),
        mapping="\n".join(f"{label} = {purpose}" for label, purpose in draft["mapping"].items()),
        trackers="\n".join(_tracker_line(each) for each in draft.get("trackers", ())),
        tags="\n".join(_tag_line(each) for each in draft.get("tags", ())),
        consent_mode=ConsentMode.model_validate(draft.get("consent_mode", {})),
        modules=[
            Option(value, text, value in draft.get("modules", ()))
            for value, text in _MODULES.items()
        ],
        seen=await _seen(session, site, published),
        stub=_stub(site),
        versions=[
            Version(
                each.number,
                each.sha256,
                each.published_at,
                names[each.published_by],
                each is published,
            )
            for each in history
        ],
        unlisted=unlisted.kept(site, utc_now()),
        snippet=live_tag(public_url, site.site_key, site.draft),
        privacy_url=f"{public_url}/privacy/{site.site_key}",
        preview=f"/dashboard/sites/{site.id}/preview",
        regions=_regions(draft),
        states=options(preview.STATES, ""),
        may_edit=operator.may(Role.OPERATOR),
        host=_host(site, public_url),
    )


def _regions(draft: Mapping[str, Any]) -> list[RegionOption]:
    """Of all laws, so that a law ticked in the form has its place; the strictest is chosen."""
    offered = {each.law for each in preview.regions(draft["regimes"])}
    chosen = preview.regions(draft["regimes"])[0].code
    return [
        RegionOption(each.code, each.name, each.law, each.law in offered, each.code == chosen)
        for each in preview.regions(regimes.load())
    ]


_SHOWN_SEEN = 100


async def _seen(session: AsyncSession, site: Site, published: NoticeVersion | None) -> Seen:
    found = await seen.without_rule(session, site)
    is_on = published is not None and seen.MODULE in published.content.get("modules", ())
    rows = [_seen_row(site, each) for each in found[:_SHOWN_SEEN]]
    return Seen(rows, max(0, len(found) - _SHOWN_SEEN), is_on)


def _seen_row(site: Site, found: TrackerSeen) -> SeenRow:
    known = suggested(site, found.kind, found.pattern)
    usual = known.purpose if known else None
    offered = [
        Option(each["id"], each["id"], each["id"] == usual) for each in site.draft["purposes"]
    ]
    return SeenRow(
        value=f"{found.kind} {found.pattern}",
        kind=found.kind,
        pattern=found.pattern,
        vendor=known.vendor if known else "",
        last_seen_at=found.last_seen_at,
        count=found.count,
        purposes=offered if usual else [Option("", "choose", True), *offered],
    )


def rules_from(form: FormData, draft: Mapping[str, Any]) -> dict[str, Any]:
    """The draft with a rule for each of what was seen and is ticked; what has one is left alone."""
    rules = list(draft.get("trackers", ()))
    for value in dict.fromkeys(forms.texts(form, "add", limit=300)):
        kind, _, pattern = value.partition(" ")
        if not seen.is_ruled(rules, kind, pattern):
            purpose = forms.text(form, f"for {value}", limit=40)
            if not purpose:
                raise Invalid(f"Choose a purpose for {pattern[:80]}, or leave it unticked.")
            rules.append({"kind": kind, "pattern": pattern, "purpose": purpose})
    return {**draft, "trackers": rules}


def _stub(site: Site) -> str:
    config = SiteConfig.model_validate(site.draft)
    if "consent_mode" not in config.modules:
        return ""
    return f"<script>{stub(site.site_key, config.model_dump(mode='json'))}</script>"


def _purposes(draft: Mapping[str, Any], language: str) -> list[PurposeRow]:
    """The purposes as said in this language, and one empty row for a new one."""
    ours = shipped().get(language, {}).get("purposes", {})
    rows = []
    for index, each in enumerate(draft["purposes"]):
        said = each["texts"].get(language) or ours.get(each["id"], {})
        rows.append(
            PurposeRow(
                index,
                each["id"],
                each["required"],
                each["denied_by_gpc"],
                each.get("sensitive", False),
                said.get("name", ""),
                said.get("description", ""),
            )
        )
    return [*rows, PurposeRow(len(rows), "", False, False, False, "", "")]


def _texts(draft: Mapping[str, Any], language: str) -> list[TextRow]:
    """Labels first, as they stand in pairs, then what takes a line of its own."""
    ours = shipped().get(language, {}).get("texts", {})
    own = draft["texts"].get(language, {})
    return [
        TextRow(
            key,
            present.words(key),
            own.get(key, ""),
            str(ours.get(key, "")),
            key in LONG_TEXTS,
            LONG_TEXTS.get(key, MAX_SHORT),
        )
        for key in sorted(_TEXT_KEYS, key=LONG_TEXTS.__contains__)
    ]


def draft_from(form: FormData, present_draft: Mapping[str, Any]) -> dict[str, Any]:
    """The draft with what the form says; texts of other languages stay."""
    draft = copy.deepcopy(dict(present_draft))
    language = forms.text(form, "lang", limit=20)
    draft["regimes"] = forms.texts(form, "regimes")
    draft["languages"] = forms.texts(form, "languages")
    draft["default_language"] = forms.text(form, "default_language", limit=20)
    draft["policy_url"] = forms.text(form, "policy_url")
    draft["first_party"] = forms.text(form, "first_party")
    draft["controller"] = {
        "name": forms.text(form, "controller_name"),
        "contact": forms.text(form, "controller_contact"),
    }
    draft["theme"] = {
        "accent": forms.text(form, "accent", limit=20),
        "position": forms.text(form, "position", limit=20),
        "radius": _whole(form, "radius"),
    }
    draft["expiry_days"] = _whole(form, "expiry_days")
    draft["shows_opt_out_banner"] = forms.text(form, "shows_opt_out_banner") == "on"
    draft["mapping"] = dict(_pair(line) for line in forms.lines(form, "mapping", limit=60_000))
    draft["trackers"] = [_tracker(line) for line in forms.lines(form, "trackers", limit=150_000)]
    draft["tags"] = [_tag(line) for line in forms.lines(form, "tags", limit=60_000)]
    draft["modules"] = forms.texts(form, "modules")
    draft["consent_mode"] = {
        "wait_ms": _whole(form, "wait_ms"),
        "granted_in": [
            each.strip().upper()
            for each in forms.text(form, "granted_in").split(",")
            if each.strip()
        ],
        "redacts_ads": forms.text(form, "redacts_ads") == "on",
        "passes_urls_through": forms.text(form, "passes_urls_through") == "on",
    }
    draft["purposes"] = _purposes_from(form, draft, language)
    texts = {key: forms.text(form, f"t.{key}", limit=2000) for key in _TEXT_KEYS}
    own = {key: text for key, text in texts.items() if text}
    draft["texts"] = {
        tag: said
        for tag, said in draft["texts"].items()
        if tag != language and tag in draft["languages"]
    }
    if own and language in draft["languages"]:
        draft["texts"][language] = own
    return draft


def _purposes_from(form: FormData, draft: Mapping[str, Any], language: str) -> list[dict[str, Any]]:
    """Rows of the form; an emptied id takes the purpose away, an unchanged text of ours is not
    copied.
    """
    ours = shipped().get(language, {}).get("purposes", {})
    known = {each["id"]: each for each in draft["purposes"]}
    found = []
    for index in range(21):
        purpose_id = forms.text(form, f"p{index}.id", limit=40)
        if not purpose_id:
            continue
        texts = dict(known.get(purpose_id, {}).get("texts", {}))
        said = {
            "name": forms.text(form, f"p{index}.name", limit=200),
            "description": forms.text(form, f"p{index}.description", limit=700),
        }
        texts.pop(language, None)
        if said["name"] and said != ours.get(purpose_id):
            texts[language] = said
        found.append(
            {
                "id": purpose_id,
                "required": forms.text(form, f"p{index}.required") == "on",
                "denied_by_gpc": forms.text(form, f"p{index}.gpc") == "on",
                "sensitive": forms.text(form, f"p{index}.sensitive") == "on",
                "texts": texts,
            }
        )
    return found


def _whole(form: FormData, name: str) -> int:
    text = forms.text(form, name, limit=6)
    if not (text.isascii() and text.isdigit()):
        raise Invalid(f"{present.words(name)}: give a whole number.")
    return int(text)


_TRACKER = re.compile(r"(host|cookie|storage)\s+(\S+)\s*=\s*(\S+)(\s+http_only)?")


def _tracker(line: str) -> dict[str, Any]:
    """``cookie _ga* = analytics``, with ``http_only`` behind it where scripts cannot remove it."""
    if (found := _TRACKER.fullmatch(line)) is None:
        raise Invalid(
            f"Trackers: write `host *.stats.example = analytics`, `cookie _ga* = analytics` or "
            f"`storage uid = analytics`, not `{line[:80]}`."
        )
    kind, pattern, purpose, http_only = found.groups()
    return {"kind": kind, "pattern": pattern, "purpose": purpose, "http_only": bool(http_only)}


def _tracker_line(tracker: Mapping[str, Any]) -> str:
    suffix = " http_only" if tracker["http_only"] else ""
    return f"{tracker['kind']} {tracker['pattern']} = {tracker['purpose']}{suffix}"


_TAG = re.compile(r"(\S+)\s+=\s+(\S+?)(?:\s+(async|module))?")


def _tag(line: str) -> dict[str, str]:
    """``https://stats.example/a.js = analytics``, with ``async`` or ``module`` behind it."""
    if (found := _TAG.fullmatch(line)) is None:
        raise Invalid(
            "Scripts: write `https://stats.example/a.js = analytics`, with `async` or `module` "
            f"behind it where it loads so, not `{line[:80]}`."
        )
    src, purpose, load = found.groups()
    return {"src": src, "purpose": purpose, "load": load or "ordered"}


def _tag_line(tag: Mapping[str, Any]) -> str:
    suffix = "" if tag["load"] == "ordered" else f" {tag['load']}"
    return f"{tag['src']} = {tag['purpose']}{suffix}"


def _pair(line: str) -> tuple[str, str]:
    tracker, separator, purpose = line.rpartition("=")
    if not separator:
        raise Invalid("Labels: write one per line, label = purpose.")
    return tracker.strip(), purpose.strip()
