"""The overview: is anything late, failing or waiting for me?"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.consent import queries as consents
from app.dashboard import present
from app.dashboard.present import Badge
from app.dashboard.views.alerts import AlertRow, stuck
from app.dashboard.views.charts import Sparkline, sparkline
from app.dashboard.views.consent import days_back
from app.dashboard.views.destinations import Health, healths
from app.dashboard.views.queues import percent
from app.dashboard.views.requests import (
    DUE_AT,
    IS_OPEN,
    SOON,
    WAITS_FOR_ANSWER,
    RequestRow,
    due_before,
    row_of,
)
from app.delivery import activity, stats
from app.delivery.activity import WEEK
from app.delivery.models import Archived
from app.destinations.models import Destination, HumanTask
from app.security.sessions import Operator
from app.subject_requests.models import SubjectRequest

_LISTED = 6


@dataclass(frozen=True, slots=True)
class Tile:
    """A count with its page; ``tone`` is quiet when there is nothing."""

    text: str
    count: int
    href: str
    tone: str


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that wants attention."""

    title: str
    href: str
    badge: Badge
    detail: str
    at: dt.datetime | None = None
    short_id: str = ""


@dataclass(frozen=True, slots=True)
class Engine:
    """What the delivery engine did in a week; ``saved`` is a share in words."""

    succeeded: int
    saved: str
    oldest_due_at: dt.datetime | None


@dataclass(frozen=True, slots=True)
class Overview:
    verdict: str
    tone: str
    tiles: list[Tile]
    late: list[Item]
    waiting: list[Item]
    failing: list[Item]
    recent: list[RequestRow]
    engine: Engine
    consent: Sparkline
    consent_total: int
    consent_days: int


async def overview(session: AsyncSession, operator: Operator, now: dt.datetime) -> Overview:
    """Everything on the page, in a dozen bounded queries."""
    workspace_id = operator.workspace_id
    mine = col(SubjectRequest.workspace_id) == workspace_id
    late = mine & due_before(now + SOON)
    overdue, soon = mine & due_before(now), late & (now <= DUE_AT)
    approval = mine & (col(SubjectRequest.status) == "awaiting_approval")
    answer = mine & WAITS_FOR_ANSWER
    counts = [
        await _count(session, each) for each in (overdue, soon, approval, answer, mine & IS_OPEN)
    ]
    tasks = await _open_tasks(session, workspace_id)
    task_count = await _task_count(session, workspace_id)
    destinations = await healths(session, workspace_id, now)
    troubled = [each for each in destinations if each.is_trouble]
    archived, archived_count = await _archived(session, workspace_id)
    waiting_queues = await stuck(session, workspace_id, [each.id for each in troubled], _LISTED)
    tiles = [
        _tile("Overdue", counts[0], "/dashboard/requests?status=overdue", "bad"),
        _tile("Due within 72 hours", counts[1], "/dashboard/requests?status=soon", "warn"),
        _tile(
            "Awaiting approval", counts[2], "/dashboard/requests?status=awaiting_approval", "warn"
        ),
        _tile("Waiting for your answer", counts[3], "/dashboard/requests?status=answer", "warn"),
        _tile("Open human tasks", task_count, "/dashboard/tasks", "warn"),
        _tile("Destinations in trouble", len(troubled), "/dashboard/destinations", "bad"),
        _tile("Archived deliveries", archived_count, "/dashboard/archived", "bad"),
        _tile("Open requests", counts[4], "/dashboard/requests?status=open", ""),
    ]
    zone = present.zone(operator.workspace.timezone)
    values = await consents.daily_totals(session, workspace_id, days_back(now, 30, zone), zone)
    failing = len(troubled) + archived_count + len(waiting_queues)
    verdict, tone = _verdict(counts, task_count, failing)
    return Overview(
        verdict=verdict,
        tone=tone,
        tiles=tiles,
        late=[_request_item(each, now) for each in await _requests(session, late, DUE_AT)],
        waiting=[
            *(
                _request_item(each, now)
                for each in await _requests(session, approval | answer, DUE_AT)
            ),
            *tasks,
        ][:_LISTED],
        failing=[
            *(_health_item(each) for each in troubled),
            *(_alert_item(each) for each in waiting_queues),
            *archived,
        ][:_LISTED],
        recent=[
            row_of(each, now)
            for each in await _requests(session, mine, col(SubjectRequest.id).desc(), 8)
        ],
        engine=await _engine(session, workspace_id, destinations, now),
        consent=sparkline(values),
        consent_total=sum(values),
        consent_days=len(values),
    )


async def _engine(
    session: AsyncSession, workspace_id: str, destinations: list[Health], now: dt.datetime
) -> Engine:
    week = await activity.total_of_all(session, workspace_id, stats.slot_of(now) - WEEK)
    due = [each.oldest_due_at for each in destinations if each.oldest_due_at]
    return Engine(week.succeeded_count, percent(week.saved_share), min(due, default=None))


def _tile(text: str, count: int, href: str, tone: str) -> Tile:
    return Tile(text, count, href, tone if count else "quiet")


def _verdict(counts: list[int], tasks: int, failing: int) -> tuple[str, str]:
    """One sentence that answers the page's question."""
    overdue, soon, approval, answer, _ = counts
    waiting = approval + answer + tasks
    said = []
    if overdue:
        said.append(f"{_n(overdue, 'request')} overdue")
    if failing:
        said.append(f"{failing} failing")
    if waiting:
        said.append(f"{waiting} waiting for you")
    if soon:
        said.append(f"{soon} due within 72 hours")
    if not said:
        return "Nothing is late, failing or waiting for you.", "good"
    text = ", ".join(said)
    return f"{text[0].upper()}{text[1:]}.", "bad" if overdue or failing else "warn"


def _n(count: int, word: str) -> str:
    return f"{count} {word}" + ("" if count == 1 else "s")


async def _count(session: AsyncSession, condition: sa.ColumnElement[bool]) -> int:
    return int(
        (
            await session.execute(
                sa.select(sa.func.count()).select_from(SubjectRequest).where(condition)
            )
        ).scalar_one()
    )


async def _requests(
    session: AsyncSession,
    condition: sa.ColumnElement[bool],
    order: sa.ColumnElement[Any],
    limit: int = _LISTED,
) -> list[SubjectRequest]:
    rows = await session.execute(
        sa.select(SubjectRequest).where(condition).order_by(order).limit(limit)
    )
    return list(rows.scalars())


def _request_item(request: SubjectRequest, now: dt.datetime) -> Item:
    row = row_of(request, now)
    badge = row.status
    if row.due.tone == "bad":
        badge = Badge("Overdue", "bad")
    return Item(
        row.kind, f"/dashboard/requests/{row.id}", badge, "due", row.due.at, short_id=row.short_id
    )


def _health_item(health: Health) -> Item:
    area = "queues" if health.is_queue_trouble else "destinations"
    return Item(health.name, f"/dashboard/{area}/{health.id}", health.badge, health.detail)


def _alert_item(alert: AlertRow) -> Item:
    return Item(alert.subject, alert.href, alert.badge, "raised", alert.raised_at)


async def _task_count(session: AsyncSession, workspace_id: str) -> int:
    query = sa.select(sa.func.count()).where(
        col(HumanTask.workspace_id) == workspace_id, col(HumanTask.state) == "open"
    )
    return int((await session.execute(query)).scalar_one())


async def _open_tasks(session: AsyncSession, workspace_id: str) -> list[Item]:
    rows = await session.execute(
        sa.select(HumanTask, col(Destination.name))
        .join(Destination, col(Destination.id) == col(HumanTask.destination_id))
        .where(col(HumanTask.workspace_id) == workspace_id, col(HumanTask.state) == "open")
        .order_by(col(HumanTask.due_at), col(HumanTask.id))
        .limit(_LISTED)
    )
    return [
        Item(
            f"{present.words(task.operation)} in {name}",
            f"/dashboard/tasks#{task.id}",
            Badge("Human task", "warn"),
            "due",
            task.due_at,
        )
        for task, name in rows
    ]


async def _archived(session: AsyncSession, workspace_id: str) -> tuple[list[Item], int]:
    """Deliveries that ran out of time and were neither replayed nor waived, oldest first."""
    mine = col(Archived.workspace_id) == workspace_id
    count = await session.execute(sa.select(sa.func.count()).select_from(Archived).where(mine))
    rows = await session.execute(
        sa.select(Archived, col(Destination.name))
        .join(Destination, col(Destination.id) == col(Archived.queue_id))
        .where(mine)
        .order_by(col(Archived.archived_at), col(Archived.delivery_id))
        .limit(_LISTED)
    )
    items = [
        Item(
            f"Delivery to {name}",
            f"/dashboard/requests/{each.request_id}",
            Badge("Archived", "bad"),
            "gave up",
            each.archived_at,
        )
        for each, name in rows
    ]
    return items, int(count.scalar_one())
