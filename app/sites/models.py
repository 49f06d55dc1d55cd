"""Tables: sites and their immutable notice versions."""

from __future__ import annotations

import datetime as dt
from typing import Any

import sqlalchemy as sa
from sqlmodel import Field

from app.core.db import Id, Json, Main, Moment


class Site(Main, table=True):
    """A property with a banner. ``draft`` is the configuration being edited; visitors see the
    published version."""

    __tablename__ = "site"

    id: str = Field(primary_key=True, sa_type=Id)
    workspace_id: str = Field(foreign_key="workspace.id", sa_type=Id, index=True)
    site_key: str = Field(unique=True)
    name: str
    origins: list[str] = Field(sa_type=Json)
    draft: dict[str, Any] = Field(sa_type=Json)
    published_version_id: str | None = Field(default=None, sa_type=Id)
    is_intake_open: bool = True
    host_identity: dict[str, Any] | None = Field(default=None, sa_type=Json)
    """Whose host tokens say who is signed in: ``issuer`` and ``jwks`` or ``jwks_url``."""
    unlisted_origins: dict[str, str] | None = Field(default=None, sa_type=Json)
    """Where its banner was used from although they are not among ``origins``, and when last."""
    created_at: dt.datetime = Field(sa_type=Moment)
    deleted_at: dt.datetime | None = Field(default=None, sa_type=Moment)


class NoticeVersion(Main, table=True):
    """Everything a visitor was shown, in every language and regime: immutable and hashed (SHA-256
    of canonical JSON)."""

    __tablename__ = "notice_version"
    __table_args__ = (sa.UniqueConstraint("site_id", "number"),)

    id: str = Field(primary_key=True, sa_type=Id)
    site_id: str = Field(foreign_key="site.id", sa_type=Id)
    number: int
    sha256: str
    content: dict[str, Any] = Field(sa_type=Json)
    material: str | None = None
    """Versions of one site with the same value are answered by the same choice (None, of before
    2026-11-25: see ``changes.material``)."""
    news: dict[str, list[str]] | None = Field(default=None, sa_type=Json)
    """What is new against earlier versions: version id -> purpose ids."""
    config: dict[str, Any] | None = Field(default=None, sa_type=Json)
    """The draft it was made of (None: of before 2026-11-27)."""
    published_at: dt.datetime = Field(sa_type=Moment)
    published_by: str


class TrackerSeen(Main, table=True):
    """A name that browsers on a site reported because no rule covered it; never a value, and random
    parts of it are cut off."""

    __tablename__ = "tracker_seen"

    site_id: str = Field(primary_key=True, foreign_key="site.id", sa_type=Id)
    kind: str = Field(primary_key=True)
    """``host``, ``cookie`` or ``storage``, as in a site's trackers."""
    pattern: str = Field(primary_key=True)
    workspace_id: str = Field(sa_type=Id)
    first_seen_at: dt.datetime = Field(sa_type=Moment)
    last_seen_at: dt.datetime = Field(sa_type=Moment, index=True)
    count: int
    """Reports that named it."""
