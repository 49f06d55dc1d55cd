"""Fixtures every test may use: databases of its own, the test servers, the browser's path.

``make test`` starts the servers (``tests/services``) and names them in ``TEST_..._URL``. Without
them a test that needs one is skipped, except in CI (``CI=true``), where that is a failure.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import hypothesis
import psycopg
import pytest
from psycopg import sql
from sqlalchemy.dialects.postgresql.psycopg import PGDialectAsync_psycopg
from sqlalchemy.dialects.sqlite.aiosqlite import SQLiteDialect_aiosqlite
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.util import LRUCache

pytest_plugins = ["tests.running"]

IS_CI = os.environ.get("CI") == "true"
BROWSER_FIXTURES = {"chromium_path", "firefox_path", "webkit_path"}
SERVICE_FIXTURES = {"postgres_server", "mariadb_url", "redis_url", "rabbitmq_url"}
ENGINES = [pytest.param("sqlite"), pytest.param("postgresql", marks=pytest.mark.services)]
NewDatabase = Callable[[str | None], str]

# No deadline: a busy machine must not fail a test. CI tries the same examples every time.
hypothesis.settings.register_profile("quittance", deadline=None, derandomize=IS_CI, print_blob=True)
hypothesis.settings.load_profile("quittance")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs servers or the browser, so that `make test-fast` can leave it out."""
    for item in items:
        wanted = set(getattr(item, "fixturenames", ()))
        if wanted & SERVICE_FIXTURES:
            item.add_marker(pytest.mark.services)
        if wanted & BROWSER_FIXTURES:
            item.add_marker(pytest.mark.browser)


def given(variable: str) -> str:
    """The value of ``variable``; without it the test is skipped, or in CI failed."""
    if value := os.environ.get(variable):
        return value
    reason = f"{variable} is not set: run `make test`, or `make services` and load what it prints"
    if IS_CI:
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(autouse=True, scope="session")
def statements_are_compiled_once() -> Iterator[None]:
    """Every test has databases, so engines and dialects, of its own; compiling its statements anew
    would take a fifth of its time.
    """
    compiled: LRUCache[Any, Any] = LRUCache(10_000)
    make = partial(create_async_engine, execution_options={"compiled_cache": compiled})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.core.db.create_async_engine", make)
        for dialect in (SQLiteDialect_aiosqlite, PGDialectAsync_psycopg):
            patch.setattr(dialect, "__eq__", lambda one, other: type(one) is type(other))
            patch.setattr(dialect, "__hash__", lambda one: hash(type(one)))
        yield


@pytest.fixture(autouse=True)
def patient_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test machine that stands still for some seconds has no outage."""
    monkeypatch.setattr("app.sites.directory._PATIENCE_SECONDS", 60)


@pytest.fixture(scope="session")
def chromium_path() -> Path:
    """The browser for Playwright's ``executable_path``."""
    return Path(given("TEST_CHROMIUM"))


@pytest.fixture(scope="session")
def firefox_path() -> Path:
    return Path(given("TEST_FIREFOX"))


@pytest.fixture(scope="session")
def webkit_path() -> Path:
    """WebKitGTK's WebDriver."""
    return Path(given("TEST_WEBKIT"))


@pytest.fixture(scope="session")
def redis_url() -> str:
    """Shared by all workers: prefix keys, or use ``?db=`` of your own."""
    return given("TEST_REDIS_URL")


@pytest.fixture(scope="session")
def rabbitmq_url() -> str:
    """Shared by all workers: name queues and exchanges uniquely."""
    return given("TEST_RABBITMQ_URL")


@pytest.fixture
def mariadb_url() -> Iterator[str]:
    """A fresh MariaDB database (as a destination; Quittance itself does not run on it)."""
    import pymysql  # noqa: PLC0415 - only the tests of one connector need the driver

    address = given("TEST_MARIADB_URL")
    parts = re.fullmatch(r"mysql\+pymysql://(.+):(.+)@(.+):(\d+)/.*", address)
    assert parts, f"TEST_MARIADB_URL is {address!r}"
    user, password, host, port = parts.groups()
    name = f"t_{uuid.uuid4().hex}"
    with pymysql.connect(host=host, port=int(port), user=user, password=password) as connection:
        connection.cursor().execute(f"CREATE DATABASE {name}")
        yield f"mysql+pymysql://{user}:{password}@{host}:{port}/{name}"
        connection.cursor().execute(f"DROP DATABASE {name}")


class PostgresServer:
    """Makes databases and drops them."""

    def __init__(self, address: str, connection: psycopg.Connection) -> None:
        address, _, query = address.partition("?")
        self._server = address.rpartition("/")[0]
        self._query = f"?{query}" if query else ""
        self._connection = connection

    def new(self, template: str | None) -> str:
        """The URL of a new database, empty or like a named template."""
        name = f"t_{uuid.uuid4().hex}"
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
            sql.Identifier(name), sql.Identifier(template or "template0")
        )
        self._connection.execute(statement)
        return f"{self._server}/{name}{self._query}"

    def drop(self, url: str) -> None:
        statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
        self._connection.execute(statement.format(sql.Identifier(database_name(url))))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The test server, as its administrator."""
    address = given("TEST_POSTGRES_URL")
    with psycopg.connect(address.replace("+psycopg", "", 1), autocommit=True) as connection:
        yield PostgresServer(address, connection)


@pytest.fixture
def new_postgres_database(postgres_server: PostgresServer) -> Iterator[NewDatabase]:
    """Makes databases, empty or like a named template, which go with the test.

    At once, not with the session: a thousand of them would fill the memory they lie in.
    """
    made: list[str] = []

    def make(template: str | None) -> str:
        made.append(postgres_server.new(template))
        return made[-1]

    yield make
    for url in made:
        postgres_server.drop(url)


def migrate(url: str, which: str) -> str:
    """Bring an empty database to the current schema; ``which`` is "main" or "keystore"."""
    importlib.import_module("app.core.migrate").upgrade(url, which)
    return url


def database_name(url: str) -> str:
    return url.partition("?")[0].rpartition("/")[2]


@pytest.fixture(scope="session")
def postgres_template(postgres_server: PostgresServer) -> Iterator[str]:
    url = migrate(postgres_server.new(None), "main")
    yield database_name(url)
    postgres_server.drop(url)


@pytest.fixture(scope="session")
def postgres_keystore_template(postgres_server: PostgresServer) -> Iterator[str]:
    url = migrate(postgres_server.new(None), "keystore")
    yield database_name(url)
    postgres_server.drop(url)


@pytest.fixture
def postgres_url(new_postgres_database: NewDatabase, postgres_template: str) -> str:
    """A fresh PostgreSQL database with the current main schema."""
    return new_postgres_database(postgres_template)


@pytest.fixture
def postgres_keystore_url(
    new_postgres_database: NewDatabase, postgres_keystore_template: str
) -> str:
    """A fresh PostgreSQL database with the current key store schema."""
    return new_postgres_database(postgres_keystore_template)


@pytest.fixture
def empty_postgres_url(new_postgres_database: NewDatabase) -> str:
    """A fresh PostgreSQL database without any table: for migrations, and for destinations."""
    return new_postgres_database(None)


@pytest.fixture(scope="session")
def sqlite_templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Migrated SQLite files, to be copied."""
    directory = tmp_path_factory.mktemp("sqlite_templates")
    templates = {which: directory / f"{which}.sqlite" for which in ("main", "keystore")}
    for which, path in templates.items():
        migrate(f"sqlite+aiosqlite:///{path}", which)
    return templates


@pytest.fixture
def sqlite_url(sqlite_templates: dict[str, Path], tmp_path: Path) -> str:
    """A fresh SQLite database with the current main schema."""
    copy = shutil.copy(sqlite_templates["main"], tmp_path / "quittance.sqlite")
    return f"sqlite+aiosqlite:///{copy}"


@pytest.fixture
def sqlite_keystore_url(sqlite_templates: dict[str, Path], tmp_path: Path) -> str:
    """A fresh SQLite database with the current key store schema."""
    copy = shutil.copy(sqlite_templates["keystore"], tmp_path / "keys.sqlite")
    return f"sqlite+aiosqlite:///{copy}"


@pytest.fixture(params=ENGINES)
def engine_name(request: pytest.FixtureRequest) -> str:
    """Both databases the service runs on, one after the other: "sqlite", "postgresql"."""
    return str(request.param)


@pytest.fixture
def database_url(engine_name: str, request: pytest.FixtureRequest) -> str:
    """A fresh main database with the current schema, once on SQLite and once on PostgreSQL."""
    fixture = {"sqlite": "sqlite_url", "postgresql": "postgres_url"}[engine_name]
    return str(request.getfixturevalue(fixture))


@pytest.fixture
def keystore_url(engine_name: str, request: pytest.FixtureRequest) -> str:
    """The key store that goes with ``database_url``."""
    fixture = {"sqlite": "sqlite_keystore_url", "postgresql": "postgres_keystore_url"}[engine_name]
    return str(request.getfixturevalue(fixture))


@pytest.fixture
def empty_database_url(engine_name: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without any table, once on SQLite and once on PostgreSQL."""
    if engine_name == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'empty.sqlite'}"
    return str(request.getfixturevalue("empty_postgres_url"))
