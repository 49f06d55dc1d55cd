"""Tables: data subject requests, their batches, links and timeline."""

from __future__ import annotations

import datetime as dt
from typing import Any

import sqlalchemy as sa
from sqlmodel import Field

from app.core.db import Id, Json, Main, Moment, partial_index


class Batch(Main, table=True):
    """A bulk intake."""

    __tablename__ = "batch"

    id: str = Field(primary_key=True, sa_type=Id)
    workspace_id: str = Field(foreign_key="workspace.id", sa_type=Id)
    total: int
    created_at: dt.datetime = Field(sa_type=Moment)


class SubjectRequest(Main, table=True):
    """What a person (or a program for one) asks for: kind, regime, state, clocks. Holds no
    identifier.
    """

    __tablename__ = "subject_request"
    __table_args__ = (
        sa.Index("ix_subject_request_list", "workspace_id", "id"),
        sa.Index("ix_subject_request_status", "workspace_id", "status", "id"),
        # Resolving is a step of its own: those who wait for it stand in nobody's way.
        partial_index("ix_subject_request_resolving", "next_step_at", where="status = 'resolving'"),
        partial_index(
            "ix_subject_request_next",
            "next_step_at",
            where="next_step_at IS NOT NULL AND status <> 'resolving'",
        ),
        partial_index("ix_subject_request_known", "received_at", where="forgotten_at IS NULL"),
        partial_index("ix_subject_request_deadline", "due_at", where="completed_at IS NULL"),
    )

    id: str = Field(primary_key=True, sa_type=Id)
    workspace_id: str = Field(foreign_key="workspace.id", sa_type=Id)
    site_id: str | None = Field(default=None, sa_type=Id)
    batch_id: str | None = Field(default=None, sa_type=Id, index=True)
    kind: str
    regime: str
    status: str
    channel: str
    """form, api, bulk, cli, consent, operator or host_token"""
    verification: str = "none"
    """email_link, api_key, operator, visitor or none"""
    language: str = "en"
    identifier_kinds: list[str] = Field(sa_type=Json)
    purposes: list[str] = Field(default_factory=list, sa_type=Json)
    """For opt-outs: the purposes withdrawn; empty: all."""
    destination_ids: list[str] | None = Field(default=None, sa_type=Json)
    """Only these destinations; None: all that fit."""
    received_at: dt.datetime = Field(sa_type=Moment)
    acknowledge_by: dt.datetime | None = Field(default=None, sa_type=Moment)
    due_at: dt.datetime = Field(sa_type=Moment)
    extended_until: dt.datetime | None = Field(default=None, sa_type=Moment)
    verified_at: dt.datetime | None = Field(default=None, sa_type=Moment)
    completed_at: dt.datetime | None = Field(default=None, sa_type=Moment)
    delivered_at: dt.datetime | None = Field(default=None, sa_type=Moment)
    """When the final receipt reached the person."""
    forget_at: dt.datetime | None = Field(default=None, sa_type=Moment)
    forgotten_at: dt.datetime | None = Field(default=None, sa_type=Moment)
    outcome: str | None = None
    duplicate_of: str | None = Field(default=None, sa_type=Id, index=True)
    asked_by: str = ""
    """The key, operator or channel it came from; who asked for many cannot approve them alone."""
    approval_reason: str | None = None
    """Why an operator must approve it; kept through holds until somebody does."""
    hold_reason: str | None = None
    held_status: str | None = None
    """The status to return to on release."""
    denial_reason: str | None = None
    denial_note: str | None = None
    receipt_id: str | None = Field(default=None, sa_type=Id)
    open_count: int = 0
    """Deliveries not settled yet, over both phases."""
    phase: int = 0
    """The phase whose deliveries are under way; 0: none planned."""
    phase_open_count: int = 0
    has_contact: bool = False
    next_step_at: dt.datetime | None = Field(default=None, sa_type=Moment)
    """When the request should be looked at again: cooling-off, resolve, expiry, forgetting."""


RESOLVING = sa.literal_column("'resolving'", sa.String)
"""The status in statements that go by an index of it: a bound value could be any."""


class RequestEvent(Main, table=True):
    """One line of a request's timeline. Append-only."""

    __tablename__ = "request_event"
    __table_args__ = (sa.Index("ix_request_event_request", "request_id", "id"),)

    id: str = Field(primary_key=True, sa_type=Id)
    request_id: str = Field(sa_type=Id)
    at: dt.datetime = Field(sa_type=Moment)
    type: str
    actor: str
    delivery_id: str | None = Field(default=None, sa_type=Id)
    data: dict[str, Any] = Field(default_factory=dict, sa_type=Json)


class ConfirmationLink(Main, table=True):
    """A single-use link bound to one request; only the digest of its token is kept."""

    __tablename__ = "confirmation_link"

    token_sha256: bytes = Field(primary_key=True)
    request_id: str = Field(foreign_key="subject_request.id", sa_type=Id, index=True)
    created_at: dt.datetime = Field(sa_type=Moment)
    expires_at: dt.datetime = Field(sa_type=Moment)
    used_at: dt.datetime | None = Field(default=None, sa_type=Moment)
    revoked_at: dt.datetime | None = Field(default=None, sa_type=Moment)
