"""The watch: raises alerts about queues and requests, and resolves those that are over.

Every condition is one statement on an index of the few rows it may concern, so that a look costs
little however many queues, requests and deliveries there are. Nothing is remembered between looks:
what holds is alerted, what no longer holds is resolved, whatever happened to this process.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.clock import rfc3339
from app.core.db import Moment, table_of
from app.core.settings import Settings
from app.delivery.due import heads_of
from app.delivery.models import Archived
from app.delivery.waiting import failing_since, is_leased, is_running, queue
from app.notifications import alerts
from app.notifications.alerts import Found, Kind
from app.notifications.models import Alert
from app.subject_requests.models import SubjectRequest
from app.subject_requests.services import Services
from app.subject_requests.states import FINAL

NEAR = dt.timedelta(hours=72)
BITE = 500
"""Alerts raised, and resolved, of one kind in one look."""

alert, request = table_of(Alert), table_of(SubjectRequest)
archived = table_of(Archived)


@dataclass(frozen=True, slots=True)
class Watched:
    """One kind of alert. ``holds``: the alert's reason, for a row of the tables joined to
    ``subject``. ``candidates``: a condition that every such row meets when it begins to hold, and
    that is quick to look up. ``facts``: columns that ``detail`` turns into the alert's detail.
    """

    kind: Kind
    source: sa.FromClause
    subject: sa.ColumnElement[str]
    workspace: sa.ColumnElement[str]
    holds: sa.ColumnElement[bool]
    candidates: sa.ColumnElement[bool]
    facts: tuple[sa.ColumnElement[Any], ...]
    detail: Callable[..., dict[str, Any]]


async def watch(services: Services, now: dt.datetime) -> bool:
    """One look; True when there is more to raise or to resolve at once."""
    found: list[Found] = []
    over: list[str] = []
    is_full = False
    async with services.database.reading() as session:
        for each in _watched(services.settings, now):
            new = await _new(session, each)
            gone = (await session.execute(ended(each))).scalars().all()
            is_full = is_full or BITE in {len(new), len(gone)}
            found += new
            over += gone
    if found or over:
        async with services.database.writing() as session:
            changed = await alerts.resolve(session, services.settings, over, now)
            changed |= await alerts.raise_alerts(session, services.settings, found, now)
            alerts.announce(session, services.settings, changed, now)
    return is_full


async def _new(session: AsyncSession, watched: Watched) -> list[Found]:
    return [
        Found(workspace_id, watched.kind, subject_id, watched.detail(*facts))
        for workspace_id, subject_id, *facts in await session.execute(new_ones(watched))
    ]


def new_ones(watched: Watched) -> sa.Select[Any]:
    """Workspace, subject and facts of what holds and has no open alert."""
    is_open = (
        sa.select(sa.literal(1))
        .where(
            alert.c.kind == watched.kind,
            alert.c.subject_id == watched.subject,
            alert.c.resolved_at.is_(None),
        )
        .exists()
    )
    return (
        sa.select(watched.workspace, watched.subject, *watched.facts)
        .select_from(watched.source)
        .where(watched.candidates, watched.holds, ~is_open)
        .limit(BITE)
    )


def ended(watched: Watched) -> sa.Select[Any]:
    """Open alerts whose reason no longer holds."""
    still = (
        sa.select(sa.literal(1))
        .select_from(watched.source)
        .where(watched.subject == alert.c.subject_id, watched.holds)
        .correlate(alert)
        .exists()
    )
    return (
        sa.select(alert.c.id)
        .where(alert.c.kind == watched.kind, alert.c.resolved_at.is_(None), ~still)
        .limit(BITE)
    )


def _watched(settings: Settings, now: dt.datetime) -> tuple[Watched, ...]:
    return (
        _stuck(now, dt.timedelta(minutes=settings.stuck_after_minutes)),
        _parked(),
        _due(Kind.DEADLINE_NEAR, now, now + NEAR),
        _due(Kind.DEADLINE_MISSED, None, now),
        _archived(),
    )


# Queues


def _stuck(now: dt.datetime, after: dt.timedelta) -> Watched:
    """A queue whose next delivery has waited for long, or that has only failed for long.

    It was not looked at, is held back (by its breaker or a rate), or is at work this moment.
    """
    cutoff = now - after
    due = heads_of(queue.c.id)
    failing = failing_since(now - 3 * after)
    since = [sa.type_coerce(each, Moment()) for each in (*due, failing)]
    return Watched(
        kind=Kind.QUEUE_STUCK,
        source=queue,
        subject=queue.c.id,
        workspace=queue.c.workspace_id,
        holds=is_running() & sa.or_(*(each <= cutoff for each in since)),
        candidates=sa.or_(queue.c.next_due <= cutoff, queue.c.not_before > now, is_leased(now)),
        facts=tuple(since),
        detail=lambda *since: {"since": rfc3339(min(filter(None, since)))},
    )


def _parked() -> Watched:
    is_parked = queue.c.parked_reason.is_not(None)
    return Watched(
        kind=Kind.DESTINATION_PARKED,
        source=queue,
        subject=queue.c.id,
        workspace=queue.c.workspace_id,
        holds=is_parked,
        candidates=is_parked,
        facts=(queue.c.parked_reason,),
        detail=lambda reason: {"reason": reason},
    )


# Requests


def _is_open() -> sa.ColumnElement[bool]:
    return request.c.completed_at.is_(None) & request.c.status.not_in(sorted(FINAL))


def _due(kind: Kind, after: dt.datetime | None, until: dt.datetime) -> Watched:
    """Open requests whose deadline, as extended, lies after ``after`` and not after ``until``."""
    deadline = sa.func.coalesce(request.c.extended_until, request.c.due_at)
    is_due = (deadline <= until) if after is None else (deadline > after) & (deadline <= until)
    return Watched(
        kind=kind,
        source=request,
        subject=request.c.id,
        workspace=request.c.workspace_id,
        holds=_is_open() & is_due,
        candidates=request.c.due_at <= until,  # an extension only ever moves it back
        facts=(sa.type_coerce(deadline, Moment()),),
        detail=lambda due_at: {"due_at": rfc3339(due_at)},
    )


def _archived() -> Watched:
    """Deliveries of open requests that were given up, and neither replayed nor waived."""
    return Watched(
        kind=Kind.DELIVERY_ARCHIVED,
        source=archived.join(request, request.c.id == archived.c.request_id),
        subject=archived.c.delivery_id,
        workspace=archived.c.workspace_id,
        holds=_is_open(),
        candidates=sa.true(),
        facts=(archived.c.request_id, archived.c.queue_id),
        detail=lambda request_id, destination_id: {
            "request_id": request_id,
            "destination_id": destination_id,
        },
    )
