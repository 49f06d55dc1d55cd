"""Databases: one asynchronous engine per database, with sessions that either read or write.

SQLite (the embedded form) has one writer: writing sessions share a pool of one connection and begin
IMMEDIATE, so they queue up instead of failing, requests in front of background work; readers are
query-only on their own connections. On PostgreSQL both are plain transactions.
"""

from __future__ import annotations

import datetime as dt
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import sqlalchemy as sa
from pydantic_core import from_json, to_json
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.types import TypeDecorator
from sqlmodel import SQLModel

from app.core.courtesy import Line
from app.core.sqlite import connect

SQLITE_PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "busy_timeout=5000",
    "foreign_keys=ON",
    "secure_delete=ON",
    "temp_store=MEMORY",
)

ROOM = 8 << 20
"""Bytes: twice what SQLite's write-ahead log takes before it is written back."""

OUTAGES = (OperationalError, InterfaceError, PoolTimeout, OSError)
"""What a session raises while its database is away."""


def is_deadlock(error: OperationalError) -> bool:
    """PostgreSQL has ended this transaction to let another one go on: try again."""
    return getattr(error.orig, "sqlstate", None) == "40P01"


def is_full(error: OperationalError) -> bool:
    """The database could not grow: its disk is full, or a quota is used up. All was rolled back."""
    code = getattr(error.orig, "sqlite_errorcode", None)
    return code in _FULL or getattr(error.orig, "sqlstate", None) == "53100"


def lacks_tables(error: DBAPIError) -> bool:
    """The schema was not made, or is older than this code."""
    if isinstance(error.orig, sqlite3.Error):
        return str(error.orig).startswith(("no such table", "no such column"))
    return getattr(error.orig, "sqlstate", None) in {"42P01", "42703"}


def is_away(error: OperationalError) -> bool:
    """The database does not answer, or has no turn for us: the same may well work in a moment."""
    if isinstance(error.orig, sqlite3.Error):
        code = getattr(error.orig, "sqlite_errorcode", sqlite3.SQLITE_BUSY)  # none: no connection
        return code & 0xFF in _AWAY
    state = getattr(error.orig, "sqlstate", None)
    return state is None or state.startswith(_AWAY_STATES)


_AWAY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}
_AWAY_STATES = ("08", "40", "53", "55P03", "57P")
"""No connection, rolled back for another's sake, no resources, no lock in time, starting or ending
(PostgreSQL 15, appendix A).
"""
_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE}


class Moment(TypeDecorator[dt.datetime]):
    """Aware UTC moments: timestamptz on PostgreSQL; on SQLite whole microseconds since 1970, which
    sort and compare.
    """

    impl = sa.BigInteger
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        return dialect.type_descriptor(
            sa.DateTime(timezone=True) if dialect.name == "postgresql" else sa.BigInteger()
        )

    def process_bind_param(self, value: dt.datetime | None, dialect: Dialect) -> Any:
        if value is None or dialect.name == "postgresql":
            return value
        return round((value - _EPOCH) / _MICROSECOND)

    def process_result_value(self, value: Any, dialect: Dialect) -> dt.datetime | None:
        if value is None:
            return None
        moment: dt.datetime = (
            value.astimezone(dt.UTC)
            if dialect.name == "postgresql"
            else _EPOCH + value * _MICROSECOND
        )
        return moment


_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)

Id = sa.String(48).with_variant(sa.String(48, collation="C"), "postgresql")
"""Column type of our ids: compared byte by byte, so that their order is time order everywhere."""

Json = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
"""Column type of small documents. What JSON has no word for (Decimal, bytes, moments) becomes text
without a complaint: write only JSON's own types.
"""


class Main(SQLModel):
    """Base of every table in the main database."""

    metadata = sa.MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class Keys(SQLModel):
    """Base of every table in the key store."""

    metadata = sa.MetaData(naming_convention=Main.metadata.naming_convention)


def table_of(model: type[SQLModel]) -> sa.Table:
    """The table behind a model, for statements that skip the ORM."""
    return cast(sa.Table, model.__dict__["__table__"])


def partial_index(
    name: str, *columns: str, where: str, sqlite: str | None = None, unique: bool = False
) -> sa.Index:
    """An index of the rows that are unlike the others; ``sqlite``: how SQLite says ``where``."""
    return sa.Index(
        name,
        *columns,
        unique=unique,
        postgresql_where=sa.text(where),
        sqlite_where=sa.text(sqlite or where),
    )


class Database:
    """One database with its two kinds of session."""

    def __init__(
        self, url: str, after_commit: Callable[[Iterable[str]], None] | None = None
    ) -> None:
        self.url = url
        self.after_commit = after_commit
        self._turn: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
        self.is_sqlite = url.startswith("sqlite")
        if self.is_sqlite:
            self._reader = _sqlite_engine(url, pool_size=4, reads_only=True)
            self._writer = _sqlite_engine(url, pool_size=1, reads_only=False)
            self._turn = Line().turn
        else:
            self._reader = self._writer = create_async_engine(
                url,
                pool_size=10,
                max_overflow=10,
                pool_pre_ping=True,
                hide_parameters=True,
                json_serializer=_to_json,
                json_deserializer=_from_json,
                connect_args={
                    "options": "-c timezone=UTC -c lock_timeout=4000"
                    " -c idle_in_transaction_session_timeout=30000"
                    # What is asked all the time is in memory: go there by index; and no statement
                    # of ours lasts long enough to be worth compiling (a tenth of a second).
                    " -c random_page_cost=1.1 -c jit=off"
                },
            )

    @property
    def engine(self) -> AsyncEngine:
        """The engine that may write."""
        return self._writer

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncSession]:
        """A transaction that only reads."""
        async with AsyncSession(self._reader, expire_on_commit=False) as session:
            yield session

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncSession]:
        """A transaction: committed on return, rolled back on an exception. Keep it short: SQLite
        has one writer.
        """
        async with (
            self._turn(),
            AsyncSession(self._writer, expire_on_commit=False, autoflush=False) as session,
        ):
            async with session.begin():
                yield session
            hints = session.info.get("hints")
        if hints and self.after_commit:
            self.after_commit(hints)

    async def flush_deleted(self) -> None:
        """Take what was deleted out of SQLite's write-ahead log, which secure_delete leaves alone.

        A reader in the middle of its transaction may keep it there until the next call.
        """
        if self.is_sqlite:
            async with self._writer.connect() as connection:
                raw = await connection.get_raw_connection()
                assert raw.driver_connection is not None  # noqa: S101 (just taken from the pool)
                await raw.driver_connection.execute_fetchall("PRAGMA wal_checkpoint(TRUNCATE)")

    def has_room(self) -> bool:
        """SQLite's disk has room for some more transactions; a server sees to its own."""
        if not self.is_sqlite:
            return True
        file = Path(sa.make_url(self.url).database or ".")
        return shutil.disk_usage(file.parent).free >= ROOM

    async def close(self) -> None:
        await self._reader.dispose()
        await self._writer.dispose()


def _to_json(value: Any) -> str:
    return to_json(value).decode()


def _from_json(text: str | bytes) -> Any:
    return from_json(text, cache_strings="keys")  # values are nobody's to keep


def _sqlite_engine(url: str, *, pool_size: int, reads_only: bool) -> AsyncEngine:
    engine = create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=30,
        hide_parameters=True,
        json_serializer=_to_json,
        json_deserializer=_from_json,
        poolclass=sa.pool.AsyncAdaptedQueuePool,
        connect_args={"isolation_level": None, "async_creator_fn": connect},
    )

    @sa.event.listens_for(engine.sync_engine, "connect")
    def _prepare(connection: Any, _: Any) -> None:
        cursor = connection.cursor()
        for pragma in SQLITE_PRAGMAS:
            cursor.execute(f"PRAGMA {pragma}")
        if reads_only:
            cursor.execute("PRAGMA query_only=ON")
        cursor.close()

    # Each statement of a reading session sees what is committed by then, as on PostgreSQL.
    if not reads_only:

        @sa.event.listens_for(engine.sync_engine, "begin")
        def _begin(connection: sa.Connection) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def hint_after_commit(session: AsyncSession, *pumps: str) -> None:
    """Name pumps that should look once this transaction is committed."""
    session.info.setdefault("hints", set()).update(pumps)


def insert_or_ignore(session: AsyncSession, table: Any) -> Any:
    """``INSERT ... ON CONFLICT DO NOTHING`` in the session's dialect."""
    dialect = session.get_bind().dialect.name
    build = postgresql.insert if dialect == "postgresql" else sqlite.insert
    return build(table).on_conflict_do_nothing()


def insert_or_add(session: AsyncSession, table: sa.Table, *newer: str) -> Any:
    """``INSERT``, or where the primary key is there already, add up ``count`` and take over the
    ``newer`` columns.
    """
    build: Any = postgresql.insert if is_postgresql(session) else sqlite.insert
    statement = build(table)
    given = statement.excluded
    values = {"count": table.c["count"] + given["count"]} | {name: given[name] for name in newer}
    return statement.on_conflict_do_update(
        index_elements=list(table.primary_key.columns), set_=values
    )


def is_postgresql(session: AsyncSession) -> bool:
    return bool(session.get_bind().dialect.name == "postgresql")
