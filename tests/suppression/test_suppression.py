"""Who must not be processed again, and how a caller asks."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from tests.running import BOB, CAROL, Service


async def suppressed(service: Service, *values: str, **more: Any) -> list[bool]:
    identifiers = [{"kind": "email", "value": each} for each in values]
    answer = await service.post("/v1/suppressions/check", {"identifiers": identifiers, **more})
    assert [each["index"] for each in answer["results"]] == list(range(len(values)))
    return [each["suppressed"] for each in answer["results"]]


async def test_an_erased_person_is_on_the_list_in_every_spelling(service: Service) -> None:
    made = await service.ask(BOB)
    await service.work()

    assert await suppressed(service, BOB, f" {BOB.upper()} ", CAROL) == [True, True, False]
    (entry,) = (await service.get("/v1/suppressions"))["items"]
    assert (entry["kind"], entry["scope"], entry["request_id"]) == ("email", "all", made["id"])
    assert BOB not in str(entry)


async def test_the_whole_list_covers_every_purpose_and_destination(service: Service) -> None:
    await service.ask(BOB, kind="suppression")
    await service.work()

    assert await suppressed(service, BOB, purpose="advertising") == [True]
    assert await suppressed(service, BOB, destination="dst_any") == [True]


async def test_a_workspace_may_erase_without_suppressing(service: Service) -> None:
    await service.run("UPDATE workspace SET suppress_after_erasure = :no", no=False)
    made = await service.ask(BOB)
    await service.work()

    assert await suppressed(service, BOB) == [False]
    records = (await service.claims(made["id"]))["own_records"]
    assert "suppression_entry" not in {each["what"] for each in records}


async def test_who_asked_twice_is_listed_once_for_each_since_the_first_until_the_last(
    service: Service,
) -> None:
    made = []
    for _ in range(2):
        made.append(await service.ask(BOB))
        await service.work()
        service.later(days=10)

    latest, first = (await service.get("/v1/suppressions"))["items"]
    assert [first["request_id"], latest["request_id"]] == [each["id"] for each in made]
    body = {"identifiers": [{"kind": "email", "value": BOB}]}

    async def since() -> Any:
        return (await service.post("/v1/suppressions/check", body))["results"][0]["since"]

    assert await since() == first["since"]
    service.later(days=3 * 366 - 15)
    assert await since() == latest["since"], "the first has run out"


async def test_an_entry_ends_and_is_swept(service: Service) -> None:
    await service.ask(BOB)
    await service.work()
    (entry,) = (await service.get("/v1/suppressions"))["items"]

    service.traveller.move_to(
        dt.datetime.fromisoformat(entry["expires_at"]) + dt.timedelta(seconds=1)
    )
    assert await suppressed(service, BOB) == [False]
    assert (await service.get("/v1/suppressions"))["items"] == []
    await service.maintain()
    assert await service.rows("SELECT id FROM suppression") == []


@pytest.mark.parametrize(
    "body",
    [
        {"identifiers": []},
        {"identifiers": [{"kind": "user_id", "value": "u"}] * 1001},
        {"identifiers": [{"kind": "email", "value": BOB}], "purpose": 1},
        {"identifiers": [{"kind": "email", "value": BOB}], "scope": "all"},
        {},
    ],
    ids=range(5),
)
async def test_a_wrong_question_is_refused(embedded: Service, body: dict[str, Any]) -> None:
    assert (await embedded.call("POST", "/v1/suppressions/check", body)).status_code == 422


async def test_a_thousand_are_checked_in_one_call(service: Service) -> None:
    await service.ask(BOB)
    await service.work()
    values = [f"person{number}@customer.example" for number in range(999)]

    assert await suppressed(service, *values, BOB) == [False] * 999 + [True]
