"""Sites: creating, changing, publishing and deleting them. Functions take a session and never
commit."""

from __future__ import annotations

import datetime as dt
import secrets
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.core.errors import Conflict, Invalid, NotFound
from app.core.ids import new_id
from app.security import audit
from app.sites import directory, regimes
from app.sites.banner import show
from app.sites.changes import is_material, material, news, sha256_of
from app.sites.config import SiteConfig, language_of
from app.sites.consent_mode import asking_first
from app.sites.directory import Notice
from app.sites.errors import InvalidOrigin, NotPublishable, UnknownSite
from app.sites.models import NoticeVersion, Site
from app.sites.origins import clean_origin

_MAX_ORIGINS = 50


def _clean_origins(origins: Sequence[str]) -> list[str]:
    cleaned = list(dict.fromkeys(_clean(*each, len(origins)) for each in enumerate(origins)))
    if len(cleaned) > _MAX_ORIGINS:
        raise InvalidOrigin(f"A site has at most {_MAX_ORIGINS} origins.")
    return cleaned


def _clean(index: int, origin: str, count: int) -> str:
    try:
        return clean_origin(origin)
    except InvalidOrigin as error:
        raise InvalidOrigin(
            f"Correct number {index + 1} of the {count} origins.",
            errors=[{"at": f"origins.{index}", "problem": error.detail}],
        ) from None


def _clean_name(name: str) -> str:
    name = name.strip()
    if not name or len(name) > 100 or not name.isprintable():
        raise Invalid("Give the site a name of at most 100 printable characters.")
    return name


# --- what operators do
# ------------------------------------------------------------------------------------------


async def create_site(
    session: AsyncSession,
    *,
    workspace_id: str,
    name: str,
    origins: Sequence[str],
    config: SiteConfig | None = None,
    actor: str,
    now: dt.datetime,
) -> Site:
    """A new site with a draft (by default our four purposes, all regimes and languages), not yet
    published."""
    config = config or SiteConfig()
    _check_grants(config, Invalid)
    site = Site(
        id=new_id("sit"),
        workspace_id=workspace_id,
        site_key=f"site_{secrets.token_urlsafe(12)}",
        name=_clean_name(name),
        origins=_clean_origins(origins),
        draft=config.model_dump(mode="json"),
        created_at=now,
    )
    session.add(site)
    audit.record(
        session, workspace_id=workspace_id, actor=actor, verb="site.create", target=site.id, now=now
    )
    await session.flush()
    return site


async def update_site(
    session: AsyncSession,
    site: Site,
    *,
    name: str | None = None,
    origins: Sequence[str] | None = None,
    config: SiteConfig | None = None,
    is_intake_open: bool | None = None,
    actor: str,
    now: dt.datetime,
) -> Site:
    """Change what is given. Name, origins and intake act at once; the draft is shown once it is
    published."""
    if config is not None:
        _check_grants(config, Invalid)
    changed = {
        "name": name if name is None else _clean_name(name),
        "origins": origins if origins is None else _clean_origins(origins),
        "draft": config if config is None else config.model_dump(mode="json"),
        "is_intake_open": is_intake_open,
    }
    changed = {
        key: value
        for key, value in changed.items()
        if value is not None and value != getattr(site, key)
    }
    for key, value in changed.items():
        setattr(site, key, value)
    if changed:
        audit.record(
            session,
            workspace_id=site.workspace_id,
            actor=actor,
            verb="site.update",
            target=site.id,
            now=now,
            changed=sorted(changed),
        )
        directory.forget_after_commit(session, site.site_key)
    await session.flush()
    return site


async def publish_site(
    session: AsyncSession,
    site: Site,
    *,
    actor: str,
    now: dt.datetime,
    asks_again: bool | None = None,
) -> NoticeVersion:
    """Make the draft what visitors see. The same content is the same version, also when it is an
    earlier one, unless others are to be asked again than those who answered that one.

    ``asks_again``: whether visitors who have chosen are asked anew. None: if the change is
    material. True makes a new version in any case. False is the operator's word that only the
    wording changed.
    """
    _check(SiteConfig.model_validate(site.draft))
    content = content_of(site)
    made = await _new_version(session, site, content, asks_again, actor, now)
    same = None if asks_again else await _same_version(session, site, made.sha256)
    if same is not None and directory.notice_of(same).material == made.material:
        version = same
    else:
        session.add(version := made)
        await session.flush()
    if site.published_version_id != version.id:
        site.published_version_id = version.id
        audit.record(
            session,
            workspace_id=site.workspace_id,
            actor=actor,
            verb="site.publish",
            target=site.id,
            now=now,
            version=version.number,
            sha256=version.sha256,
        )
        directory.forget_after_commit(session, site.site_key)
        await session.flush()
    return version


async def take_up(
    session: AsyncSession, site: Site, version: NoticeVersion, *, actor: str, now: dt.datetime
) -> Site:
    """Have the draft begin again with what this version was made of; visitors see it once it is
    published. ``first_party`` acts at once, so it stays as it is.

    Raises Conflict where a version was published before versions kept this.
    """
    if version.config is None:
        raise Conflict("This version was published before versions kept what they were made of.")
    config = version.config | {"first_party": site.draft.get("first_party", "")}
    return await update_site(
        session, site, config=SiteConfig.model_validate(config), actor=actor, now=now
    )


async def _same_version(session: AsyncSession, site: Site, digest: str) -> NoticeVersion | None:
    """The newest version with this content."""
    found = await session.execute(
        sa.select(NoticeVersion)
        .where(col(NoticeVersion.site_id) == site.id, col(NoticeVersion.sha256) == digest)
        .order_by(col(NoticeVersion.number).desc())
        .limit(1)
    )
    return found.scalar_one_or_none()


async def _new_version(
    session: AsyncSession, site: Site, content: dict[str, Any], asks_again: bool | None,
    actor: str, now: dt.datetime,
) -> NoticeVersion:  # fmt: skip
    history = await version_history(session, site, _COMPARED)
    live = await session.get(NoticeVersion, site.published_version_id or "")
    number = history[0].number + 1 if history else 1
    return NoticeVersion(
        id=new_id("ntv"),
        site_id=site.id,
        number=number,
        sha256=sha256_of(content),
        content=content,
        material=_material(content, number, live, history, asks_again),
        news={each.id: news(each.content, content) for each in history},
        config=site.draft,
        published_at=now,
        published_by=actor,
    )


_COMPARED = 10
"""With how many earlier versions a new one is compared, for visitors who come back."""


def _material(
    content: dict[str, Any],
    number: int,
    live: NoticeVersion | None,
    history: Sequence[NoticeVersion],
    asks_again: bool | None,
) -> str:
    """The same as of the version whose answers go on answering: the live one's, or those of earlier
    ones that all asked the same.
    """
    if live is not None and not asks_again:
        if asks_again is False or not is_material(live.content, content):
            return directory.notice_of(live).material
        alike: dict[str, list[NoticeVersion]] = {}
        for each in history:
            alike.setdefault(directory.notice_of(each).material, []).append(each)
        for found, versions in alike.items():
            if not any(is_material(each.content, content) for each in versions):
                return found
    return sha256_of([material(content), number])[:16] if history else material(content)


def _check(config: SiteConfig) -> None:
    """What may stand in a draft but not before visitors. ``NotPublishable``."""
    forced = [each.id for each in config.purposes if each.required and each.denied_by_gpc]
    if forced:
        raise NotPublishable(
            f"`{forced[0]}` counts as sale or sharing, which must be a choice: it cannot be "
            "required, too."
        )
    _check_grants(config, NotPublishable)


def _check_grants(config: SiteConfig, refusal: type[Invalid]) -> None:
    """Nothing is granted before the choice where the banner asks first."""
    early = asking_first(config.consent_mode.granted_in, config.regimes)
    if early:
        raise refusal(
            f"`consent_mode.granted_in` names {early[0]}, where visitors of this site are asked "
            "first. Take it out; or, if its law lets people object afterwards, list that law in "
            "`regimes`."
        )


async def delete_site(session: AsyncSession, site: Site, *, actor: str, now: dt.datetime) -> None:
    """Take the site off the air; its consent records stay as proof."""
    site.deleted_at = site.deleted_at or now
    audit.record(
        session,
        workspace_id=site.workspace_id,
        actor=actor,
        verb="site.delete",
        target=site.id,
        now=now,
    )
    directory.forget_after_commit(session, site.site_key)
    await session.flush()


# --- finding --------------------------------------------------------------------------------------
# --------------


async def find_site(session: AsyncSession, workspace_id: str, site_key: str) -> Site:
    """The workspace's live site with this key, or 404."""
    site = (
        await session.execute(
            sa.select(Site).where(
                col(Site.site_key) == site_key,
                col(Site.workspace_id) == workspace_id,
                col(Site.deleted_at).is_(None),
            )
        )
    ).scalar_one_or_none()
    if site is None:
        raise UnknownSite
    return site


async def list_sites(
    session: AsyncSession, workspace_id: str, *, limit: int = 50, after: str | None = None
) -> list[Site]:
    """Live sites, newest first; ``after`` is the id of the last one seen."""
    query = sa.select(Site).where(
        col(Site.workspace_id) == workspace_id, col(Site.deleted_at).is_(None)
    )
    if after is not None:
        query = query.where(col(Site.id) < after)
    return list((await session.execute(query.order_by(col(Site.id).desc()).limit(limit))).scalars())


async def versions_of(session: AsyncSession, site_ids: Sequence[str]) -> dict[str, NoticeVersion]:
    """The published versions of sites, by version id."""
    rows = await session.execute(
        sa.select(NoticeVersion).where(
            col(NoticeVersion.id).in_(
                sa.select(col(Site.published_version_id)).where(col(Site.id).in_(site_ids))
            )
        )
    )
    return {version.id: version for version in rows.scalars()}


async def version_history(
    session: AsyncSession, site: Site, limit: int = 50
) -> list[NoticeVersion]:
    """All versions ever published, newest first."""
    rows = await session.execute(
        sa.select(NoticeVersion)
        .where(col(NoticeVersion.site_id) == site.id)
        .order_by(col(NoticeVersion.number).desc())
        .limit(limit)
    )
    return list(rows.scalars())


async def version_of(session: AsyncSession, site: Site, number: int) -> NoticeVersion:
    """404 where there is none, also for numbers that no database holds."""
    number = min(number, 2**31 - 1)
    found = await session.execute(
        sa.select(NoticeVersion).where(
            col(NoticeVersion.site_id) == site.id, col(NoticeVersion.number) == number
        )
    )
    version = found.scalar_one_or_none()
    if version is None:
        raise NotFound("The site has no notice version with this number.")
    return version


# --- the notice
# -------------------------------------------------------------------------------------------------


def content_of(site: Site) -> dict[str, Any]:
    """Everything a visitor can be shown, in every language and regime: what a notice version
    keeps."""
    config = SiteConfig.model_validate(site.draft)
    controller = config.controller.name or site.name
    allowed = [regimes.get(each) for each in sorted(config.regimes)]
    return {
        "format": 2,
        "site_key": site.site_key,
        "controller": {"name": controller, "contact": config.controller.contact},
        "policy_url": config.policy_url,
        "expiry_days": config.expiry_days,
        "theme": config.theme.model_dump(),
        "purposes": [
            each.model_dump(include={"id", "required", "denied_by_gpc", "sensitive"})
            for each in config.purposes
        ],
        "mapping": dict(config.mapping),
        "trackers": [each.model_dump() for each in config.trackers],
        "tags": [each.model_dump() for each in config.tags],
        "modules": list(config.modules),
        "default_language": config.default_language,
        "languages": {
            tag: _named(language_of(config, tag), controller) for tag in config.languages
        },
        "regimes": {
            each.id: {
                "mode": each.mode,
                "honours_gpc": each.honours_gpc,
                "shown": each.mode != "opt_out" or config.shows_opt_out_banner,
            }
            for each in allowed
        },
    }


def _named(language: dict[str, Any], controller: str) -> dict[str, Any]:
    texts = {
        key: text.replace("{controller}", controller) for key, text in language["texts"].items()
    }
    return {**language, "texts": texts}


def banner(
    site: Site,
    version: NoticeVersion | None,
    lang: str | None,
    region: str | None,
    gpc: bool = False,
) -> dict[str, Any]:
    """What a visitor is shown (``app.sites.banner.show``); without a version: what the draft would
    show."""
    notice = directory.notice_of(version) if version else draft_notice(site)
    return show(notice, [lang] if lang else [], region, gpc=gpc)


def draft_notice(site: Site, live: NoticeVersion | None = None) -> Notice:
    """The draft as if it were published; its ``news`` are against ``live``."""
    content = content_of(site)
    return directory.notice_of(
        NoticeVersion(
            id="ntv_draft",
            site_id=site.id,
            number=0,
            sha256=sha256_of(content),
            content=content,
            news={live.id: news(live.content, content)} if live else None,
            published_at=site.created_at,
            published_by="",
        )
    )


def has_unpublished_changes(site: Site, published: NoticeVersion | None) -> bool:
    return published is None or published.sha256 != sha256_of(content_of(site))
