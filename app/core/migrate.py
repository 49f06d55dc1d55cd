"""Brings a database to the newest schema, one process at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from app.core.settings import driver_url

Which = Literal["main", "keystore"]

_MIGRATIONS = Path(__file__).parents[2] / "migrations"
_VERSIONS = {"main": "versions", "keystore": "keystore_versions"}
_ADVISORY_LOCK = 0x7175_6974


def upgrade(database_url: str, which: Which) -> None:
    """Create or upgrade the schema; does nothing (and is quick) when it is current."""
    engine = _engine(database_url)
    try:
        with engine.connect() as connection:
            config = _config(which, connection)
            head = ScriptDirectory.from_config(config).get_current_head()
            if MigrationContext.configure(connection).get_current_revision() == head:
                return
            connection.rollback()
            if connection.dialect.name == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_lock(_ADVISORY_LOCK)))
            command.upgrade(config, "head")
            connection.commit()
    finally:
        engine.dispose()


def drift(database_url: str, which: Which, metadata: sa.MetaData) -> list[object]:
    """Differences between the database and the models; empty when a migration was not forgotten."""
    engine = _engine(database_url)
    try:
        with engine.connect() as connection:
            options = {"include_name": without_partitions(connection)}
            context = MigrationContext.configure(connection, opts=options)
            return list(compare_metadata(context, metadata))
    finally:
        engine.dispose()


def without_partitions(connection: sa.Connection) -> Callable[[str | None, str, Any], bool]:
    """What Alembic may compare (its ``include_name``): the models know a partitioned table, but
    none of its partitions, which come and go.
    """
    if connection.dialect.name != "postgresql":
        return lambda *_: True
    found = connection.scalars(sa.text("SELECT relname FROM pg_class WHERE relispartition"))
    partitions = set(found)
    return lambda name, kind, _: kind != "table" or name not in partitions


def revise(
    database_url: str, which: Which, metadata: sa.MetaData, message: str, revision: str
) -> None:
    """Write a new revision file from the difference between models and database."""
    engine = _engine(database_url)
    with engine.connect() as connection:
        config = _config(which, connection, metadata)
        command.revision(config, message=message, autogenerate=True, rev_id=revision)
    engine.dispose()


def _engine(database_url: str) -> sa.Engine:
    return sa.create_engine(
        driver_url(database_url).replace("+aiosqlite", ""), hide_parameters=True
    )


def _config(which: Which, connection: sa.Connection, metadata: sa.MetaData | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.set_main_option("version_locations", str(_MIGRATIONS / _VERSIONS[which]))
    config.set_main_option("path_separator", "newline")
    config.set_main_option(
        "file_template", "%%(year)d-%%(month).2d-%%(day).2d-%%(hour).2d%%(minute).2d_%%(slug)s"
    )
    config.attributes["connection"] = connection
    config.attributes["metadata"] = metadata
    return config
