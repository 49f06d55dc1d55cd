"""The clock is an argument: functions take ``now``; only composition calls ``utc_now``."""

from __future__ import annotations

import datetime as dt


def utc_now() -> dt.datetime:
    """The moment, aware, in UTC."""
    return dt.datetime.now(dt.UTC)


def rfc3339(moment: dt.datetime | None) -> str | None:
    """``2026-11-23T10:00:00.123456Z``; whole seconds have no fraction."""
    return None if moment is None else moment.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")
