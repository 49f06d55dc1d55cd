"""Tables: mail waiting to go out, and alerts."""

from __future__ import annotations

import datetime as dt
from typing import Any

import sqlalchemy as sa
from sqlmodel import Field

from app.core.db import Id, Json, Main, Moment, partial_index


class OutgoingMail(Main, table=True):
    """A mail to the holder's contact address; what it says beyond the template is sealed
    under the holder's data key. Of a mail about alerts the holder is the workspace, and nothing is
    sealed.
    """

    __tablename__ = "outgoing_mail"

    id: str = Field(primary_key=True, sa_type=Id)
    workspace_id: str = Field(sa_type=Id)
    holder_id: str = Field(sa_type=Id, index=True)
    template: str
    language: str
    context_sealed: bytes
    attempt: int = 0
    due_at: dt.datetime | None = Field(default=None, sa_type=Moment, index=True)
    """When to try (again); None: sent or given up."""
    created_at: dt.datetime = Field(sa_type=Moment)
    sent_at: dt.datetime | None = Field(default=None, sa_type=Moment)
    failed_reason: str | None = None


class Alert(Main, table=True):
    """Something that an operator must know of, from when it was seen until it was over."""

    __tablename__ = "alert"
    __table_args__ = (
        partial_index(
            "uq_alert_open", "kind", "subject_id", where="resolved_at IS NULL", unique=True
        ),
        sa.Index("ix_alert_list", "workspace_id", "id"),
        partial_index("ix_alert_open", "workspace_id", "id", where="resolved_at IS NULL"),
        sa.Index("ix_alert_resolved", "workspace_id", "resolved_at"),
        partial_index("ix_alert_tell_at", "tell_at", where="tell_at IS NOT NULL"),
    )

    id: str = Field(primary_key=True, sa_type=Id)
    workspace_id: str = Field(sa_type=Id)
    kind: str
    """See ``app.notifications.alerts.Kind``."""
    subject_id: str = Field(sa_type=Id)
    raised_at: dt.datetime = Field(sa_type=Moment)
    resolved_at: dt.datetime | None = Field(default=None, sa_type=Moment)
    detail: dict[str, Any] = Field(default_factory=dict, sa_type=Json)
    """Moments, codes and ids of ours; never an identifier of a person."""
    notified_at: dt.datetime | None = Field(default=None, sa_type=Moment)
    """When the webhook's receiver last took news of it."""
    told: str | None = None
    """The newest event that the receiver took: ``raised`` or ``resolved``."""
    tell_at: dt.datetime | None = Field(default=None, sa_type=Moment)
    """When to tell the receiver (again); None: nothing to tell, or given up."""
    tell_attempt: int = 0
