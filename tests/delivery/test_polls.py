"""Asking about vendors' jobs keeps nobody from being erased."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from app.core.clock import utc_now
from app.core.db import table_of
from app.delivery.health import Breaker
from app.delivery.models import VirtualQueue
from app.delivery.turns import share
from connectors.contract import Outcome, accepted, done, retry
from tests.running import Asked, Double, Service

pytestmark = pytest.mark.slow

JOBS = 200
FRESH = 20


def erases_beside(double: Double, poll: Any) -> None:
    """Answers erasures at once, and polls with ``poll``."""
    double.default = lambda asked: poll(asked) if asked.method == "poll" else done()


async def waiting(service: Service, name: str = "crm", **traits: Any) -> Double:
    """A destination whose 200 jobs are due to be asked about."""
    double = await service.destination(name, **traits)
    double.default = lambda asked: accepted(f"job of {asked.deliveries[0]}")
    await erase(service, JOBS, "long-ago")
    await service.work()
    assert len(double.asked) == JOBS
    double.asked.clear()
    service.later(minutes=6)
    return double


async def erase(service: Service, people: int, prefix: str) -> None:
    subjects = [
        {"identifiers": [{"kind": "email", "value": f"{prefix}-{number}@customer.example"}]}
        for number in range(people)
    ]
    await service.post("/v1/requests/bulk", {"kind": "erasure", "subjects": subjects}, 202)


async def test_due_polls_take_at_most_every_other_call_from_fresh_erasures(
    service: Service,
) -> None:
    crm = await waiting(service)
    erases_beside(crm, lambda asked: accepted(asked.job))
    await erase(service, FRESH, "fresh")
    await service.step("advance")

    await service.work()

    order = [each.method for each in crm.asked]
    last = len(order) - order[::-1].index("erase")
    assert order.count("erase") == FRESH
    assert order[:last].count("poll") <= FRESH
    assert order.count("poll") == JOBS, "they are all asked in the end"


async def test_polls_that_hang_delay_no_other_destination(service: Service) -> None:
    crm = await waiting(service)
    shop = await service.destination("shop")
    crm.gate.clear()
    await erase(service, FRESH, "fresh")

    await service.work(until=lambda: len(shop.asked) == FRESH)

    assert len(crm.asked) < JOBS
    crm.gate.set()
    await service.work()


async def test_polls_that_fail_open_no_breaker_for_erasures(service: Service) -> None:
    crm = await waiting(service)
    failures: list[Outcome] = []

    def fail(asked: Asked) -> Outcome:
        failures.append(retry("timeout"))
        return failures[-1]

    erases_beside(crm, fail)
    await service.work()
    assert len(failures) >= JOBS
    await erase(service, FRESH, "fresh")
    await service.work()

    assert [each.method for each in crm.asked].count("erase") == FRESH
    assert (await service.queue("crm"))["breaker"] == "closed"


async def test_while_a_destination_is_down_it_is_tried_with_an_erasure_and_no_poll(
    service: Service,
) -> None:
    crm = await waiting(service)
    erases_beside(crm, lambda asked: accepted(asked.job))
    await erase(service, FRESH, "fresh")
    await service.step("advance")
    over = Breaker(until=(utc_now() - dt.timedelta(minutes=1)).timestamp())
    async with service.runtime.database.writing() as session:
        await session.execute(sa.update(table_of(VirtualQueue)).values(breaker=over.dump()))

    await service.work()

    assert crm.asked[0].method == "erase"


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 20))
def test_a_claim_is_shared_and_no_place_stays_empty(work: int, polls: int, room: int) -> None:
    chosen = share(
        [f"w{each}" for each in range(work)], [f"p{each}" for each in range(polls)], room
    )

    asked = [each for each in chosen if each.startswith("p")]
    assert len(chosen) == min(room, work + polls)
    assert len(asked) <= max(room // 2, room - work)
    assert chosen == sorted(chosen, key=lambda each: each.startswith("p")), "work goes first"
    if polls and room > 1:
        assert asked, "and polls are never forgotten"


@pytest.mark.parametrize(("work", "expected"), [(["w"], ["w"]), ([], ["p"])])
def test_a_single_place_goes_to_work(work: list[str], expected: list[str]) -> None:
    assert share(work, ["p"], 1) == expected
