"""Background work follows hints, outlives whatever goes wrong in it, and gathers work in its rests;
what does not get on is seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from app.core import pump
from app.core.pump import Pump, Pumps

HOURLY = 3600.0


@asynccontextmanager
async def running(one: Pump) -> AsyncIterator[Pumps]:
    pumps = Pumps(publish=lambda _: None)
    pumps.add(one)
    pumps.start()
    try:
        yield pumps
    finally:
        await pumps.stop()


async def until(look: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not look():  # noqa: ASYNC110 (a pump has no such event)
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("failed_before", [0, 5000])
async def test_what_failed_is_tried_again_soon_however_rare_it_is_else(
    monkeypatch: pytest.MonkeyPatch, failed_before: int
) -> None:
    monkeypatch.setattr(pump, "LONGEST_PAUSE", 0.001)
    looks: list[bool] = []

    async def step() -> bool:
        looks.append(True)
        if len(looks) < 3:
            raise OSError("no room")
        return False

    one = Pump("maintain", step, HOURLY, failures=failed_before)
    async with running(one) as pumps:
        await until(lambda: len(looks) == 3)
        await until(lambda: one.failures == 0)
        assert not pumps.have_ended


async def test_a_pump_that_has_ended_is_seen() -> None:
    async def step() -> bool:
        raise asyncio.CancelledError

    async with running(Pump("mail", step)) as pumps:
        await until(lambda: pumps.have_ended)


class Looks:
    """A step that counts."""

    def __init__(self, last: int = 0) -> None:
        self.count = 0
        self._last = last

    async def step(self) -> bool:
        self.count += 1
        await asyncio.sleep(0)
        return self.count < self._last

    async def reach(self, count: int) -> None:
        await until(lambda: self.count == count)


async def test_a_hint_is_followed_at_once() -> None:
    looks = Looks()
    async with running(Pump("mail", looks.step, HOURLY)) as pumps:
        await looks.reach(1)
        assert pumps.wake("mail")
        await looks.reach(2)
        assert not pumps.wake("sign")


async def test_without_a_hint_it_looks_all_the_same() -> None:
    looks = Looks()
    async with running(Pump("mail", looks.step, every=0.01)):
        await looks.reach(3)


async def test_it_goes_on_while_there_is_more() -> None:
    looks = Looks(last=5)
    async with running(Pump("mail", looks.step, HOURLY)):
        await looks.reach(5)


async def test_what_comes_during_a_rest_is_done_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pump, "LONGEST_REST", 0.2)
    looks = Looks()
    async with running(Pump("advance", looks.step, HOURLY, rest=1e9)) as pumps:
        await looks.reach(1)
        for _ in range(5):
            pumps.wake("advance")
            await asyncio.sleep(0)
        assert looks.count == 1
        await looks.reach(2)
        await asyncio.sleep(0.3)
    assert looks.count == 2
