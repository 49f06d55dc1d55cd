"""Tables: configured destinations and tasks for humans."""

from __future__ import annotations

import datetime as dt
from typing import Any

from sqlmodel import Field

from app.core.db import Id, Json, Main, Moment


class Destination(Main, table=True):
    """A configured connector. ``settings`` holds no secret; ``secrets_sealed`` holds them all.

    Empty ``purposes`` / ``kinds`` / ``regimes`` mean all. A deleted destination stays for its
    deliveries' names.
    """

    __tablename__ = "destination"

    id: str = Field(primary_key=True, sa_type=Id)
    workspace_id: str = Field(foreign_key="workspace.id", sa_type=Id, index=True)
    name: str
    connector: str
    settings: dict[str, Any] = Field(sa_type=Json)
    secrets_sealed: bytes
    is_enabled: bool = True
    purposes: list[str] = Field(default_factory=list, sa_type=Json)
    kinds: list[str] = Field(default_factory=list, sa_type=Json)
    regimes: list[str] = Field(default_factory=list, sa_type=Json)
    is_identity_source: bool = False
    expiry_days: int = 30
    version: int = 1
    created_at: dt.datetime = Field(sa_type=Moment)
    deleted_at: dt.datetime | None = Field(default=None, sa_type=Moment)
    tested_at: dt.datetime | None = Field(default=None, sa_type=Moment)
    test_error: str | None = None
    """Why the newest test failed; None when it went well."""


class HumanTask(Main, table=True):
    """Work of the ``manual`` connector; ticked off with who and when.

    The person's identifiers stay sealed elsewhere.
    """

    __tablename__ = "human_task"

    id: str = Field(primary_key=True, sa_type=Id)
    workspace_id: str = Field(sa_type=Id, index=True)
    destination_id: str = Field(foreign_key="destination.id", sa_type=Id)
    delivery_id: str = Field(unique=True, sa_type=Id)
    operation: str
    instructions: str
    assignee: str | None = None
    due_at: dt.datetime | None = Field(default=None, sa_type=Moment)
    state: str = "open"
    """open, done, absent or refused"""
    closed_by: str | None = None
    closed_at: dt.datetime | None = Field(default=None, sa_type=Moment)
    note: str | None = None
    created_at: dt.datetime = Field(sa_type=Moment)
