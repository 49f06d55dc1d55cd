"""What the database says about itself: tables, columns, keys, and who refers to whom."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Column, Connection, Inspector, MetaData, Table, inspect
from sqlalchemy import types as sqltypes
from sqlalchemy.dialects.postgresql import DOMAIN
from sqlalchemy.exc import SAWarning
from sqlalchemy.types import TypeEngine

from connectors.contract import ConnectorError

_SYSTEM = frozenset({"information_schema", "mysql", "performance_schema", "sys"})
DECLARED = "declared"
_SHOWN = 12
_CALM = ("NO ACTION", "RESTRICT", "")


class TableName(NamedTuple):
    """``schema`` is None in the connection's own schema."""

    schema: str | None
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}" if self.schema else self.name


@dataclass(frozen=True, slots=True)
class ForeignKey:
    child: TableName
    columns: tuple[str, ...]
    parent: TableName
    parent_columns: tuple[str, ...]
    on_delete: str
    """CASCADE, SET NULL, SET DEFAULT, or empty: the parent's delete is refused."""

    @property
    def blocks(self) -> bool:
        return self.on_delete not in ("CASCADE", "SET NULL", "SET DEFAULT")


@dataclass(frozen=True, slots=True)
class Described:
    """One table that a rule names."""

    name: TableName
    table: Table
    key: tuple[str, ...]
    """Primary key, or a unique one without NULLs; empty when there is none."""
    uniques: tuple[frozenset[str], ...]
    foreign_keys: tuple[ForeignKey, ...]
    is_transactional: bool

    def column(self, name: str) -> Column[Any]:
        """The column, or a ConnectorError that proposes the nearest name."""
        found = self.table.columns.get(name)
        if found is None:
            names = [column.name for column in self.table.columns]
            raise ConnectorError(f'Table "{self.name}" has no column "{name}"{near(name, names)}')
        return found


class Catalogue:
    """Reads names out of one connection; only what it found can be used in a statement."""

    def __init__(self, connection: Connection) -> None:
        self.dialect = connection.dialect.name.replace("mariadb", "mysql")
        self._inspector: Inspector = inspect(connection)
        self._connection = connection
        self._metadata = MetaData()
        self._names: dict[str | None, list[str]] = {}
        self._described: dict[TableName, Described] = {}

    def table(self, written: str) -> Described:
        """The table behind ``name`` or ``schema.name``; ConnectorError when there is none."""
        name = self._find(written)
        if name not in self._described:
            self._described[name] = self._describe(name)
        return self._described[name]

    def _describe(self, name: TableName) -> Described:
        schema, bare = name
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SAWarning)
            table = Table(
                bare,
                self._metadata,
                schema=schema,
                autoload_with=self._connection,
                resolve_fks=False,
            )
            groups = self._unique_groups(name)
            options = self._inspector.get_table_options(bare, schema=schema)
        for column in table.columns:
            if isinstance(column.type, DOMAIN):
                column.type = column.type.data_type
            column.info[DECLARED] = column.type
            if self.dialect == "sqlite" and not _is_stored_as_declared(column.type):
                column.type = sqltypes.NullType()
        engine = str(options.get("mysql_engine") or options.get("mariadb_engine") or "InnoDB")
        return Described(
            name=name,
            table=table,
            key=_row_key(table, [columns for columns, is_whole in groups if is_whole]),
            uniques=tuple(columns for columns, _ in groups),
            foreign_keys=self._foreign_keys(name),
            is_transactional=engine.lower() == "innodb",
        )

    def all_foreign_keys(self) -> list[ForeignKey]:
        """Every foreign key of every schema that is not the system's."""
        found: list[ForeignKey] = []
        for schema in self._schemas():
            reflected = self._inspector.get_multi_foreign_keys(schema=schema)
            for (_, bare), keys in reflected.items():
                child = TableName(schema, bare)
                found += [self._foreign_key(child, dict(key)) for key in keys]
        return found

    def _schemas(self) -> list[str | None]:
        if self.dialect == "sqlite":
            return [None]
        own = self._inspector.default_schema_name
        names = self._inspector.get_schema_names()
        return [None, *(name for name in names if name != own and not is_system(name))]

    def _find(self, written: str) -> TableName:
        if is_system(self._inspector.default_schema_name or ""):
            raise ConnectorError("The url leads to a system database; name your own database")
        if written in self._tables(None):
            return TableName(None, written)
        schema, dot, bare = written.rpartition(".")
        if dot and is_system(schema):
            raise ConnectorError("Tables of system schemas are not allowed")
        if dot and self.dialect != "sqlite":
            if schema == self._inspector.default_schema_name and bare in self._tables(None):
                return TableName(None, bare)
            if schema in self._schemas() and bare in self._tables(schema):
                return TableName(schema, bare)
        raise ConnectorError(
            f"The database has no table {quoted(written)}{near(written, self._tables(None))}"
        )

    def _tables(self, schema: str | None) -> list[str]:
        if schema not in self._names:
            self._names[schema] = self._inspector.get_table_names(schema=schema)
        return self._names[schema]

    def _unique_groups(self, name: TableName) -> list[tuple[frozenset[str], bool]]:
        """Columns that are unique together; False for an index over some rows or expressions."""
        schema, bare = name
        groups = [
            (frozenset(each["column_names"]), True)
            for each in self._inspector.get_unique_constraints(bare, schema=schema)
        ]
        for index in self._inspector.get_indexes(bare, schema=schema):
            columns = [column for column in index["column_names"] if column is not None]
            options = index.get("dialect_options", {})
            is_partial = any(name.endswith("_where") for name in options)
            if index["unique"] and columns:
                is_whole = not is_partial and len(columns) == len(index["column_names"])
                groups.append((frozenset(columns), is_whole))
        return groups

    def _foreign_keys(self, name: TableName) -> tuple[ForeignKey, ...]:
        schema, bare = name
        found = self._inspector.get_foreign_keys(bare, schema=schema)
        return tuple(self._foreign_key(name, dict(each)) for each in found)

    def _foreign_key(self, child: TableName, key: dict[str, Any]) -> ForeignKey:
        schema = key["referred_schema"]
        if schema == self._inspector.default_schema_name:
            schema = None
        parent = key["referred_table"]
        if self.dialect == "sqlite":  # SQLite keeps the spelling of the reference
            parent = next((t for t in self._tables(None) if t.lower() == parent.lower()), parent)
        on_delete = str((key.get("options") or {}).get("ondelete") or "").upper()
        return ForeignKey(
            child,
            tuple(key["constrained_columns"]),
            TableName(schema, parent),
            tuple(key["referred_columns"] or ()),
            "" if on_delete in _CALM else on_delete,
        )


def declared(column: Column[Any]) -> TypeEngine[Any]:
    """The column's type as declared; on SQLite any column can hold any value all the same."""
    found: TypeEngine[Any] = column.info.get(DECLARED, column.type)
    return found


def is_system(schema: str) -> bool:
    """Whether a schema belongs to the server."""
    lower = schema.lower()
    return lower in _SYSTEM or lower.startswith("pg_")


def near(name: str, names: Iterable[str]) -> str:
    """``; did you mean "Email"?``, or what there is."""
    names = list(names)
    by_lower = {each.lower(): each for each in names}
    found = difflib.get_close_matches(name.lower(), list(by_lower), n=1, cutoff=0.6)
    if found:
        return f'; did you mean "{by_lower[found[0]]}"?'
    return f"; there are {', '.join(names[:_SHOWN])}" if names else ""


def quoted(written: str) -> str:
    """A name as the operator wrote it, short and on one line."""
    shown = "".join(each if each.isprintable() else "?" for each in written[:80])
    return f'"{shown}"'


def _is_stored_as_declared(kind: TypeEngine[Any]) -> bool:
    """Types that SQLAlchemy hands over untouched; others would fail on a value of another type."""
    is_text = isinstance(kind, sqltypes.String) and not isinstance(kind, sqltypes.Enum)
    return is_text or isinstance(kind, sqltypes.Integer | sqltypes.LargeBinary)


def _row_key(table: Table, uniques: Sequence[frozenset[str]]) -> tuple[str, ...]:
    if primary := tuple(column.name for column in table.primary_key.columns):
        return primary
    for group in sorted(uniques, key=lambda each: (len(each), sorted(each))):
        if all(not table.columns[name].nullable for name in group):
            return tuple(sorted(group))
    return ()
