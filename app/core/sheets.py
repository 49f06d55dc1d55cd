"""CSV for people who open it in a spreadsheet (RFC 4180)."""

from __future__ import annotations

import csv
import datetime as dt
import io
from collections.abc import Iterable
from typing import Any

from app.core.clock import rfc3339


def line(values: Iterable[Any]) -> str:
    """One row, with its line end."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerow([cell(each) for each in values])
    return out.getvalue()


def cell(value: Any) -> str:
    """Text that a spreadsheet shows and never computes (ASVS 1.2.10)."""
    if isinstance(value, dt.datetime):
        return rfc3339(value) or ""
    text = "" if value is None else str(value)
    return f"'{text}" if text[:1] in {"=", "+", "-", "@", "\t", "\r", "\n", "\x00"} else text
