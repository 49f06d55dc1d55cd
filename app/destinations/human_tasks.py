"""Work for a human: opened by the ``manual`` connector, ticked off by an operator."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection
from typing import Literal, cast

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.core.db import Database, insert_or_ignore
from app.core.errors import Conflict, NotFound
from app.core.ids import new_id
from app.destinations.models import HumanTask
from app.security import audit
from connectors.contract import Call, ConnectorError, Person

State = Literal["open", "done", "absent", "refused"]
Answer = Literal["done", "absent", "refused"]


class TaskClosed(Conflict):
    slug, title = "task-closed", "The task is already closed"


class HumanTasks:
    """The tasks of one destination, for its connector; every call is a short transaction."""

    def __init__(
        self,
        database: Database,
        workspace_id: str,
        destination_id: str,
        now: Callable[[], dt.datetime],
    ) -> None:
        self._database = database
        self._workspace_id = workspace_id
        self._destination_id = destination_id
        self._now = now

    async def open(
        self, call: Call, person: Person, instructions: str, assignee: str | None
    ) -> str:
        """Open (or find, for the same delivery) a task and return its id."""
        async with self._database.writing() as session:
            await session.execute(
                insert_or_ignore(session, HumanTask).values(
                    id=new_id("tsk"), workspace_id=self._workspace_id,
                    destination_id=self._destination_id, delivery_id=person.id,
                    operation=str(call.operation), instructions=instructions, assignee=assignee,
                    due_at=call.due_at, state="open", created_at=self._now(),
                )
            )  # fmt: skip
            found = await session.execute(
                sa.select(col(HumanTask.id)).where(col(HumanTask.delivery_id) == person.id)
            )
            return str(found.scalar_one())

    async def state(self, task_id: str) -> State:
        async with self._database.reading() as session:
            task = await session.get(HumanTask, task_id)
        if task is None or task.destination_id != self._destination_id:
            raise ConnectorError("The task does not exist.")
        return cast(State, task.state)


async def close(
    session: AsyncSession, *, workspace_id: str, task_id: str, answer: Answer, actor: str,
    now: dt.datetime, note: str | None = None,
) -> HumanTask:  # fmt: skip
    """Tick a task off, once. The caller wakes its delivery (``app.delivery.reports``)."""
    task = await session.get(HumanTask, task_id, with_for_update=True)
    if task is None or task.workspace_id != workspace_id:
        raise NotFound("There is no task with this id.")
    if task.state != "open":
        raise TaskClosed("Somebody has ticked it off already; reload the list.")
    task.state, task.closed_by, task.closed_at, task.note = answer, actor, now, note
    audit.record(
        session, workspace_id=workspace_id, actor=actor, verb="human_task.close", target=task.id,
        now=now, answer=answer,
    )  # fmt: skip
    await session.flush()
    return task


async def take_back(session: AsyncSession, delivery_ids: Collection[str]) -> None:
    """Nobody needs the answer any more: what still waits for a human is deleted."""
    await session.execute(
        sa.delete(HumanTask)
        .where(col(HumanTask.delivery_id).in_(delivery_ids), col(HumanTask.state) == "open")
        .execution_options(synchronize_session=False)
    )


async def forget(session: AsyncSession, delivery_ids: Collection[str]) -> None:
    """Delete the tasks of people who are forgotten, with what operators wrote down in them."""
    await session.execute(
        sa.delete(HumanTask)
        .where(col(HumanTask.delivery_id).in_(delivery_ids))
        .execution_options(synchronize_session=False)
    )
