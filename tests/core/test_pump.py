"""Background work outlives whatever goes wrong in it, and what does not get on is seen."""

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
