"""Table: receipts."""

from __future__ import annotations

import datetime as dt
from typing import Any

from sqlmodel import Field

from app.core.db import Id, Json, Main, Moment, partial_index


class Receipt(Main, table=True):
    """A statement about a request: claims are written with what they state, the signature follows
    in a task of its own.
    """

    __tablename__ = "receipt"
    __table_args__ = (
        partial_index("uq_receipt_final", "request_id", where="is_final", unique=True),
        partial_index("ix_receipt_unsigned", "id", where="jws IS NULL"),
    )

    id: str = Field(primary_key=True, sa_type=Id)
    workspace_id: str = Field(sa_type=Id, index=True)
    request_id: str = Field(sa_type=Id, index=True)
    is_final: bool
    claims: dict[str, Any] = Field(sa_type=Json)
    jws: str | None = None
    created_at: dt.datetime = Field(sa_type=Moment)
    signed_at: dt.datetime | None = Field(default=None, sa_type=Moment)
