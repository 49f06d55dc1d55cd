"""What waits for a human goes when nobody needs it any more, and with the person it is about."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from app.core.clock import utc_now
from app.delivery import reports
from app.destinations import human_tasks
from tests.running import Service


@pytest.fixture
async def paper(service: Service) -> str:
    """A destination that people carry out."""
    body = {"name": "paper", "connector": "manual", "settings": {"instructions": "Shred the card"}}
    made = await service.post("/v1/destinations", body, 201)
    service.destinations["paper"] = made["id"]
    return str(made["id"])


async def tasks(service: Service) -> list[Any]:
    return [tuple(row) for row in await service.rows("select state, note from human_task")]


async def tick_off(service: Service, note: str) -> None:
    ((task_id, workspace_id),) = await service.rows("select id, workspace_id from human_task")
    async with service.runtime.database.writing() as session:
        closed = await human_tasks.close(
            session, workspace_id=workspace_id, task_id=task_id, answer="done", actor="admin:ann",
            now=utc_now(), note=note,
        )  # fmt: skip
        await reports.task_ended(session, closed, utc_now())


async def test_what_was_noted_is_forgotten_with_the_person(service: Service, paper: str) -> None:
    made = await service.ask(external_id="ticket-1")
    await service.work()
    await tick_off(service, "Mrs Subject's card, second drawer")
    await service.work()
    assert (await service.request(made["id"]))["status"] == "completed"
    assert await tasks(service) == [("done", "Mrs Subject's card, second drawer")]

    service.later(days=14, seconds=1)
    await service.work()
    service.later(days=30, seconds=1)
    await service.work()

    assert (await service.request(made["id"]))["forgotten_at"] is not None
    assert await tasks(service) == []


async def test_a_cancelled_request_leaves_nothing_to_do(service: Service, paper: str) -> None:
    made = await service.ask()
    await service.work()
    assert await tasks(service) == [("open", None)]

    await service.post(f"/v1/requests/{made['id']}/cancel")
    await service.work()

    assert await tasks(service) == []


async def test_a_task_whose_request_is_cancelled_while_it_is_opened_is_taken_back(
    service: Service, paper: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, may_return = asyncio.Event(), asyncio.Event()
    open_it = human_tasks.HumanTasks.open

    async def open_slowly(*given: Any) -> str:
        task_id = await open_it(*given)
        opened.set()
        await may_return.wait()
        return task_id

    monkeypatch.setattr(human_tasks.HumanTasks, "open", open_slowly)
    made = await service.ask()
    await service.work(opened.is_set)
    await service.post(f"/v1/requests/{made['id']}/cancel")
    assert await tasks(service) == [("open", None)]

    may_return.set()
    await service.work()

    assert await tasks(service) == []


async def test_a_task_that_nobody_ticks_off_adds_a_step_a_day(service: Service, paper: str) -> None:
    made = await service.ask()
    await service.work()
    for _ in range(24):
        service.later(hours=1)
        await service.work()
    first_day = len((await service.delivery(made["id"]))["transitions"])
    assert first_day < 10

    for _ in range(4 * 5):
        service.later(hours=6)
        await service.work()
    assert len((await service.delivery(made["id"]))["transitions"]) <= first_day + 5

    await tick_off(service, "")
    await service.work()
    assert (await service.request(made["id"]))["status"] == "completed"


async def test_a_task_ticked_off_during_a_poll_is_asked_about_again_at_once(
    service: Service, paper: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await service.ask()
    await service.work()
    for days in (1, 3):  # from now on it is asked about once a day
        service.later(days=days)
        await service.work()
    looked, may_return = asyncio.Event(), asyncio.Event()
    look = human_tasks.HumanTasks.state

    async def look_slowly(*given: Any) -> str:
        state = await look(*given)
        looked.set()
        await may_return.wait()
        return state

    monkeypatch.setattr(human_tasks.HumanTasks, "state", look_slowly)
    service.later(days=1)
    await service.work(looked.is_set)
    await tick_off(service, "")
    may_return.set()

    await service.work()

    assert (await service.request(made["id"]))["status"] == "completed"
