"""What crosses HTTP about sites."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, StrictBool

from app.core.clock import rfc3339
from app.core.http import Schema
from app.sites.config import SiteConfig
from app.sites.directory import notice_of
from app.sites.host_identity import HostIdentity
from app.sites.known_trackers import suggested
from app.sites.models import NoticeVersion, Site, TrackerSeen
from app.sites.service import has_unpublished_changes

Origins = Annotated[tuple[Annotated[str, Field(max_length=300)], ...], Field(max_length=50)]
Name = Annotated[str, Field(min_length=1, max_length=100)]


class SiteIn(Schema):
    """A new site."""

    name: Name
    origins: Origins = ()
    config: SiteConfig | None = None


class SitePatch(Schema):
    """What to change; a config replaces the whole draft, ``host_identity: null`` takes it away."""

    name: Name | None = None
    origins: Origins | None = None
    config: SiteConfig | None = None
    is_intake_open: StrictBool | None = None
    host_identity: HostIdentity | None = None


def site_json(site: Site, published: NoticeVersion | None) -> dict[str, Any]:
    return {
        "id": site.id,
        "site_key": site.site_key,
        "name": site.name,
        "origins": site.origins,
        "config": site.draft,
        "is_intake_open": site.is_intake_open,
        "host_identity": site.host_identity,
        "published": version_json(published) if published else None,
        "has_unpublished_changes": has_unpublished_changes(site, published),
        "created_at": rfc3339(site.created_at),
    }


def version_json(version: NoticeVersion) -> dict[str, Any]:
    return {
        "notice_version": version.id,
        "number": version.number,
        "version_hash": version.sha256,
        "material": notice_of(version).material,
        "published_at": rfc3339(version.published_at),
        "published_by": version.published_by,
    }


def seen_json(seen: TrackerSeen, site: Site) -> dict[str, Any]:
    known = suggested(site, seen.kind, seen.pattern)
    return {
        "kind": seen.kind,
        "pattern": seen.pattern,
        "first_seen_at": rfc3339(seen.first_seen_at),
        "last_seen_at": rfc3339(seen.last_seen_at),
        "count": seen.count,
        "suggestion": {"vendor": known.vendor, "purpose": known.purpose} if known else None,
    }
