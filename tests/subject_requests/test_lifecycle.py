"""A request's life over the API: decisions, duplicates, phases, clocks, forgetting."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import Any

import pytest

from app.core.clock import utc_now
from app.identity import vault
from app.subject_requests import decide, forget
from connectors.contract import Identifier, Outcome, accepted, done, failed, retry
from tests.running import BOB, CAROL, Service, source_connector


async def act(service: Service, request_id: str, verb: str, **body: Any) -> dict[str, Any]:
    found: dict[str, Any] = await service.post(f"/v1/requests/{request_id}/{verb}", body or None)
    return found


async def types(service: Service, request_id: str) -> list[str]:
    items = (await service.get(f"/v1/requests/{request_id}/timeline"))["items"]
    return [each["type"] for each in items]


# --- decisions


async def test_a_denied_request_makes_no_call_and_its_receipt_says_why(service: Service) -> None:
    crm = await service.destination("crm")
    made = await service.ask()

    denied = await act(service, made["id"], "deny", reason="not_verified")
    await service.work()

    assert (denied["status"], denied["denial_reason"]) == ("denied", "not_verified")
    assert crm.asked == []
    claims = await service.claims(made["id"])
    assert (claims["outcome"], claims["denial_basis"]) == ("refused", "not_verified")
    assert claims["destinations"] == []


async def test_a_held_request_makes_no_call_until_it_is_released(service: Service) -> None:
    crm = await service.destination("crm")
    made = await service.ask()
    held = await act(service, made["id"], "hold", reason="litigation 17")
    assert (held["status"], held["hold_reason"]) == ("on_hold", "litigation 17")

    service.later(days=20)
    await service.work()
    assert crm.asked == []

    assert (await act(service, made["id"], "release"))["status"] == "resolving"
    await service.work()
    assert (await service.request(made["id"]))["status"] == "completed"
    assert [
        each for each in await types(service, made["id"]) if not each.startswith("delivery_")
    ] == ["received", "held", "released", "planned", "completed"]


async def test_a_hold_that_comes_while_an_identity_source_is_asked_stops_the_plan(
    service: Service,
) -> None:
    users = await service.destination(
        "users", source_connector, {}, settings={"identity_source": True}
    )
    crm = await service.destination("crm")
    users.gate.clear()
    made = await service.ask()
    working = asyncio.create_task(service.step("advance"))
    await asyncio.wait_for(users.reached.wait(), 10)
    await act(service, made["id"], "hold", reason="litigation")
    users.gate.set()
    await working

    await service.work()

    assert crm.asked == []
    assert (await service.request(made["id"]))["status"] == "on_hold"


@pytest.mark.parametrize(
    ("verb", "body"),
    [
        ("approve", {}), ("deny", {"reason": "late"}), ("cancel", {}), ("release", {}),
        ("hold", {"reason": "late"}), ("extend", {"days": 5, "reason": "late"}),
    ],
)  # fmt: skip
async def test_a_finished_request_takes_no_decision(
    embedded: Service, verb: str, body: dict[str, Any]
) -> None:
    made = await embedded.ask()
    await embedded.work()
    before = await embedded.request(made["id"])

    answer = await embedded.call("POST", f"/v1/requests/{made['id']}/{verb}", body or None)

    assert answer.status_code == 409
    assert answer.json()["type"].endswith("wrong-state")
    assert await embedded.request(made["id"]) == before


async def test_wrk_013_cancelled_after_two_of_five_destinations_ran_nothing_more_is_called(
    service: Service,
) -> None:
    quick = [await service.destination(name) for name in ("one", "two")]
    slow = [await service.destination(name) for name in ("three", "four", "five")]
    for double in slow:
        double.answers = [retry("down")]
    made = await service.ask()
    await service.work()

    cancelled = await act(service, made["id"], "cancel")
    service.later(hours=3)
    await service.work()

    assert cancelled["status"] == "cancelled"
    assert [len(each.asked) for each in quick + slow] == [1] * 5
    claims = await service.claims(made["id"])
    assert claims["outcome"] == "partial"
    assert sorted(each["state"] for each in claims["destinations"]) == [
        "deleted", "deleted", "failed", "failed", "failed",
    ]  # fmt: skip


@pytest.mark.parametrize("verb", ["cancel", "deny"])
@pytest.mark.parametrize("answer", [retry("down"), accepted("job"), done()])
async def test_a_call_under_way_at_the_cancellation_is_recorded_and_never_repeated(
    service: Service, verb: str, answer: Outcome
) -> None:
    crm = await service.destination("crm")
    crm.gate.clear()
    crm.answers = [answer]
    made = await service.ask()
    await service.work(until=lambda: bool(crm.asked))

    stopped = await act(service, made["id"], verb, **({} if verb == "cancel" else {"reason": "x"}))
    assert stopped["completed_at"] is None, "what the call does is not known yet"
    crm.gate.set()
    await service.work()
    for _ in range(3):
        service.later(hours=3)
        await service.work()

    assert len(crm.asked) == 1
    request = await service.request(made["id"])
    assert request["completed_at"] is not None
    told = (await service.claims(made["id"]))["destinations"][0]
    assert (told["state"] == "deleted") == (answer == done())
    assert await service.rows("SELECT count(*) FROM receipt") == [(1,)]


async def test_a_cancelled_request_stays_cancelled_when_its_worker_died_in_the_call(
    service: Service,
) -> None:
    crm = await service.destination("crm")
    crm.gate.clear()
    made = await service.ask()
    await service.work(until=lambda: bool(crm.asked))
    await service.crash()
    await act(service, made["id"], "cancel")

    await service.expire_leases()
    crm.gate.set()
    await service.work()

    request = await service.request(made["id"])
    assert request["status"] == "cancelled"
    assert request["completed_at"] is not None
    assert len(set(crm.call_ids)) == 1


# --- duplicates


async def test_the_same_request_twice_is_carried_out_once_and_answered_twice(
    service: Service,
) -> None:
    crm = await service.destination("crm")
    first, second = await service.ask(BOB), await service.ask("Bob.Subject@CUSTOMER.example")
    other = await service.ask(CAROL)

    await service.work()

    assert len(crm.asked) == 2
    joined = await service.request(second["id"])
    assert (joined["duplicate_of"], joined["status"]) == (first["id"], "completed")
    assert joined["receipt_id"] != (await service.request(first["id"]))["receipt_id"]
    claims = await service.claims(second["id"])
    assert claims["request"]["id"] == second["id"]
    assert claims["destinations"][0]["state"] == "deleted"
    assert (await service.request(other["id"]))["duplicate_of"] is None


async def test_requests_that_differ_in_anything_are_no_duplicates(embedded: Service) -> None:
    await embedded.destination("crm")
    made = [
        await embedded.ask(BOB),
        await embedded.ask(BOB, kind="suppression"),
        await embedded.ask(BOB, regime="ccpa"),
        await embedded.ask(BOB, destinations=[embedded.destinations["crm"]]),
        await embedded.ask(BOB, CAROL),
    ]
    await embedded.work()

    for each in made:
        assert (await embedded.request(each["id"]))["duplicate_of"] is None


@pytest.mark.parametrize("verb", ["cancel", "deny"])
async def test_a_duplicate_goes_on_by_itself_when_its_original_is_stopped(
    service: Service, verb: str
) -> None:
    crm = await service.destination("crm")
    first, second = await service.ask(BOB), await service.ask(BOB)
    await service.step("advance")
    assert (await service.request(second["id"]))["duplicate_of"] == first["id"]

    await act(service, first["id"], verb, **({} if verb == "cancel" else {"reason": "mistake"}))
    await service.work()

    assert len(crm.asked) == 1
    request = await service.request(second["id"])
    assert (request["status"], request["outcome"]) == ("completed", "complete")


async def test_a_request_made_after_the_work_began_is_done_again(service: Service) -> None:
    crm = await service.destination("crm")
    await service.ask(BOB)
    await service.work()

    second = await service.ask(BOB)
    await service.work()

    assert len(crm.asked) == 2
    assert (await service.request(second["id"]))["duplicate_of"] is None


# --- kinds


async def test_an_opt_out_suppresses_and_is_lifted_again(service: Service) -> None:
    crm = await service.destination("crm")

    async def check() -> bool:
        body = {"identifiers": [{"kind": "email", "value": BOB}]}
        found = await service.post("/v1/suppressions/check", body)
        return bool(found["results"][0]["suppressed"])

    made = await service.ask(BOB, kind="opt_out")
    await service.work()
    assert await check()
    assert (await service.claims(made["id"]))["destinations"][0]["state"] == "suppressed"

    await service.ask(BOB, kind="unsuppression")
    await service.work()
    assert not await check()
    assert [each.method for each in crm.asked] == ["suppress", "unsuppress"]


async def test_an_erasure_for_named_destinations_touches_only_those(embedded: Service) -> None:
    crm, shop = await embedded.destination("crm"), await embedded.destination("shop")

    made = await embedded.ask(destinations=[embedded.destinations["shop"]])
    await embedded.work()

    assert (len(crm.asked), len(shop.asked)) == (0, 1)
    assert (await embedded.claims(made["id"]))["scope"] == "listed_destinations"


@pytest.mark.parametrize("kind", ["access", "portability", "rectification", "restriction",
                                  "objection", "limit_use"])  # fmt: skip
async def test_kinds_that_people_carry_out_wait_for_an_answer(embedded: Service, kind: str) -> None:
    crm = await embedded.destination("crm")
    made = await embedded.ask(kind=kind)
    await embedded.work()
    assert (made["status"], crm.asked) == ("in_progress", [])

    async with embedded.runtime.database.writing() as session:
        await decide.answer(
            session, embedded.runtime.services, embedded.workspaces["alice"], made["id"],
            "admin:alice", "Here it is.", None, None, utc_now(),
        )  # fmt: skip
    await embedded.work()

    request = await embedded.request(made["id"])
    assert (request["status"], request["outcome"]) == ("completed", "complete")


# --- clocks


async def test_the_worked_dates_of_the_design_hold_over_the_api(service: Service) -> None:
    service.traveller.move_to(dt.datetime(2026, 2, 1, 9, tzinfo=dt.UTC))
    received = "2026-01-31T10:00:00Z"

    gdpr = await service.ask(regime="gdpr", received_at=received)
    ccpa = await service.ask(regime="ccpa", received_at=received)

    assert (gdpr["received_at"], gdpr["due_at"]) == (received, "2026-03-02T23:59:59Z")
    assert ccpa["due_at"] == "2026-03-17T23:59:59Z"


async def test_a_deadline_ends_with_the_day_of_the_workspace(embedded: Service) -> None:
    await embedded.add_workspace("oslo", timezone="Europe/Oslo")
    await embedded.add_key("olav", "all", workspace="oslo")
    embedded.traveller.move_to(dt.datetime(2026, 2, 1, 9, tzinfo=dt.UTC))
    body = {
        "kind": "erasure", "identifiers": [{"kind": "email", "value": BOB}],
        "received_at": "2026-01-31T10:00:00Z",
    }  # fmt: skip

    made = await embedded.post("/v1/requests", body, 201, "olav")

    assert made["due_at"] == "2026-03-02T22:59:59Z"


@pytest.mark.parametrize(
    "received_at",
    ["2020-01-01T00:00:00Z", "2999-01-01T00:00:00Z", "2026-01-31T10:00:00", "yesterday", 0, True],
)
async def test_a_beginning_that_cannot_be_is_refused(embedded: Service, received_at: Any) -> None:
    body = {
        "kind": "erasure", "identifiers": [{"kind": "email", "value": BOB}],
        "received_at": received_at,
    }  # fmt: skip
    await embedded.post("/v1/requests", body, 422)


async def test_a_deadline_is_extended_once_and_within_the_law(service: Service) -> None:
    service.traveller.move_to(dt.datetime(2026, 2, 1, 9, tzinfo=dt.UTC))
    made = await service.ask(regime="gdpr", received_at="2026-01-31T10:00:00Z")
    path = f"/v1/requests/{made['id']}/extend"

    await service.post(path, {"days": 364, "reason": "complex"}, 422)
    assert (await service.request(made["id"]))["extended_until"] is None
    extended = await service.post(path, {"days": 30, "reason": "complex"})
    assert extended["extended_until"] == "2026-04-01T23:59:59Z"
    await service.post(path, {"days": 31, "reason": "complex"}, 409)


# --- forgetting


async def blobs(service: Service, request_id: str) -> list[Any]:
    return await service.rows(
        "SELECT id FROM personal_value WHERE holder_id = :holder", holder=request_id
    )


async def test_after_its_time_the_person_is_forgotten_and_the_receipt_stays(
    service: Service,
) -> None:
    await service.destination("crm")
    made = await service.ask(external_id="ticket-4711")
    await service.work()
    path = f"/v1/requests/{made['id']}/receipt"
    told = (await service.call("GET", path, accept="application/json")).json()
    assert [each["kind"] for each in told["openings"]] == ["email"]
    request = await service.request(made["id"])
    assert request["forget_at"] is not None

    service.later(days=29)
    await service.work()
    assert (await service.request(made["id"]))["forgotten_at"] is None

    service.later(days=2)
    await service.work()
    request = await service.request(made["id"])
    assert request["forgotten_at"] is not None
    assert await blobs(service, made["id"]) == []
    assert await service.runtime.keys.load([made["id"]]) == {}
    after = (await service.call("GET", path, accept="application/json")).json()
    assert after == {"receipt": told["receipt"], "openings": None}
    search = {"identifiers": [{"kind": "email", "value": BOB}]}
    assert (await service.post("/v1/requests/search", search))["items"] == []
    check = await service.post("/v1/suppressions/check", search)
    assert check["results"][0]["suppressed"], "the digest on the suppression list stays"


async def test_a_copy_of_the_main_database_opens_nothing_after_forgetting(
    service: Service,
) -> None:
    made = await service.ask()
    await service.work()
    async with service.runtime.database.reading() as session:
        before = await vault.open_holder(session, service.runtime.keys, [made["id"]])
    assert before[0].value == BOB

    await service.runtime.keys.forget([made["id"]])

    assert len(await blobs(service, made["id"])) == 1
    async with service.runtime.database.reading() as session:
        assert await vault.open_holder(session, service.runtime.keys, [made["id"]]) == []


async def test_a_receipt_nobody_fetched_counts_as_delivered_after_two_weeks(
    service: Service,
) -> None:
    made = await service.ask()
    await service.work()
    assert (await service.request(made["id"]))["forget_at"] is None

    service.later(days=14, seconds=1)
    await service.work()
    assert (await service.request(made["id"]))["forget_at"] is not None
    service.later(days=30, seconds=1)
    await service.work()
    assert (await service.request(made["id"]))["forgotten_at"] is not None


async def test_forgetting_is_tried_again_until_the_key_store_answers(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await service.ask()
    await service.work()
    await service.call("GET", f"/v1/requests/{made['id']}/receipt")
    service.later(days=30, seconds=1)

    async def away(_: Any) -> None:
        raise ConnectionError("the key store is away")

    for runtime in service.workers:
        monkeypatch.setattr(runtime.keys, "forget", away)
    with pytest.raises(ConnectionError):
        await service.step("advance")
    monkeypatch.undo()
    service.later(minutes=5)
    await service.work()

    assert (await service.request(made["id"]))["forgotten_at"] is not None
    assert await service.runtime.keys.load([made["id"]]) == {}


async def test_the_hard_cap_ends_all_waiting(service: Service) -> None:
    crm = await service.destination("crm")
    crm.default = retry("down", dt.timedelta(days=7))
    await service.run("UPDATE destination SET expiry_days = 3650")
    made = await service.ask()
    await service.work()

    service.later(days=180, seconds=1)
    await service.maintain()
    service.later(minutes=2)
    await service.work()

    request = await service.request(made["id"])
    assert request["status"] == "completed_with_exceptions"
    assert request["forgotten_at"] is not None
    assert request["deliveries"][0]["detail"] == "gave_up"
    told = (await service.claims(made["id"]))["destinations"][0]
    assert told["state"] == "failed", "nothing is pending in a final receipt"
    assert await service.runtime.keys.load([made["id"]]) == {}
    tried = len(crm.asked)
    service.later(days=30)
    await service.work()
    assert len(crm.asked) == tried


@pytest.mark.parametrize("kind", ["access", "erasure"])
async def test_a_request_nobody_got_to_is_not_called_complete_at_the_cap(
    service: Service, kind: str
) -> None:
    users = await service.destination(
        "users", source_connector, {}, settings={"identity_source": True}
    )
    users.default = retry("down")
    made = await service.ask(kind=kind)
    await service.work()

    service.later(days=180, seconds=1)
    await service.maintain()

    request = await service.request(made["id"])
    assert request["forgotten_at"] is not None
    assert (request["status"], request["outcome"]) == ("completed_with_exceptions", "partial")
    assert (await service.claims(made["id"]))["outcome"] == "partial"


async def test_a_call_under_way_at_the_cap_is_waited_for_and_closes_the_request_once(
    service: Service,
) -> None:
    crm = await service.destination("crm")
    await service.run("UPDATE destination SET expiry_days = 3650")
    crm.gate.clear()
    made = await service.ask()
    await service.work(until=lambda: bool(crm.asked))
    service.later(days=180, seconds=1)
    await service._maintain.step()
    await service.step("advance")
    assert (await service.request(made["id"]))["status"] == "in_progress"

    crm.gate.set()
    await service.work()
    service.later(minutes=2)
    await service.work()

    request = await service.request(made["id"])
    assert (request["outcome"], request["deliveries"][0]["detail"]) == ("complete", "done")
    await service.maintain()
    service.later(minutes=2)
    await service.work()
    assert (await service.request(made["id"]))["forgotten_at"] is not None
    assert await service.rows("SELECT count(*) FROM receipt") == [(1,)]


async def test_replay_after_forgetting_is_gone(service: Service) -> None:
    crm = await service.destination("crm")
    crm.default = failed("no")
    made = await service.ask()
    await service.work()
    await service.runtime.keys.forget([made["id"]])
    await forget.forget(service.runtime.services, [made["id"]], utc_now())
    delivery = await service.delivery(made["id"])

    answer = await service.call("POST", f"/v1/deliveries/{delivery['id']}/replay")

    assert answer.status_code == 410


async def test_a_waived_delivery_counts_as_an_exception(service: Service) -> None:
    crm = await service.destination("crm")
    crm.default = retry("down")
    made = await service.ask()
    await service.work()
    service.later(days=31)
    await service.work()
    delivery = await service.delivery(made["id"])

    async with service.runtime.database.writing() as session:
        await decide.waive(
            session, service.runtime.services, service.workspaces["alice"], delivery["id"],
            "admin:alice", "vendor closed down", utc_now(),
        )  # fmt: skip
    await service.work()

    request = await service.request(made["id"])
    assert (request["status"], request["outcome"]) == ("completed_with_exceptions", "partial")
    told = (await service.claims(made["id"]))["destinations"][0]
    assert (told["state"], told["reason"]) == ("failed", "vendor closed down")


async def test_orphaned_data_keys_are_swept_and_used_ones_stay(service: Service) -> None:
    made = await service.ask()
    await service.runtime.keys.create(["req_orphan"], utc_now())
    service.later(hours=25)

    swept = await forget.sweep_orphans(service.runtime.services, utc_now())

    assert swept == 1
    assert set(await service.runtime.keys.load([made["id"], "req_orphan"])) == {made["id"]}


async def test_a_process_looks_at_all_data_keys_once_and_then_at_new_ones(service: Service) -> None:
    keys, now = service.runtime.keys, utc_now()
    await service.maintain()
    await keys.create(["req_of_a_backup"], now - dt.timedelta(days=9))
    await keys.create(["req_of_a_crash"], now)
    service.later(hours=25)

    await service.maintain()
    assert set(await keys.load(["req_of_a_backup", "req_of_a_crash"])) == {"req_of_a_backup"}
    await service.crash()
    await service.maintain()
    assert await keys.load(["req_of_a_backup"]) == {}


# --- receipts of requests


async def test_rcpt_007_while_something_is_open_there_is_only_an_interim_receipt(
    service: Service,
) -> None:
    crm = await service.destination("crm")
    crm.answers = [retry("down")]
    shop = await service.destination("shop")
    made = await service.ask()
    await service.work()

    interim = await service.claims(made["id"])
    assert interim["outcome"] == "partial"
    assert sorted(each["state"] for each in interim["destinations"]) == ["deleted", "pending"]
    assert "closed_at" not in interim["request"]
    assert (await service.request(made["id"]))["forget_at"] is None

    service.later(hours=1)
    await service.work()
    final = await service.claims(made["id"])
    assert (final["outcome"], final["supersedes"]) == ("complete", interim["jti"])
    assert final["subject"] == interim["subject"], "one opening serves both"
    assert len(shop.asked) == 1


async def test_a_resolved_identifier_is_in_the_receipt_and_opened_by_its_own_opening(
    service: Service,
) -> None:
    known = {BOB: [Identifier("user_id", "u-17")]}
    await service.destination("users", source_connector, known, settings={"identity_source": True})
    made = await service.ask(BOB)
    await service.work()

    answer = await service.call(
        "GET", f"/v1/requests/{made['id']}/receipt", accept="application/json"
    )
    openings = {each["kind"]: each["opening"] for each in answer.json()["openings"]}
    commitments = (await service.claims(made["id"]))["subject"]["commitments"]

    assert [(each["id_type"], each["value"]) for each in commitments] == [
        (kind, vault.commitment(openings[kind], Identifier(kind, value)))
        for kind, value in (("email", BOB), ("user_id", "u-17"))
    ]


async def test_a_legal_hold_does_not_shorten_the_time_to_think_it_over(service: Service) -> None:
    crm = await service.destination("crm")
    made = await service.ask()
    await service.run(
        "UPDATE subject_request SET status = 'cooling_off' WHERE id = :id", id=made["id"]
    )
    await act(service, made["id"], "hold", reason="litigation")
    await act(service, made["id"], "release")

    await service.work()
    assert crm.asked == []
    service.later(hours=24, seconds=1)
    await service.work()

    assert len(crm.asked) == 1
