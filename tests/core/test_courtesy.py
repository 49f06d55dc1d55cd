"""Background work gives way to requests, but not for ever."""

from __future__ import annotations

import asyncio
import time

from app.core.courtesy import LONGEST_WAIT, Courtesy


async def test_nobody_waits_while_there_is_no_guest() -> None:
    courtesy = Courtesy()
    with courtesy.guest():
        pass
    began = time.perf_counter()
    await courtesy.give_way()
    assert time.perf_counter() - began < LONGEST_WAIT


async def test_work_waits_until_the_last_guest_has_left() -> None:
    courtesy, order = Courtesy(), []

    async def work() -> None:
        await courtesy.give_way()
        order.append("work")

    with courtesy.guest():
        with courtesy.guest():
            task = asyncio.create_task(work())
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        order.append("guest")
    await task
    assert order == ["guest", "work"]


async def test_work_goes_on_however_long_a_guest_stays() -> None:
    courtesy = Courtesy()
    with courtesy.guest():
        async with asyncio.timeout(5):
            await courtesy.give_way()
