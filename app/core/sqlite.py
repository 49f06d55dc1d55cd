"""SQLite connections that cross to their thread once per statement.

aiosqlite hands every single call to the connection's thread: making a cursor, executing, fetching
and closing are four trips for one SELECT. A trip costs more than the statement, so this connection
makes one of them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import aiosqlite


class OneTripConnection(aiosqlite.Connection):
    """For SQLAlchemy's adapter, which asks a cursor for execute, description and fetchall."""

    def cursor(self) -> OneTripCursor:  # type: ignore[override]
        return OneTripCursor(self)

    async def rollback(self) -> None:
        """No trip where there is nothing to roll back: a session that only read."""
        if self._conn.in_transaction:
            await super().rollback()


class OneTripCursor:
    """Runs a statement and fetches all of its rows in the same trip."""

    arraysize = 1

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection
        self._rows: list[Any] = []
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None

    async def __aenter__(self) -> OneTripCursor:
        return self

    async def execute(self, statement: str, parameters: Sequence[Any] = ()) -> OneTripCursor:
        return await self._run("execute", statement, parameters)

    async def executemany(
        self, statement: str, parameters: Iterable[Sequence[Any]]
    ) -> OneTripCursor:
        return await self._run("executemany", statement, parameters)

    async def fetchall(self) -> list[Any]:
        return self._rows

    async def close(self) -> None:
        """The statement was finished in its trip; the rows go with this object."""

    async def _run(self, method: str, statement: str, parameters: Any) -> OneTripCursor:
        def trip() -> None:
            cursor = self._connection._conn.cursor()
            try:
                getattr(cursor, method)(statement, parameters)
                self.description = cursor.description
                self._rows = cursor.fetchall() if cursor.description else []
                self.rowcount, self.lastrowid = cursor.rowcount, cursor.lastrowid
            finally:
                cursor.close()

        await self._connection._execute(trip)  # type: ignore[no-untyped-call]
        return self


def connect(database: str | Path, **options: Any) -> OneTripConnection:
    """An unstarted connection, for SQLAlchemy's ``async_creator_fn``."""

    def connector() -> sqlite3.Connection:
        opened: sqlite3.Connection = sqlite3.connect(database, **options)
        return opened

    connection = OneTripConnection(connector, iter_chunk_size=64)
    connection._thread.daemon = True  # a process must be able to end without closing every one
    return connection
