"""What people planned together, skipped, held back or forgotten owe each other: nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlmodel import col

from app.core.clock import utc_now
from app.crypto.models import DataKey
from app.subject_requests import resolve
from connectors.contract import Identifier, retry
from tests.running import BOB, CAROL, Service, source_connector

KNOWN = {BOB: [Identifier("user_id", "u-17")]}


async def test_people_planned_together_each_begin_with_their_own_first_phase(
    service: Service,
) -> None:
    await service.destination("users", source_connector, {}, settings={"identity_source": True})
    await service.destination("crm")
    everywhere = await service.ask(BOB)
    only_the_source = await service.ask(CAROL, destinations=[service.destinations["users"]])

    await service.work()

    for made in (everywhere, only_the_source):
        assert (await service.request(made["id"]))["status"] == "completed"


async def test_a_first_phase_in_which_all_is_skipped_does_not_hold_up_the_second(
    service: Service,
) -> None:
    users = await service.destination(
        "users", source_connector, {}, settings={"identity_source": True}
    )
    await service.destination("sms", accepts=("phone",))
    made = await service.ask(BOB)

    await service.work()

    assert "erase" in [each.method for each in users.asked]
    assert (await service.request(made["id"]))["status"] == "completed_with_exceptions"


async def test_an_unsuppression_lifts_what_the_opt_out_had_resolved(service: Service) -> None:
    await service.destination("users", source_connector, KNOWN, settings={"identity_source": True})
    both = {"identifiers": [{"kind": "email", "value": BOB}, {"kind": "user_id", "value": "u-17"}]}

    async def suppressed() -> list[bool]:
        answer = await service.post("/v1/suppressions/check", both, 200)
        return [each["suppressed"] for each in answer["results"]]

    await service.ask(BOB, kind="opt_out")
    await service.work()
    assert await suppressed() == [True, True]

    await service.ask(BOB, kind="unsuppression")
    await service.work()
    assert await suppressed() == [False, False]


async def test_a_receipt_lists_no_suppression_that_was_never_made(service: Service) -> None:
    users = await service.destination(
        "users", source_connector, {}, settings={"identity_source": True}
    )
    users.default = retry("down")
    made = await service.ask(BOB)
    await service.work()
    await service.post(f"/v1/requests/{made['id']}/cancel", None, 200)
    await service.work()

    kept = [each["what"] for each in (await service.claims(made["id"]))["own_records"]]
    assert "request_record" in kept
    assert "suppression_entry" not in kept


async def test_deleting_a_parked_destination_ends_its_deliveries_as_exceptions(
    service: Service,
) -> None:
    crm = await service.destination("crm")
    crm.answers = [retry("unauthorized", parks=True)]
    made = await service.ask(BOB)
    await service.work()
    assert (await service.queue("crm"))["parked_reason"] == "unauthorized"

    gone = await service.call("DELETE", f"/v1/destinations/{service.destinations['crm']}")
    assert gone.status_code == 204
    service.later(seconds=10)
    await service.step("sweep")
    await service.work()

    delivery = (await service.request(made["id"]))["deliveries"][0]
    assert (delivery["state"], delivery["reason"]) == ("discarded", "destination_deleted")


async def test_a_forgotten_persons_key_is_in_no_file(service: Service) -> None:
    if not service.runtime.key_database.is_sqlite:
        pytest.skip("PostgreSQL's files are not ours to read")
    made = await service.ask(BOB)
    async with service.runtime.key_database.reading() as session:
        wrapped = (
            await session.execute(
                sa.select(col(DataKey.wrapped)).where(col(DataKey.holder_id) == made["id"])
            )
        ).scalar_one()
    place = Path(service.runtime.key_database.url.partition("///")[2])
    files = sorted(place.parent.glob(f"{place.name}*"))
    assert any(wrapped in each.read_bytes() for each in files)

    await service.runtime.keys.forget([made["id"]])

    assert not any(wrapped in each.read_bytes() for each in files if each.exists())


async def test_who_died_while_planning_holds_nobody_up_after_an_embedded_start(
    embedded: Service,
) -> None:
    await embedded.destination("crm")
    made = await embedded.ask()
    async with embedded.runtime.database.writing() as session:
        assert await resolve._take(session, utc_now())
    await embedded.work()
    assert (await embedded.request(made["id"]))["status"] == "resolving", "its lease still runs"

    await resolve.forget_leases(embedded.runtime.services, utc_now())
    await embedded.work()

    assert (await embedded.request(made["id"]))["status"] == "completed"
