"""Readiness and gauges: what is said of queues that wait, are held, or are in trouble."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
import sqlalchemy as sa
from prometheus_client.parser import text_string_to_metric_families
from sqlmodel import col

from app.core.clock import utc_now
from app.core.ids import new_id
from app.delivery import gauges
from app.delivery.gauges import Gauges
from app.delivery.models import Call, VirtualQueue
from tests.running import Service

MINUTE = dt.timedelta(minutes=1)


async def change(service: Service, name: str, **values: Any) -> None:
    async with service.runtime.database.writing() as session:
        await session.execute(
            sa.update(VirtualQueue)
            .where(col(VirtualQueue.id) == service.destinations[name])
            .values(**values)
        )


async def is_ready(service: Service) -> bool:
    answer = await service.client.get("/readyz")
    assert answer.status_code == (200 if answer.json()["status"] == "ok" else 503)
    return bool(answer.json()["checks"]["dispatcher"] == "ok")


async def plan_and_wait(service: Service, *names: str) -> None:
    """Work in these queues that is due for two minutes."""
    for name in names:
        await service.destination(name)
    await service.ask()
    await service.step("advance")
    service.later(minutes=2)


# --- readiness


async def test_work_is_due_for_as_long_as_the_setting_says(service: Service) -> None:
    await service.destination("crm")
    await service.ask()
    await service.step("advance")
    service.later(seconds=service.settings.stall_seconds - 5)
    assert await is_ready(service)
    service.later(seconds=10)
    assert not await is_ready(service)


async def test_a_dispatcher_that_works_on_other_queues_is_not_stalled(service: Service) -> None:
    await plan_and_wait(service, "crm", "shop")
    now = utc_now()
    held = {"lease_owner": "wrk_1", "lease_until": now + MINUTE, "next_due": now + MINUTE}
    await change(service, "shop", leased_at=now - MINUTE / 6, **held)
    assert await is_ready(service)

    await change(service, "shop", leased_at=now - 2 * MINUTE)
    assert not await is_ready(service), "all its places hang, and nobody takes what is due"


async def test_a_lease_already_given_back_counts_by_its_calls(service: Service) -> None:
    await plan_and_wait(service, "crm")
    made_at = utc_now() - MINUTE / 6
    async with service.runtime.database.writing() as session:
        session.add(
            Call(
                id=new_id("call", made_at.timestamp()),
                queue_id="dst_other",
                token=1,
                operation="erase",
                delivery_ids=[],
                attempt=1,
                created_at=made_at,
            )
        )
    assert await is_ready(service)
    service.later(minutes=2)
    assert not await is_ready(service)


@pytest.mark.parametrize(
    "values",
    [
        {"is_paused": True},
        {"parked_reason": "unauthorized"},
        {"lease_until": utc_now() + dt.timedelta(days=400)},
    ],
    ids=["paused", "parked", "leased"],
)
async def test_a_queue_that_must_not_be_taken_is_no_stall(
    service: Service, values: dict[str, Any]
) -> None:
    await plan_and_wait(service, "crm")
    assert not await is_ready(service)
    await change(service, "crm", **values)
    assert await is_ready(service)


async def test_a_boosted_queue_is_no_stall_before_its_work_has_waited(service: Service) -> None:
    """It says that it is due since 1970."""
    await service.destination("crm")
    await service.ask()
    await service.step("advance")
    await change(service, "crm", next_due=dt.datetime(1970, 1, 1, tzinfo=dt.UTC), is_boosted=True)
    assert await is_ready(service)
    service.later(minutes=2)
    assert not await is_ready(service)


# --- gauges


async def shown(service: Service) -> dict[str, float]:
    """Sample name, with its labels' values, -> value, read anew."""
    text = (await Gauges(service.runtime.database).text()).decode()
    return {
        ":".join((sample.name.removeprefix("quittance_"), *sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_an_idle_service_shows_zeros(service: Service) -> None:
    found = await shown(service)
    assert set(found.values()) == {0.0}
    assert not any(name.startswith("destination_up") for name in found)


async def test_queues_are_counted_by_what_they_do(service: Service) -> None:
    names = ("due", "leased", "paused", "parked", "open", "limited", "boosted")
    await plan_and_wait(service, *names)
    now, soon = utc_now(), utc_now() + MINUTE
    await change(
        service, "leased", lease_until=soon, lease_owner="w", leased_at=now - MINUTE, next_due=soon
    )
    await service.change_queue("paused", "pause")
    await change(service, "parked", parked_reason="unauthorized", parked_at=now, next_due=None)
    await change(
        service, "open", not_before=soon, next_due=soon, breaker={"until": soon.timestamp()}
    )
    await change(service, "limited", not_before=soon, next_due=soon, breaker={"until": None})
    epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    await change(service, "boosted", next_due=epoch, is_boosted=True)

    found = await shown(service)
    assert found["queues_due"] == 2
    assert 120 <= found["queue_oldest_due_seconds"] < 180
    assert found["queues_leased"] == 1
    assert 60 <= found["queue_oldest_lease_seconds"] < 120
    assert (found["queues_paused"], found["queues_parked"], found["queues_open"]) == (1, 1, 1)
    down = {name for name in found if name.startswith("destination_up")}
    assert down == {f"destination_up:{service.destinations[name]}" for name in ("parked", "open")}
    assert {found[name] for name in down} == {0.0}

    await service.watch()
    assert (await shown(service))["alerts_open:destination_parked"] == 1


async def test_no_more_destinations_are_named_than_said(
    embedded: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gauges, "NAMED", 2)
    await plan_and_wait(embedded, "one", "two", "three")
    for name in ("one", "two", "three"):
        await change(embedded, name, parked_reason="unauthorized")
    found = await shown(embedded)
    assert sum(name.startswith("destination_up") for name in found) == 2
    assert found["queues_parked"] == 3


async def test_scrapes_read_the_database_once_in_a_while(embedded: Service) -> None:
    one = Gauges(embedded.runtime.database)
    before = await one.text()
    await plan_and_wait(embedded, "crm")
    embedded.later(minutes=-2)
    assert await one.text() == before
    embedded.later(minutes=2)
    assert await one.text() != before
