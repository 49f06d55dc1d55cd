"""SQL databases: deletes or masks a person's rows in tables that the operator names."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.exc import SQLAlchemyError

from connectors.contract import (
    AddressRefused,
    ConnectorError,
    Identifier,
    Outcome,
    PeopleConnector,
    Person,
    Tools,
    retry,
    skipped,
)
from connectors.sql import address, trouble
from connectors.sql.catalogue import Catalogue
from connectors.sql.plan import Plan, check_references, make_plan
from connectors.sql.search import find, look_up
from connectors.sql.settings import SqlSettings
from connectors.sql.work import Work

__all__ = ["Sql"]

_SHOWN_TABLES = 3
_WORDS = {
    trouble.AUTHENTICATION: "The database refused the user name or the password",
    trouble.PERMISSION: "The database user lacks a right; grant it SELECT, and UPDATE or DELETE",
    trouble.NO_DATABASE: "The database named in the url does not exist",
    trouble.UNREADABLE: "The file is missing or is no SQLite database",
    trouble.UNREACHABLE: "The database does not answer",
    trouble.CONNECTION: "The database closed the connection",
    trouble.LOCKED: "The database is locked by another program",
    trouble.SLOW: "The database took too long to answer",
    trouble.READ_ONLY: "The database takes no changes now",
    trouble.SCHEMA: "A table or column is not there any more",
}


class Sql(PeopleConnector):
    """PostgreSQL, MySQL, MariaDB and SQLite through SQLAlchemy; see ``connectors/README.md``."""

    title = "SQL database"
    accepts_all = True
    batch = 100
    concurrency = 1
    timeout = dt.timedelta(minutes=6)
    runs_in: ClassVar[Literal["loop", "thread", "process"]] = "thread"
    timeouts: ClassVar[address.Timeouts] = address.Timeouts()

    class Settings(SqlSettings):
        pass

    def __init__(self, settings: SqlSettings, tools: Tools) -> None:
        super().__init__(settings, tools)
        self._engine: Engine | None = None
        self._plan: Plan | None = None

    def check(self) -> None:
        """Compare every name and rule with the database; also who would block a delete."""
        with self._reading() as connection:
            catalogue = Catalogue(connection)
            self._plan = make_plan(self.settings, catalogue)
            check_references(self._plan, catalogue.all_foreign_keys())

    def test(self) -> str:
        """One sentence on what was found."""
        self.check()
        with self._reading() as connection:
            return _sentence(connection, self._made_plan(connection))

    def erase(self, people: Sequence[Person]) -> Outcome | Mapping[str, Outcome]:
        """Delete or mask; a person whose rows exceed ``max_rows`` is left as is."""
        if not self.settings.tables:
            return skipped("no_tables")
        try:
            with self._reading() as connection:
                plan = self._made_plan(connection)
        except _BrokenError as broken:
            return broken.found.outcome()
        except AddressRefused:
            return retry("address_refused", parks=True)
        except ConnectorError:
            return retry("settings_do_not_fit", parks=True)
        return Work(self._opened(), plan, self.tools.secret, self.tools.now).erase(people)

    def count(self, people: Sequence[Person]) -> dict[str, dict[str, int]]:
        """Dry run: rows per table and person; what hangs on rows past ``max_rows`` is left out."""
        with self._reading() as connection:
            plan = self._made_plan(connection)
            found = find(connection, plan, people)
        return {
            person.id: {node.label: found[person.id][node.name].count for node in plan.nodes}
            for person in people
        }

    def lookup(self, people: Sequence[Person]) -> dict[str, list[Identifier]]:
        """Other identifiers of these people, by the lookup rules."""
        with self._reading() as connection:
            return look_up(connection, self._made_plan(connection), people)

    def close(self) -> None:
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    def _opened(self) -> Engine:
        if self._engine is None:
            parsed = address.parse(self.settings.url.get_secret_value())
            self._engine = address.open_engine(parsed, self.tools, self.timeouts)
        return self._engine

    def _made_plan(self, connection: Connection) -> Plan:
        if self._plan is None:
            self._plan = make_plan(self.settings, Catalogue(connection))
        return self._plan

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        """A transaction that changes nothing; the driver's words can hold values and end here."""
        try:
            with self._opened().connect() as connection, connection.begin():
                yield connection
        except SQLAlchemyError as error:
            found = trouble.read(error)
        else:
            return
        raise _BrokenError(found)


class _BrokenError(ConnectorError):
    """The database does not do what it should; the text is ours, not the driver's."""

    def __init__(self, found: trouble.Trouble) -> None:
        super().__init__(_WORDS.get(found, "The database reported an error") + f" ({found.reason})")
        self.found = found


def _sentence(connection: Connection, plan: Plan) -> str:
    tables = len(plan.nodes)
    words = [f"{tables} table{'' if tables == 1 else 's'} found"]
    for node in plan.nodes[:_SHOWN_TABLES]:
        rows = connection.scalar(select(func.count()).select_from(node.described.table)) or 0
        words.append(f"{node.label} {rows} row{'' if rows == 1 else 's'}")
    return f"Connected to {_server(connection)}; " + ", ".join(words)


def _server(connection: Connection) -> str:
    dialect: Any = connection.dialect
    version = [str(part) for part in dialect.server_version_info or ()]
    if dialect.name == "postgresql":
        return f"PostgreSQL {version[0]}"
    if dialect.name == "sqlite":
        return "SQLite " + ".".join(version[:2])
    name = "MariaDB" if getattr(dialect, "is_mariadb", False) else "MySQL"
    return f"{name} " + ".".join(version[:2])
