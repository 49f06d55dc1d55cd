"""What queues did lately, and what the API says of it."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
import sqlalchemy as sa

from app.core.clock import utc_now
from app.core.ids import new_id
from app.delivery import activity, queue_view
from app.delivery.activity import Count, Tally
from app.delivery.models import Delivery, QueueActivity, Ready, VirtualQueue
from app.delivery.order import BOOSTED, STARTED, URGENT, WAITING, rank_of
from app.delivery.stats import SLOT, slot_of
from tests.running import Service

AT = dt.datetime(2026, 11, 25, 12, 5, tzinfo=dt.UTC)


def test_counts_add_up_by_what_happened():
    tally = activity.total(
        Count(AT, event, count)
        for event, count in (
            ("calls", 7), ("calls", 3), ("duration_ms", 900), ("retried", 2), ("discarded", 1),
            ("succeeded:1", 12), ("succeeded:2", 2), ("succeeded:11", 1), ("succeeded:0", 1),
            ("invented_later", 5),
        )
    )  # fmt: skip
    assert tally == Tally(10, 900, 2, 1, {1: 13, 2: 2, 11: 1})
    assert (tally.succeeded_count, tally.answer_count, tally.saved_count) == (16, 19, 3)
    assert (tally.saved_share, tally.success_share) == (3 / 16, 16 / 19)
    assert (Tally().saved_share, Tally().success_share) == (None, None)


@pytest.mark.parametrize(("second", "start"), [(0, 0), (299.999, 0), (300, 300), (3599, 3300)])
def test_a_slot_begins_on_the_clock(second: float, start: int):
    hour = dt.datetime(2026, 11, 25, 12, tzinfo=dt.UTC)
    assert slot_of(hour + dt.timedelta(seconds=second)) == hour + dt.timedelta(seconds=start)


def test_a_series_leaves_out_what_lies_outside():
    counts = [Count(AT + shift * SLOT, "calls", 10 + shift) for shift in (-1, 0, 1, 2, 3, 4)]
    found = activity.series(counts, AT, 2 * SLOT, 2)
    assert [each.calls for each in found] == [10 + 11, 12 + 13]


def test_the_rate_is_over_the_last_full_slot_and_the_one_that_runs():
    now = AT + dt.timedelta(minutes=3)
    counts = [
        Count(AT - 2 * SLOT, "calls", 1000), Count(AT - SLOT, "calls", 30),
        Count(AT - SLOT, "duration_ms", 9000), Count(AT, "calls", 10),
    ]  # fmt: skip
    assert activity.per_minute(counts, now) == 40 / 8


async def happened(service: Service, queue: str, *rows: tuple[dt.timedelta, str, int]) -> None:
    """Each row: how long before the slot that runs, what, how often. That slot is begun anew, so
    that none ends in the middle of a test.
    """
    service.later(seconds=(slot_of(utc_now()) + 1.5 * SLOT - utc_now()).total_seconds())
    queue_id, now = service.destinations[queue], slot_of(utc_now())
    async with service.runtime.database.writing() as session:
        await session.execute(sa.delete(QueueActivity).where(QueueActivity.queue_id == queue_id))  # type: ignore[arg-type]
        session.add_all(
            QueueActivity(queue_id=queue_id, at=now - ago, event=event, count=count)
            for ago, event, count in rows
        )


async def a_queue(service: Service, name: str) -> None:
    await service.destination(name)
    async with service.runtime.database.writing() as session:
        workspace_id = service.workspaces["alice"]
        session.add(VirtualQueue(id=service.destinations[name], workspace_id=workspace_id))


async def test_the_share_saved_by_a_retry_is_told(service: Service):
    await a_queue(service, "crm")
    await a_queue(service, "mail")
    day, now = dt.timedelta(days=1), dt.timedelta()
    empty = await service.get("/v1/stats/deliveries")
    assert (empty["succeeded"], empty["share"], empty["attempts"]) == (0, None, {})
    await happened(
        service, "crm", (now, "succeeded:1", 90), (day, "succeeded:1", 100), (day, "calls", 9)
    )
    await happened(
        service, "mail", (now, "succeeded:3", 10), (9 * day, "succeeded:2", 50), (now, "retried", 4)
    )
    found = await service.get("/v1/stats/deliveries")
    assert found.pop("since") == activity_since(7 * day)
    assert found == {
        "succeeded": 200, "saved_by_retry": 10, "share": 0.05, "attempts": {"1": 190, "3": 10},
    }  # fmt: skip
    assert (await service.get("/v1/stats/deliveries?days=10"))["saved_by_retry"] == 60
    assert (await service.call("GET", "/v1/stats/deliveries?days=31")).status_code == 422


def activity_since(ago: dt.timedelta) -> str:
    return (slot_of(utc_now()) - ago).isoformat().replace("+00:00", "Z")


async def test_a_queues_activity_is_told_by_time(service: Service):
    await a_queue(service, "crm")
    hour, now = dt.timedelta(hours=1), dt.timedelta()
    await happened(
        service, "crm", (now, "calls", 2), (now, "duration_ms", 80), (now, "succeeded:2", 1),
        (now, "discarded", 1), (3 * hour, "retried", 5), (30 * hour, "calls", 7),
    )  # fmt: skip
    path = f"/v1/queues/{service.destinations['crm']}/activity"
    found = await service.get(path)
    assert (found["since"], found["slot_seconds"]) == (activity_since(24 * hour), 300)
    nothing: dict[str, Any] = {
        "calls": 0, "duration_ms": 0, "succeeded": 0, "retried": 0, "discarded": 0, "attempts": {},
    }  # fmt: skip
    assert found["items"] == [
        {**nothing, "at": activity_since(3 * hour), "retried": 5},
        {
            "at": activity_since(now), "calls": 2, "duration_ms": 80, "succeeded": 1, "retried": 0,
            "discarded": 1, "attempts": {"2": 1},
        },
    ]  # fmt: skip
    assert len((await service.get(f"{path}?hours=48"))["items"]) == 3
    assert (await service.call("GET", f"{path}?hours=0")).status_code == 422
    assert (await service.call("GET", f"{path}?hours=169")).status_code == 422


async def test_a_queue_tells_its_rate_and_its_last_errors(service: Service):
    await a_queue(service, "crm")
    await a_queue(service, "mail")
    await happened(service, "crm", (SLOT, "calls", 60), (2 * SLOT, "calls", 900))
    later = utc_now() + dt.timedelta(minutes=4)
    async with service.runtime.database.writing() as session:
        queue = await session.get_one(VirtualQueue, service.destinations["crm"])
        queue.not_before = later
        queue.last_errors = [[1_700_000_000, "timeout", None], [1_700_000_060.5, "gone", 503]]
        other = await session.get_one(VirtualQueue, service.destinations["mail"])
        other.not_before = utc_now() - dt.timedelta(minutes=4)
    crm, mail = await service.queue("crm"), await service.queue("mail")
    assert 6 <= crm["rate_per_minute"] <= 12
    assert mail["rate_per_minute"] == 0
    assert (dt.datetime.fromisoformat(crm["not_before"]), mail["not_before"]) == (later, None)
    assert crm["last_errors"] == [
        {"at": "2023-11-14T22:14:20.500000Z", "reason": "gone", "http_status": 503},
        {"at": "2023-11-14T22:13:20Z", "reason": "timeout", "http_status": None},
    ]
    assert (await service.change_queue("mail", "pause"))["last_errors"] == []


async def test_only_the_own_queues_are_told(service: Service):
    await a_queue(service, "crm")
    await happened(service, "crm", (dt.timedelta(), "succeeded:1", 90))
    await service.add_workspace("eve's")
    await service.add_key("mallory", "destinations:read", workspace="eve's")
    await service.add_key("clerk", "requests:read")
    path = f"/v1/queues/{service.destinations['crm']}/activity"
    foreign = await service.call("GET", path, who="mallory")
    assert foreign.status_code == 404
    assert foreign.json()["detail"] == "There is no destination with this id."
    for verb in ("pause", "boost"):
        unknown = await service.call("POST", f"/v1/queues/dst_x/{verb}")
        assert unknown.json()["detail"] == "There is no destination with this id."
    assert (await service.get("/v1/stats/deliveries", "mallory"))["succeeded"] == 0
    for each in (path, "/v1/stats/deliveries", "/v1/queues"):
        assert (await service.call("GET", each, who="clerk")).status_code == 403


async def test_the_line_is_as_the_engine_takes_it(service: Service):
    """First the boosted, then near deadlines, begun ones before others, then who was begun, then
    the rest, and polls beside them; who stands before whom agrees with it.
    """
    await a_queue(service, "crm")
    queue_id, now = service.destinations["crm"], utc_now()
    day = dt.timedelta(days=1)
    fresh_near, fresh_far = (rank_of(now + days * day, now, is_started=False) for days in (2, 20))
    places = [
        (BOOSTED, 5), (URGENT, -1), (URGENT, 9), (fresh_near, -7), (fresh_near, -2),
        (STARTED, -60), (STARTED, 30), (fresh_far, -90), (fresh_far, -3), (WAITING, 7),
    ]  # fmt: skip
    made = [(new_id("dlv"), rank, now + dt.timedelta(minutes=due)) for rank, due in places]
    async with service.runtime.database.writing() as session:
        for delivery_id, rank, due_at in reversed(made):
            session.add_all(_waiting(service, queue_id, delivery_id, rank, due_at, now))
    async with service.runtime.database.reading() as session:
        line = await queue_view.waiting(session, queue_id, now, 50)
        assert [ready.delivery_id for ready, _ in line] == [each for each, _, _ in made]
        ahead = [await queue_view.ahead(session, ready, now) for ready, _ in line]
        first = await queue_view.waiting(session, queue_id, now, 4)
        load = await queue_view.loads(session, [queue_id, "dst_none"], now)
    assert ahead == list(range(len(made)))
    assert [ready.delivery_id for ready, _ in first] == [each for each, _, _ in made[:4]]
    assert load[queue_id] == queue_view.Load(10, 6, made[7][2], 0)
    assert load["dst_none"] == queue_view.Load()


def _waiting(
    service: Service,
    queue_id: str,
    delivery_id: str,
    rank: int,
    due_at: dt.datetime,
    now: dt.datetime,
) -> list[Any]:
    later = now + dt.timedelta(days=30)
    return [
        Delivery(
            id=delivery_id,
            workspace_id=service.workspaces["alice"],
            request_id="req_x",
            destination_id=queue_id,
            operation="erase",
            identifier_ids=[],
            created_at=now,
            expires_at=later,
        ),
        Ready(
            delivery_id=delivery_id,
            queue_id=queue_id,
            rank=rank,
            due_at=due_at,
            placed_at=now,
            operation="erase",
            expires_at=later,
        ),
    ]
