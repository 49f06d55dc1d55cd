"""The Chinook sample as a destination, read and compared from outside."""

from __future__ import annotations

import re
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "chinook"
Rows = dict[str, list[tuple[Any, ...]]]


def load_sqlite(path: Path) -> str:
    """The URL of a fresh copy."""
    _require()
    shutil.copyfile(SHARED / "chinook.sqlite", path)
    return f"sqlite:///{path}"


def load_postgres(url: str) -> str:
    _require()
    script = (SHARED / "chinook-postgresql.sql").read_text("utf-8")
    script = re.sub(r"(?m)^(DROP DATABASE|CREATE DATABASE|\\c) .*$", "", script)
    with psycopg.connect(url.replace("+psycopg", "", 1)) as connection:
        connection.execute(script)
    return url


def _require() -> None:
    if not SHARED.is_dir():
        pytest.skip(
            "the Chinook sample is not beside the repository; generated data covers the same"
        )


def everything(url: str) -> Rows:
    """All rows of all tables, in the order of their primary keys."""
    engine = sa.create_engine(url)
    metadata = sa.MetaData()
    metadata.reflect(engine)
    with engine.connect() as connection:
        found = {
            name: [
                tuple(row)
                for row in connection.execute(sa.select(table).order_by(*table.primary_key.columns))
            ]
            for name, table in metadata.tables.items()
        }
    engine.dispose()
    return found


def snake(name: str) -> str:
    """The PostgreSQL script writes ``CustomerId`` as ``customer_id``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def is_sound(url: str) -> bool:
    """Whether every foreign key leads somewhere (PostgreSQL enforces it by itself)."""
    if not url.startswith("sqlite"):
        return True
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        return connection.execute("PRAGMA foreign_key_check").fetchall() == []
