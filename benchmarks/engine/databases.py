"""Databases of a benchmark: made, copied and dropped on the server that was named."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import sql


class Server:
    """A PostgreSQL server. ``url`` names any database of it; the driver's name may be in it."""

    def __init__(self, url: str) -> None:
        self._url = url.replace("+psycopg", "", 1)

    def address(self, name: str) -> str:
        return f"{self._url.rpartition('/')[0]}/{name}"

    @contextmanager
    def database(self, template: str = "template0") -> Iterator[str]:
        """The name of a new database, a copy of ``template``; dropped on leaving."""
        name = f"bench_{uuid.uuid4().hex[:12]}"
        make = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy")
        self._run(make.format(sql.Identifier(name), sql.Identifier(template)))
        try:
            yield name
        finally:
            drop = sql.SQL("DROP DATABASE {} WITH (FORCE)")
            self._run(drop.format(sql.Identifier(name)))

    def version(self) -> str:
        with psycopg.connect(self._url) as connection:
            return str(connection.info.parameter_status("server_version"))

    def _run(self, statement: sql.Composed) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(statement)


def given(variable: str) -> str:
    """The address of a server, from where ``python -m tests.services`` puts it."""
    if value := os.environ.get(variable):
        return value
    raise SystemExit(f"{variable} is not set: run `make bench`, which starts the servers.")
