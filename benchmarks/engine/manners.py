"""How a scripted destination behaves: pure decisions, no clock, no socket.

Written as ``latency=20,errors=0.1``; nothing written means an answer of 200 at once.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

HANGS = 0
"""In place of a status: no answer, until the destination is told to behave otherwise."""
RESETS = -1
"""In place of a status: the connection is reset before anything was applied."""


@dataclass(frozen=True, slots=True)
class Manners:
    """Shares are between 0 and 1; what comes first in this list is decided first."""

    down: tuple[float, float] | None = None
    """503 from this second to that one, counted from when it was told to behave so."""
    hang: float = 0.0
    reset: float = 0.0
    rate: float = 0.0
    """More calls than this in a second (and a second's worth at once) answer 429."""
    errors: float = 0.0
    code: int = 500
    """What the share of errors answers."""
    bulk: int = 0
    """Most people of one call; more answer 413. 0: calls are not looked into."""
    latency: float = 0.0
    """Milliseconds before any answer."""

    @classmethod
    def parse(cls, text: str) -> Manners:
        """ValueError for a word nobody knows: a typing error must not pass as good manners."""
        found = dict(part.split("=", 1) for part in text.split(",") if part)
        if unknown := set(found) - set(cls.__slots__):
            raise ValueError(f"no such manners: {', '.join(sorted(unknown))}")
        numbers: dict[str, Any] = {
            name: _NUMBERS.get(name, float)(value) for name, value in found.items()
        }
        return cls(**numbers)


def _seconds(text: str) -> tuple[float, float]:
    start, _, end = text.partition("-")
    return float(start), float(end)


_NUMBERS: dict[str, Callable[[str], Any]] = {"down": _seconds, "code": int, "bulk": int}


@dataclass(frozen=True, slots=True)
class Answer:
    """``status`` may be ``HANGS`` or ``RESETS``; the delays are seconds."""

    status: int
    delay: float = 0.0
    retry_after: int | None = None


@dataclass(slots=True)
class Destination:
    """One destination with all it saw since it was last told how to behave."""

    manners: Manners = field(default_factory=Manners)
    since: float = 0.0
    calls: int = 0
    people: int = 0
    """People of the calls that were applied; a call that is not looked into counts as one."""
    repeats: int = 0
    """Calls whose idempotency key was seen before."""
    answers: Counter[int] = field(default_factory=Counter)
    _keys: set[bytes] = field(default_factory=set)
    _tokens: float = 0.0
    _refilled: float | None = None

    def answer(self, key: bytes, people: int, now: float, chance: random.Random) -> Answer:
        """Decide about one call and count it; ``key``: its idempotency key, perhaps empty."""
        given = self._decide(people, now, chance)
        self.calls += 1
        self.answers[given.status] += 1
        if 200 <= given.status < 300:
            self.people += people
        if key:
            self.repeats += key in self._keys
            self._keys.add(key)
        return given

    def _decide(self, people: int, now: float, chance: random.Random) -> Answer:
        manners = self.manners
        delay = manners.latency / 1000
        if manners.down and manners.down[0] <= now - self.since < manners.down[1]:
            return Answer(503, delay)
        if chance.random() < manners.hang:
            return Answer(HANGS)
        if chance.random() < manners.reset:
            return Answer(RESETS)
        if manners.rate and (wait := self._wait(now)):
            return Answer(429, retry_after=math.ceil(wait))
        if chance.random() < manners.errors:
            return Answer(manners.code, delay)
        if manners.bulk and people > manners.bulk:
            return Answer(413, delay)
        return Answer(200, delay)

    def _wait(self, now: float) -> float:
        """Seconds until the rate allows a call; 0 takes one from the token bucket."""
        rate = self.manners.rate
        full = max(1.0, rate)
        passed = full if self._refilled is None else (now - self._refilled) * rate
        self._tokens = min(full, self._tokens + passed)
        self._refilled = now
        if self._tokens < 1:
            return (1 - self._tokens) / rate
        self._tokens -= 1
        return 0.0
