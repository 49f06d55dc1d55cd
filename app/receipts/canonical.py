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
    try:
        return _ENCODER.encode(value).encode()
    except UnicodeEncodeError:
        raise NotCanonical("lone surrogate") from None


_ENCODER = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
)


def _check(value: Any) -> None:
    """Types, sizes of numbers, and member names; text is checked by encoding it."""
    if value is None or isinstance(value, (str, bool)):
        return
    if isinstance(value, dict):
        for name, member in value.items():
            if not isinstance(name, str) or not name.isascii():
                raise NotCanonical("member names are ASCII text")
            if type(member) is not str:
                _check(member)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _check(item)
    elif not isinstance(value, int) or abs(value) > _MAX_SAFE:
        raise NotCanonical(f"{type(value).__name__} is not allowed, or too large")
