"""A queue's health as pure functions: rate windows, adaptive concurrency (AIMD), circuit breaker.

AIMD after Chiu and Jain (1989); breaker with half-open probe after Nygard, "Release It!".
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from connectors.contract import Window

FAILURES_TO_OPEN = 5
OPEN_FIRST = dt.timedelta(seconds=30)
OPEN_CAP = dt.timedelta(minutes=15)


def spend(
    windows: Mapping[str, Any], limits: Sequence[Window], wanted: int, now: dt.datetime
) -> tuple[dict[str, Any], int, dt.datetime | None]:
    """Take up to ``wanted`` calls from all rate windows at once.

    Returns the windows after spending, how many calls are granted, and when more may be had (None:
    no limit hit). A window is a fixed interval counted from its first call: ``{"3/1.0": [start
    (Unix seconds), spent]}``.
    """
    at = now.timestamp()
    state = {}
    granted = wanted
    later: list[float] = []
    for limit in limits:
        name = f"{limit.calls}/{limit.seconds}"
        start, spent = windows.get(name, (at, 0))
        if at >= start + limit.seconds:
            start, spent = at, 0
        if limit.calls - spent < granted:
            granted = max(0, limit.calls - spent)
            later.append(start + limit.seconds)
        state[name] = [start, spent]
    for entry in state.values():
        entry[1] += granted
    return state, granted, dt.datetime.fromtimestamp(max(later), dt.UTC) if later else None


@dataclass(frozen=True, slots=True)
class Breaker:
    """``until`` is set while open; ``probing`` while a single call tries whether the destination is
    back.
    """

    failures: int = 0
    opened: int = 0
    until: dt.datetime | None = None
    probing: bool = False

    @classmethod
    def load(cls, state: Mapping[str, Any]) -> Breaker:
        until = state.get("until")
        return cls(
            state.get("failures", 0),
            state.get("opened", 0),
            dt.datetime.fromisoformat(until) if until else None,
            state.get("probing", False),
        )

    def dump(self) -> dict[str, Any]:
        return {
            "failures": self.failures,
            "opened": self.opened,
            "until": self.until.isoformat() if self.until else None,
            "probing": self.probing,
        }

    @property
    def state(self) -> str:
        return "half_open" if self.probing else "open" if self.until else "closed"

    def at_lease(self, now: dt.datetime) -> Breaker:
        """An open breaker whose pause has passed lets one probe through."""
        return replace(self, probing=True) if self.until and now >= self.until else self

    def after(self, healthy: bool, now: dt.datetime, jitter: float) -> Breaker:
        """``healthy``: the destination answered, whatever it said about the person; ``jitter`` in
        0..1.
        """
        if healthy:
            return Breaker()
        if self.until is not None and not self.probing:
            return self  # open already: this answer belongs to the burst that opened it
        failures = self.failures + 1
        if failures < FAILURES_TO_OPEN and not self.probing:
            return replace(self, failures=failures)
        pause = min(OPEN_CAP, OPEN_FIRST * 2**self.opened) * (0.75 + jitter / 2)
        return Breaker(failures, min(self.opened + 1, 10), now + pause)


def concurrency_after(limit: int, answers: Iterable[bool], cap: int) -> int:
    """One more for a round of healthy answers, half after an unhealthy one; between 1 and
    ``cap``.
    """
    answers = list(answers)
    if not answers:
        return limit
    return min(cap, limit + 1) if all(answers) else max(1, limit // 2)
