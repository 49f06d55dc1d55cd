"""Prefixed, time-sortable ids: 48 bits of milliseconds, then 128 random bits, in base 62 (ASCII
order = time order).
"""

from __future__ import annotations

import datetime as dt
import secrets
import time

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
_LENGTH = 30  # 62**30 > 2**176
_RANDOM_BITS = 128


def new_id(prefix: str, at: float | None = None) -> str:
    """A fresh id such as ``req_0UtG...``; ``at`` is Unix seconds (default: now)."""
    milliseconds = int((time.time() if at is None else at) * 1000)
    number = milliseconds << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
    return f"{prefix}_{base62(number, _LENGTH)}"


def first_id(prefix: str, at: dt.datetime) -> str:
    """The least id made at ``at`` or later, for bounds in time."""
    return f"{prefix}_{base62(int(at.timestamp() * 1000) << _RANDOM_BITS, _LENGTH)}"


def base62(number: int, length: int) -> str:
    """``number`` with exactly ``length`` digits."""
    digits = []
    for _ in range(0, length, 2):
        number, rest = divmod(number, 3844)
        digits.append(_PAIRS[rest])
    return "".join(reversed(digits))[-length:]
