"""The manual connector: tasks for humans, on the real table."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import col

from app.core.clock import utc_now
from app.core.errors import NotFound
from app.destinations.human_tasks import Answer, TaskClosed, close
from app.destinations.models import HumanTask
from connectors.contract import (
    Call,
    Identifier,
    Operation,
    Outcome,
    Person,
    absent,
    accepted,
    done,
    failed,
    retry,
)
from tests.destinations.conftest import Scene, outbound, scene, server

__all__ = ["outbound", "scene", "server"]

BOB = Person("dlv_bob", (Identifier("email", "bob@shop.example"),))
EVE = Person("dlv_eve", (Identifier("email", "eve@shop.example"),))
DUE = dt.datetime(2026, 12, 23, tzinfo=dt.UTC)
CALL = Call("cal_1", Operation.ERASE, 1, DUE)


async def ask(scene: Scene, method: str, *args: Any, call: Call = CALL) -> Any:
    """Run a method of the one manual destination."""
    listed = (await scene.call("GET", "/destinations")).json()["items"]
    if not listed:
        added = await scene.add("manual", {"instructions": "Shred the card", "assignee": "Ann"})
        assert added.status_code == 201, added.text
        listed = [added.json()]
    async with scene.instances.use(await scene.row(listed[0]["id"])) as connector:
        return await scene.runner.run(connector, method, *args, call=call)


async def test_one_task_per_person_found_again_on_a_repeat(scene: Scene):
    first = await ask(scene, "erase", [BOB, EVE])
    assert first == {each.id: accepted(first[each.id].job) for each in (BOB, EVE)}
    assert first["dlv_bob"].job != first["dlv_eve"].job
    assert await ask(scene, "erase", [BOB]) == {"dlv_bob": first["dlv_bob"]}
    async with scene.database.reading() as session:
        rows = await session.execute(sa.select(HumanTask).order_by(col(HumanTask.id)))
        tasks = list(rows.scalars())
    assert [each.delivery_id for each in tasks] == ["dlv_bob", "dlv_eve"]
    task = tasks[0]
    assert task.workspace_id == scene.workspace_id
    assert (task.instructions, task.assignee, task.operation, task.due_at) == (
        "Shred the card", "Ann", "erase", DUE,
    )  # fmt: skip
    assert "bob@" not in await scene.dump()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("done", done()), ("absent", absent()), ("refused", failed("refused_by_operator"))],
)
async def test_ticking_off_says_what_happened(scene: Scene, answer: Answer, expected: Outcome):
    opened = await ask(scene, "suppress", [BOB])
    job = opened["dlv_bob"].job
    assert await ask(scene, "poll", job) == accepted(job)
    async with scene.database.writing() as session:
        closed = await close(
            session, workspace_id=scene.workspace_id, task_id=job, answer=answer, actor="admin:a",
            now=utc_now(), note="in the cellar",
        )  # fmt: skip
    assert (closed.closed_by, closed.note) == ("admin:a", "in the cellar")
    assert await ask(scene, "poll", job) == expected


async def test_a_task_is_closed_once_and_only_by_its_own_workspace(scene: Scene):
    job = (await ask(scene, "erase", [BOB]))["dlv_bob"].job
    common: dict[str, Any] = {"task_id": job, "answer": "done", "actor": "a", "now": utc_now()}
    with pytest.raises(NotFound):
        async with scene.database.writing() as session:
            await close(session, workspace_id="wsp_other", **common)
    async with scene.database.writing() as session:
        await close(session, workspace_id=scene.workspace_id, **common)
    with pytest.raises(TaskClosed):
        async with scene.database.writing() as session:
            await close(session, workspace_id=scene.workspace_id, **common)


async def test_a_task_of_another_destination_is_not_answered_for(scene: Scene):
    job = (await ask(scene, "erase", [BOB]))["dlv_bob"].job
    async with scene.database.writing() as session:
        other = (await scene.add("manual", {"instructions": "x"})).json()["id"]
        await session.execute(sa.update(HumanTask).values(destination_id=other))
    assert await ask(scene, "poll", job) == retry("misconfigured", parks=True)
    assert await ask(scene, "poll", "tsk_none") == retry("misconfigured", parks=True)
