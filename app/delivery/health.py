"""A queue's health as pure functions: what an answer says of the destination, adaptive concurrency
(AIMD), circuit breaker.

AIMD after Chiu and Jain (1989); breaker with half-open probe after Nygard, "Release It!".
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from enum import Enum, auto
from typing import Any

from connectors.contract import Outcome, Verdict

FAILURES_IN_A_ROW = 5
WINDOW_SECONDS = 60.0
FEWEST_CALLS = 10
"""In a window, before its share of failures says anything."""
SHORTEST_PAUSE = dt.timedelta(seconds=30)
LONGEST_PAUSE = dt.timedelta(minutes=15)
PAUSES_IN_TROUBLE = 24
"""A pause is this part of the time that the trouble has lasted: so the wait after its end is, too.
"""
OVERLOADED_SHARE = 0.1
SLOW_SHARE = 0.25


class Sign(Enum):
    """What one call showed of the destination, whatever it said about the people."""

    WELL = auto()
    SLOW = auto()
    """It went well, but took a good part of its deadline: more calls at once would only wait."""
    FAILING = auto()
    """No answer, or one of the destination's own trouble."""
    OVERLOADED = auto()
    """Failing, in a way that fewer calls at once may help."""


def sign_of(outcomes: Collection[Outcome], took: dt.timedelta, deadline: dt.timedelta) -> Sign:
    """A call went well if it was answered for anybody; a refusal of us (401) is an answer."""
    if not all(each.verdict is Verdict.RETRY and not each.parks for each in outcomes):
        return Sign.SLOW if took > SLOW_SHARE * deadline else Sign.WELL
    is_overloaded = any(
        each.http_status in {429, 503} or each.reason in {"timeout", "busy"} for each in outcomes
    )
    return Sign.OVERLOADED if is_overloaded else Sign.FAILING


def concurrency_after(limit: int, signs: Collection[Sign], cap: int) -> int:
    """One more after a full round of ``limit`` calls that went well, none when a tenth were slow,
    half when a tenth showed overload; between 1 and ``cap``.
    """
    overloaded = sum(each is Sign.OVERLOADED for each in signs)
    slow = sum(each is Sign.SLOW for each in signs)
    if overloaded and overloaded >= OVERLOADED_SHARE * len(signs):
        return max(1, limit // 2)
    if overloaded or slow >= max(1, OVERLOADED_SHARE * len(signs)):
        return min(limit, cap)
    is_full_round = sum(each is Sign.WELL for each in signs) >= limit
    return max(1, min(cap, limit + is_full_round))


@dataclass(frozen=True, slots=True)
class Breaker:
    """Opens after five failures in a row, or when half of ten or more calls in a minute failed.

    ``until`` is set while open; ``probing`` while one call tries whether the destination is back.
    A pause grows with the trouble, which begins with the first opening and ends with a good spell,
    not with one lucky answer.
    """

    in_a_row: int = 0
    bad: int = 0
    good: int = 0
    since: float = 0.0
    """Unix seconds at which the counted minute began."""
    troubled_since: float | None = None
    until: float | None = None
    probing: bool = False

    @classmethod
    def load(cls, state: Mapping[str, Any]) -> Breaker:
        return cls(**state)

    def dump(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def state(self) -> str:
        return "half_open" if self.probing else "closed" if self.until is None else "open"

    @property
    def opens_again_at(self) -> dt.datetime | None:
        """The end of the pause."""
        return None if self.until is None else dt.datetime.fromtimestamp(self.until, dt.UTC)

    def at_lease(self, now: dt.datetime) -> Breaker:
        """An open breaker whose pause has passed lets one probe through."""
        if self.until is not None and now.timestamp() >= self.until:
            return replace(self, probing=True)
        return self

    def after(self, sign: Sign, now: dt.datetime, jitter: float) -> Breaker:
        """``jitter`` in 0..1."""
        went_well = sign in {Sign.WELL, Sign.SLOW}
        return self._well(now) if went_well else self._failed(now, jitter)

    def _well(self, now: dt.datetime) -> Breaker:
        if self.until is not None:
            if not self.probing:
                return self  # open already: this answer belongs to the burst that opened it
            return Breaker(since=now.timestamp(), troubled_since=self.troubled_since)
        counted = self._counted(now)
        good = counted.good + 1
        is_recovered = good >= FEWEST_CALLS and counted.bad * 4 < good
        troubled_since = None if is_recovered else self.troubled_since
        # Made anew, not replaced: almost every call comes this way.
        return Breaker(
            bad=counted.bad, good=good, since=counted.since, troubled_since=troubled_since
        )

    def _failed(self, now: dt.datetime, jitter: float) -> Breaker:
        if self.until is not None and not self.probing:
            return self
        counted = self._counted(now)
        counted = replace(counted, in_a_row=counted.in_a_row + 1, bad=counted.bad + 1)
        calls = counted.bad + counted.good
        is_half = calls >= FEWEST_CALLS and counted.bad * 2 >= calls
        if not (self.probing or is_half or counted.in_a_row >= FAILURES_IN_A_ROW):
            return counted
        at = now.timestamp()
        troubled_since = at if self.troubled_since is None else min(at, self.troubled_since)
        part = dt.timedelta(seconds=at - troubled_since) / PAUSES_IN_TROUBLE
        pause = min(LONGEST_PAUSE, max(SHORTEST_PAUSE, part)) * (0.75 + jitter / 2)
        return Breaker(since=at, troubled_since=troubled_since, until=(now + pause).timestamp())

    def _counted(self, now: dt.datetime) -> Breaker:
        """The minute's counts begin anew when it is over (or the clock went back)."""
        if 0 <= now.timestamp() - self.since < WINDOW_SECONDS:
            return self
        return replace(self, good=0, bad=0, since=now.timestamp())
