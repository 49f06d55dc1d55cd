"""Canonical JSON (RFC 8785) for what receipts hold: text, whole numbers, true, false, null, lists,
objects.
"""

from __future__ import annotations

import json
from typing import Any

_MAX_SAFE = 2**53 - 1


class NotCanonical(ValueError):
    """A value that I-JSON cannot carry unchanged; a bug at the place that builds the receipt."""


def canonical(value: Any) -> bytes:
    """The one byte sequence for this value; floats, huge numbers and lone surrogates are
    refused.
    """
    _check(value)
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def _check(value: Any) -> None:
    match value:
        case None | bool():
            return
        case int() if abs(value) <= _MAX_SAFE:
            return
        case str():
            if any("\ud800" <= each <= "\udfff" for each in value):
                raise NotCanonical("lone surrogate")
        case dict():
            for name, member in value.items():
                if not isinstance(name, str) or not name.isascii():
                    raise NotCanonical("member names are ASCII text")
                _check(member)
        case list() | tuple():
            for item in value:
                _check(item)
        case _:
            raise NotCanonical(f"{type(value).__name__} is not allowed")
