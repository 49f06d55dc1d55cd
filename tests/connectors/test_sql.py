"""The sql connector on SQLite, and on PostgreSQL and MariaDB where the environment names one."""

from __future__ import annotations

import datetime as dt
import os
import re
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sqlalchemy import (
    CHAR,
    Column,
    Date,
    Engine,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    String,
    Table,
    create_engine,
    event,
    func,
    insert,
    inspect,
    make_url,
    select,
    text,
)

from connectors.contract import AddressRefused, ConnectorError, Identifier, Outcome, Person, Verdict
from connectors.sql import Sql, masking
from connectors.sql.address import Timeouts, mysql_arguments, parse, postgres_arguments
from connectors.sql.matching import Family, comparable
from connectors.sql.settings import parse_mask, until

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "chinook"
SERVERS = {"postgresql": "TEST_POSTGRES_URL", "mariadb": "TEST_MARIADB_URL"}
ENGINES = [
    pytest.param("sqlite"),
    *(pytest.param(name, marks=pytest.mark.services) for name in SERVERS),
]
LUIS = "luisg@embraer.com.br"
LEONIE = "leonekohler@surfeu.de"


@dataclass
class FakeTools:
    """The parts of Tools that the connector uses; every host is this machine."""

    refuses: bool = False
    secret: bytes = b"s" * 32
    asked: list[tuple[str, int]] = field(default_factory=list)

    def now(self) -> dt.datetime:
        return dt.datetime.now(dt.UTC)

    def resolve(self, host: str, port: int) -> str:
        self.asked.append((host, port))
        if self.refuses:
            raise AddressRefused("The address is not allowed")
        return "127.0.0.1"

    def path(self, path: str) -> str:
        if self.refuses:
            raise AddressRefused("The path is not allowed")
        return path


class ImpatientSql(Sql):
    """Stops a statement early, so that a test can wait for it."""

    timeouts = Timeouts(statement=0.6, lock=5)


class UnlockedSql(Sql):
    """Gives up on a lock early."""

    timeouts = Timeouts(statement=5, lock=1)


@dataclass
class Database:
    """An empty database of one dialect, and a way to it that is not the connector's."""

    dialect: str
    url: str
    engine: Engine

    def run(self, statement: str) -> None:
        with self.engine.begin() as connection:
            connection.exec_driver_sql(statement)

    def rows(self, name: str) -> list[tuple[Any, ...]]:
        table = Table(name, MetaData(), autoload_with=self.engine)
        with self.engine.connect() as connection:
            found = connection.execute(select(table)).all()
        return sorted((tuple(row) for row in found), key=repr)

    def everything(self) -> dict[str, list[tuple[Any, ...]]]:
        return {name: self.rows(name) for name in inspect(self.engine).get_table_names()}


@pytest.fixture(params=ENGINES)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    yield from new_database(request.param, tmp_path)


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Database]:
    yield from new_database("sqlite", tmp_path)


def new_database(dialect: str, folder: Path) -> Iterator[Database]:
    if dialect == "sqlite":
        path = folder / f"{secrets.token_hex(4)}.sqlite"
        path.touch()
        engine = create_engine(f"sqlite:///{path}")
        yield Database(dialect, f"sqlite:///{path}", engine)
        engine.dispose()
        return
    given_url = os.environ.get(SERVERS[dialect])
    if not given_url and os.environ.get("CI") == "true":
        pytest.fail(f"{SERVERS[dialect]} is not set")
    if not given_url:
        pytest.skip(f"{SERVERS[dialect]} is not set")
    url = make_url(given_url)
    url = url.set(drivername="postgresql+psycopg" if dialect == "postgresql" else "mysql+pymysql")
    name = f"quittance_test_{secrets.token_hex(6)}"
    server = create_engine(url, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        letters = " CHARACTER SET utf8mb4" if dialect == "mariadb" else ""
        connection.exec_driver_sql(f"CREATE DATABASE {name}{letters}")
    engine = create_engine(url.set(database=name))
    plain = url.set(database=name, drivername=url.drivername.partition("+")[0])
    try:
        yield Database(dialect, plain.render_as_string(hide_password=False), engine)
    finally:
        engine.dispose()
        with server.connect() as connection:
            force = " WITH (FORCE)" if dialect == "postgresql" else ""
            connection.exec_driver_sql(f"DROP DATABASE {name}{force}")
        server.dispose()


@pytest.fixture
def connect() -> Iterator[Callable[..., Sql]]:
    made: list[Sql] = []

    def make(
        database: Database,
        *tables: Mapping[str, Any],
        kind: type[Sql] = Sql,
        tools: FakeTools | None = None,
        **more: Any,
    ) -> Sql:
        chosen = kind.Settings.model_validate({"url": database.url, "tables": tables, **more})
        made.append(kind(chosen, cast(Any, tools or FakeTools())))
        return made[-1]

    yield make
    for each in made:
        each.close()


Connect = Callable[..., Sql]


def person(name: str, **identifiers: str | list[str]) -> Person:
    return Person(
        name,
        tuple(
            Identifier(kind, value)
            for kind, values in identifiers.items()
            for value in ([values] if isinstance(values, str) else values)
        ),
    )


def outcomes(connector: Sql, *people: Person) -> dict[str, Outcome]:
    answer = connector.erase(people)
    return {p.id: answer for p in people} if isinstance(answer, Outcome) else dict(answer)


def users(*extra: Column[Any], email: Any = None, key: bool = True) -> Table:
    return Table(
        "users",
        MetaData(),
        Column("id", Integer, primary_key=key, autoincrement=False),
        Column("email", email or String(80)),
        *extra,
    )


def fill(database: Database, table: Table, *rows: Mapping[str, Any]) -> None:
    table.metadata.create_all(database.engine)
    with database.engine.begin() as connection:
        connection.execute(insert(table), list(rows))


DELETE_USERS = {"name": "users", "match": {"email": "email"}, "action": "delete"}


# Whole people --------------------------------------------------------------------------------


def chinook_rules(name: Callable[[str], str]) -> list[dict[str, Any]]:
    customer, invoice = name("Customer"), name("Invoice")
    masks = {
        "FirstName": "constant:erased",
        "LastName": "hash",
        "Company": "null",
        "Address": "null",
        "PostalCode": "null",
        "Phone": "format",
        "Fax": "null",
        "Email": "format",
    }
    bill = {
        "BillingAddress": "null",
        "BillingPostalCode": "null",
        "Total": "keep:tax law, until 2036-12-31",
    }
    key = name("CustomerId")
    return [
        {
            "name": customer,
            "match": {name("Email"): "email"},
            "action": "mask",
            "mask": {name(column): rule for column, rule in masks.items()},
        },
        {
            "name": invoice,
            "via": {key: f"{customer}.{key}"},
            "action": "mask",
            "mask": {name(column): rule for column, rule in bill.items()},
        },
    ]


def snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


@pytest.fixture(params=ENGINES[:2])
def chinook(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    if not (SHARED / "chinook.sqlite").exists():
        pytest.skip("the Chinook sample is not beside the repository")
    for made in new_database(request.param, tmp_path):
        if made.dialect == "sqlite":
            shutil.copyfile(SHARED / "chinook.sqlite", make_url(made.url).database or "")
        else:
            script = (SHARED / "chinook-postgresql.sql").read_text("utf-8")
            kept = re.sub(r"(?m)^(DROP DATABASE|CREATE DATABASE|\\c) .*$", "", script)
            where = make_url(made.url).set(drivername="postgresql")
            with psycopg.connect(where.render_as_string(hide_password=False)) as connection:
                connection.execute(kept)
        yield made


def test_chinook_keeps_no_trace_of_two_customers_and_every_other_row(
    chinook: Database, connect: Connect
) -> None:
    name = snake if chinook.dialect == "postgresql" else str
    customer, invoice = name("Customer"), name("Invoice")
    before = chinook.everything()
    mine = [row for row in before[customer] if {LUIS, LEONIE} & set(row)]
    ids = {row[0] for row in mine}
    traces = {
        value
        for row in mine
        for value in (*row[1:5], *row[8:12])
        if isinstance(value, str) and len(value) > 3
    }
    assert len(mine) == 2
    assert len(traces) > 12
    connector = connect(chinook, *chinook_rules(name))
    connector.check()
    people = (person("one", email=LUIS), person("two", email=LEONIE.upper()))
    assert connector.count(people)["one"] == {customer: 1, invoice: 7}
    assert chinook.everything() == before

    found = outcomes(connector, *people)

    for each in found.values():
        assert (each.verdict, each.read_back, each.anonymised) == (Verdict.DONE, True, True)
        assert [(r.what, r.until) for r in each.residuals] == [
            (f"{invoice}.{name('Total')}", "2036-12-31")
        ]
    assert found["one"].facts == {customer: 1, invoice: 7}
    after = chinook.everything()
    left = {
        trace
        for table, rows in after.items()
        for row in rows
        for value in row
        for trace in traces
        if isinstance(value, str)
        and trace in value
        # other people may share a first name; the two themselves keep nothing
        and not (table in (customer, name("Employee")) and row[0] not in ids)
    }
    assert left <= {t for t in traces for r in before[name("Artist")] if t in str(r[1])}
    for table, rows in before.items():
        column = 1 if table == invoice else 0
        touched = table in (customer, invoice)
        others = [row for row in rows if not (touched and row[column] in ids)]
        assert [r for r in after[table] if not (touched and r[column] in ids)] == others
        assert len(after[table]) == len(rows)
    totals = {row[0]: row[8] for row in before[invoice]}
    assert {row[0]: row[8] for row in after[invoice]} == totals
    for row in after[invoice]:
        assert row[1] not in ids or row[3] is None
    assert {o.verdict for o in outcomes(connector, *people).values()} == {Verdict.ABSENT}
    assert chinook.everything() == after


def shop(database: Database, people: int = 40) -> Table:
    """Customers, their orders and the lines of these, three deep by foreign keys."""
    data = MetaData()
    Table(
        "Customer",
        data,
        Column("id", Integer, primary_key=True),
        Column("Email", String(80), unique=True, nullable=False),
        Column("Name", String(40)),
        Column("Born", Date),
    )
    Table(
        "Order",
        data,
        Column("id", Integer, primary_key=True),
        Column("customer", ForeignKey("Customer.id"), nullable=False),
        Column("address", String(80)),
        Column("total", Numeric(10, 2)),
    )
    Table(
        "Order Line",
        data,
        Column("id", Integer, primary_key=True),
        Column("order", ForeignKey("Order.id"), nullable=False),
        Column("gift note", String(80)),
    )
    data.create_all(database.engine)
    numbers = range(1, people + 1)
    with database.engine.begin() as connection:
        connection.execute(
            insert(data.tables["Customer"]),
            [
                {
                    "id": n,
                    "Email": f"Person{n}@Example.com",
                    "Name": f"Name {n}",
                    "Born": dt.date(1990, 1, 1) + dt.timedelta(n),
                }
                for n in numbers
            ],
        )
        connection.execute(
            insert(data.tables["Order"]),
            [
                {"id": n * 10 + i, "customer": n, "address": f"Street {n}", "total": n}
                for n in numbers
                for i in range(3)
            ],
        )
        connection.execute(
            insert(data.tables["Order Line"]),
            [
                {"id": n * 100 + i, "order": n * 10 + i % 3, "gift note": f"for {n}"}
                for n in numbers
                for i in range(6)
            ],
        )
    return data.tables["Customer"]


CUSTOMER = {"name": "Customer", "match": {"Email": "email"}, "action": "delete"}
ORDER = {"name": "Order", "via": {"customer": "Customer.id"}, "action": "delete"}
LINE = {"name": "Order Line", "via": {"order": "Order.id"}, "action": "delete"}


def test_delete_walks_down_three_tables_and_removes_children_first(
    database: Database, connect: Connect
) -> None:
    shop(database)
    before = database.everything()
    connector = connect(database, CUSTOMER, LINE, ORDER)
    connector.check()

    found = outcomes(connector, person("a", email="person7@example.com"), person("b", email="x@y"))

    assert found["a"].facts == {"Customer": 1, "Order": 3, "Order Line": 6}
    assert found["a"].read_back
    assert not found["a"].anonymised
    assert found["b"].verdict is Verdict.ABSENT
    after = database.everything()
    assert after["Customer"] == [row for row in before["Customer"] if row[0] != 7]
    assert after["Order"] == [row for row in before["Order"] if row[1] != 7]
    assert after["Order Line"] == [row for row in before["Order Line"] if row[0] // 100 != 7]


def test_mask_keeps_rows_and_amounts_and_changes_nobody_else(
    database: Database, connect: Connect
) -> None:
    shop(database)
    before = database.everything()
    masked = {
        **CUSTOMER,
        "action": "mask",
        "mask": {"Email": "hash", "Name": "format", "Born": "constant:1900-01-01"},
    }
    order = {**ORDER, "action": "mask", "mask": {"address": "constant:-", "total": "keep:books"}}
    note = {**LINE, "action": "mask", "mask": {"gift note": "null"}}
    connector = connect(database, masked, order, note)
    connector.check()
    people = [person(str(n), email=f"person{n}@example.com") for n in (3, 4, 5)]

    assert all(each.read_back for each in outcomes(connector, *people).values())

    after = database.everything()
    for table, owner in (("Customer", 1), ("Order", 10), ("Order Line", 100)):
        changed = {row[0] // owner for row in set(after[table]) - set(before[table])}
        assert changed == {3, 4, 5}
    mine = [row for row in after["Customer"] if row[0] in (3, 4, 5)]
    assert len({row[1] for row in mine}) == 3
    assert all(re.fullmatch("[0-9a-f]{64}", row[1]) for row in mine)
    assert all(re.fullmatch(r"[A-Z][a-z]{3} \d", row[2]) for row in mine)
    assert {row[3] for row in mine} == {dt.date(1900, 1, 1)}
    assert [row[3] for row in after["Order"]] == [row[3] for row in before["Order"]]


def test_one_person_over_the_limit_is_left_whole_and_the_others_are_erased(
    database: Database, connect: Connect
) -> None:
    table = users()
    crowd = [{"id": n, "email": "many@example.com"} for n in range(1, 5)]
    fill(database, table, *crowd, {"id": 9, "email": "bob@example.com"})
    connector = connect(database, {**DELETE_USERS, "max_rows": 3})

    found = outcomes(
        connector, person("a", email="many@example.com"), person("b", email="bob@example.com")
    )

    assert (found["a"].verdict, found["a"].reason) == (Verdict.FAILED, "max_rows_exceeded")
    assert found["b"].verdict is Verdict.DONE
    assert [row[0] for row in database.rows("users")] == [1, 2, 3, 4]


def test_a_limit_in_a_child_table_stops_the_parent_too(
    database: Database, connect: Connect
) -> None:
    shop(database, people=2)
    before = database.everything()
    connector = connect(database, CUSTOMER, ORDER, {**LINE, "max_rows": 5})
    found = outcomes(connector, person("a", email="person1@example.com"))
    assert found["a"].reason == "max_rows_exceeded"
    assert database.everything() == before


def test_the_same_person_twice_in_a_batch_is_done_for_both(
    database: Database, connect: Connect
) -> None:
    fill(database, users(), {"id": 1, "email": "bob@example.com"})
    connector = connect(database, DELETE_USERS)
    bob = (person(name, email="bob@example.com") for name in ("a", "b"))
    assert [o.verdict for o in outcomes(connector, *bob).values()] == [Verdict.DONE] * 2


def test_any_of_several_identifiers_finds_a_row(database: Database, connect: Connect) -> None:
    fill(database, users(), *({"id": n, "email": f"p{n}@example.com"} for n in (1, 2, 3)))
    rule = {**DELETE_USERS, "match": {"email": "email", "id": "user_id"}}
    bob = person("a", email=["p1@example.com", "p2@example.com"], user_id="2", phone="+49170")
    assert outcomes(connect(database, rule), bob)["a"].facts == {"users": 2}
    assert [row[0] for row in database.rows("users")] == [3]


def test_person_without_a_usable_identifier_is_not_called_absent(
    database: Database, connect: Connect
) -> None:
    fill(database, users(), {"id": 1, "email": "bob@example.com"})
    connector = connect(database, DELETE_USERS)
    found = outcomes(connector, person("a", phone="+49170"), person("b", email="null"))
    assert (found["a"].verdict, found["a"].reason) == (Verdict.SKIPPED, "no_usable_identifier")
    assert (found["b"].verdict, found["b"].reason) == (Verdict.FAILED, "unusable_identifier")


def test_a_kept_match_column_is_declared_and_the_rest_is_masked(
    database: Database, connect: Connect
) -> None:
    fill(database, users(), {"id": 41, "email": "bob@example.com"})
    rule = {
        "name": "users",
        "match": {"id": "user_id", "email": "email"},
        "action": "mask",
        "mask": {"email": "format"},
    }
    connector = connect(database, rule)
    connector.check()
    found = outcomes(connector, person("a", user_id="41"))["a"]
    assert (found.read_back, [r.what for r in found.residuals]) == (True, ["users.id"])
    ((_, email),) = database.rows("users")
    assert email.endswith("@example.invalid")


def test_a_table_that_refers_to_itself_loses_its_leaves_first(
    database: Database, connect: Connect
) -> None:
    table = users(Column("boss", ForeignKey("users.id")))
    fill(
        database,
        table,
        {"id": 1, "email": "bob@example.com", "boss": None},
        {"id": 2, "email": "bob@example.com", "boss": 1},
        {"id": 3, "email": "bob@example.com", "boss": 2},
    )
    assert outcomes(connect(database, DELETE_USERS), person("a", email="bob@example.com"))[
        "a"
    ].facts == {"users": 3}
    assert database.rows("users") == []


def test_rows_that_others_refer_to_fail_for_that_person_only(
    database: Database, connect: Connect
) -> None:
    table = users(Column("boss", ForeignKey("users.id")))
    fill(
        database,
        table,
        {"id": 1, "email": "bob@example.com", "boss": None},
        {"id": 2, "email": "eve@example.com", "boss": 1},
    )
    connector = connect(database, DELETE_USERS)
    found = outcomes(connector, person("a", email="bob@example.com"))
    assert (found["a"].verdict, found["a"].reason) == (Verdict.FAILED, "constraint_violation")
    found = outcomes(
        connector, person("a", email="bob@example.com"), person("b", email="eve@example.com")
    )
    assert found["b"].verdict is Verdict.DONE


# Refused before anything runs ----------------------------------------------------------------


@pytest.mark.parametrize("name", ["users; DROP TABLE x--", 'users"; DELETE FROM users; --', ""])
def test_sql_001_a_name_that_is_not_in_the_catalogue_is_refused(
    database: Database, connect: Connect, name: str
) -> None:
    fill(database, users(), {"id": 1, "email": "bob@example.com"})
    with pytest.raises((ConnectorError, ValidationError)):
        connect(database, {**DELETE_USERS, "name": name}).check()
    with pytest.raises(ConnectorError, match="no column"):
        connect(database, {**DELETE_USERS, "match": {"email = '' OR 1=1 --": "email"}}).check()
    assert len(database.rows("users")) == 1


@pytest.mark.parametrize(
    "name",
    [
        "pg_catalog.pg_authid",
        "information_schema.tables",
        "mysql.user",
        "performance_schema.threads",
        "sqlite_master",
        "pg_toast.pg_toast_1255",
    ],
)
def test_sql_003_system_tables_are_refused(database: Database, connect: Connect, name: str) -> None:
    fill(database, users(), {"id": 1, "email": "bob@example.com"})
    words = "system schemas" if "." in name else "has no table"
    with pytest.raises(ConnectorError, match=words):
        connect(database, {**DELETE_USERS, "name": name}).check()


@pytest.mark.parametrize("value", ["", " ", "\t", "0", "null", "NULL", "undefined", "a\0b"])
def test_sql_005_an_empty_key_never_deletes(
    database: Database, connect: Connect, value: str
) -> None:
    table = users(Column("ref", Integer))
    rows = [{"id": n, "email": None, "ref": 0 if n % 2 else None} for n in range(1, 7)]
    strings = [{"id": 7, "email": "", "ref": 0}, {"id": 8, "email": value.strip("\0ab"), "ref": 0}]
    fill(database, table, *rows, *strings)
    rule = {**DELETE_USERS, "match": {"email": "user_id", "ref": "user_id"}}
    found = outcomes(connect(database, rule), person("a", user_id=value))
    assert found["a"].reason == "unusable_identifier"
    assert len(database.rows("users")) == 8


LOOKALIKES = [
    "ss@example.com",
    "ß@example.com",
    "Bob@example.com ",
    " bob@example.com",
    "bób@example.com",
    "bob@example.com\t",
    "ſs@example.com",  # noqa: RUF001 - the point
    "BOB@EXAMPLE.COM",
    "bob@example.com",
]


@pytest.mark.parametrize("value", ["ß@example.com", "bob@example.com", "ss@example.com"])
def test_sql_007_no_collation_and_no_space_widens_a_match(
    database: Database, connect: Connect, value: str
) -> None:
    fill(database, users(), *({"id": n, "email": each} for n, each in enumerate(LOOKALIKES, 1)))
    outcomes(connect(database, DELETE_USERS), person("a", email=value))
    mine = {value, "BOB@EXAMPLE.COM"} if value.startswith("bob") else {value}
    assert {row[1] for row in database.rows("users")} == set(LOOKALIKES) - mine


@pytest.mark.parametrize("value", ["ß", "SS", "Bob", "bob "])
def test_sql_007_an_id_matches_exactly(database: Database, connect: Connect, value: str) -> None:
    names = ["ß", "ss", "SS", "bob", "Bob", "bob ", "BOB"]
    fill(database, users(), *({"id": n, "email": each} for n, each in enumerate(names, 1)))
    rule = {**DELETE_USERS, "match": {"email": "user_id"}}
    outcomes(connect(database, rule), person("a", user_id=value))
    assert {row[1] for row in database.rows("users")} == set(names) - {value}


def test_sql_007_the_padding_of_a_char_column_does_not_count(
    database: Database, connect: Connect
) -> None:
    table = users(Column("note", String(10)), email=CHAR(30))
    fill(
        database,
        table,
        {"id": 1, "email": "bob@example.com", "note": "x"},
        {"id": 2, "email": "bobby@example.com", "note": "x"},
    )
    assert outcomes(connect(database, DELETE_USERS), person("a", email="bob@example.com"))[
        "a"
    ].read_back
    assert [row[0] for row in database.rows("users")] == [2]


@pytest.mark.parametrize("value", ["abc", "7abc", "07", "+7", "7.0", " 7", "9" * 30, "-0"])
def test_text_never_matches_a_number_loosely(
    database: Database, connect: Connect, value: str
) -> None:
    table = users(Column("ref", Integer))
    fill(database, table, *({"id": n, "email": None, "ref": n} for n in (0, 7, 9)))
    rule = {**DELETE_USERS, "match": {"ref": "user_id"}}
    found = outcomes(connect(database, rule), person("a", user_id=value))
    assert found["a"].verdict is Verdict.ABSENT
    assert len(database.rows("users")) == 3


@pytest.mark.parametrize("applied", [False, True])
def test_sql_009_a_connection_lost_at_commit_is_looked_at_again(
    database: Database, connect: Connect, applied: bool
) -> None:
    fill(database, users(), {"id": 1, "email": "bob@example.com"})
    connector = connect(database, DELETE_USERS)
    connector.check()
    cut = threading.Event()

    def lose(connection: Any) -> None:
        if connection.get_execution_options().get("writes") and not cut.is_set():
            cut.set()
            raw = connection.connection.dbapi_connection
            if applied:
                raw.commit()
            raw.close()

    event.listen(connector._opened(), "commit", lose)
    found = outcomes(connector, person("a", email="bob@example.com"))["a"]

    assert cut.is_set()
    if applied:
        assert (found.verdict, found.read_back) == (Verdict.DONE, True)
        again = Verdict.ABSENT
    else:
        assert found.verdict is Verdict.RETRY
        assert len(database.rows("users")) == 1
        again = Verdict.DONE
    assert outcomes(connector, person("a", email="bob@example.com"))["a"].verdict is again
    assert database.rows("users") == []


def test_sql_009_a_server_that_is_away_means_retry(database: Database, connect: Connect) -> None:
    if database.dialect == "sqlite":
        database.url = database.url.replace(".sqlite", "-gone.sqlite")
    else:
        database.url = make_url(database.url).set(port=1).render_as_string(hide_password=False)
    found = outcomes(connect(database, DELETE_USERS), person("a", email="bob@example.com"))["a"]
    assert found.verdict is Verdict.RETRY
    assert found.reason in ("connection_failed", "database_unreadable")


SLOW = {
    "sqlite": [
        "CREATE TRIGGER slow BEFORE DELETE ON users WHEN old.id = 1 BEGIN SELECT count(*) FROM"
        " (WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 90000000)"
        " SELECT x FROM c); END"
    ],
    "postgresql": [
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN IF old.id = 1 THEN PERFORM pg_sleep(20); END IF; RETURN old; END'",
        "CREATE TRIGGER slow BEFORE DELETE ON users FOR EACH ROW EXECUTE FUNCTION slow()",
    ],
    "mariadb": [
        "CREATE TRIGGER slow BEFORE DELETE ON users FOR EACH ROW"
        " BEGIN DECLARE n INT; IF old.id = 1 THEN SELECT SLEEP(20) INTO n; END IF; END"
    ],
}


def test_sql_011_a_slow_statement_is_stopped_and_tried_again_later(
    database: Database, connect: Connect
) -> None:
    fill(database, users(), *({"id": n, "email": f"p{n}@example.com"} for n in (1, 2)))
    for statement in SLOW[database.dialect]:
        database.run(statement)
    connector = connect(database, DELETE_USERS, kind=ImpatientSql)
    people = [person(str(n), email=f"p{n}@example.com") for n in (1, 2)]
    begun = dt.datetime.now(dt.UTC)
    found = outcomes(connector, *people)
    assert dt.datetime.now(dt.UTC) - begun < dt.timedelta(seconds=10)
    assert (found["1"].verdict, found["1"].reason) == (Verdict.RETRY, "statement_timeout")
    assert found["2"].verdict is Verdict.DONE
    assert [row[0] for row in database.rows("users")] == [1]


def test_sql_011_a_locked_row_delays_only_its_person(database: Database, connect: Connect) -> None:
    fill(database, users(), *({"id": n, "email": f"p{n}@example.com"} for n in (1, 2)))
    connector = connect(database, DELETE_USERS, kind=UnlockedSql)
    connector.check()
    people = [person(str(n), email=f"p{n}@example.com") for n in (1, 2)]
    with database.engine.connect() as other:
        other.exec_driver_sql("UPDATE users SET email = email WHERE id = 1")
        found = outcomes(connector, *people)
        other.rollback()
    assert (found["1"].verdict, found["1"].reason) == (Verdict.RETRY, "lock_timeout")
    if database.dialect == "sqlite":  # the whole file is locked
        assert found["2"].reason == "lock_timeout"
    else:
        assert found["2"].verdict is Verdict.DONE
    assert {o.verdict for o in outcomes(connector, *people).values()} <= {
        Verdict.DONE,
        Verdict.ABSENT,
    }
    assert database.rows("users") == []


def test_a_row_that_becomes_somebody_elses_meanwhile_is_left_alone(
    database: Database, connect: Connect
) -> None:
    if database.dialect == "sqlite":
        pytest.skip("nobody else can write to the file meanwhile")
    fill(database, users(), *({"id": n, "email": f"p{n}@example.com"} for n in (1, 2)))
    connector = connect(database, DELETE_USERS)

    def give_away(*_: object) -> None:
        database.run("UPDATE users SET email = 'eve@example.com' WHERE id = 1")

    event.listen(connector._opened(), "savepoint", give_away, once=True)
    people = [person(str(n), email=f"p{n}@example.com") for n in (1, 2)]
    found = outcomes(connector, *people)
    assert (found["1"].verdict, found["1"].reason) == (Verdict.RETRY, "changed_meanwhile")
    assert found["2"].verdict is Verdict.DONE
    assert database.rows("users") == [(1, "eve@example.com")]


def test_a_row_added_after_the_commit_is_seen_by_the_second_look(
    database: Database, connect: Connect
) -> None:
    fill(database, users(), {"id": 1, "email": "bob@example.com"})
    connector = connect(database, DELETE_USERS)
    connector.check()
    added = threading.Event()

    def add(*_: object) -> None:
        if not added.is_set():
            added.set()
            database.run("INSERT INTO users VALUES (7, 'bob@example.com')")

    def after_commit(connection: Any) -> None:
        if connection.get_execution_options().get("writes"):
            event.listen(connector._opened(), "checkout", add)

    event.listen(connector._opened(), "commit", after_commit)
    found = outcomes(connector, person("a", email="bob@example.com"))["a"]
    assert added.is_set()
    assert (found.verdict, found.reason) == (Verdict.RETRY, "found_again")


AGAIN = {
    "sqlite": [
        "CREATE TRIGGER again AFTER DELETE ON users WHEN old.id < 50"
        " BEGIN INSERT INTO users VALUES (old.id + 50, old.email); END"
    ],
    "postgresql": [
        "CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN IF old.id < 50 THEN INSERT INTO users VALUES (old.id + 50, old.email); END IF;"
        " RETURN NULL; END'",
        "CREATE TRIGGER again AFTER DELETE ON users FOR EACH ROW EXECUTE FUNCTION again()",
    ],
}


def test_what_is_still_found_before_the_commit_is_taken_back(
    database: Database, connect: Connect
) -> None:
    if database.dialect not in AGAIN:
        pytest.skip("MariaDB forbids a trigger that writes to its own table")
    fill(
        database,
        users(),
        {"id": 1, "email": "p1@example.com"},
        {"id": 60, "email": "p2@example.com"},
    )
    for statement in AGAIN[database.dialect]:
        database.run(statement)
    people = [person(str(n), email=f"p{n}@example.com") for n in (1, 2)]
    found = outcomes(connect(database, DELETE_USERS), *people)
    assert (found["1"].verdict, found["1"].reason) == (Verdict.RETRY, "still_found")
    assert found["2"].read_back
    assert [row[0] for row in database.rows("users")] == [1]


UNDO = {
    "sqlite": [
        "CREATE TRIGGER restores AFTER UPDATE ON users WHEN new.name IS NULL"
        " BEGIN UPDATE users SET name = old.name WHERE id = old.id; END"
    ],
    "postgresql": [
        "CREATE FUNCTION restores() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN new.name := old.name; RETURN new; END'",
        "CREATE TRIGGER restores BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION restores()",
    ],
    "mariadb": [
        "CREATE TRIGGER restores BEFORE UPDATE ON users FOR EACH ROW SET new.name = old.name"
    ],
}


def test_a_mask_that_the_database_undoes_is_never_called_done(
    database: Database, connect: Connect
) -> None:
    table = users(Column("name", String(40)))
    fill(database, table, {"id": 1, "email": "bob@example.com", "name": "Bob"})
    for statement in UNDO[database.dialect]:
        database.run(statement)
    rule = {**DELETE_USERS, "action": "mask", "mask": {"email": "null", "name": "null"}}
    found = outcomes(connect(database, rule), person("a", email="bob@example.com"))["a"]
    assert (found.verdict, found.reason) == (Verdict.RETRY, "still_found")
    assert database.rows("users") == [(1, "bob@example.com", "Bob")]


def test_a_table_without_a_key_is_deleted_by_full_match(
    database: Database, connect: Connect
) -> None:
    emails = ["bob@example.com", "BOB@example.com", "bob@example.com", "eve@example.com"]
    fill(database, users(key=False), *({"id": 1, "email": email} for email in emails))
    connector = connect(database, DELETE_USERS)
    connector.check()
    found = outcomes(connector, person("a", email="bob@example.com"))["a"]
    assert (found.facts, found.read_back) == ({"users": 3}, True)
    assert [row[1] for row in database.rows("users")] == ["eve@example.com"]


def test_a_table_without_a_key_refuses_a_collation_that_matches_more(
    database: Database, connect: Connect
) -> None:
    fill(
        database,
        users(key=False),
        {"id": 1, "email": "bób@example.com"},
        {"id": 2, "email": "bob@example.com"},
    )
    found = outcomes(connect(database, DELETE_USERS), person("a", email="bob@example.com"))["a"]
    if database.dialect == "mariadb":
        assert (found.verdict, found.reason) == (Verdict.FAILED, "match_too_loose")
        assert len(database.rows("users")) == 2
    else:
        assert [row[0] for row in database.rows("users")] == [1]


def refused(connect: Connect, database: Database, *tables: Mapping[str, Any], **more: Any) -> str:
    with pytest.raises(ConnectorError) as caught:
        connect(database, *tables, **more).check()
    return str(caught.value)


def test_check_proposes_the_name_that_was_meant(database: Database, connect: Connect) -> None:
    shop(database, people=1)
    assert 'did you mean "Customer"?' in refused(connect, database, {**CUSTOMER, "name": "Custmer"})
    wrong = {**CUSTOMER, "match": {"email": "email"}}
    assert 'did you mean "Email"?' in refused(connect, database, wrong)
    wrong = {**ORDER, "via": {"customer": "Customer.di"}}
    assert "there are id, Email" in refused(connect, database, CUSTOMER, wrong)
    wrong = {**ORDER, "via": {"customer": "Custome.id"}}
    assert 'did you mean "Customer.id"?' in refused(connect, database, CUSTOMER, wrong)


def test_check_names_the_table_that_would_block_a_delete(
    database: Database, connect: Connect
) -> None:
    shop(database, people=1)
    words = refused(connect, database, CUSTOMER)
    assert '"Order"' in words
    assert 'via {"customer": "Customer.id"}' in words
    assert '"Order Line"' in refused(connect, database, CUSTOMER, ORDER)


def test_check_looks_behind_a_cascade(database: Database, connect: Connect) -> None:
    data = MetaData()
    Table("users", data, Column("id", Integer, primary_key=True), Column("email", String(40)))
    Table(
        "posts",
        data,
        Column("id", Integer, primary_key=True),
        Column("owner", Integer, ForeignKey("users.id", ondelete="CASCADE")),
    )
    data.create_all(database.engine)
    connect(database, DELETE_USERS).check()
    masked = {
        "name": "posts",
        "via": {"owner": "users.id"},
        "action": "mask",
        "mask": {"owner": "keep:statistics", "id": "keep:x"},
    }
    with pytest.raises(ValidationError, match="not kept"):
        connect(database, DELETE_USERS, masked)
    Table(
        "likes",
        data,
        Column("id", Integer, primary_key=True),
        Column("post", Integer, ForeignKey("posts.id")),
    )
    data.create_all(database.engine)
    assert '"likes"' in refused(connect, database, DELETE_USERS)


def test_check_refuses_a_masked_child_that_a_cascade_would_delete(
    database: Database, connect: Connect
) -> None:
    data = MetaData()
    Table("users", data, Column("id", Integer, primary_key=True), Column("email", String(40)))
    Table(
        "posts",
        data,
        Column("id", Integer, primary_key=True),
        Column("owner", Integer, ForeignKey("users.id", ondelete="CASCADE")),
        Column("text", String(40)),
    )
    data.create_all(database.engine)
    child = {"name": "posts", "via": {"owner": "users.id"}, "action": "mask"}
    assert "which is deleted" in refused(
        connect, database, DELETE_USERS, {**child, "mask": {"text": "null"}}
    )
    connector = connect(
        database, DELETE_USERS, {**child, "mask": {"text": "null", "owner": "null"}}
    )
    connector.check()
    database.run("INSERT INTO users VALUES (1, 'bob@example.com')")
    database.run("INSERT INTO posts VALUES (5, 1, 'hello')")
    assert outcomes(connector, person("a", email="bob@example.com"))["a"].read_back
    assert database.rows("posts") == [(5, None, None)]


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        ({"email": "null"}, "NOT NULL"),
        ({"email": "constant:x"}, "unique"),
        ({"id": "null", "email": "hash"}, "key"),
        ({"code": "hash", "email": "hash"}, "at least 8"),
        ({"born": "hash", "email": "hash"}, "text column"),
        ({"born": "format", "email": "hash"}, "text column"),
        ({"born": "constant:soon", "email": "hash"}, "does not fit"),
        ({"code": "constant:too long for it", "email": "hash"}, "longer than"),
        ({"picture": "constant:x", "email": "hash"}, "cannot be written"),
        ({"code": "null"}, "leaves every match column"),
        ({"nothing": "null"}, "no column"),
    ],
)
def test_check_refuses_a_mask_that_cannot_work(
    database: Database, connect: Connect, mask: dict[str, str], words: str
) -> None:
    table = Table(
        "users",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("email", String(80), nullable=False, unique=True),
        Column("code", String(6)),
        Column("born", Date),
        Column("picture", LargeBinary),
    )
    table.metadata.create_all(database.engine)
    assert words in refused(connect, database, {**DELETE_USERS, "action": "mask", "mask": mask})


def test_check_refuses_a_match_on_a_type_that_names_nobody(
    database: Database, connect: Connect
) -> None:
    fill(database, users(Column("born", Date), Column("raw", LargeBinary(20))), {"id": 1})
    for column, kind in (("born", "user_id"), ("raw", "user_id"), ("id", "email")):
        assert "cannot hold" in refused(
            connect, database, {**DELETE_USERS, "match": {column: kind}}
        )


def test_check_refuses_a_via_that_could_reach_strangers(
    database: Database, connect: Connect
) -> None:
    shop(database, people=1)
    by_name = {**ORDER, "via": {"address": "Customer.Name"}}
    assert "rows of other people" in refused(connect, database, CUSTOMER, by_name, LINE)
    circle = {**CUSTOMER, "match": {}, "via": {"id": "Order.id"}}
    assert "circle" in refused(connect, database, circle, ORDER)


@pytest.mark.parametrize(
    "tables",
    [
        [{"name": "users", "action": "delete"}],
        [{**DELETE_USERS, "via": {"a": "b.c"}}],
        [{**DELETE_USERS, "mask": {"email": "null"}}],
        [{**DELETE_USERS, "action": "mask", "mask": {"email": "keep:law"}}],
        [{**DELETE_USERS, "action": "mask", "mask": {"email": "encrypt"}}],
        [{**DELETE_USERS, "action": "mask", "mask": {"email": "hash", "a": "keep:until 2036-13"}}],
        [{**DELETE_USERS, "action": "truncate"}],
        [{**DELETE_USERS, "max_rows": 0}],
        [{**DELETE_USERS, "where": "1=1"}],
        [],
    ],
)
def test_settings_that_say_two_things_or_none_are_refused(tables: list[dict[str, Any]]) -> None:
    with pytest.raises(ValidationError):
        Sql.Settings.model_validate({"url": "sqlite:////x.sqlite", "tables": tables})


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file:x?mode=memory&uri=true",
        "sqlite:////x.sqlite?check_same_thread=false",
        "postgresql://u:hunter2@/db",
        "postgresql://u:hunter2@h/db?host=/tmp",
        "postgresql://u:hunter2@h/db?options=-csearch_path%3Devil",
        "postgresql://u:hunter2@h/db?hostaddr=10.0.0.1",
        "postgresql://u:hunter2@h/db?service=x",
        "postgresql://u:hunter2@h/dbname=x host=evil",
        "postgresql://u:hunter2@h,evil/db",
        "postgresql+psycopg2://u:hunter2@h/db",
        "postgresql+asyncpg://u:hunter2@h/db",
        "postgresql://u:hunter2@h/db?sslmode=off",
        "mysql://u:hunter2@h/db?local_infile=1",
        "mysql://u:hunter2@h/db?unix_socket=/tmp/x",
        "mysql://u:hunter2@h/db?read_default_file=/etc/my.cnf",
        "mysql+mysqldb://u:hunter2@h/db",
        "mssql+pyodbc://u:hunter2@h/db",
        "duckdb:///x",
        "hunter2",
        "postgresql://u:hunter2@h:port/db",
    ],
)
def test_urls_outside_the_allow_list_are_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(ConnectorError) as caught:
        parse(url)
    assert "hunter2" not in str(caught.value)
    assert "evil" not in str(caught.value)


def test_drivers_get_the_checked_address_and_tls_keeps_the_name(tmp_path: Path) -> None:
    tools = FakeTools()
    url = parse("postgresql://u:p@db.example:6432/d?sslmode=verify-full").url
    arguments = postgres_arguments(url, cast(Any, tools))
    assert (arguments["host"], arguments["hostaddr"]) == ("db.example", "127.0.0.1")
    arguments = mysql_arguments(parse("mariadb://u:p@my.example/d").url, cast(Any, tools))
    assert arguments["host"] == "127.0.0.1"
    assert tools.asked == [("db.example", 6432), ("my.example", 3306)]


def test_a_refused_address_parks_the_destination(database: Database, connect: Connect) -> None:
    connector = connect(database, DELETE_USERS, tools=FakeTools(refuses=True))
    found = outcomes(connector, person("a", email="bob@example.com"))["a"]
    assert (found.verdict, found.parks) == (Verdict.RETRY, True)


def test_the_server_is_reached_through_the_resolver_under_another_name(
    database: Database, connect: Connect
) -> None:
    if database.dialect == "sqlite":
        pytest.skip("a file has no host")
    fill(database, users(), {"id": 1, "email": "bob@example.com"})
    url = make_url(database.url)
    database.url = url.set(host="db.nowhere.example").render_as_string(hide_password=False)
    tools = FakeTools()
    words = connect(database, DELETE_USERS, tools=tools).test()
    assert words.startswith("Connected to ")
    assert tools.asked == [("db.nowhere.example", url.port)]


def test_a_wrong_password_parks_and_is_never_shown(database: Database, connect: Connect) -> None:
    if database.dialect == "sqlite":
        pytest.skip("a file has no password")
    url = make_url(database.url).set(username="nobody", password="hunter2-hunter2")
    database.url = url.render_as_string(hide_password=False)
    connector = connect(database, DELETE_USERS)
    with pytest.raises(ConnectorError, match="refused the user name or the password") as caught:
        connector.test()
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(connector.settings) + repr(connector._engine)
    found = outcomes(connector, person("a", email="bob@example.com"))["a"]
    assert (found.reason, found.parks) == ("authentication_refused", True)


def test_errors_hold_no_identifier(sqlite: Database, connect: Connect) -> None:
    fill(sqlite, users(), {"id": 1, "email": "canary@example.com"})
    sqlite.run(
        "CREATE TRIGGER broken BEFORE DELETE ON users"
        " BEGIN SELECT raise(ABORT, 'canary@example.com is loved'); END"
    )
    connector = connect(sqlite, DELETE_USERS)
    found = outcomes(connector, person("a", email="canary@example.com"))["a"]
    assert found.verdict is not Verdict.DONE
    assert "canary" not in repr(found)


def test_test_says_what_it_found(database: Database, connect: Connect) -> None:
    shop(database, people=4)
    words = connect(database, CUSTOMER, ORDER, LINE).test()
    server = {"sqlite": "SQLite 3", "postgresql": "PostgreSQL 1", "mariadb": "MariaDB 1"}
    assert words.startswith(f"Connected to {server[database.dialect]}")
    assert "3 tables found, Customer 4 rows, Order 12 rows" in words


def test_a_qualified_name_of_another_schema_works(database: Database, connect: Connect) -> None:
    if database.dialect != "postgresql":
        pytest.skip("schemas are PostgreSQL's")
    database.run("CREATE SCHEMA crm")
    database.run("CREATE TABLE crm.people (id int PRIMARY KEY, email text)")
    database.run("INSERT INTO crm.people VALUES (1, 'bob@example.com'), (2, 'eve@example.com')")
    connector = connect(database, {**DELETE_USERS, "name": "crm.people"})
    connector.check()
    assert outcomes(connector, person("a", email="bob@example.com"))["a"].facts == {"crm.people": 1}
    with database.engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM crm.people")) == 1


def test_a_key_of_two_columns_is_followed_and_only_its_rows_change(
    database: Database, connect: Connect
) -> None:
    data = MetaData()
    Table(
        "member",
        data,
        Column("shop", String(8), primary_key=True),
        Column("no", Integer, primary_key=True, autoincrement=False),
        Column("email", String(80)),
    )
    Table(
        "visit",
        data,
        Column("id", Integer, primary_key=True),
        Column("shop", String(8)),
        Column("no", Integer),
        ForeignKeyConstraint(["shop", "no"], ["member.shop", "member.no"]),
    )
    data.create_all(database.engine)
    with database.engine.begin() as connection:
        members = [("a", 1), ("a", 2), ("b", 1), ("b", 2)]
        rows = [{"shop": s, "no": n, "email": f"{s}{n}@example.com"} for s, n in members]
        connection.execute(insert(data.tables["member"]), rows)
        visits = [{"id": i, "shop": s, "no": n} for i, (s, n) in enumerate(members * 2, 1)]
        connection.execute(insert(data.tables["visit"]), visits)
    connector = connect(
        database,
        {"name": "member", "match": {"email": "email"}, "action": "delete"},
        {"name": "visit", "via": {"no": "member.no", "shop": "member.shop"}, "action": "delete"},
    )
    connector.check()
    found = outcomes(connector, person("x", email="a2@example.com"))["x"]
    assert (found.facts, found.read_back) == ({"member": 1, "visit": 2}, True)
    assert {row[1:] for row in database.rows("visit")} == set(members) - {("a", 2)}
    half = {"name": "visit", "via": {"no": "member.no"}, "action": "delete"}
    member = {"name": "member", "match": {"email": "email"}, "action": "delete"}
    assert "rows of other people" in refused(connect, database, member, half)


def test_postgres_domains_and_citext_hold_identifiers(database: Database, connect: Connect) -> None:
    if database.dialect != "postgresql":
        pytest.skip("domains are PostgreSQL's")
    database.run("CREATE EXTENSION IF NOT EXISTS citext")
    database.run("CREATE DOMAIN address AS text CHECK (position('@' in VALUE) > 0)")
    database.run("CREATE TABLE users (id uuid PRIMARY KEY, email address, nick citext)")
    key = "6f1f9a1e-3f57-4c36-8a0c-6b7f8e9d0a1b"
    database.run(f"INSERT INTO users VALUES ('{key}', 'bob@example.com', 'Bob')")
    by_nick = {**DELETE_USERS, "match": {"nick": "user_id", "id": "user_id"}}
    found = outcomes(connect(database, by_nick), person("a", user_id="bob"))["a"]
    assert found.verdict is Verdict.ABSENT
    assert connect(database, by_nick).count([person("a", user_id=key)])["a"] == {"users": 1}
    mask = {**DELETE_USERS, "action": "mask", "mask": {"email": "format", "nick": "hash"}}
    connector = connect(database, mask)
    connector.check()
    assert outcomes(connector, person("a", email="BOB@example.com"))["a"].read_back


def test_an_alphabet_that_lacks_the_letters_is_an_absence(
    database: Database, connect: Connect
) -> None:
    if database.dialect != "mariadb":
        pytest.skip("alphabets of columns are MySQL's")
    database.run("CREATE TABLE users (id INT PRIMARY KEY, email VARCHAR(80) CHARACTER SET latin1)")
    database.run("INSERT INTO users VALUES (1, 'bob@example.com'), (2, '?@example.com')")
    connector = connect(database, DELETE_USERS)
    found = outcomes(
        connector, person("a", email="\u0441@example.com"), person("b", email="bob@example.com")
    )
    assert (found["a"].verdict, found["b"].verdict) == (Verdict.ABSENT, Verdict.DONE)


def test_a_sqlite_column_of_an_unknown_type_still_matches(
    sqlite: Database, connect: Connect
) -> None:
    sqlite.run("CREATE TABLE users (id INTEGER PRIMARY KEY, email EMAIL, ref)")
    sqlite.run("INSERT INTO users VALUES (1, 'bob@example.com', 77), (2, 'eve@example.com', '78')")
    rule = {**DELETE_USERS, "match": {"email": "email", "ref": "user_id"}}
    found = outcomes(
        connect(sqlite, rule), person("a", email="Bob@example.com"), person("b", user_id="78")
    )
    assert {each.verdict for each in found.values()} == {Verdict.DONE}


def test_erased_bytes_are_gone_from_the_sqlite_file(sqlite: Database, connect: Connect) -> None:
    fill(sqlite, users(), *({"id": n, "email": f"canary{n}@example.com"} for n in range(1, 40)))
    path = Path(make_url(sqlite.url).database or "")
    connector = connect(sqlite, DELETE_USERS)
    assert b"canary7@" in path.read_bytes()
    outcomes(connector, person("a", email="canary7@example.com"))
    connector.close()
    assert b"canary7@" not in path.read_bytes()
    assert b"canary8@" in path.read_bytes()


# Lookup ----------------------------------------------------------------------------------------


def test_lookup_returns_other_identifiers_and_stops_after_51(
    database: Database, connect: Connect
) -> None:
    rows = [{"id": n, "email": "many@example.com"} for n in range(1, 71)]
    fill(database, users(), *rows, {"id": 100, "email": "Bob@example.com"})
    connector = connect(
        database,
        lookup=[
            {
                "table": "users",
                "match": {"email": "email"},
                "yields": {"id": "user_id", "email": "email"},
            }
        ],
        identity_source=True,
    )
    connector.check()
    people = [
        person("a", email="many@example.com"),
        person("b", email="bob@example.com"),
        person("c", email="none@example.com"),
    ]
    found = connector.lookup(people)
    assert len(found["a"]) == 51
    assert set(found["b"]) == {Identifier("user_id", "100"), Identifier("email", "Bob@example.com")}
    assert found["c"] == []
    assert outcomes(connector, *people)["a"].verdict is Verdict.SKIPPED


# Pure rules --------------------------------------------------------------------------------------


def test_the_date_in_a_reason_is_read() -> None:
    assert until("tax law until 2036") == "2036"
    assert until("tax law, Until 2036-12-31.") == "2036-12-31"
    assert until("as long as the contract lasts") is None
    with pytest.raises(ValueError, match="until"):
        until("until 2036-02-31")


@pytest.mark.parametrize("rule", ["", "Null", "hash:8", "keep:", "keep: ", "format:x", "constant"])
def test_an_unclear_mask_is_refused(rule: str) -> None:
    with pytest.raises(ValueError, match="a mask is"):
        parse_mask(rule)


@given(st.text(max_size=30))
def test_format_keeps_the_shape_and_never_the_value(value: str) -> None:
    noise = masking.alike(value, None, secrets.choice)
    if re.match(r"^[^@\s]+@[^@\s]+$", value) and any(c.isalnum() for c in value):
        assert str(noise).endswith("@example.invalid")
        return
    assert isinstance(noise, str)
    assert len(noise) == len(value)
    assert noise != value or not any(c.isalnum() for c in value)
    for old, new in zip(value, noise, strict=True):
        assert old == new or (old.isalnum() and new.isascii() and new.isalnum())


def test_hash_is_the_same_in_one_place_and_differs_elsewhere() -> None:
    one = masking.hashed("bob", "users.name", b"k" * 32, 20)
    assert one == masking.hashed("bob", "users.name", b"k" * 32, 20)
    assert one != masking.hashed("bob", "users.nick", b"k" * 32, 20)
    assert one != masking.hashed("bob", "users.name", b"j" * 32, 20)
    assert len(one or "") == 20


def test_a_uuid_matches_in_any_case_and_in_one_spelling() -> None:
    text_form = "6f1f9a1e-3f57-4c36-8a0c-6b7f8e9d0a1b"
    assert comparable(text_form.upper(), "user_id", Family.UUID) == text_form
    assert comparable(text_form.replace("-", ""), "user_id", Family.UUID) is None


EMAILS = st.text(st.sampled_from("abABßİıſé@. \t%_'\\"), min_size=1, max_size=6)  # noqa: RUF001 - the point


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(stored=st.lists(EMAILS, max_size=12), wanted=EMAILS)
def test_only_rows_that_differ_by_ascii_case_go(
    tmp_path: Path, stored: list[str], wanted: str
) -> None:
    def lower(value: str) -> str:
        return "".join(c.lower() if c.isascii() else c for c in value)

    for database in new_database("sqlite", tmp_path):
        table = users()
        table.metadata.create_all(database.engine)
        if stored:
            rows = [{"id": n, "email": each} for n, each in enumerate(stored, 1)]
            fill(database, table, *rows)
        chosen = Sql.Settings.model_validate({"url": database.url, "tables": [DELETE_USERS]})
        connector = Sql(chosen, cast(Any, FakeTools()))
        outcomes(connector, person("a", email=wanted))
        connector.close()
        left = sorted(row[1] for row in database.rows("users"))
        kept = [each for each in stored if not wanted.strip() or lower(each) != lower(wanted)]
        assert left == sorted(kept)


def test_the_count_of_a_table_is_that_of_the_database(sqlite: Database, connect: Connect) -> None:
    fill(sqlite, users(), *({"id": n, "email": f"p{n}@example.com"} for n in range(1, 8)))
    found = connect(sqlite, DELETE_USERS).count([person("a", email="p3@example.com")])
    assert found == {"a": {"users": 1}}
    with sqlite.engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(text("users"))) == 7
