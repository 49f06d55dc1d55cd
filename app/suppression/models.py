"""Table: who must not be processed again."""

from __future__ import annotations

import datetime as dt

import sqlalchemy as sa
from sqlmodel import Field

from app.core.db import Id, Main, Moment


class Suppression(Main, table=True):
    """One person (by keyed digest), one scope (``all``, ``purpose:<id>`` or ``destination:<id>``),
    and one request that asked for it: whoever asked twice is free when both are lifted.
    """

    __tablename__ = "suppression"
    __table_args__ = (
        sa.UniqueConstraint("workspace_id", "subject_ref", "scope", "request_id"),
        sa.Index("ix_suppression_list", "workspace_id", "id"),
    )

    id: str = Field(primary_key=True, sa_type=Id)
    workspace_id: str = Field(foreign_key="workspace.id", sa_type=Id)
    subject_ref: bytes
    kind: str
    """Kind of the identifier behind the digest."""
    scope: str
    since: dt.datetime = Field(sa_type=Moment)
    expires_at: dt.datetime = Field(sa_type=Moment, index=True)
    request_id: str | None = Field(default=None, sa_type=Id, index=True)
    channel: str = ""
    """How that request came; what came by ``consent`` is lifted by consent given again."""
