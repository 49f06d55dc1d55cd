"""Human tasks: what waits for a hand, and what was ticked off lately."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.core.errors import NotFound
from app.crypto.keystore import KeyStore
from app.dashboard import present
from app.dashboard.present import Badge
from app.dashboard.views.people import names_of
from app.dashboard.views.requests import Shown
from app.delivery.models import Delivery
from app.destinations.models import Destination, HumanTask
from app.identity import vault
from app.security.models import Role
from app.security.sessions import Operator


@dataclass(frozen=True, slots=True)
class Task:
    id: str
    title: str
    instructions: str
    assignee: str
    due_at: dt.datetime | None
    is_late: bool
    request_id: str
    badge: Badge
    closed_at: dt.datetime | None
    closed_by: str
    note: str
    revealed: list[Shown]


@dataclass(frozen=True, slots=True)
class TaskList:
    open: list[Task]
    closed: list[Task]
    may_act: bool


async def task_list(
    session: AsyncSession,
    keys: KeyStore,
    operator: Operator,
    now: dt.datetime,
    revealed_id: str = "",
) -> TaskList:
    """Open ones by deadline, then the last closed ones. One task's person may be shown in clear."""
    is_open = col(HumanTask.state) == "open"
    waiting = await _load(
        session,
        operator.workspace_id,
        is_open,
        (col(HumanTask.due_at).asc(), col(HumanTask.id).asc()),
        200,
    )
    closed = await _load(
        session, operator.workspace_id, ~is_open, (col(HumanTask.closed_at).desc(),), 20
    )
    names = await names_of(
        session, operator.workspace_id, {task.closed_by or "" for task, _, _ in closed}
    )
    shown = await _identifiers(session, keys, waiting, revealed_id)

    def view(task: HumanTask, destination: str, request_id: str) -> Task:
        return Task(
            id=task.id,
            title=f"{present.words(task.operation)} in {destination}",
            instructions=task.instructions,
            assignee=task.assignee or "",
            due_at=task.due_at,
            is_late=task.due_at is not None and task.due_at < now,
            request_id=request_id,
            badge=present.badge(present.TASK_STATE, task.state),
            closed_at=task.closed_at,
            closed_by=names[task.closed_by] if task.closed_by else "",
            note=task.note or "",
            revealed=shown if task.id == revealed_id else [],
        )

    return TaskList(
        open=[view(*each) for each in waiting],
        closed=[view(*each) for each in closed],
        may_act=operator.may(Role.OPERATOR),
    )


async def find(session: AsyncSession, workspace_id: str, task_id: str) -> HumanTask:
    task = await session.get(HumanTask, task_id)
    if task is None or task.workspace_id != workspace_id:
        raise NotFound("There is no task with this id in your workspace.")
    return task


Row = tuple[HumanTask, str, str]


async def _load(
    session: AsyncSession,
    workspace_id: str,
    condition: sa.ColumnElement[bool],
    order: Sequence[sa.ColumnElement[Any]],
    limit: int,
) -> list[Row]:
    rows = await session.execute(
        sa.select(HumanTask, col(Destination.name), sa.func.coalesce(col(Delivery.request_id), ""))
        .join(Destination, col(Destination.id) == col(HumanTask.destination_id))
        .outerjoin(Delivery, col(Delivery.id) == col(HumanTask.delivery_id))
        .where(col(HumanTask.workspace_id) == workspace_id, condition)
        .order_by(*order)
        .limit(limit)
    )
    return [(task, name, request_id) for task, name, request_id in rows]


async def _identifiers(
    session: AsyncSession, keys: KeyStore, rows: list[Row], task_id: str
) -> list[Shown]:
    """The identifiers that the task's delivery names: what the human needs to find the person."""
    task = next((task for task, _, _ in rows if task.id == task_id), None)
    delivery = await session.get(Delivery, task.delivery_id) if task else None
    if delivery is None:
        return []
    opened = await vault.open_ids(session, keys, delivery.identifier_ids)
    return [Shown(present.words(each.kind), each.value, each.origin) for each in opened.values()]
