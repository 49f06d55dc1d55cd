"""Queues beside each other: shares, limits of destinations and hosts, and what is held back."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from app.delivery.engine import HELD_MOST
from connectors.contract import Window, done, retry
from tests.running import Service, running


async def many(service: Service, count: int, start: int = 0, **more: Any) -> list[str]:
    """Ids of requests for this many people."""
    made = [
        await service.ask(identifiers=[{"kind": "user_id", "value": f"u{start + each}"}], **more)
        for each in range(count)
    ]
    return [each["id"] for each in made]


def order_of_calls(service: Service) -> list[str]:
    """Names of destinations in the order in which they were asked."""
    calls = sorted(
        (call.call_id, double.name) for double in service.doubles.values() for call in double.asked
    )
    return [name for _, name in calls]


@pytest.fixture
async def narrow(sqlite_url: str, sqlite_keystore_url: str, tmp_path: Path) -> Any:
    """A service that makes four calls at once."""
    async with running(
        tmp_path, sqlite_url, sqlite_keystore_url, worker_in_flight=4, host_in_flight=2
    ) as made:
        yield made


async def test_a_mountain_of_work_lets_a_small_queue_through(narrow: Service) -> None:
    whale, small = await narrow.destination("whale"), await narrow.destination("small")
    await many(narrow, 60, destinations=[narrow.destinations["whale"]])
    await many(narrow, 3, start=100, destinations=[narrow.destinations["small"]])

    await narrow.work(until=lambda: len(small.asked) == 3)

    assert len(whale.asked) < 40
    await narrow.work()
    assert len(whale.asked) == 60


async def test_a_started_person_goes_before_a_nearer_deadline_that_is_not_near(
    narrow: Service,
) -> None:
    first, second = await narrow.destination("first"), await narrow.destination("second")
    second.gate.clear()
    (busy,) = await many(narrow, 1, destinations=[narrow.destinations["second"]])
    await narrow.work(until=lambda: bool(second.asked))
    (started,) = await many(narrow, 1, start=1, regime="ccpa")
    await narrow.work(until=lambda: bool(first.asked))
    await many(narrow, 1, start=2, regime="gdpr", destinations=[narrow.destinations["second"]])
    await narrow.step("advance")
    assert first.asked

    second.gate.set()
    await narrow.work()

    requests = [
        (await narrow.rows("SELECT request_id FROM delivery WHERE id = :id", id=each))[0][0]
        for call in second.asked
        for each in call.deliveries
    ]
    assert requests[:2] == [busy, started]


async def test_a_deadline_within_three_days_goes_first(narrow: Service) -> None:
    crm = await narrow.destination("crm")
    await many(narrow, 5)
    await narrow.step("advance")
    long_ago = (dt.datetime.now(dt.UTC) - dt.timedelta(days=29)).isoformat()
    (urgent,) = await many(narrow, 1, start=9, received_at=long_ago)
    await narrow.step("advance")

    await narrow.work()

    first = crm.asked[0].deliveries[0]
    found = await narrow.rows("SELECT request_id FROM delivery WHERE id = :id", id=first)
    assert found[0][0] == urgent


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_moves_the_queue_and_holds_nothing_else(
    service: Service, status: int
) -> None:
    crm, shop = await service.destination("crm"), await service.destination("shop")
    crm.default = retry("too_many", dt.timedelta(minutes=10), http_status=status)
    await many(service, 12)

    await service.work()

    asked = len(crm.asked)
    assert asked <= 4, "what was claimed and not sent yet stayed at home"
    assert len(shop.asked) == 12
    waits = await service.rows("SELECT count(*) FROM ready WHERE attempt = 0 AND call_id IS NULL")
    assert waits[0][0] == 12 - asked
    await many(service, 1, start=50)
    service.later(minutes=9)
    await service.work()
    assert len(crm.asked) == asked, "new work does not bring it forward"

    crm.default = done()
    service.later(minutes=2)
    await service.work()
    assert (await service.queue("crm"))["depth"] == 0


async def test_a_refusal_of_us_parks_the_queue_and_burns_nothing(service: Service) -> None:
    crm = await service.destination("crm")
    crm.default = retry("unauthorised", parks=True, http_status=401)
    await many(service, 30)

    await service.work()

    queue = await service.queue("crm")
    assert queue["parked_reason"] == "unauthorised"
    assert len(crm.asked) <= 4
    attempts = await service.rows("SELECT max(attempt), count(*) FROM ready")
    assert tuple(attempts[0]) == (0, 30)


async def test_when_a_breaker_closes_waiting_retries_go_before_their_time(
    service: Service,
) -> None:
    crm = await service.destination("crm")
    crm.default = retry("unreachable")
    await many(service, 8)
    await service.work()
    for _ in range(6):  # attempts, and their pauses, grow
        service.later(hours=2)
        await service.work()
    assert (await service.queue("crm"))["breaker"] == "open"
    crm.default = done()

    service.later(minutes=20)  # the longest pause of a breaker; waits are up to an hour
    await service.work()

    queue = await service.queue("crm")
    assert (queue["breaker"], queue["depth"]) == ("closed", 0)


async def test_retries_are_rationed_while_fresh_work_goes_on(embedded: Service) -> None:
    crm = await embedded.destination("crm")
    crm.default = retry("odd_answer", dt.timedelta(minutes=1))
    await many(embedded, 4)
    await embedded.work()
    assert len(crm.asked) == 4
    await embedded.run("""UPDATE virtual_queue SET budget = '{"tokens": 2.0}'""")
    await many(embedded, 1, start=10)
    await embedded.step("advance")
    crm.gate.clear()
    embedded.later(hours=1)

    await embedded.work(until=lambda: len(crm.asked) == 7)
    for _ in range(20):
        await embedded.step("dispatch")

    again = Counter(each for call in crm.asked for each in call.deliveries)
    assert sorted(again.values()) == [1, 1, 1, 2, 2], "two retries, and the new one"


async def statements(service: Service, action: str) -> list[str]:
    """What a change of a queue writes."""
    seen: list[str] = []
    engine = service.runtime.database.engine.sync_engine

    def note(_: Any, __: Any, statement: str, *more: Any) -> None:
        if statement.startswith(("UPDATE", "INSERT", "DELETE")) and "audit" not in statement:
            seen.append(statement.split()[1])

    sa.event.listen(engine, "before_cursor_execute", note)
    await service.change_queue("crm", action)
    sa.event.remove(engine, "before_cursor_execute", note)
    return seen


@pytest.mark.parametrize("action", ["pause", "boost", "flush"])
async def test_operators_change_a_queue_by_one_update(embedded: Service, action: str) -> None:
    crm = await embedded.destination("crm")
    crm.default = retry("unreachable")
    await many(embedded, 3)
    await embedded.work()

    assert await statements(embedded, action) == ["virtual_queue"]


async def test_a_flush_hurries_what_waited_then_and_not_what_fails_after_it(
    service: Service,
) -> None:
    crm = await service.destination("crm")
    crm.default = retry("down", dt.timedelta(minutes=30))
    await many(service, 3)
    await service.work()
    assert len(crm.asked) == 3

    await service.change_queue("crm", "flush")
    await service.work()
    await service.work()

    assert len(crm.asked) == 6


async def test_an_order_to_hurry_does_not_outrun_a_rate_limit(service: Service) -> None:
    crm = await service.destination("crm", limits=(Window(2, 3600),))
    await many(service, 5)
    await service.work()
    assert len(crm.asked) == 2

    for action in ("flush", "boost", "resume"):
        await service.change_queue("crm", action)
        await service.work()  # comes to rest: nobody looks at it again and again
        assert len(crm.asked) == 2
    service.later(hours=2)
    await service.work()
    assert len(crm.asked) == 4


async def test_a_boosted_queue_stays_first_until_nothing_is_due(narrow: Service) -> None:
    await narrow.destination("other")
    boosted = await narrow.destination("boosted")
    await many(narrow, 40, destinations=[narrow.destinations["other"]])
    await many(narrow, 20, start=100, destinations=[narrow.destinations["boosted"]])
    await narrow.step("advance")
    await narrow.change_queue("boosted", "boost")

    await narrow.work()

    calls = order_of_calls(narrow)
    assert calls.index("boosted") <= 16
    last = len(calls) - 1 - calls[::-1].index("boosted")
    assert calls[:last].count("other") <= 24
    assert len(boosted.asked) == 20
    flags = await narrow.rows("SELECT count(*) FROM virtual_queue WHERE is_boosted")
    assert flags[0][0] == 0


async def test_destinations_on_one_host_share_its_cap_over_all_workspaces(narrow: Service) -> None:
    def host(_: Any) -> str:
        return "api.vendor.example"

    crm = await narrow.destination("crm", host=host)
    await narrow.post("/v1/destinations", {"name": "crm", "connector": "crm"}, 201, "eve")
    crm.gate.clear()
    await many(narrow, 3)
    for each in range(3):
        body = {"kind": "erasure", "identifiers": [{"kind": "user_id", "value": f"e{each}"}]}
        await narrow.post("/v1/requests", body, 201, "eve")
    shop = await narrow.destination("shop")
    await many(narrow, 1, start=50, destinations=[narrow.destinations["shop"]])

    await narrow.work(until=lambda: bool(shop.asked))

    assert len(crm.asked) == 2
    crm.gate.set()
    await narrow.work()
    assert len(crm.asked) == 6


async def test_no_more_is_taken_than_a_busy_host_lets_go_soon(
    sqlite_url: str, sqlite_keystore_url: str, tmp_path: Path
) -> None:
    """What waits for its host takes no place; without a limit of its own all would be claimed here
    and kept from other workers.
    """
    settings: dict[str, Any] = {"worker_in_flight": 1, "host_in_flight": 1}
    async with running(tmp_path, sqlite_url, sqlite_keystore_url, **settings) as service:
        doubles = [
            await service.destination(f"crm_{each}", host=lambda _: "api.vendor.example")
            for each in range(HELD_MOST + 4)
        ]
        for double in doubles:
            double.gate.clear()
        await many(service, 1)
        await service.step("advance")

        for _ in range(2 * len(doubles)):
            await service.step("dispatch")

        claimed = await service.rows("SELECT call_id FROM open_call")
        assert len(claimed) == HELD_MOST
        for double in doubles:
            double.gate.set()
        await service.work()
        assert [len(double.asked) for double in doubles] == [1] * len(doubles)


async def test_a_worker_that_slept_past_its_lease_sends_nothing_more(service: Service) -> None:
    crm = await service.destination("crm")
    await many(service, 12)
    crm.gate.clear()
    await service.work(until=lambda: len(crm.asked) == 4)
    (lease,) = service.runtime.engine._held.values()
    lease.good_until = 0.0  # as after a SIGSTOP

    crm.gate.set()
    while not service.runtime.engine.is_idle:  # noqa: ASYNC110 (the engine has no such event)
        await asyncio.sleep(0.001)

    assert len(crm.asked) == 4
    await service.work()
    assert len(crm.asked) == 12
    assert len(set(crm.call_ids)) == 12
