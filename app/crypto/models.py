"""Tables: data keys (key store) and signing keys."""

from __future__ import annotations

import datetime as dt

from sqlmodel import Field

from app.core.db import Id, Json, Keys, Main, Moment


class DataKey(Keys, table=True):
    """The AES key of one holder (a request or a visitor), wrapped by the master key. Deleting it
    forgets the person.
    """

    __tablename__ = "data_key"

    holder_id: str = Field(primary_key=True, sa_type=Id)
    wrapped: bytes
    created_at: dt.datetime = Field(sa_type=Moment, index=True)


class SigningKey(Main, table=True):
    """An Ed25519 key for receipts; the private part is sealed under the master key. Retired keys
    stay published.
    """

    __tablename__ = "signing_key"

    kid: str = Field(primary_key=True)
    public_jwk: dict[str, str] = Field(sa_type=Json)
    private_sealed: bytes
    created_at: dt.datetime = Field(sa_type=Moment)
    retired_at: dt.datetime | None = Field(default=None, sa_type=Moment)
