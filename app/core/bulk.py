"""Many rows in one statement: inserts, updates and deletes whose cost is the database's, not ours.

On PostgreSQL the rows travel as one JSON document, so that a statement is parsed and planned once
whatever their number; on SQLite they are bound row by row inside its own library.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, cast

import sqlalchemy as sa
from pydantic_core import to_json
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import GenericFunction
from sqlalchemy.types import TypeDecorator
from sqlmodel import SQLModel

from app.core.db import Database, insert_or_ignore, is_postgresql, table_of

_POSTGRESQL: Dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
Rows = Sequence[Mapping[str, Any]]
Condition = Callable[[Any], sa.ColumnElement[bool]]
"""Says of a row (of its columns, or of one column) whether something holds."""
BITE = 500


class Many(TypeDecorator[Sequence[str]]):
    """A list of texts as one bound value: an array on PostgreSQL, a JSON document on SQLite."""

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        is_array = dialect.name == "postgresql"
        return dialect.type_descriptor(postgresql.ARRAY(sa.Text) if is_array else sa.Text())

    def process_bind_param(self, value: Sequence[str] | None, dialect: Dialect) -> Any:
        return value if dialect.name == "postgresql" else json.dumps(value)


def named(name: str) -> sa.BindParameter[Sequence[str]]:
    """A list that is given later, under this name; for ``among`` in statements made once."""
    return sa.bindparam(name, type_=Many())


class _Among(GenericFunction[bool]):
    name = "among"
    type = sa.Boolean()
    inherit_cache = True

    def self_group(self, against: Any = None) -> Any:
        """A comparison as it is: SQLite would not look behind ``... = 1`` for an index."""
        return self


@compiles(_Among, "postgresql")
def _among_on_postgresql(element: Any, compiler: Any, **options: Any) -> str:
    column, values = (compiler.process(each, **options) for each in element.clauses)
    return f"{column} = ANY({values})"


@compiles(_Among, "sqlite")
def _among_on_sqlite(element: Any, compiler: Any, **options: Any) -> str:
    column, values = (compiler.process(each, **options) for each in element.clauses)
    return f"{column} IN (SELECT value FROM json_each({values}))"  # noqa: S608 (compiled, bound)


def values_of(values: Iterable[str]) -> sa.BindParameter[Sequence[str]]:
    """A list as one bound value: the statement is the same for any number of them."""
    return sa.bindparam(None, list(values), type_=Many(), unique=True)


def among(
    column: sa.ColumnElement[Any], values: Iterable[str] | sa.BindParameter[Sequence[str]]
) -> sa.ColumnElement[bool]:
    """``column IN (values)``."""
    given = values if isinstance(values, sa.BindParameter) else values_of(values)
    return _Among(column, given)


async def insert(session: AsyncSession, model: type[SQLModel], rows: Rows) -> None:
    """Insert rows that all have the same columns."""
    if not rows:
        return
    table = table_of(model)
    if is_postgresql(session):
        await session.execute(_insert(table, tuple(rows[0])), document(rows))
    else:
        await session.execute(sa.insert(table), rows)


async def insert_new(session: AsyncSession, model: type[SQLModel], rows: Rows) -> set[str]:
    """Insert those of the rows (of the same columns, with new ids) that clash with none that is
    there; returns their ids.
    """
    if not rows:
        return set()
    table = table_of(model)
    if is_postgresql(session):
        added = await session.execute(_insert_new(table, tuple(rows[0])), document(rows))
    else:
        await session.execute(insert_or_ignore(session, table), rows)
        added = await session.execute(
            sa.select(table.c.id).where(among(table.c.id, [row["id"] for row in rows]))
        )
    return set(added.scalars())


async def update(
    session: AsyncSession, model: type[SQLModel], keys: Sequence[str], rows: Rows
) -> None:
    """Set the other columns of the rows with these keys; all rows have the same columns."""
    if not rows:
        return
    table = table_of(model)
    if is_postgresql(session):
        await session.execute(_update(table, tuple(keys), tuple(rows[0])), document(rows))
        return
    values: dict[str, Any] = {
        name: sa.bindparam(f"b_{name}") for name in rows[0] if name not in keys
    }
    statement = sa.update(table).where(*_same(table, keys)).values(values)
    await session.execute(statement, _bound(rows))


async def delete(
    session: AsyncSession, model: type[SQLModel], keys: Sequence[str], rows: Rows
) -> None:
    """Delete the rows with these keys."""
    if not rows:
        return
    table = table_of(model)
    if is_postgresql(session):
        await session.execute(_delete(table, tuple(keys)), document(rows))
    else:
        await session.execute(sa.delete(table).where(*_same(table, keys)), _bound(rows))


# Table and column names in these statements are our own; what is given travels as ``rows``.


@cache
def _insert(table: sa.Table, names: tuple[str, ...]) -> sa.TextClause:
    columns = ", ".join(f'"{name}"' for name in names)
    values = ", ".join(_value(table.c[name]) for name in names)
    return sa.text(
        f'INSERT INTO "{table.name}" ({columns}) SELECT {values} FROM {_given(table, names)}'  # noqa: S608 (see above)
    )


@cache
def _insert_new(table: sa.Table, names: tuple[str, ...]) -> sa.TextClause:
    return sa.text(f"{_insert(table, names)} ON CONFLICT DO NOTHING RETURNING id")


@cache
def _update(table: sa.Table, keys: tuple[str, ...], names: tuple[str, ...]) -> sa.TextClause:
    values = ", ".join(f'"{name}" = given."{name}"' for name in names if name not in keys)
    given = _given(table, names)
    return sa.text(f'UPDATE "{table.name}" AS t SET {values} FROM {given} WHERE {_join(keys)}')  # noqa: S608 (see above)


@cache
def _delete(table: sa.Table, keys: tuple[str, ...]) -> sa.TextClause:
    given = _given(table, keys)
    return sa.text(f'DELETE FROM "{table.name}" AS t USING {given} WHERE {_join(keys)}')  # noqa: S608 (see above)


def _given(table: sa.Table, names: Sequence[str]) -> str:
    """The document as a table with the types (and collations) of the real one."""
    columns = ", ".join(f'"{name}" {_type(table.c[name])}' for name in names)
    return f"json_to_recordset(CAST(:rows AS json)) AS given({columns})"


def given_rows(table: sa.Table, names: Sequence[str], *, on_postgresql: bool) -> str:
    """For the FROM of a statement in text: ``document(rows)`` as a table ``given`` with columns of
    a real one.
    """
    if on_postgresql:
        return _given(table, names)
    columns = ", ".join(f"""json_extract(value, '$.{name}') AS "{name}\"""" for name in names)
    return f"(SELECT {columns} FROM json_each(:rows)) AS given"  # noqa: S608 (see above)


def _is_binary(column: sa.Column[Any]) -> bool:
    return isinstance(column.type, sa.LargeBinary)


def _type(column: sa.Column[Any]) -> str:
    return "text" if _is_binary(column) else column.type.compile(dialect=_POSTGRESQL)


def _value(column: sa.Column[Any]) -> str:
    """JSON knows no bytes: they travel in hexadecimal digits."""
    return f"""decode("{column.name}", 'hex')""" if _is_binary(column) else f'"{column.name}"'


def _join(keys: Sequence[str]) -> str:
    return " AND ".join(f't."{name}" = given."{name}"' for name in keys)


def document(rows: Rows) -> dict[str, str]:
    """The parameter ``rows`` for a statement that reads them with ``json_to_recordset``."""
    return {"rows": to_json(rows, bytes_mode="hex").decode()}


def _same(table: sa.Table, keys: Sequence[str]) -> list[sa.ColumnElement[bool]]:
    return [table.c[name] == sa.bindparam(f"b_{name}") for name in keys]


def _bound(rows: Rows) -> list[dict[str, Any]]:
    return [{f"b_{name}": value for name, value in row.items()} for row in rows]


async def nibble(database: Database, rows: sa.Table, goes: Condition) -> int:
    """Delete the rows that go, in transactions so small that whoever writes next hardly waits."""
    inner = rows.alias()
    bite = sa.select(*inner.primary_key).where(goes(inner.c)).limit(BITE)
    statement = sa.delete(rows).where(sa.tuple_(*rows.primary_key).in_(bite))
    removed = 0
    while True:
        async with database.writing() as session:
            result = await session.execute(statement)
        count = cast(sa.CursorResult[Any], result).rowcount
        removed += count
        if count < BITE:
            return removed
