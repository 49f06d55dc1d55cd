"""Tables: workspaces, operators and their sessions, API keys, idempotency records, audit log."""

from __future__ import annotations

import datetime as dt
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlmodel import Field

from app.core.db import Id, Json, Main, Moment


class Role(StrEnum):
    """owner: everything; operator: requests and configuration; viewer: reads, without secrets or
    identifiers.
    """

    OWNER = "owner"
    OPERATOR = "operator"
    VIEWER = "viewer"


class Workspace(Main, table=True):
    """The controller's tenant; every row belongs to one."""

    __tablename__ = "workspace"

    id: str = Field(primary_key=True, sa_type=Id)
    name: str
    timezone: str = "UTC"
    jurisdiction: str = ""
    contact: str = ""
    is_demo: bool = False
    suppress_after_erasure: bool = True
    created_at: dt.datetime = Field(sa_type=Moment)


class Admin(Main, table=True):
    """A person who signs in to the dashboard."""

    __tablename__ = "admin"
    __table_args__ = (sa.UniqueConstraint("email"),)

    id: str = Field(primary_key=True, sa_type=Id)
    workspace_id: str = Field(foreign_key="workspace.id", sa_type=Id, index=True)
    email: str
    role: str
    password_hash: str
    totp_sealed: bytes | None = None
    totp_last_step: int = 0
    created_at: dt.datetime = Field(sa_type=Moment)
    disabled_at: dt.datetime | None = Field(default=None, sa_type=Moment)


class AdminInvite(Main, table=True):
    """A one-time link that lets its holder set up an account; only the digest of its token
    is kept.
    """

    __tablename__ = "admin_invite"

    id: str = Field(primary_key=True, sa_type=Id)
    workspace_id: str = Field(foreign_key="workspace.id", sa_type=Id)
    token_sha256: bytes = Field(unique=True)
    role: str
    email: str | None = None
    created_at: dt.datetime = Field(sa_type=Moment)
    expires_at: dt.datetime = Field(sa_type=Moment)
    used_at: dt.datetime | None = Field(default=None, sa_type=Moment)


class AdminSession(Main, table=True):
    """A signed-in browser; only the digest of its id is kept."""

    __tablename__ = "admin_session"

    token_sha256: bytes = Field(primary_key=True)
    admin_id: str = Field(foreign_key="admin.id", sa_type=Id, index=True)
    csrf: str
    created_at: dt.datetime = Field(sa_type=Moment)
    seen_at: dt.datetime = Field(sa_type=Moment)
    authenticated_at: dt.datetime = Field(sa_type=Moment)


class ApiKey(Main, table=True):
    """A program's key; only the digest of its secret is kept."""

    __tablename__ = "api_key"

    id: str = Field(primary_key=True, sa_type=Id)
    workspace_id: str = Field(foreign_key="workspace.id", sa_type=Id, index=True)
    name: str
    hint: str
    """The first characters, to recognise it."""
    secret_sha256: bytes = Field(unique=True)
    scopes: list[str] = Field(sa_type=Json)
    created_by: str
    created_at: dt.datetime = Field(sa_type=Moment)
    last_used_at: dt.datetime | None = Field(default=None, sa_type=Moment)
    expires_at: dt.datetime | None = Field(default=None, sa_type=Moment)
    revoked_at: dt.datetime | None = Field(default=None, sa_type=Moment)


class IdempotencyRecord(Main, table=True):
    """The answer kept under a caller's ``Idempotency-Key``; the fingerprint is a keyed digest of
    the body.
    """

    __tablename__ = "idempotency_record"

    workspace_id: str = Field(primary_key=True, sa_type=Id)
    route: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    fingerprint: bytes
    status: int | None = None
    body: dict[str, Any] | None = Field(default=None, sa_type=Json)
    created_at: dt.datetime = Field(sa_type=Moment, index=True)


class AuditEntry(Main, table=True):
    """Who did what to which thing; append-only, without identifiers or secrets."""

    __tablename__ = "audit_entry"

    id: str = Field(primary_key=True, sa_type=Id)
    workspace_id: str = Field(foreign_key="workspace.id", sa_type=Id, index=True)
    at: dt.datetime = Field(sa_type=Moment)
    actor: str
    verb: str
    target: str
    data: dict[str, Any] = Field(default_factory=dict, sa_type=Json)
