"""Rate limits within one process: sliding windows whose cost does not depend on how many callers
there are.
"""

from __future__ import annotations

import time
from collections import Counter


class Windows:
    """At most ``most`` in any ``seconds``, for each of many callers.

    Time is cut into windows of that length; the last one counts for the part of it that the sliding
    window still covers, as if its calls had come evenly. All counts of a window go at once when it
    is over, so that no call has to look for others' old ones (which is what the in-memory storages
    of ``limits`` 5.8 do at each call).
    """

    def __init__(self, most: int, seconds: int) -> None:
        self._most, self._seconds = most, seconds
        self._number = 0
        self._last: Counter[str] = Counter()
        self._now: Counter[str] = Counter()

    def spend(self, who: str, cost: int = 1) -> bool:
        """Spend, if that is still within the limit; a refusal costs nothing."""
        passed = self._turn()
        if round(self._last[who] * (1 - passed)) + self._now[who] + cost > self._most:
            return False
        self._now[who] += cost
        return True

    def wait(self, who: str) -> float:
        """Seconds until one more would be within the limit, if nobody spends meanwhile."""
        passed = self._turn()
        if self._now[who] < self._most:
            at = self._fits_at(self._last[who], self._most - self._now[who])
            return max(0.0, at - passed) * self._seconds
        return (1 - passed + self._fits_at(self._now[who], self._most)) * self._seconds

    @staticmethod
    def _fits_at(past: int, room: int) -> float:
        """The share of a window after which fewer than ``room`` of the calls before it count."""
        return max(0.0, 1 - (room - 0.5) / past) if past else 0.0

    def _turn(self) -> float:
        """Go on to the present window; returns the share of it that has passed."""
        number, passed = divmod(time.time() / self._seconds, 1)
        if number == self._number - 1:  # the clock was set back a little: that forgets nothing
            return 0.0
        if number != self._number:
            is_next = number == self._number + 1
            self._last = self._now if is_next else Counter()
            self._now, self._number = Counter(), int(number)
        return passed
