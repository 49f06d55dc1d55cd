"""The state of all queues as Prometheus gauges, read from the database when somebody asks, and kept
for some seconds.

They have a registry of their own: a process that cannot ask the database shows none, rather than
zeros.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import Any

import sqlalchemy as sa
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.clock import utc_now
from app.core.db import Database, Moment
from app.delivery.waiting import is_free, is_leased, is_running, queue
from app.notifications import alerts

KEPT = dt.timedelta(seconds=10)
NAMED = 100
"""Destinations in trouble that are shown by name, at most."""
_LONG_AGO = dt.datetime(1971, 1, 1, tzinfo=dt.UTC)
"""A boosted queue with work is due since 1970."""


class Gauges:
    """All gauges; ``text`` brings them up to date."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = asyncio.Lock()
        self._read_at: dt.datetime | None = None
        self.registry = CollectorRegistry()
        self._due = self._gauge("queues_due", "Queues that somebody should look at now")
        self._oldest_due = self._gauge(
            "queue_oldest_due_seconds", "How long the queue that waits longest has been due"
        )
        self._leased = self._gauge("queues_leased", "Queues that a dispatcher holds")
        self._oldest_lease = self._gauge("queue_oldest_lease_seconds", "Age of the oldest lease")
        self._paused = self._gauge("queues_paused", "Queues that somebody paused")
        self._parked = self._gauge("queues_parked", "Queues whose destination refuses us")
        self._open = self._gauge("queues_open", "Queues with an open breaker")
        self._up = self._gauge(
            "destination_up",
            f"0: parked, or its breaker is open (the first {NAMED}); others are not listed",
            "destination_id",
        )
        self._alerts = self._gauge("alerts_open", "Alerts that are not resolved", "kind")

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"quittance_{name}", text, labels, registry=self.registry)

    async def text(self) -> bytes:
        """In Prometheus' text format. Scrapes that come together read the database once."""
        async with self._lock:
            now = utc_now()
            if self._read_at is None or not self._read_at <= now < self._read_at + KEPT:
                async with self._database.reading() as session:
                    await self._read(session, now)
                self._read_at = now
        return generate_latest(self.registry)

    async def _read(self, session: AsyncSession, now: dt.datetime) -> None:
        row = (await session.execute(_counts(now))).one()
        self._due.set(row.due)
        self._oldest_due.set(_age(row.oldest_due, now))
        self._leased.set(row.leased)
        self._oldest_lease.set(_age(row.oldest_lease, now))
        self._paused.set(row.paused)
        self._parked.set(row.parked)
        self._open.set(row.open)
        self._up.clear()
        for destination_id in (await session.execute(_in_trouble(now))).scalars():
            self._up.labels(destination_id).set(0)
        counts = await alerts.open_counts(session)
        for kind in alerts.Kind:
            self._alerts.labels(kind).set(counts.get(kind, 0))


def _age(since: dt.datetime | None, now: dt.datetime) -> float:
    return 0.0 if since is None else max(0.0, (now - since).total_seconds())


def _is_open(now: dt.datetime) -> sa.ColumnElement[bool]:
    """Held back by its breaker, not by a rate."""
    return sa.and_(queue.c.not_before > now, queue.c.breaker["until"].as_string().is_not(None))


def _counts(now: dt.datetime) -> sa.Select[Any]:
    """One index range each."""

    def of(expression: Any, *conditions: Any) -> Any:
        return sa.select(expression).where(*conditions).scalar_subquery()

    count = sa.func.count()
    oldest_due = of(sa.func.min(queue.c.next_due), queue.c.next_due > _LONG_AGO, is_free(now))
    oldest_lease = of(sa.func.min(queue.c.leased_at), is_leased(now))
    return sa.select(
        of(count, queue.c.next_due <= now, is_free(now)).label("due"),
        sa.type_coerce(oldest_due, Moment()).label("oldest_due"),
        of(count, is_leased(now)).label("leased"),
        sa.type_coerce(oldest_lease, Moment()).label("oldest_lease"),
        of(count, queue.c.is_paused).label("paused"),
        of(count, queue.c.parked_reason.is_not(None)).label("parked"),
        of(count, _is_open(now)).label("open"),
    )


def _in_trouble(now: dt.datetime) -> sa.Select[Any]:
    parked = sa.select(queue.c.id).where(queue.c.parked_reason.is_not(None)).limit(NAMED)
    failing = sa.select(queue.c.id).where(_is_open(now), is_running()).limit(NAMED)
    both = sa.union_all(sa.select(parked.subquery()), sa.select(failing.subquery())).subquery()
    return sa.select(both.c.id).limit(NAMED)
