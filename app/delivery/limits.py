"""What a queue may spend: its destination's rate windows, and a budget for retries.

Pure functions over small JSON documents kept in the queue's row. They are charged when calls are
claimed, so the limits hold across all workers.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from connectors.contract import Window

GRAINS = 10
"""A window is kept in this many grains: its calls come back at most a tenth of it late, never
early.
"""
BUDGET_CAP = 100.0
BUDGET_PER_SECOND = 1.0
BUDGET_PER_SUCCESS = 0.2

Windows = Mapping[str, Sequence[Sequence[float]]]
"""Window's name -> ``[[Unix seconds at which these calls come back, calls], ...]``, oldest first.
"""


def spent(windows: Windows, limits: Sequence[Window], now: dt.datetime) -> list[tuple[Window, int]]:
    """Calls counted in each window at this moment."""
    return [(limit, _count(_live(windows, limit, now))) for limit in limits]


def room(windows: Windows, limits: Sequence[Window], now: dt.datetime) -> int | None:
    """Calls that may be made now without breaking any window; None: no limit."""
    left = [max(0, limit.calls - count) for limit, count in spent(windows, limits, now)]
    return min(left, default=None)


def spend(
    windows: Windows, limits: Sequence[Window], calls: int, now: dt.datetime
) -> tuple[dict[str, list[list[float]]], dt.datetime | None]:
    """Windows after making ``calls`` calls, and when the next may be made (None: now)."""
    state: dict[str, list[list[float]]] = {}
    full: list[float] = []
    for limit in limits:
        entries = _live(windows, limit, now)
        until = _comes_back(limit, now)
        if calls and entries and entries[-1][0] == until:
            entries[-1][1] += calls
        elif calls:
            entries.append([until, calls])
        if entries and _count(entries) >= limit.calls:
            full.append(entries[0][0])
        state[_name(limit)] = entries
    return state, dt.datetime.fromtimestamp(max(full), dt.UTC) if full else None


def _name(limit: Window) -> str:
    return f"{limit.calls}/{limit.period or f'{limit.seconds:g}s'}"


def _live(windows: Windows, limit: Window, now: dt.datetime) -> list[list[float]]:
    """Entries that still count. After the clock was set back none may last longer than a fresh
    one.
    """
    latest = _comes_back(limit, now)
    at = now.timestamp()
    return [
        [min(until, latest), count]
        for until, count in windows.get(_name(limit), ())
        if min(until, latest) > at
    ]


def _count(entries: Sequence[Sequence[float]]) -> int:
    return int(sum(count for _, count in entries))


def _comes_back(limit: Window, now: dt.datetime) -> float:
    """When a call made now no longer counts."""
    if limit.period is None:
        grain = limit.seconds / GRAINS
        return math.ceil((now.timestamp() + limit.seconds) / grain) * grain
    day = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if limit.period == "day":
        return (day + dt.timedelta(days=1)).timestamp()
    return (day.replace(day=1) + dt.timedelta(days=32)).replace(day=1).timestamp()


@dataclass(frozen=True, slots=True)
class Budget:
    """Calls with retries that a queue may make: one a second, and one for every five that go well.

    A retry that goes well gives back what it took, so only failing ones run it down (Google, Site
    Reliability Engineering, "Handling Overload").
    """

    tokens: float = BUDGET_CAP
    at: float = 0.0
    """Unix seconds of the last count."""

    @classmethod
    def load(cls, state: Mapping[str, Any]) -> Budget:
        return cls(**state)

    def dump(self) -> dict[str, Any]:
        return {"tokens": round(self.tokens, 3), "at": self.at}

    def counted(self, now: dt.datetime) -> Budget:
        """With what time has added."""
        at = now.timestamp()
        earned = max(0.0, at - self.at) * BUDGET_PER_SECOND if self.at else 0.0
        return Budget(min(BUDGET_CAP, self.tokens + earned), at)

    def take(self, calls: int) -> Budget:
        return Budget(self.tokens - calls, self.at)

    def earn(self, successes: int, retries_gone_well: int) -> Budget:
        """``retries_gone_well``: those of the successes that had taken from the budget."""
        earned = successes * BUDGET_PER_SUCCESS + retries_gone_well
        return Budget(min(BUDGET_CAP, self.tokens + earned), self.at)

    @property
    def calls(self) -> int:
        """Whole calls that may be made."""
        return max(0, math.floor(self.tokens))

    @property
    def next_at(self) -> dt.datetime:
        """When the next one may be made."""
        wait = max(0.0, 1.0 - self.tokens) / BUDGET_PER_SECOND
        return dt.datetime.fromtimestamp(self.at + wait, dt.UTC)
