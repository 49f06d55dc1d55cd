"""What a masked cell becomes: nothing, a keyed hash, a constant, or noise of the same shape."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import re
import string
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any

from sqlalchemy import Column
from sqlalchemy import types as sqltypes

from connectors.sql.catalogue import declared

SHORTEST_HASH = 8
SHORTEST_UNIQUE_HASH = 16
_DOMAIN = "@example.invalid"
SHORTEST_ADDRESS = len(_DOMAIN) + 8
_LOCAL = string.ascii_lowercase + string.digits
_ADDRESS = re.compile(r"^[^@\s]+@[^@\s]+$")

Pick = Callable[[str], str]
"""Chooses one character of a text at random (``secrets.choice``)."""


def text_length(column: Column[Any]) -> int | None:
    """How many characters fit; None is no limit."""
    return getattr(column.type, "length", None)


def is_text(column: Column[Any]) -> bool:
    """Whether the column takes free text (an enum does not)."""
    kind = column.type
    return isinstance(kind, sqltypes.String) and not isinstance(kind, sqltypes.Enum)


def hashed(value: object, place: str, secret: bytes, length: int | None) -> str | None:
    """HMAC-SHA256 in hex, cut to the column; the same value in the same place hashes the same."""
    if value is None:
        return None
    text = f"{place}\0{value}".encode("utf-8", "surrogateescape")
    return hmac.new(secret, text, hashlib.sha256).hexdigest()[:length]


def alike(value: object, length: int | None, pick: Pick) -> object:
    """Noise of the same shape; an e-mail address becomes a fresh one that can never get mail."""
    if not isinstance(value, str) or not any(each.isalnum() for each in value):
        return value
    if _ADDRESS.match(value):
        return _address(length, pick)
    while (noise := "".join(_like(each, pick) for each in value)) == value:
        pass
    return noise


def _address(length: int | None, pick: Pick) -> str:
    room = 20 if length is None else min(20, length - len(_DOMAIN))
    if room < SHORTEST_ADDRESS - len(_DOMAIN):
        return "".join(pick(_LOCAL) for _ in range(length or 0))
    return "".join(pick(_LOCAL) for _ in range(room)) + _DOMAIN


def _like(each: str, pick: Pick) -> str:
    if each.isdecimal():
        return pick(string.digits)
    if each.isalnum():
        return pick(string.ascii_uppercase if each.isupper() else string.ascii_lowercase)
    return each


def constant(text: str, column: Column[Any]) -> object:
    """The constant in the column's own type; ValueError says why it does not fit."""
    kind = declared(column)
    if isinstance(kind, sqltypes.Enum):
        if text not in kind.enums:
            raise ValueError("the constant is none of the column's values")
        return text
    if isinstance(kind, sqltypes.String):
        limit = text_length(column)
        if limit is not None and len(text) > limit:
            raise ValueError(f"the constant is longer than the column's {limit} characters")
        return text
    for kinds, read in _READERS:
        if isinstance(kind, kinds):
            try:
                value = read(text)
            except (ValueError, InvalidOperation, KeyError):
                raise ValueError("the constant does not fit the column's type") from None
            return value if column.type is kind else _plain(value, text)
    raise ValueError("a constant cannot be written into a column of this type; use null or keep")


def _plain(value: object, text: str) -> object:
    """As SQLite stores it: truth is a number, dates and amounts are written as they are."""
    return int(value) if isinstance(value, bool) else text


_READERS: tuple[tuple[Any, Callable[[str], object]], ...] = (
    (sqltypes.Boolean, lambda text: {"true": True, "false": False}[text]),
    (sqltypes.Integer, int),
    (sqltypes.Float, float),
    (sqltypes.Numeric, Decimal),
    (sqltypes.DateTime, dt.datetime.fromisoformat),
    (sqltypes.Date, dt.date.fromisoformat),
)
