"""Both databases come from nothing to the newest schema, and the models need no more than that."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

import app.tables
from app.consent import guards
from app.core.migrate import Which, drift, upgrade

METADATA: list[tuple[Which, Any]] = [("main", app.tables.MAIN), ("keystore", app.tables.KEYS)]


@pytest.mark.parametrize(("which", "metadata"), METADATA)
def test_an_empty_database_gets_exactly_the_tables_of_the_models(
    empty_database_url: str, which: Which, metadata: sa.MetaData
) -> None:
    upgrade(empty_database_url, which)

    assert drift(empty_database_url, which, metadata) == []


def test_proof_refuses_changes_from_the_start(empty_database_url: str) -> None:
    """Also after a later migration that copies a table, as SQLite wants for some changes."""
    upgrade(empty_database_url, "main")

    engine = sa.create_engine(empty_database_url.replace("+aiosqlite", ""), poolclass=sa.NullPool)
    with engine.connect() as connection:
        assert guards.unguarded(connection) == []
        on = "" if connection.dialect.name == "sqlite" else " ON consent_record"
        connection.execute(sa.text(f"DROP TRIGGER consent_record_stays{on}"))
        assert guards.unguarded(connection) == ["consent_record"]


@pytest.mark.parametrize("which", ["main", "keystore"])
def test_upgrading_again_changes_nothing(empty_database_url: str, which: Which) -> None:
    upgrade(empty_database_url, which)
    upgrade(empty_database_url, which)


@pytest.mark.services
def test_several_processes_upgrade_one_database_at_once(empty_postgres_url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(upgrade, empty_postgres_url, "main") for _ in range(4)]:
            done.result()

    assert drift(empty_postgres_url, "main", app.tables.MAIN) == []


def test_the_key_store_holds_nothing_but_data_keys() -> None:
    assert set(app.tables.KEYS.tables) == {"data_key"}
    assert "data_key" not in app.tables.MAIN.tables
