"""Table: mail waiting to go out."""

from __future__ import annotations

import datetime as dt

from sqlmodel import Field

from app.core.db import Id, Main, Moment


class OutgoingMail(Main, table=True):
    """A mail to the holder's contact address; what it says beyond the template is sealed
    under the holder's data key.
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
