"""Places for calls under way, whose number may change: fixed, shared, or as many as let the event
loop breathe.
"""

from __future__ import annotations

import asyncio
from collections import deque

LEAST = 4
LOOK_EVERY = 0.02
LAG = 0.01
"""Seconds that the loop may be late before fewer calls are made at once."""


class Places:
    """``async with places:`` takes one, first come, first served."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def change(self, limit: int) -> None:
        """Who has a place keeps it, also beyond the new limit."""
        self.limit = limit
        self._let_in()

    async def __aenter__(self) -> None:
        if self._taken < self.limit and not self._waiting:
            self._taken += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # let in, and cancelled before it noticed
                await self.__aexit__()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._taken -= 1
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and self._taken < self.limit:
            turn = self._waiting.popleft()
            if not turn.done():
                self._taken += 1
                turn.set_result(None)


async def breathe(places: Places, most: int) -> None:
    """Keep the event loop free for others, the API foremost: fewer places when it runs late, one
    more at a time while it does not.
    """
    loop = asyncio.get_running_loop()
    while True:
        began = loop.time()
        await asyncio.sleep(LOOK_EVERY)
        places.change(after_lag(places.limit, loop.time() - began - LOOK_EVERY, most))


def after_lag(limit: int, lag: float, most: int) -> int:
    """A quarter fewer when the loop was late by more than ``LAG`` seconds, else one more, at
    most ``most``.
    """
    return min(most, max(LEAST, limit * 3 // 4) if lag > LAG else limit + 1)
