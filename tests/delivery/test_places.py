"""Places for calls under way."""

from __future__ import annotations

import asyncio

from app.delivery.places import LAG, LEAST, Places, after_lag


async def enter(places: Places, names: list[str], name: str, leave: asyncio.Event) -> None:
    async with places:
        names.append(name)
        await leave.wait()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_who_came_first_gets_the_next_place() -> None:
    places = Places(2)
    inside: list[str] = []
    leave = [asyncio.Event() for _ in range(4)]
    tasks = [
        asyncio.create_task(enter(places, inside, name, event))
        for name, event in zip("abcd", leave, strict=True)
    ]
    await settle()
    assert inside == ["a", "b"]

    leave[1].set()
    await settle()
    assert inside == ["a", "b", "c"]
    places.change(3)
    await settle()
    assert inside == ["a", "b", "c", "d"]
    for event in leave:
        event.set()
    await asyncio.gather(*tasks)


async def test_fewer_places_throw_nobody_out_and_let_nobody_in() -> None:
    places = Places(2)
    inside: list[str] = []
    leave = [asyncio.Event() for _ in range(3)]
    tasks = [
        asyncio.create_task(enter(places, inside, name, event))
        for name, event in zip("abc", leave, strict=True)
    ]
    await settle()
    places.change(1)
    leave[0].set()
    await settle()
    assert inside == ["a", "b"]

    leave[1].set()
    await settle()
    assert inside == ["a", "b", "c"]
    leave[2].set()
    await asyncio.gather(*tasks)


async def test_whoever_is_cancelled_waiting_or_just_let_in_blocks_nobody() -> None:
    places = Places(1)
    inside: list[str] = []
    leave = [asyncio.Event() for _ in range(4)]
    tasks = [
        asyncio.create_task(enter(places, inside, name, event))
        for name, event in zip("abcd", leave, strict=True)
    ]
    await settle()
    tasks[1].cancel()
    leave[0].set()
    await asyncio.sleep(0)  # "c" is let in, and does not know it yet
    tasks[2].cancel()
    await settle()

    assert inside == ["a", "d"]
    leave[3].set()
    await asyncio.gather(*tasks, return_exceptions=True)


def test_a_loop_that_runs_late_has_fewer_places_and_one_more_each_time_it_does_not() -> None:
    assert after_lag(64, 2 * LAG, 64) == 48
    assert after_lag(LEAST, 2 * LAG, 64) == LEAST
    assert after_lag(48, 0.0, 64) == 49
    assert after_lag(64, 0.0, 64) == 64
    assert after_lag(1, 2 * LAG, 1) == 1
