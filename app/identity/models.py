"""Tables: personal data, all of it sealed, in the only one that holds any; and the host tokens that
were used.
"""

from __future__ import annotations

import datetime as dt

import sqlalchemy as sa
from sqlmodel import Field

from app.core.db import Id, Main, Moment, partial_index


class PersonalValue(Main, table=True):
    """One sealed value of a holder (a request or a visitor), under the holder's data key.

    ``purpose``: identifier, contact, external_id, answer, note. For identifiers ``subject_ref`` is
    the keyed digest that finds them, ``origin`` is given or resolved, and the sealed text also
    carries the commitment's opening.
    """

    __tablename__ = "personal_value"
    __table_args__ = (
        sa.Index("ix_personal_value_subject", "workspace_id", "subject_ref"),
        partial_index("ix_personal_value_expires_at", "expires_at", where="expires_at IS NOT NULL"),
    )

    id: str = Field(primary_key=True, sa_type=Id)
    workspace_id: str = Field(sa_type=Id)
    holder_id: str = Field(sa_type=Id, index=True)
    purpose: str
    kind: str
    subject_ref: bytes | None = None
    commitment: str | None = None
    """What receipts show of an identifier; says nothing without the sealed opening."""
    origin: str = "given"
    sealed: bytes
    created_at: dt.datetime = Field(sa_type=Moment)
    expires_at: dt.datetime | None = Field(default=None, sa_type=Moment)


class UsedHostToken(Main, table=True):
    """A host token that must not pass again; kept until it could not pass anyway."""

    __tablename__ = "used_host_token"

    workspace_id: str = Field(primary_key=True, sa_type=Id)
    digest: bytes = Field(primary_key=True)
    """SHA-256 of its issuer and ``jti``."""
    expires_at: dt.datetime = Field(sa_type=Moment, index=True)
