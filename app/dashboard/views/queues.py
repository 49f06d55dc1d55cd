"""Queues: the list, worst first, and the page of one."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from app.dashboard import present
from app.dashboard.present import Badge
from app.dashboard.views.charts import (
    AttemptBar,
    LineBars,
    Sparkline,
    attempt_bars,
    line_bars,
    sparkline,
)
from app.dashboard.views.choices import Choice, choice
from app.dashboard.views.conditions import Condition, condition, held_by
from app.dashboard.views.paging import SIZE, Pager, Position
from app.delivery import activity, limits, queue_view
from app.delivery.activity import HOUR, WEEK, Count, Tally
from app.delivery.health import Breaker
from app.delivery.models import Delivery, Ready, VirtualQueue
from app.delivery.order import BOOSTED, STARTED, URGENT, WAITING
from app.delivery.queue_view import Failure, Load, Standing
from app.delivery.stats import SLOT, slot_of
from app.security.models import Role
from app.security.sessions import Operator
from connectors.contract import AnyConnector, Window

LISTED = 50
"""Deliveries shown of those that wait."""
COLUMN = dt.timedelta(minutes=15)
COLUMNS = 96
SERIES = ("Succeeded", "Tried again", "Not done")
STATE_FILTER = {"": "Any state", "trouble": "In trouble", "work": "With work"}
_FAR = dt.datetime(9000, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True, slots=True)
class Flow:
    """What a queue did lately."""

    calls: int
    success: str
    """A share in words; empty when nothing was answered."""
    tone: str
    spark: Sparkline


@dataclass(frozen=True, slots=True)
class QueueRow:
    id: str
    name: str
    connector: str
    condition: Condition
    load: Load
    concurrency_limit: int
    hour: Flow
    next_at: dt.datetime | None
    is_paused: bool
    is_parked: bool


@dataclass(frozen=True, slots=True)
class QueueList:
    rows: list[QueueRow]
    pager: Pager
    here: str
    """The address of this page of the list."""
    count: int
    trouble_count: int
    choices: list[Choice]
    name: str
    is_filtered: bool
    may_act: bool


def choices(asked: Mapping[str, str]) -> list[Choice]:
    return [choice(asked, "state", "State", STATE_FILTER)]


async def queue_list(
    session: AsyncSession,
    operator: Operator,
    position: Position,
    choices: list[Choice],
    now: dt.datetime,
) -> QueueList:
    """One page. Only the queues' own rows are read of all; what waits is counted for this page."""
    known = [
        (condition(each, now), each)
        for each in await queue_view.standings(session, operator.workspace_id)
    ]
    wanted = [each for each in known if _fits(*each, position.filters)]
    wanted.sort(key=lambda each: _order(*each))
    start = int(position.after or 0)
    page, pager = position.page(wanted[start : start + SIZE + 1], str(start + SIZE))
    ids = [queue.id for _, queue in page]
    loads = await queue_view.loads(session, ids, now)
    counts = await activity.counts_of(session, ids, slot_of(now) - HOUR)
    return QueueList(
        rows=[_row(state, queue, loads[queue.id], counts[queue.id], now) for state, queue in page],
        pager=pager,
        here=position.here,
        count=len(wanted),
        trouble_count=sum(state.is_trouble for state, _ in known),
        choices=choices,
        name=position.filters["name"],
        is_filtered=any(position.filters.values()),
        may_act=operator.may(Role.OPERATOR),
    )


def _fits(state: Condition, queue: Standing, filters: Mapping[str, str]) -> bool:
    if filters["name"].casefold() not in queue.name.casefold():
        return False
    match filters["state"]:
        case "trouble":
            return state.is_trouble
        case "work":
            return state.is_trouble or queue.next_due is not None
        case _:
            return True


def _order(state: Condition, queue: Standing) -> tuple[int, dt.datetime, str, str]:
    """Worst first, then who waits longest."""
    return state.rank, queue.parked_at or queue.next_due or _FAR, queue.name.casefold(), queue.id


def _row(
    state: Condition, queue: Standing, load: Load, counts: Sequence[Count], now: dt.datetime
) -> QueueRow:
    return QueueRow(
        id=queue.id,
        name=queue.name,
        connector=queue.connector,
        condition=state,
        load=load,
        concurrency_limit=queue.concurrency_limit,
        hour=_flow(counts, now),
        next_at=next_at(queue),
        is_paused=queue.is_paused,
        is_parked=queue.parked_reason is not None,
    )


def next_at(queue: Standing) -> dt.datetime | None:
    """When a worker looks again; None: somebody must resume it first, or nothing waits."""
    if queue.parked_reason or queue.is_paused or queue.next_due is None:
        return None
    return max(queue.next_due, queue.not_before or queue.next_due)


def _flow(counts: Sequence[Count], now: dt.datetime) -> Flow:
    """The last hour: the line shows full slots only, or it would always seem to end."""
    start = slot_of(now) - HOUR
    line = activity.series(counts, start, SLOT, HOUR // SLOT)
    hour = activity.total(each for each in counts if each.at >= start)
    return Flow(
        calls=hour.calls,
        success=percent(hour.success_share),
        tone=_tone(hour.success_share),
        spark=sparkline([each.calls for each in line], 96, 24),
    )


def _tone(share: float | None) -> str:
    if share is None or share >= 0.95:
        return "neutral"
    return "warn" if share >= 0.5 else "bad"


def percent(share: float | None) -> str:
    """``97 %``, with a decimal where it matters; what is not all is never 100, nor some 0."""
    if share is None:
        return ""
    if share in (0, 1):
        return f"{share:.0%}".replace("%", " %")
    if 0.1 <= share <= 0.99:
        return f"{share:.0%}".replace("%", " %")
    return f"{min(max(share, 0.001), 0.999):.1%}".replace("%", " %")


# One queue


@dataclass(frozen=True, slots=True)
class Limit:
    """A rate window, and the calls counted in it now."""

    text: str
    calls: int
    spent: int


@dataclass(frozen=True, slots=True)
class ErrorRow:
    at: dt.datetime
    reason: str
    http_status: int | None


@dataclass(frozen=True, slots=True)
class WaitingRow:
    delivery_id: str
    operation: str
    badge: Badge
    attempt: int
    place: str
    due_at: dt.datetime
    deadline: dt.datetime | None
    is_late: bool


@dataclass(frozen=True, slots=True)
class Saved:
    """On which attempt deliveries succeeded, and what that says."""

    total: int
    sentence: str
    bars: list[AttemptBar]


@dataclass(frozen=True, slots=True)
class QueuePage:
    id: str
    name: str
    connector: str
    is_deleted: bool
    condition: Condition
    since: dt.datetime | None
    load: Load
    rate: str
    hour: Flow
    next_at: dt.datetime | None
    not_before: dt.datetime | None
    held_by: str
    breaker: Badge
    breaker_text: str
    probe_at: dt.datetime | None
    concurrency_limit: int
    concurrency_cap: int | None
    limits: list[Limit]
    is_leased: bool
    lease_owner: str
    leased_at: dt.datetime | None
    lease_until: dt.datetime | None
    errors: list[ErrorRow]
    chart: LineBars
    day: Tally
    saved: Saved
    waiting: list[WaitingRow]
    is_paused: bool
    is_parked: bool
    is_boosted: bool
    may_act: bool


async def queue_page(
    session: AsyncSession,
    operator: Operator,
    queue_id: str,
    connector: type[AnyConnector] | None,
    now: dt.datetime,
) -> QueuePage:
    queue, destination = await queue_view.find(session, operator.workspace_id, queue_id)
    standing = queue_view.standing_of(queue, destination)
    first = slot_of(now, HOUR) + HOUR - COLUMNS * COLUMN
    counts = (await activity.counts_of(session, [queue_id], first))[queue_id]
    week = await activity.total_of(session, queue_id, slot_of(now) - WEEK)
    load = (await queue_view.loads(session, [queue_id], now))[queue_id]
    waiting = await queue_view.waiting(session, queue_id, now, LISTED)
    breaker = Breaker.load(queue.breaker)
    is_leased = queue.lease_until is not None and queue.lease_until > now
    is_held = queue.not_before is not None and queue.not_before > now
    return QueuePage(
        id=queue.id,
        name=destination.name,
        connector=connector.title if connector else destination.connector,
        is_deleted=destination.deleted_at is not None,
        condition=condition(standing, now),
        since=queue.parked_at if queue.parked_reason else None,
        load=load,
        rate=_rate(activity.per_minute(counts, now)),
        hour=_flow(counts, now),
        next_at=next_at(standing),
        not_before=queue.not_before if is_held else None,
        held_by=held_by(standing, now),
        breaker=present.badge(present.BREAKER, breaker.state),
        breaker_text=_BREAKER[breaker.state],
        probe_at=breaker.opens_again_at if breaker.state == "open" else None,
        concurrency_limit=min(queue.concurrency_limit, connector.concurrency)
        if connector
        else queue.concurrency_limit,
        concurrency_cap=connector.concurrency if connector else None,
        limits=_limits(queue, connector, now),
        is_leased=is_leased,
        lease_owner=queue.lease_owner or "",
        leased_at=queue.leased_at,
        lease_until=queue.lease_until,
        errors=_errors(queue_view.failures(queue.last_errors)),
        chart=_chart(counts, first, present.zone(operator.workspace.timezone)),
        day=activity.total(counts),
        saved=_saved(week),
        waiting=[_waiting(queue, ready, delivery, now) for ready, delivery in waiting],
        is_paused=queue.is_paused,
        is_parked=queue.parked_reason is not None,
        is_boosted=queue.is_boosted,
        may_act=operator.may(Role.OPERATOR),
    )


_BREAKER = {
    "closed": "It holds nothing back.",
    "open": "After too many failures no call goes out until its pause is over; then a single one "
    "tries.",
    "half_open": "A single call tries whether it is back; its answer decides.",
}


def _limits(
    queue: VirtualQueue, connector: type[AnyConnector] | None, now: dt.datetime
) -> list[Limit]:
    windows = limits.spent(queue.windows, connector.limits, now) if connector else []
    return [Limit(window_text(window), window.calls, spent) for window, spent in windows]


_SPANS: dict[float, str] = {1: "a second", 60: "a minute", 3600: "an hour", 86_400: "a day"}


def window_text(window: Window) -> str:
    """``3 calls a second``, ``1 000 calls in 30 days``, ``50 calls each calendar month``"""
    calls = present.number(window.calls) + (" call" if window.calls == 1 else " calls")
    if window.period:
        return f"{calls} each calendar {window.period}"
    if span := _SPANS.get(window.seconds):
        return f"{calls} {span}"
    if window.seconds < 60:
        return f"{calls} in {window.seconds:g} seconds"
    return f"{calls} in {present.span(dt.timedelta(seconds=window.seconds))}"


def _rate(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 10 or rate == 0 else f"{rate:.1f}"


def _errors(failures: Sequence[Failure]) -> list[ErrorRow]:
    return [
        ErrorRow(each.at, present.words(each.reason), each.http_status) for each in failures[:10]
    ]


def _chart(counts: Sequence[Count], first: dt.datetime, tz: dt.tzinfo) -> LineBars:
    """Whole hours, the one that runs included."""
    columns = activity.series(counts, first, COLUMN, COLUMNS)
    names = [f"{(first + index * COLUMN).astimezone(tz):%H:%M}" for index in range(COLUMNS)]
    return line_bars(
        names,
        [(each.succeeded_count, each.retried, each.discarded) for each in columns],
        [each.calls for each in columns],
        SERIES,
        "calls",
        labels=6,
    )


def _saved(week: Tally) -> Saved:
    return Saved(week.succeeded_count, saved_text(week), attempt_bars(week.succeeded))


def saved_text(week: Tally) -> str:
    """What retries were good for, plainly."""
    total, saved = week.succeeded_count, week.saved_count
    if not total:
        return "Nothing succeeded in the last 7 days."
    if not saved:
        return (
            f"Every delivery that succeeded in the last 7 days ({present.number(total)}) did so "
            "on the first attempt."
        )
    late = sum(count for attempt, count in week.succeeded.items() if 3 <= attempt <= 10)
    return (
        f"Of {present.number(total)} deliveries that succeeded in the last 7 days, "
        f"{present.number(saved)} ({percent(week.saved_share)}) did so only on a retry, "
        f"{present.number(late)} of them on attempts 3 to 10."
    )


_PLACES = {
    BOOSTED: "boosted",
    URGENT: "begun, deadline near",
    STARTED: "begun",
    WAITING: "waits for a job",
}


def place_of(rank: int) -> str:
    """Why a delivery stands where it does."""
    return _PLACES.get(rank, "by its deadline")


def ready_badge(ready: Ready) -> Badge:
    """What a delivery that waits is doing, without reading its history."""
    if ready.call_id is not None:
        return present.badge(present.DELIVERY_STATE, "executing")
    if ready.job is not None:
        return present.badge(present.DELIVERY_STATE, "awaiting_confirmation")
    if ready.attempt:
        return present.badge(present.DELIVERY_STATE, "awaiting_retry")
    return present.badge(present.DELIVERY_STATE, "awaiting_scheduling")


def _waiting(queue: VirtualQueue, ready: Ready, delivery: Delivery, now: dt.datetime) -> WaitingRow:
    return WaitingRow(
        delivery_id=delivery.id,
        operation=present.words(delivery.operation),
        badge=ready_badge(ready),
        attempt=ready.attempt,
        place=place_of(ready.rank),
        due_at=queue_view.goes_at(ready, queue.eager_before),
        deadline=delivery.due_at,
        is_late=delivery.due_at is not None and delivery.due_at < now,
    )
