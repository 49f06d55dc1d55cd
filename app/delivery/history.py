"""History goes when its time is over: by the month on PostgreSQL, in small batches on SQLite.

On PostgreSQL ``delivery``, ``delivery_transition`` and ``call`` are partitioned by the month that
their ids begin with. All rows of a delivery lie in the month of its birth: reading one touches one
partition, and dropping a month drops whole histories without leaving a dead row. A default
partition takes what has no month yet (the clock jumped); it is empty as a rule.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from psycopg.errors import LockNotAvailable
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.core.bulk import Condition, nibble
from app.core.db import Database, table_of
from app.core.ids import first_id
from app.core.logging import get_logger
from app.delivery.models import (
    Archived,
    Call,
    Delivery,
    DeliveryTransition,
    OpenCall,
    QueueActivity,
    Ready,
)

log = get_logger(__name__)

MONTHS_AHEAD = 2
ACTIVITY_KEPT = dt.timedelta(days=7)
PATIENCE = "1s"
"""Who waits for a lock makes those behind wait, too."""


@dataclass(frozen=True, slots=True)
class Partition:
    """A month, or all that was there before partitions; ids from ``low`` up to before ``high``."""

    name: str
    low: str
    high: str


@dataclass(frozen=True, slots=True)
class _Old:
    """The rows of one table before a moment, and those among them that must stay."""

    table: sa.Table
    key: str
    before: str
    stays: Sequence[Condition]

    def goes(self, row: Any) -> sa.ColumnElement[bool]:
        return sa.and_(row[self.key] < self.before, *(~stays(row) for stays in self.stays))


_PARTITIONED = (
    (table_of(Delivery), "id", "dlv"),
    (table_of(DeliveryTransition), "delivery_id", "dlv"),
    (table_of(Call), "id", "call"),
)


async def make_months(database: Database, now: dt.datetime) -> None:
    """See to it that this month and the next ones have partitions."""
    if database.is_sqlite:
        return
    for table, key, prefix in _PARTITIONED:
        async with _changing(database, table) as session:
            known = await partitions(session, table.name)
            for month, end in _months(now):
                low, high = first_id(prefix, month), first_id(prefix, end)
                if not any(each.low <= low and high <= each.high for each in known):
                    await _add(session, table, key, Partition(_name(table, month), low, high))


async def remove_old(database: Database, oldest: dt.datetime, is_under_way: Condition) -> int:
    """Remove what began before ``oldest``, but for live and archived deliveries and those whose
    request (its id is given to ``is_under_way``) is not over. Returns how many rows or months went.

    A delivery goes before its transitions, so that nobody finds one without the other.
    """
    removed = 0
    for old in _history(oldest, is_under_way):
        rows = old.table
        if not database.is_sqlite:
            while await _drop_month(database, old):
                removed += 1
            rows = _like(old.table, f"{old.table.name}_default")
        removed += await nibble(database, rows, old.goes)
    return removed


async def remove_activity(database: Database, now: dt.datetime) -> int:
    """Remove counts nobody looks at any more."""
    return await nibble(database, table_of(QueueActivity), lambda row: row.at < now - ACTIVITY_KEPT)


def _history(oldest: dt.datetime, is_under_way: Condition) -> tuple[_Old, ...]:
    born, called = first_id("dlv", oldest), first_id("call", oldest)

    def is_live(row: Any) -> sa.ColumnElement[bool]:
        return sa.exists().where(col(Ready.delivery_id) == row.id)

    def is_archived(row: Any) -> sa.ColumnElement[bool]:
        return sa.exists().where(col(Archived.delivery_id) == row.id)

    def has_open_request(row: Any) -> sa.ColumnElement[bool]:
        return is_under_way(row.request_id)

    def has_delivery(row: Any) -> sa.ColumnElement[bool]:
        return sa.exists().where(col(Delivery.id) == row.delivery_id, col(Delivery.id) < born)

    def is_open(row: Any) -> sa.ColumnElement[bool]:
        return sa.exists().where(
            col(OpenCall.queue_id) == row.queue_id, col(OpenCall.call_id) == row.id
        )

    return (
        _Old(table_of(Delivery), "id", born, (is_live, is_archived, has_open_request)),
        _Old(table_of(DeliveryTransition), "delivery_id", born, (has_delivery,)),
        _Old(table_of(Call), "id", called, (is_open,)),
    )


# PostgreSQL: months


async def partitions(session: AsyncSession, table: str) -> list[Partition]:
    """A table's partitions but the default one, oldest first."""
    rows = await session.execute(
        sa.text(
            "SELECT c.relname, coalesce(substring(bound FROM $$FROM \\('(.+?)'\\)$$), ''), "
            "substring(bound FROM $$TO \\('(.+?)'\\)$$) "
            "FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid, "
            "pg_get_expr(c.relpartbound, c.oid) bound "
            "WHERE i.inhparent = CAST(:name AS regclass) AND bound <> 'DEFAULT'"
        ),
        {"name": table},
    )
    return sorted((Partition(*row) for row in rows), key=lambda each: each.low)


@asynccontextmanager
async def _changing(database: Database, table: sa.Table) -> AsyncIterator[AsyncSession]:
    """A transaction in which nobody else changes the table's partitions.

    When a lock is not to be had within a second, it is given up: in an hour is another chance.
    """
    try:
        async with database.writing() as session:
            await session.execute(sa.text(f"SET LOCAL lock_timeout = '{PATIENCE}'"))
            await session.execute(
                sa.text(f"LOCK TABLE ONLY {table.name} IN SHARE UPDATE EXCLUSIVE MODE")
            )
            yield session
    except OperationalError as error:
        if not isinstance(error.orig, LockNotAvailable):
            raise
        log.warning("history_busy", kind=table.name)


def _months(now: dt.datetime) -> Iterator[tuple[dt.datetime, dt.datetime]]:
    """This month and those ahead: start and end."""
    start = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    for _ in range(1 + MONTHS_AHEAD):
        end = (start + dt.timedelta(days=32)).replace(day=1)
        yield start, end
        start = end


def _name(table: sa.Table, month: dt.datetime) -> str:
    return f"{table.name}_{month:%Y_%m}"


async def _add(session: AsyncSession, table: sa.Table, key: str, month: Partition) -> None:
    """A new month, with what the default partition holds of it."""
    default = f"{table.name}_default"
    within = f"{key} >= '{month.low}' AND {key} < '{month.high}'"
    for statement in (
        f"LOCK TABLE {default} IN ACCESS EXCLUSIVE MODE",
        f"CREATE TABLE {month.name} (LIKE {table.name})",
        f"WITH moved AS (DELETE FROM {default} WHERE {within} RETURNING *) "  # noqa: S608
        f"INSERT INTO {month.name} SELECT * FROM moved",
        f"ALTER TABLE {table.name} ATTACH PARTITION {month.name} "
        f"FOR VALUES FROM ('{month.low}') TO ('{month.high}')",
    ):
        await session.execute(sa.text(statement))


async def _drop_month(database: Database, old: _Old) -> bool:
    """Drop the first partition that is old enough and holds nothing that must stay."""
    async with _changing(database, old.table) as session:
        for each in await partitions(session, old.table.name):
            if each.high <= old.before and not await _has_to_stay(session, each, old):
                await session.execute(sa.text(f"DROP TABLE {each.name}"))
                log.info("history_dropped", kind=each.name)
                return True
    return False


async def _has_to_stay(session: AsyncSession, partition: Partition, old: _Old) -> bool:
    rows = _like(old.table, partition.name)
    for stays in old.stays:
        found = sa.select(sa.literal(1)).select_from(rows).where(stays(rows.c)).limit(1)
        if (await session.execute(found)).first() is not None:
            return True
    return False


def _like(table: sa.Table, name: str) -> sa.Table:
    return table.to_metadata(sa.MetaData(), name=name)
