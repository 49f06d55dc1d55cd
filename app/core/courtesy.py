"""Background work that shares its process with the API gives way to people who wait."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

LONGEST_WAIT = 0.025
"""Seconds: so that work goes on, however many people there are."""


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
