"""Tables: consent records (append-only), their receipts, and the outbox of withdrawals."""

from __future__ import annotations

import datetime as dt

import sqlalchemy as sa
from sqlmodel import Field

from app.consent.state import BY_CHOICE
from app.core.db import Id, Json, Main, Moment, partial_index

_METHODS = ", ".join(f"'{each}'" for each in sorted(BY_CHOICE))
IS_CHOICE = f"method IN ({_METHODS})"
"""Of a record: an explicit choice."""
IS_SIGNAL = f"is_gpc_applied AND method NOT IN ({_METHODS})"
"""Of a record: made because of the browser's opt-out signal."""
_OF_VISITOR = ("site_id", "visitor_id", "decided_at")


class ConsentRecord(Main, table=True):
    """Proof of one choice. Append-only; the newest ``decided_at`` decides, on a tie denied wins."""

    __tablename__ = "consent_record"
    __table_args__ = (
        sa.UniqueConstraint("site_id", "event_id"),
        sa.Index("ix_consent_record_visitor", *_OF_VISITOR),
        partial_index("ix_consent_record_choice", *_OF_VISITOR, where=IS_CHOICE),
        partial_index("ix_consent_record_signal", *_OF_VISITOR, where=IS_SIGNAL),
        sa.Index("ix_consent_record_recorded", "workspace_id", "recorded_at"),
    )

    id: str = Field(primary_key=True, sa_type=Id)
    workspace_id: str = Field(sa_type=Id)
    site_id: str = Field(foreign_key="site.id", sa_type=Id)
    notice_version_id: str = Field(foreign_key="notice_version.id", sa_type=Id)
    visitor_id: str
    event_id: str
    choices: dict[str, bool] = Field(sa_type=Json)
    method: str
    language: str
    region: str | None = None
    regime: str
    gpc: bool
    is_gpc_applied: bool
    page: str | None = None
    fingerprint: bytes
    """Keyed digest of what was posted: tells a repeat from a different choice under the same event
    id."""
    decided_at: dt.datetime = Field(sa_type=Moment)
    recorded_at: dt.datetime = Field(sa_type=Moment)
    expires_at: dt.datetime = Field(sa_type=Moment)


class ConsentOutbox(Main, table=True):
    """A withdrawal (or a new grant) waiting to become a request; written in the transaction of its
    record."""

    __tablename__ = "consent_outbox"

    id: str = Field(primary_key=True, sa_type=Id)
    workspace_id: str = Field(sa_type=Id)
    site_id: str = Field(sa_type=Id)
    visitor_id: str
    consent_id: str = Field(sa_type=Id)
    regime: str
    purposes: list[str] = Field(sa_type=Json)
    is_grant: bool = False
    """The purposes were granted again; else withdrawn."""
    created_at: dt.datetime = Field(sa_type=Moment)


class ConsentReceipt(Main, table=True):
    """The signed statement of one record; written when it is first asked for, never changed."""

    __tablename__ = "consent_receipt"

    consent_id: str = Field(primary_key=True, foreign_key="consent_record.id", sa_type=Id)
    workspace_id: str = Field(sa_type=Id)
    jws: str
    signed_at: dt.datetime = Field(sa_type=Moment)


class VisitorLink(Main, table=True):
    """A visitor known by identifiers, which lie sealed under the holder ``id``."""

    __tablename__ = "visitor_link"
    __table_args__ = (
        sa.UniqueConstraint("site_id", "visitor_id"),
        partial_index("ix_visitor_link_idle_until", "idle_until", where="idle_until IS NOT NULL"),
    )

    id: str = Field(primary_key=True, sa_type=Id)
    workspace_id: str = Field(sa_type=Id)
    site_id: str = Field(foreign_key="site.id", sa_type=Id)
    visitor_id: str
    subject_ref: bytes = Field(index=True)
    """Digest of the visitor id as an ``anonymous_id``."""
    created_at: dt.datetime = Field(sa_type=Moment)
    idle_until: dt.datetime | None = Field(default=None, sa_type=Moment)
    """When it ends if the visitor has chosen nothing by then; null: with its values."""


class ConsentView(Main, table=True):
    """How often a banner came into view on one day (UTC); of nobody in particular."""

    __tablename__ = "consent_view"
    __table_args__ = (sa.Index("ix_consent_view_workspace_id_day", "workspace_id", "day"),)

    site_id: str = Field(primary_key=True, foreign_key="site.id", sa_type=Id)
    day: dt.date = Field(primary_key=True)
    notice_version_id: str = Field(primary_key=True, foreign_key="notice_version.id", sa_type=Id)
    language: str = Field(primary_key=True)
    regime: str = Field(primary_key=True)
    workspace_id: str = Field(sa_type=Id)
    count: int
