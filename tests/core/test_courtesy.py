"""Background work gives way to requests, but not for ever."""

from __future__ import annotations

import asyncio
import time
from contextlib import nullcontext

import pytest
import sqlalchemy as sa

from app.core import courtesy as courtesy_module
from app.core.courtesy import LONGEST_WAIT, Courtesy, Line, NoTurn, for_guests
from app.core.db import Database


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


async def one_after_the_other(*kinds: str) -> list[str]:
    """The order in which work is done that waits in a line behind something else."""
    line, order = Line(), []

    async def work(kind: str) -> None:
        with for_guests() if kind.startswith("guest") else nullcontext():
            async with line.turn():
                order.append(kind)

    async with asyncio.TaskGroup() as group, line.turn():
        for each in kinds:
            group.create_task(work(each))
        await asyncio.sleep(0)
    return order


async def test_what_guests_wait_for_goes_first() -> None:
    order = await one_after_the_other("work", "guest 1", "more work", "guest 2")
    assert order == ["guest 1", "guest 2", "work", "more work"]


async def test_nobody_waits_behind_guests_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courtesy_module, "LONGEST_BEHIND", 0.0)
    order = await one_after_the_other("guest 1", "guest 2", "guest 3", "work", "more work")
    assert order == ["guest 1", "work", "guest 2", "more work", "guest 3"]


async def test_the_line_goes_on_when_somebody_gives_up() -> None:
    line, order = Line(), []

    async def work(number: int) -> None:
        async with line.turn():
            order.append(number)

    async with line.turn():
        tasks = [asyncio.create_task(work(each)) for each in range(4)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.sleep(0)
    tasks[1].cancel()  # it has just been called
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [2, 3]


async def test_a_line_in_which_nothing_moves_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courtesy_module, "LONGEST_IN_LINE", 0.01)
    line = Line()

    async def work() -> None:
        async with line.turn():
            pass

    async with line.turn():
        with pytest.raises(NoTurn):
            await asyncio.create_task(work())
    async with asyncio.timeout(5):
        await work()


async def test_nobody_waits_for_itself() -> None:
    line = Line()
    async with asyncio.timeout(5):
        async with line.turn(), line.turn():
            pass
        async with line.turn():
            pass


async def test_sqlites_writer_serves_requests_first(sqlite_url: str) -> None:
    database, order = Database(sqlite_url), []

    async def write(kind: str) -> None:
        async with database.writing() as session:
            await session.execute(sa.text("SELECT 1"))
            order.append(kind)

    async with asyncio.TaskGroup() as group, database.writing() as session:
        await session.execute(sa.text("SELECT 1"))
        group.create_task(write("work"))
        await asyncio.sleep(0)
        with Courtesy().guest():
            group.create_task(write("request"))
            await asyncio.sleep(0)
    await database.close()
    assert order == ["request", "work"]
