"""What is the matter with a queue, in words, and what to do about it."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from app.dashboard import present
from app.dashboard.present import Badge
from app.delivery.health import Breaker
from app.delivery.queue_view import Standing

STUCK_AFTER = dt.timedelta(minutes=2)
"""Workers look every second: what is due and not taken for so long, nobody takes."""

_CREDENTIALS = (
    "Put valid credentials into the destination's settings. Saving them sets the queue going "
    "again. Nothing is lost meanwhile, and no delivery lost an attempt."
)
_SETTINGS = "Correct the destination's settings; saving them sets the queue going again."
PARKED: dict[str, tuple[str, str]] = {
    "unauthorized": ("It refuses our credentials (HTTP 401 or 403).", _CREDENTIALS),
    "authentication_refused": ("The database refuses our user or password.", _CREDENTIALS),
    "permission_denied": (
        "The database user may not do what is asked.",
        "Grant it what the destination's settings need, press Test there, then Resume here.",
    ),
    "database_missing": ("The database is not there.", _SETTINGS),
    "database_unreadable": ("The database cannot be read.", "Mend it, then press Resume."),
    "schema_changed": (
        "A table or column that the settings name is gone.",
        "Compare the settings with the database as it is now. Saving them sets the queue going "
        "again.",
    ),
    "settings_do_not_fit": ("Its settings do not fit what is there.", _SETTINGS),
    "misconfigured": ("Its connector cannot be set up with these settings.", _SETTINGS),
    "address_refused": (
        "Its address is one that destinations may not reach.",
        "Correct the address, or list its network in QUITTANCE_ALLOWED_PRIVATE_NETWORKS and start "
        "again; then press Resume.",
    ),
    "connector_missing": (
        "A worker does not have its connector.",
        "Install the connector on every worker (QUITTANCE_CONNECTORS_DIR or the package), start "
        "them again, then press Resume.",
    ),
    "destination_disabled": (
        "The destination is disabled, and deliveries still wait for it.",
        "Enable it to carry them out, or cancel the requests they belong to.",
    ),
    "call_never_returns": (
        "A call was begun five times and never ended: the worker died or froze with it.",
        "Look in the worker's log for the last of these calls. Resume tries it again.",
    ),
}
"""Reason -> what happened, and what to do."""


@dataclass(frozen=True, slots=True)
class Condition:
    """``rank`` orders lists: the smaller, the worse."""

    rank: int
    badge: Badge
    text: str
    advice: str = ""
    mends_destination: bool = False
    """Whether the next step is on the destination's page."""

    @property
    def is_trouble(self) -> bool:
        return self.rank < _HELD


_PARKED, _STUCK, _FAILING, _PROBING, _PAUSED, _HELD, _DUE, _WORKING, _WAITING, _IDLE = range(10)


def condition(queue: Standing, now: dt.datetime) -> Condition:
    """The worst thing first."""
    breaker = Breaker.load(queue.breaker).state
    is_leased = queue.lease_until is not None and queue.lease_until > now
    if queue.parked_reason:
        return _parked(queue.parked_reason, queue.is_deleted)
    if queue.is_paused:
        text = "Somebody paused it."
        advice = "Press Resume when it may go on. The deadlines of the requests run on meanwhile."
        return Condition(_PAUSED, Badge("Paused", "warn"), text, advice)
    if breaker == "half_open":
        text = "Calls failed; now a single one tries whether it is back."
        return Condition(_PROBING, Badge("Probing", "warn"), text, "Nothing to do: wait for it.")
    if breaker == "open":
        return Condition(_FAILING, Badge("Failing", "bad"), "Calls to it fail.", _FAILING_ADVICE)
    if queue.next_due and not is_leased and queue.next_due < now - STUCK_AFTER:
        text = "Work is due, and no worker takes it."
        return Condition(_STUCK, Badge("Stuck", "bad"), text, _STUCK_ADVICE)
    if queue.not_before and queue.not_before > now:
        return Condition(_HELD, Badge("Held back", "info"), held_by(queue, now))
    if is_leased:
        return Condition(_WORKING, Badge("Working", "info"), "")
    if queue.next_due is None:
        return Condition(_IDLE, Badge("Idle", "good"), "")
    if queue.next_due <= now:
        return Condition(_DUE, Badge("Due", "info"), "")
    return Condition(_WAITING, Badge("Waiting", "neutral"), "")


_FAILING_ADVICE = (
    "Nothing to do if it is the destination's outage: a single call tries it again with growing "
    "pauses, at most 20 minutes apart, and once it answers, what waits goes out without delay. "
    "If you know that it is back, press Flush. If it lasts, look at the last errors and test the "
    "connection on the destination's page."
)
_STUCK_ADVICE = (
    "See that a worker runs and what /readyz says, then start the worker again. Nothing is lost: "
    "the database holds the work."
)


def _parked(reason: str, is_deleted: bool) -> Condition:
    text, advice = PARKED.get(
        reason, (f"It cannot be asked: {present.words(reason).lower()}.", _SETTINGS)
    )
    if is_deleted:
        advice = "The destination is deleted. Resume ends what waits as not done."
    return Condition(
        _PARKED,
        Badge("Parked", "bad"),
        text,
        advice,
        mends_destination=not is_deleted,
    )


def held_by(queue: Standing, now: dt.datetime) -> str:
    """Why no call goes out now: the reason for ``not_before``."""
    opens_at = Breaker.load(queue.breaker).opens_again_at
    if queue.not_before is None or queue.not_before <= now:
        return ""
    if opens_at is not None and opens_at >= queue.not_before:
        return "Its breaker is open."
    return "It asked us to wait, or a limit of its calls is used up."
