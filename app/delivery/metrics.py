"""What the engine of this process has done, as Prometheus metrics: plain functions that it calls,
after the commit that makes a thing true.

No label names a person, a site, a workspace or a destination, and each has few values.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter as Tally
from collections.abc import Iterable

from prometheus_client import Counter, Histogram

from app.delivery.states import State, Step

DELIVERIES = Counter(
    "quittance_deliveries",
    "Deliveries that came to an end, or ran out of time, by outcome",
    ["state", "detail"],
)
RETRIES = Counter(
    "quittance_delivery_retries", "Deliveries that will be tried again, by reason", ["reason"]
)
ATTEMPTS = Histogram(
    "quittance_delivery_attempts",
    "The attempt that succeeded",
    buckets=(1, 2, 3, 4, 5, 7, 10, 15, 20, 50),
)
CALL_SECONDS = Histogram(
    "quittance_call_seconds",
    "Time a destination took to answer a call",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
LAG_SECONDS = Histogram(
    "quittance_dispatch_lag_seconds",
    "Time between a queue's being due and its lease",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
PER_COMMIT = Histogram(
    "quittance_deliveries_per_commit",
    "Deliveries recorded in one transaction",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500),
)
FENCED_OUT = Counter(
    "quittance_leases_fenced_out", "Leases whose answers came after somebody else took the queue"
)
RECORD_FAILURES = Counter(
    "quittance_record_failures", "Transactions that could not record answers; they are repeated"
)

REASONS = frozenset(
    {
        "busy",
        "connector_error",
        "destination_unavailable",
        "internal_error",
        "rate_limited",
        "timeout",
        "unauthorized",
        "unreachable",
        "unreadable_answer",
    }
)
"""Reasons for a retry that are counted by name; a connector's own are ``other``."""


def leased(lag: dt.timedelta) -> None:
    """A queue was leased, this long after it was due."""
    LAG_SECONDS.observe(max(0.0, lag.total_seconds()))


def called(duration_ms: int) -> None:
    """A destination answered."""
    CALL_SECONDS.observe(duration_ms / 1000)


def recorded(steps: Iterable[tuple[Step, int]]) -> None:
    """One transaction took deliveries these steps further; with each, the attempts it had by
    then.
    """
    steps = list(steps)
    if not steps:
        return
    PER_COMMIT.observe(len(steps))
    retried = Tally(
        step.reason if step.reason in REASONS else "other"
        for step, _ in steps
        if step.state is State.AWAITING_RETRY
    )
    for reason, count in retried.items():
        RETRIES.labels(reason).inc(count)
    over = Tally((step.state, step.detail) for step, _ in steps if step.due_at is None)
    for (state, detail), count in over.items():
        ended(state, detail, count)
    for step, attempt in steps:
        if step.state is State.SUCCEEDED:
            ATTEMPTS.observe(attempt)


def ended(state: State, detail: str | None, count: int) -> None:
    """Deliveries left the working set: settled, or archived."""
    DELIVERIES.labels(state, detail or "").inc(count)


def fenced_out(leases: int) -> None:
    FENCED_OUT.inc(leases)


def record_failed() -> None:
    RECORD_FAILURES.inc()
