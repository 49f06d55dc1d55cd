"""Tables of the engine: immutable deliveries, append-only history, and a small working set.

``delivery``, ``delivery_transition`` and ``call`` are only ever inserted into. ``ready``,
``open_call`` and ``virtual_queue`` are the working set: small, changed in place, and rebuildable
from the history. On PostgreSQL the history is partitioned by the month its ids begin with, see
``app.delivery.history``. ``queue_activity`` are counts for people's eyes; losing some harms nobody.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import sqlalchemy as sa
from sqlmodel import Field

from app.core.db import Id, Json, Main, Moment, partial_index


class Delivery(Main, table=True):
    """One request x one destination x one operation; names the identifiers it uses. Immutable."""

    __tablename__ = "delivery"
    __table_args__ = ({"postgresql_partition_by": "RANGE (id)"},)

    id: str = Field(primary_key=True, sa_type=Id)
    workspace_id: str = Field(sa_type=Id)
    request_id: str = Field(sa_type=Id, index=True)
    destination_id: str = Field(foreign_key="destination.id", sa_type=Id)
    operation: str
    identifier_ids: list[str] = Field(sa_type=Json)
    phase: int = 1
    """Identity sources are erased in phase 2, after all others."""
    due_at: dt.datetime | None = Field(default=None, sa_type=Moment)
    """The law's deadline, for order and for humans."""
    created_at: dt.datetime = Field(sa_type=Moment)
    expires_at: dt.datetime = Field(sa_type=Moment)


class DeliveryTransition(Main, table=True):
    """One step in a delivery's life. Append-only; the greatest ``seq`` is the present state."""

    __tablename__ = "delivery_transition"
    __table_args__ = ({"postgresql_partition_by": "RANGE (delivery_id)"},)

    delivery_id: str = Field(primary_key=True, sa_type=Id)
    seq: int = Field(primary_key=True)
    at: dt.datetime = Field(sa_type=Moment)
    state: str
    detail: str | None = None
    assurance: str = "requested"
    attempt: int = 0
    duration_ms: int | None = None
    http_status: int | None = None
    reason: str | None = None
    retry_at: dt.datetime | None = Field(default=None, sa_type=Moment)
    call_id: str | None = Field(default=None, sa_type=Id)
    evidence: dict[str, Any] | None = Field(default=None, sa_type=Json)
    """Counts and codes, a salted digest of the answer, declared residuals; never an identifier."""


class Call(Main, table=True):
    """One vendor call with its deliveries; written before it is made, never changed. The id is its
    idempotency key.
    """

    __tablename__ = "call"
    __table_args__ = ({"postgresql_partition_by": "RANGE (id)"},)

    id: str = Field(primary_key=True, sa_type=Id)
    queue_id: str = Field(sa_type=Id)
    token: int
    operation: str
    delivery_ids: list[str] = Field(sa_type=Json)
    attempt: int
    job: str | None = None
    """Set when the call asks about a vendor's job instead of starting one."""
    created_at: dt.datetime = Field(sa_type=Moment)


class OpenCall(Main, table=True):
    """A call that has not settled; left behind by a crash, it is sent again unchanged before new
    work.
    """

    __tablename__ = "open_call"

    queue_id: str = Field(primary_key=True, sa_type=Id)
    call_id: str = Field(primary_key=True, sa_type=Id)
    leases: int = 1
    """How many leases have tried it; after five its deliveries go one by one."""


class Ready(Main, table=True):
    """A live delivery's place in its queue, with the counters its next attempt needs."""

    __tablename__ = "ready"
    __table_args__ = (
        sa.Index("ix_ready_order", "queue_id", "rank", "due_at", "delivery_id"),
        partial_index("ix_ready_expires_at", "expires_at", where="job IS NULL"),
        # Long handles are left out: no row may be too large for its index.
        partial_index("ix_ready_job", "queue_id", "job", where="length(job) <= 600"),
    )

    delivery_id: str = Field(primary_key=True, sa_type=Id)
    queue_id: str = Field(sa_type=Id)
    rank: int
    """See ``app.delivery.order``: whose person is started goes before whose deadline is near."""
    due_at: dt.datetime = Field(sa_type=Moment)
    """Not before. What was never tried is due since it was planned."""
    placed_at: dt.datetime = Field(sa_type=Moment)
    """Waits here since; see ``VirtualQueue.eager_before``."""
    operation: str
    attempt: int = 0
    seq: int = 1
    job: str | None = None
    job_since: dt.datetime | None = Field(default=None, sa_type=Moment)
    expires_at: dt.datetime = Field(sa_type=Moment)
    """Counts until a vendor's job was begun; that has a time of its own to give up."""
    call_id: str | None = Field(default=None, sa_type=Id)
    """The open call that carries it now."""


FIRST_LIMIT = 4
"""Calls at once to a destination nothing is known of."""


class VirtualQueue(Main, table=True):
    """All live deliveries of one destination (its id is the destination's): order, lease, limits,
    health.
    """

    __tablename__ = "virtual_queue"
    __table_args__ = (
        sa.Index("ix_virtual_queue_next_due", "next_due"),
        partial_index(
            "ix_virtual_queue_lease_until", "lease_until", where="lease_until IS NOT NULL"
        ),
        partial_index("ix_virtual_queue_not_before", "not_before", where="not_before IS NOT NULL"),
        partial_index("ix_virtual_queue_parked", "parked_at", where="parked_reason IS NOT NULL"),
        partial_index("ix_virtual_queue_paused", "id", where="is_paused", sqlite="is_paused = 1"),
    )

    id: str = Field(primary_key=True, sa_type=Id)
    workspace_id: str = Field(sa_type=Id, index=True)
    next_due: dt.datetime | None = Field(default=None, sa_type=Moment)
    """When somebody should look; None: nothing to do, paused or parked."""
    not_before: dt.datetime | None = Field(default=None, sa_type=Moment)
    """No call before: an open breaker, a spent rate window, or the destination's Retry-After."""
    eager_before: dt.datetime | None = Field(default=None, sa_type=Moment)
    """What waits since before this moment need not wait for its time: somebody flushed the queue,
    or its breaker closed.
    """
    is_boosted: bool = False
    """Looked at before all others until nothing is due."""
    lease_owner: str | None = None
    lease_until: dt.datetime | None = Field(default=None, sa_type=Moment)
    leased_at: dt.datetime | None = Field(default=None, sa_type=Moment)
    """Start of the newest lease."""
    token: int = 0
    """Fencing token: grows with every lease, guards every write of the holder."""
    deficit: int = 0
    """Deliveries that its fair share allowed and its last leases left (deficit round robin)."""
    windows: dict[str, Any] = Field(default_factory=dict, sa_type=Json)
    """Spent calls per rate window, see ``app.delivery.limits``."""
    budget: dict[str, Any] = Field(default_factory=dict, sa_type=Json)
    """What retries may spend, see ``app.delivery.limits``."""
    concurrency_limit: int = FIRST_LIMIT
    breaker: dict[str, Any] = Field(default_factory=dict, sa_type=Json)
    """See ``app.delivery.health.Breaker``."""
    last_errors: list[Any] = Field(default_factory=list, sa_type=Json)
    """The newest few: ``[Unix seconds, reason, HTTP status or null]``."""
    is_paused: bool = False
    parked_reason: str | None = None
    parked_at: dt.datetime | None = Field(default=None, sa_type=Moment)
    parked_version: int | None = None
    """The destination's version that was parked: mending it sets the queue going again."""


class QueueActivity(Main, table=True):
    """How often something happened in a queue during five minutes; ``at`` is their start."""

    __tablename__ = "queue_activity"
    __table_args__ = (sa.Index("ix_queue_activity_at", "at"),)

    queue_id: str = Field(primary_key=True, sa_type=Id)
    at: dt.datetime = Field(primary_key=True, sa_type=Moment)
    event: str = Field(primary_key=True)
    """``calls``, ``duration_ms`` (their sum), and per delivery ``retried``, ``discarded``, or
    ``succeeded:<attempt>``.
    """
    count: int = Field(sa_type=sa.BigInteger)


class Archived(Main, table=True):
    """A delivery that ran out of time: a legal risk until it is replayed, waived or cancelled, and
    then gone from here.
    """

    __tablename__ = "archived"
    __table_args__ = (
        sa.Index("ix_archived_workspace", "workspace_id", "archived_at", "delivery_id"),
        sa.Index("ix_archived_file", "file", "archived_at", "delivery_id"),
        sa.Index("ix_archived_request_id", "request_id"),
    )

    delivery_id: str = Field(primary_key=True, sa_type=Id)
    workspace_id: str = Field(sa_type=Id)
    request_id: str = Field(sa_type=Id)
    queue_id: str = Field(sa_type=Id)
    archived_at: dt.datetime = Field(sa_type=Moment)
    file: str | None = Field(default=None, sa_type=Id)
    """The file that holds its line, or will: see ``ArchiveFile.write_at``."""


class ArchiveFile(Main, table=True):
    """A file of the archive; it goes when none of its deliveries is in ``archived`` any more."""

    __tablename__ = "archive_file"
    __table_args__ = (sa.Index("ix_archive_file_write_at", "write_at"),)

    name: str = Field(primary_key=True, sa_type=Id)
    write_at: dt.datetime | None = Field(default=None, sa_type=Moment)
    """Not yet written: whoever comes after this moment may write it. None: it is written."""


class JobReport(Main, table=True):
    """How a vendor's job ended, as its callback said; the next poll of the job reads it here.

    It may come before our own record that the job was begun.
    """

    __tablename__ = "job_report"
    __table_args__ = (
        sa.Index("ix_job_report_expires_at", "destination_id", "expires_at"),
        sa.Index("ix_job_report_at", "at"),
    )

    destination_id: str = Field(primary_key=True, sa_type=Id)
    job: str = Field(primary_key=True)
    """See ``app.delivery.reports.key_of``."""
    at: dt.datetime = Field(sa_type=Moment)
    outcome: dict[str, Any] = Field(sa_type=Json)
    expires_at: dt.datetime = Field(sa_type=Moment)
