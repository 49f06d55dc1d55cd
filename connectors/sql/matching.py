"""When a column's value is the person's: strict rules, decided in Python after the database."""

from __future__ import annotations

import re
import string
import uuid
from collections.abc import Sequence
from decimal import Decimal
from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, Column, ColumnElement, String, cast, collate, func, literal
from sqlalchemy import types as sqltypes

from connectors.contract import Kind
from connectors.sql.catalogue import declared

_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_INTEGER = re.compile(r"^(?:0|-?[1-9][0-9]{0,18})$")
_BIGGEST = 2**63
# Fillers that buggy programs store for "nobody"; as a key they would find strangers.
_NOBODY = frozenset({"", "0", "-", "null", "none", "nil", "undefined", "nan", "n/a"})


class Family(StrEnum):
    """How values of a column are compared."""

    TEXT = "text"
    INTEGER = "integer"
    UUID = "uuid"


def is_usable(value: str) -> bool:
    """Whether a value can name somebody: not blank, not a filler, no NUL byte."""
    return value.strip().lower() not in _NOBODY and "\0" not in value


def ascii_lower(text: str) -> str:
    """Lower the 26 letters and nothing else: no locale, no folding of ß, no trimming."""
    return text.translate(_LOWER)


def family(column: Column[Any], dialect: str) -> Family | None:
    """How a column can be compared, or None when it cannot name a person (dates, floats, bytes)."""
    kind = declared(column)
    if isinstance(kind, sqltypes.Integer):
        return Family.INTEGER
    if isinstance(kind, sqltypes.Uuid):
        return Family.UUID
    if isinstance(kind, sqltypes.Enum | sqltypes.LargeBinary | sqltypes._Binary):
        return None
    if isinstance(kind, sqltypes.String):
        return Family.TEXT
    if isinstance(kind, sqltypes.Numeric) and not isinstance(kind, sqltypes.Float):
        # SQLite gives unknown type names the affinity NUMERIC and then stores text as text.
        if dialect == "sqlite":
            return Family.TEXT
        return None if kind.scale else Family.INTEGER
    if dialect == "sqlite" and isinstance(kind, sqltypes.NullType):
        return Family.TEXT
    return None


def comparable(value: str, kind: str, how: Family) -> str | None:
    """The identifier in the form that rows are compared in; None when the column cannot hold it.

    Integers only in their one canonical spelling: ``007``, ``+7``, ``7.0`` and ``abc`` are no 7.
    """
    if not is_usable(value):
        return None
    match how:
        case Family.INTEGER:
            fits = _INTEGER.match(value) and -_BIGGEST <= int(value) < _BIGGEST
            return value if fits else None
        case Family.UUID:
            return _canonical_uuid(value)
        case Family.TEXT:
            return ascii_lower(value) if kind == Kind.EMAIL else value


def stored(value: object, kind: str, column: Column[Any]) -> str | None:
    """The same form for a value read from the column; None matches nothing."""
    match value:
        case None | bool() | bytes() | float():
            return None
        case int():
            return str(value)
        case Decimal():
            return str(int(value)) if value == value.to_integral_value() else None
        case uuid.UUID():
            return str(value)
        case str():
            text = value.rstrip(" ") if isinstance(column.type, sqltypes.CHAR) else value
            return ascii_lower(text) if kind == Kind.EMAIL else text
    return None


def key_form(value: object, column: Column[Any]) -> str | None:
    """A foreign key's value in comparable form; NULL and blank lead nowhere."""
    text = stored(value, "", column)
    return None if text is None or not text.strip() else text


def condition(
    column: Column[Any], kind: str, how: Family, values: Sequence[str], dialect: str, folds: bool
) -> ColumnElement[bool]:
    """Rows that may hold one of ``values``: never fewer than ``stored`` accepts, maybe more.

    ``folds``: the database's own ``lower`` turns I into i (a Turkish one does not).
    """
    match how:
        case Family.INTEGER:
            return column.in_([literal(int(value), BigInteger) for value in values])
        case Family.UUID:
            return column.in_([uuid.UUID(value) for value in values])
        case Family.TEXT:
            return _text_condition(column, kind, values, dialect, folds)


def _text_condition(
    column: Column[Any], kind: str, values: Sequence[str], dialect: str, folds: bool
) -> ColumnElement[bool]:
    left: ColumnElement[Any] = column
    if dialect == "sqlite" and not isinstance(column.type, sqltypes.String):
        left = cast(column, sqltypes.Text())
    if dialect == "mysql" and not all(value.isascii() for value in values):
        # A column in a small alphabet cannot be compared with letters that it lacks.
        left = cast(column, sqltypes.CHAR())
    texts: list[ColumnElement[str]] = [literal(value, String()) for value in values]
    if kind != Kind.EMAIL:
        return left.in_(texts)
    if dialect == "postgresql" and not (folds and _has_default_collation(column)):
        left = collate(left, "C")
        return func.lower(left).in_(texts)
    return func.lower(left).in_([func.lower(text) for text in texts])


def _has_default_collation(column: Column[Any]) -> bool:
    return getattr(column.type, "collation", None) is None


def _canonical_uuid(value: str) -> str | None:
    try:
        parsed = str(uuid.UUID(value))
    except ValueError:
        return None
    return parsed if parsed == value.lower() else None
