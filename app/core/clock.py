"""The clock is an argument: functions take ``now``; only composition calls ``utc_now``."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo


def utc_now() -> dt.datetime:
    """The moment, aware, in UTC."""
    return dt.datetime.now(dt.UTC)


def rfc3339(moment: dt.datetime | None) -> str | None:
    """``2026-11-23T10:00:00.123456Z``; whole seconds have no fraction."""
    return None if moment is None else moment.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")


def is_zone(name: str) -> bool:
    """Whether this machine knows a time zone of that name, such as ``Europe/Berlin``."""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown; not a name at all; a directory of zones
        return False
    return True
