"""Background work that shares its process with the API gives way to people who wait."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

LONGEST_WAIT = 0.025
"""Seconds: so that work goes on, however many people there are."""
LONGEST_BEHIND = 0.25
"""Seconds in a line, after which others take turns with guests."""
LONGEST_IN_LINE = 30.0
"""Seconds, after which ``NoTurn`` says that nothing moves."""
_is_for_guests: ContextVar[bool] = ContextVar("is_for_guests", default=False)


class Courtesy:
    """``with courtesy.guest():`` around each request; ``await courtesy.give_way()`` before each
    piece of work.
    """

    def __init__(self) -> None:
        self._guests = 0
        self._alone = asyncio.Event()
        self._alone.set()

    @contextmanager
    def guest(self) -> Iterator[None]:
        self._guests += 1
        self._alone.clear()
        try:
            with for_guests():
                yield
        finally:
            self._guests -= 1
            if not self._guests:
                self._alone.set()

    async def give_way(self) -> None:
        """Wait for a moment without guests, but not for long."""
        if not self._guests:
            return
        try:
            async with asyncio.timeout(LONGEST_WAIT):
                await self._alone.wait()
        except TimeoutError:
            pass


@contextmanager
def for_guests() -> Iterator[None]:
    """Somebody waits for what is done here: it goes first in a ``Line``."""
    token = _is_for_guests.set(True)
    try:
        yield
    finally:
        _is_for_guests.reset(token)


class NoTurn(TimeoutError):
    """Nothing moves in a line."""


class Line:
    """``async with line.turn():`` one task at a time, guests before others; while others are late,
    they take turns.
    """

    def __init__(self) -> None:
        self._is_taken = False
        self._whose: asyncio.Task[Any] | None = None
        self._was_guests_turn = False
        self._guests: deque[_Waiting] = deque()
        self._others: deque[_Waiting] = deque()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        if self._whose is asyncio.current_task():  # it has its turn already
            yield
            return
        await self._wait()
        self._whose = asyncio.current_task()
        try:
            yield
        finally:
            self._whose = None
            self._call_next()

    async def _wait(self) -> None:
        if not self._is_taken:
            self._is_taken = True
            return
        waiting = _Waiting()
        (self._guests if _is_for_guests.get() else self._others).append(waiting)
        try:
            async with asyncio.timeout(LONGEST_IN_LINE):
                await waiting.called
        except (asyncio.CancelledError, TimeoutError) as error:
            if not waiting.called.cancelled():  # both at once: it is somebody else's turn
                self._call_next()
            if isinstance(error, TimeoutError):
                raise NoTurn from None
            raise

    def _call_next(self) -> None:
        while self._guests or self._others:
            is_others_turn = self._was_guests_turn and self._others and self._others[0].is_late
            is_guests_turn = bool(self._guests) and not is_others_turn
            waiting = (self._guests if is_guests_turn else self._others).popleft()
            if not waiting.called.done():  # else it has given up
                self._was_guests_turn = is_guests_turn
                waiting.called.set_result(None)
                return
        self._is_taken = False


@dataclass(slots=True)
class _Waiting:
    called: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    since: float = field(default_factory=time.monotonic)

    @property
    def is_late(self) -> bool:
        return time.monotonic() - self.since > LONGEST_BEHIND
