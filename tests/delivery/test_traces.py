"""A long history is read from its end."""

from __future__ import annotations

import sqlalchemy as sa

from app.core.clock import utc_now
from app.core.db import table_of
from app.delivery.models import DeliveryTransition
from connectors.contract import accepted
from tests.running import Service


async def test_answers_hold_the_newest_steps_and_say_how_many_are_left_out(
    service: Service,
) -> None:
    crm = await service.destination("crm")
    crm.default = accepted("job1")
    made = await service.ask()
    await service.work()
    delivery = await service.delivery(made["id"])
    known = len(delivery["transitions"])
    assert delivery["transitions_left_out"] == 0
    rows = [
        {
            "delivery_id": delivery["id"], "seq": seq, "at": utc_now(), "attempt": seq,
            "state": "awaiting_confirmation", "assurance": "acknowledged",
        }
        for seq in range(known + 1, 2001)
    ]  # fmt: skip
    async with service.runtime.database.writing() as session:
        await session.execute(sa.insert(table_of(DeliveryTransition)), rows)

    delivery = await service.delivery(made["id"])
    timeline = await service.get(f"/v1/requests/{made['id']}/timeline")

    assert [each["seq"] for each in delivery["transitions"]] == list(range(1901, 2001))
    assert delivery["transitions_left_out"] == timeline["steps_left_out"] == 1900
    shown = [each for each in timeline["items"] if each["delivery_id"] == delivery["id"]]
    assert {each["data"]["attempt"] for each in shown} == set(range(1901, 2001))
