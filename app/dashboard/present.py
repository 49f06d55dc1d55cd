"""How states, moments and names read on a page: one table per vocabulary, no markup."""

from __future__ import annotations

import datetime as dt
from typing import NamedTuple
from zoneinfo import ZoneInfo

from app.sites import regimes


class Badge(NamedTuple):
    """Words and tone: neutral, info, good, warn or bad."""

    text: str
    tone: str


REQUEST_STATUS = {
    "awaiting_verification": Badge("Awaiting verification", "neutral"),
    "awaiting_approval": Badge("Awaiting approval", "warn"),
    "on_hold": Badge("On hold", "warn"),
    "cooling_off": Badge("Cooling off", "neutral"),
    "resolving": Badge("Resolving", "info"),
    "in_progress": Badge("In progress", "info"),
    "completed": Badge("Completed", "good"),
    "completed_with_exceptions": Badge("Completed, with exceptions", "warn"),
    "denied": Badge("Denied", "neutral"),
    "cancelled": Badge("Cancelled", "neutral"),
    "expired": Badge("Expired", "neutral"),
}
REQUEST_KIND = {
    "erasure": "Erasure",
    "access": "Access",
    "portability": "Portability",
    "rectification": "Rectification",
    "restriction": "Restriction",
    "objection": "Objection",
    "opt_out": "Opt-out",
    "limit_use": "Limit use",
    "suppression": "Suppression",
    "unsuppression": "Unsuppression",
}
OPEN_STATUSES = (
    "awaiting_verification",
    "awaiting_approval",
    "on_hold",
    "cooling_off",
    "resolving",
    "in_progress",
)
OUTCOME = {
    "complete": Badge("Complete", "good"),
    "complete_with_residuals": Badge("Complete, with residuals", "good"),
    "partial": Badge("Partial", "warn"),
    "refused": Badge("Refused", "neutral"),
}
DELIVERY_STATE = {
    "awaiting_scheduling": Badge("Waiting", "neutral"),
    "executing": Badge("Under way", "info"),
    "awaiting_retry": Badge("Waiting to retry", "warn"),
    "awaiting_confirmation": Badge("Waiting for confirmation", "info"),
    "succeeded": Badge("Done", "good"),
    "discarded": Badge("Not done", "bad"),
    "archiving": Badge("Being archived", "warn"),
    "archived": Badge("Archived", "bad"),
}
DELIVERY_DETAIL = {
    "done": Badge("Done", "good"),
    "absent": Badge("Not known there", "good"),
    "skipped": Badge("Skipped", "neutral"),
    "accepted_unconfirmable": Badge("Accepted", "good"),
    "unconfirmed": Badge("Never confirmed", "warn"),
    "failed": Badge("Failed", "bad"),
    "expired": Badge("Expired", "bad"),
    "cancelled": Badge("Cancelled", "neutral"),
    "overtaken": Badge("Overtaken by a later request", "neutral"),
    "gave_up": Badge("Given up", "bad"),
}
BREAKER = {
    "closed": Badge("Closed", "good"),
    "open": Badge("Open", "bad"),
    "half_open": Badge("Half open", "warn"),
}
ASSURANCE = {
    "none": "nothing was needed",
    "requested": "requested",
    "acknowledged": "acknowledged by the destination",
    "confirmed": "confirmed by the destination",
    "verified_absent": "read back, nothing left",
}
TASK_STATE = {
    "open": Badge("Open", "warn"),
    "done": Badge("Done", "good"),
    "absent": Badge("Not found", "good"),
    "refused": Badge("Refused", "bad"),
}
METHOD = {
    "accept_all": "Accepted all",
    "reject_all": "Rejected all",
    "custom": "Own selection",
    "gpc": "Global Privacy Control",
    "withdrawal": "Withdrawn",
    "dismissed": "Dismissed",
    "migrated": "Migrated",
    "api": "API",
}
REGIME = {
    "gdpr": "GDPR",
    "uk_gdpr": "UK GDPR",
    "ccpa": "CCPA",
    "lgpd": "LGPD",
    "au_privacy": "Privacy Act 1988",
}
_ABBREVIATIONS = {
    "email": "e-mail",
    "api": "API",
    "id": "id",
    "url": "URL",
    "gpc": "GPC",
    "http": "HTTP",
    "csv": "CSV",
    "sql": "SQL",
}


def badge(table: dict[str, Badge], value: str | None) -> Badge:
    """Known values by table; an unknown one reads as itself."""
    return table.get(value or "", Badge(words(value or "none"), "neutral"))


def words(name: str) -> str:
    """``change_second_factor`` as "Change second factor"."""
    text = phrase(name)
    return text[:1].upper() + text[1:]


def phrase(name: str) -> str:
    """``api_key`` as "API key", inside a sentence."""
    return " ".join(
        _ABBREVIATIONS.get(part, part) for part in name.replace("-", "_").split("_") if part
    )


def number(count: int) -> str:
    """``1 000``, with narrow spaces that do not break."""
    return f"{count:,}".replace(",", "\u202f")


def regime(name: str) -> str:
    law = regimes.load().get(name)
    return REGIME.get(name, law.name if law else name.upper())


def zone(name: str) -> dt.tzinfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return dt.UTC


def day(moment: dt.datetime, tz: dt.tzinfo) -> str:
    """``23 Nov 2026``"""
    return f"{moment.astimezone(tz):%-d %b %Y}"


def minute(moment: dt.datetime, tz: dt.tzinfo) -> str:
    """``23 Nov 2026, 10:04``"""
    return f"{moment.astimezone(tz):%-d %b %Y, %H:%M}"


def second(moment: dt.datetime, tz: dt.tzinfo) -> str:
    """``2026-11-23 10:04:09 UTC``"""
    return f"{moment.astimezone(tz):%Y-%m-%d %H:%M:%S %Z}"


_UNITS = (
    (dt.timedelta(days=1), "day"),
    (dt.timedelta(hours=1), "hour"),
    (dt.timedelta(minutes=1), "minute"),
)


def span(length: dt.timedelta) -> str:
    """The largest whole unit: ``3 days``, ``1 hour``; less than a minute is ``moments``."""
    for unit, name in _UNITS:
        if length >= unit:
            count = length // unit
            return f"{count} {name}{'s' if count != 1 else ''}"
    return "moments"


def upcoming(moment: dt.datetime, now: dt.datetime) -> str:
    """``in 3 days``, ``in moments``, ``now`` from then on"""
    return f"in {span(moment - now)}" if moment > now else "now"


def relative(moment: dt.datetime, now: dt.datetime) -> str:
    """``in 3 days``, ``2 hours ago``, ``just now``"""
    if abs(moment - now) < dt.timedelta(minutes=1):
        return "just now"
    return f"in {span(moment - now)}" if moment > now else f"{span(now - moment)} ago"
