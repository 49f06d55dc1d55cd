"""Table: receipts."""

from __future__ import annotations

import datetime as dt
from typing import Any

import sqlalchemy as sa
from sqlmodel import Field

from app.core.db import Id, Json, Main, Moment


class Receipt(Main, table=True):
    """A statement about a request: claims are written with what they state, the signature follows
    in a task of its own.
    """

    __tablename__ = "receipt"
    __table_args__ = (
        sa.Index(
            "uq_receipt_final",
            "request_id",
            unique=True,
            postgresql_where=sa.text("is_final"),
            sqlite_where=sa.text("is_final"),
        ),
        sa.Index(
            "ix_receipt_unsigned",
            "id",
            postgresql_where=sa.text("jws IS NULL"),
            sqlite_where=sa.text("jws IS NULL"),
        ),
    )

    id: str = Field(primary_key=True, sa_type=Id)
    workspace_id: str = Field(sa_type=Id, index=True)
    request_id: str = Field(sa_type=Id, index=True)
    is_final: bool
    claims: dict[str, Any] = Field(sa_type=Json)
    jws: str | None = None
    created_at: dt.datetime = Field(sa_type=Moment)
    signed_at: dt.datetime | None = Field(default=None, sa_type=Moment)
