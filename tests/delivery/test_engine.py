"""The engine on real databases: what destinations do, what crashes do, and what operators do."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import sqlite3
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import sqlalchemy as sa

from app.core.clock import utc_now
from app.core.db import Database, is_away, is_full
from app.delivery.claim import MAX_LEASES
from app.delivery.engine import Engine
from app.delivery.models import VirtualQueue
from connectors.contract import (
    Identifier,
    Outcome,
    Residual,
    Window,
    absent,
    accepted,
    done,
    failed,
    retry,
    skipped,
)
from tests.running import BOB, CAROL, Asked, Service, running, source_connector, values_connector


def states(delivery: dict[str, Any]) -> list[str]:
    return [each["state"] for each in delivery["transitions"]]


async def eventually(service: Service, request_id: str, name: str, state: str) -> None:
    for _ in range(500):
        if (await service.delivery(request_id, name))["state"] == state:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"the delivery to {name} does not become {state}")


async def retried(service: Service, request_id: str, name: str) -> None:
    """Wait as long as the delivery says, and go on."""
    found = await service.delivery(request_id, name)
    due = dt.datetime.fromisoformat(found["transitions"][-1]["retry_at"])
    service.traveller.move_to(due + dt.timedelta(seconds=1))
    await service.work()


# --- answers


OUTCOMES: list[tuple[Outcome, str, str, str, str, str]] = [
    (done(read_back=True), "done", "deleted", "verified_absent", "complete", "completed"),
    (done(), "done", "deleted", "confirmed", "complete", "completed"),
    (done(anonymised=True), "done", "anonymised", "confirmed", "complete", "completed"),
    (absent(), "absent", "not_found", "confirmed", "complete", "completed"),
    (skipped("rule"), "skipped", "not_applicable", "none", "complete", "completed"),
    (
        accepted(), "accepted_unconfirmable", "accepted", "acknowledged",
        "complete_with_residuals", "completed",
    ),
    (
        done(residuals=[Residual("invoices", "tax records", "2036")]), "done", "deleted",
        "confirmed", "complete_with_residuals", "completed",
    ),
    (failed("no"), "failed", "refused", "requested", "partial", "completed_with_exceptions"),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "detail", "state", "assurance", "outcome", "status"), OUTCOMES)
async def test_each_answer_reaches_the_receipt_as_what_it_was(
    embedded: Service, answer: Outcome, detail: str, state: str, assurance: str, outcome: str,
    status: str,
) -> None:  # fmt: skip
    crm = await embedded.destination("crm")
    crm.default = answer

    made = await embedded.ask()
    await embedded.work()

    request = await embedded.request(made["id"])
    assert (request["status"], request["outcome"]) == (status, outcome)
    assert request["deliveries"][0]["detail"] == detail
    claims = await embedded.claims(made["id"])
    assert claims["outcome"] == outcome
    told = claims["destinations"][0]
    assert (told["state"], told["assurance"]) == (state, assurance)


async def test_a_destination_that_fails_twice_is_asked_until_it_succeeds(service: Service) -> None:
    crm = await service.destination("crm")
    crm.answers = [retry("timeout"), RuntimeError("a bug of the connector")]

    made = await service.ask()
    await service.work()
    await retried(service, made["id"], "crm")
    await retried(service, made["id"], "crm")

    delivery = await service.delivery(made["id"])
    assert states(delivery) == [
        "awaiting_scheduling", "awaiting_retry", "awaiting_retry", "succeeded",
    ]  # fmt: skip
    assert [each["reason"] for each in delivery["transitions"]][1:3] == [
        "timeout", "connector_error",
    ]  # fmt: skip
    assert [each.attempt for each in crm.asked] == [1, 2, 3]
    assert len(set(crm.call_ids)) == 3, "each try is a call of its own"
    assert (await service.request(made["id"]))["status"] == "completed"


async def test_nothing_is_sent_before_its_time(embedded: Service) -> None:
    crm = await embedded.destination("crm")
    crm.answers = [retry("busy", dt.timedelta(minutes=10))]
    await embedded.ask()
    await embedded.work()

    embedded.later(minutes=9, seconds=50)
    await embedded.work()
    assert len(crm.asked) == 1

    embedded.later(seconds=11)
    await embedded.work()
    assert len(crm.asked) == 2


async def test_who_is_missing_from_a_batchs_answer_is_asked_again_and_nobody_else(
    service: Service,
) -> None:
    crm = await service.destination("crm", batch=10)
    crm.answers = [lambda asked: {asked.people[0].id: done()}]
    for person in (BOB, CAROL):
        await service.ask(person)
    await service.work()
    assert [len(each.people) for each in crm.asked] == [2]
    lucky, other = crm.asked[0].deliveries

    service.later(hours=1)
    await service.work()

    assert [each.deliveries for each in crm.asked[1:]] == [[other]]
    assert lucky != other


async def test_a_batch_never_mixes_two_workspaces(service: Service) -> None:
    crm = await service.destination("crm", batch=10)
    made = await service.post("/v1/destinations", {"name": "crm", "connector": "crm"}, 201, "eve")
    await service.ask(BOB)
    theirs = {"kind": "erasure", "identifiers": [{"kind": "email", "value": CAROL}]}
    await service.post("/v1/requests", theirs, 201, "eve")

    await service.work()

    assert [len(each.people) for each in crm.asked] == [1, 1]
    assert made["id"] != service.destinations["crm"]


async def test_a_vendor_of_values_gets_each_value_once(embedded: Service) -> None:
    crm = await embedded.destination("crm", values_connector, batch=10)
    crm.default = lambda asked: {BOB: done(), CAROL: failed("unknown_field")}
    both = await embedded.ask(BOB, CAROL)
    bob = await embedded.ask(BOB)

    await embedded.work()

    assert [(each.kind, sorted(each.values)) for each in crm.asked] == [
        ("email", sorted([BOB, CAROL]))
    ]
    assert (await embedded.delivery(both["id"]))["detail"] == "failed", "the worst of two counts"
    assert (await embedded.delivery(bob["id"]))["detail"] == "done"


async def test_a_person_without_a_usable_identifier_is_an_exception_and_no_call(
    embedded: Service,
) -> None:
    crm = await embedded.destination("crm", accepts=("user_id",))

    made = await embedded.ask(BOB)
    await embedded.work()

    assert crm.asked == []
    request = await embedded.request(made["id"])
    assert request["status"] == "completed_with_exceptions"
    assert (await embedded.claims(made["id"]))["destinations"][0]["state"] == "not_applicable"


# --- vendor jobs


async def test_an_accepted_job_is_polled_until_it_is_done(service: Service) -> None:
    crm = await service.destination("crm", poll_every=dt.timedelta(minutes=5))
    crm.answers = [accepted("job-7"), accepted("job-7"), done(read_back=True)]

    made = await service.ask()
    await service.work()
    assert (await service.delivery(made["id"]))["state"] == "awaiting_confirmation"
    for _ in range(2):
        service.later(minutes=5, seconds=1)
        await service.work()

    assert [(each.method, each.job) for each in crm.asked] == [
        ("erase", None), ("poll", "job-7"), ("poll", "job-7"),
    ]  # fmt: skip
    assert (await service.delivery(made["id"]))["assurance"] == "verified_absent"


async def test_a_job_that_never_ends_is_given_up_and_only_acknowledged(service: Service) -> None:
    crm = await service.destination("crm", gives_up_after=dt.timedelta(days=3))
    crm.default = accepted("job-7")
    made = await service.ask()
    await service.work()

    service.later(days=3, seconds=1)
    await service.work()

    request = await service.request(made["id"])
    assert request["status"] == "completed_with_exceptions"
    told = (await service.claims(made["id"]))["destinations"][0]
    assert (told["state"], told["assurance"]) == ("accepted", "acknowledged")


async def test_a_job_per_value_is_confirmed_only_when_all_are(embedded: Service) -> None:
    open_jobs = {f"job of {BOB}", f"job of {CAROL}"}

    async def poll(self: Any, job: str) -> Outcome:
        return accepted(job) if job in open_jobs else done()

    crm = await embedded.destination("crm", values_connector, poll=poll, batch=10)
    crm.default = lambda asked: {each: accepted(f"job of {each}") for each in asked.values}
    made = await embedded.ask(BOB, CAROL)
    await embedded.work()

    open_jobs.remove(f"job of {BOB}")
    embedded.later(minutes=6)
    await embedded.work()
    assert (await embedded.delivery(made["id"]))["state"] == "awaiting_confirmation"

    open_jobs.clear()
    embedded.later(minutes=6)
    await embedded.work()
    assert (await embedded.delivery(made["id"]))["assurance"] == "confirmed"


# --- crashes


async def hang(service: Service, name: str = "crm", **traits: Any) -> Any:
    """A destination that has been asked and does not answer."""
    double = await service.destination(name, **traits)
    double.gate.clear()
    return double


async def test_wrk_001_a_call_that_a_crash_left_open_is_sent_again_under_the_same_id(
    service: Service,
) -> None:
    crm = await hang(service)
    made = await service.ask()
    await service.work(until=lambda: bool(crm.asked))

    await service.crash()
    await service.work()
    assert len(crm.asked) == 1, "the dead worker's lease still runs"
    await service.expire_leases()
    crm.gate.set()
    await service.work()

    assert len(crm.asked) == 2
    assert len(set(crm.call_ids)) == 1
    assert crm.asked[0].deliveries == crm.asked[1].deliveries
    delivery = await service.delivery(made["id"])
    assert states(delivery) == ["awaiting_scheduling", "succeeded"]
    assert (await service.request(made["id"]))["status"] == "completed"


async def test_after_a_crash_open_calls_come_before_new_work(service: Service) -> None:
    crm = await hang(service)
    await service.ask(BOB)
    await service.work(until=lambda: bool(crm.asked))
    await service.crash()
    crm.gate.set()
    await service.ask(CAROL)

    await service.expire_leases()
    await service.work()

    assert crm.call_ids[0] == crm.call_ids[1]
    assert len(crm.asked) == 3


async def test_people_settled_before_the_crash_are_not_sent_again(service: Service) -> None:
    crm = await hang(service, batch=10)
    for person in (BOB, CAROL):
        await service.ask(person)
    await service.work(until=lambda: bool(crm.asked))
    bob, carol = crm.asked[0].deliveries
    await service.crash()
    await service.run("DELETE FROM ready WHERE delivery_id = :bob", bob=bob)

    await service.expire_leases()
    crm.gate.set()
    await service.work()

    assert crm.asked[1].deliveries == [carol]
    assert crm.call_ids[0] == crm.call_ids[1]


async def test_an_answer_under_an_old_lease_changes_nothing(service: Service) -> None:
    crm = await service.destination("crm")
    late = asyncio.Event()

    async def too_late(asked: Asked) -> Outcome:
        await late.wait()
        return failed("late")

    crm.answers = [too_late]
    made = await service.ask()
    await service.work(until=lambda: bool(crm.asked))
    slow, fresh = service.runtime, await service.add_worker()
    await service.expire_leases()

    service.workers = [fresh]
    await service.work()
    before = await service.delivery(made["id"])
    late.set()
    service.workers = [slow, fresh]
    await service.work()

    assert before["detail"] == "done"
    assert await service.delivery(made["id"]) == before
    assert len(set(crm.call_ids)) == 1
    receipts = await service.rows("SELECT count(*) FROM receipt")
    assert receipts[0][0] == 1


async def test_a_worker_that_lost_and_regained_its_queue_counts_only_the_newer_answer(
    service: Service,
) -> None:
    """WRK-007: its clock jumps two hours ahead while a call is under way."""
    crm = await hang(service)
    made = await service.ask()
    await service.work(until=lambda: bool(crm.asked))

    service.later(hours=2)
    await service.work(until=lambda: len(crm.asked) == 2)
    crm.gate.set()
    await service.work()

    assert len(set(crm.call_ids)) == 1
    assert states(await service.delivery(made["id"])) == ["awaiting_scheduling", "succeeded"]
    assert (await service.queue("crm"))["depth"] == 0


async def test_wrk_007_a_clock_that_jumps_back_stops_nothing_for_good(service: Service) -> None:
    crm = await service.destination("crm")
    made = await service.ask()

    service.later(hours=-2)
    await service.work()
    service.later(hours=2)
    await service.work()

    assert len(crm.asked) == 1
    assert (await service.request(made["id"]))["status"] == "completed"


async def test_a_batch_that_kills_five_workers_is_split_and_the_killer_parks_the_queue(
    service: Service,
) -> None:
    crm = await hang(service, batch=10)
    for person in (BOB, CAROL):
        await service.ask(person)
    for tries in range(1, MAX_LEASES + 1):
        await service.work(until=lambda tries=tries: len(crm.asked) == tries)  # type: ignore[misc]
        await service.crash()
        await service.expire_leases()
    assert len(set(crm.call_ids)) == 1

    await service.work(until=lambda: len(crm.asked) == MAX_LEASES + 2)
    assert [len(each.people) for each in crm.asked[-2:]] == [1, 1]
    for _ in range(MAX_LEASES - 1):
        await service.crash()
        await service.expire_leases()
        tries = len(crm.asked) + 2
        await service.work(until=lambda tries=tries: len(crm.asked) == tries)  # type: ignore[misc]
    await service.crash()
    await service.expire_leases()
    await service.work()

    assert (await service.queue("crm"))["parked_reason"] == "call_never_returns"
    crm.gate.set()
    await service.change_queue("crm", "resume")
    await service.work()
    assert (await service.queue("crm"))["depth"] == 0


async def test_a_queue_paused_and_resumed_after_a_crash_goes_on(service: Service) -> None:
    crm = await hang(service)
    made = await service.ask()
    await service.work(until=lambda: bool(crm.asked))
    await service.crash()
    crm.gate.set()
    await service.change_queue("crm", "pause")
    await service.change_queue("crm", "resume")

    await service.expire_leases()
    await service.work()

    assert (await service.request(made["id"]))["status"] == "completed"


async def test_repeats_that_are_held_back_cost_no_tries(service: Service) -> None:
    """A crash, and then an outage: while the breaker is open, one repeat goes out at a time."""
    crm = await hang(service)
    made = [await service.ask(f"person{each}@customer.example") for each in range(8)]
    await service.work(until=lambda: len(crm.asked) == 4)
    await service.crash()
    under_way, most = 0, 0

    async def slowly(_: Asked) -> Outcome:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.01)
        under_way -= 1
        return retry("unreachable")

    crm.default = slowly
    await service.run("""UPDATE virtual_queue SET breaker = '{"until": 1.0}'""")
    crm.gate.set()

    for repeats in range(1, 8):
        await service.expire_leases()
        service.later(minutes=20)
        await service.work()
        assert len(crm.asked) == 4 + repeats
    assert most == 1
    assert (await service.queue("crm"))["parked_reason"] is None

    crm.default = done()
    for _ in range(3):
        service.later(hours=2)
        await service.work()
    for each in made:
        assert (await service.request(each["id"]))["status"] == "completed"


async def test_what_a_crash_left_open_counts_in_the_rate_limits(service: Service) -> None:
    crm = await hang(service, limits=(Window(4, 3600),))
    for each in range(6):
        await service.ask(f"person{each}@customer.example")
    await service.work(until=lambda: len(crm.asked) == 4)
    await service.crash()
    crm.gate.set()

    await service.expire_leases()
    await service.work()
    assert len(set(crm.call_ids)) == 4, "the windows survived the crash, too"
    assert len(crm.asked) == 8
    ((windows,),) = await service.rows("SELECT windows FROM virtual_queue")
    entries = (json.loads(windows) if isinstance(windows, str) else windows)["4/3600s"]
    assert sum(count for _, count in entries) == 8
    service.later(minutes=50)
    await service.work()
    assert len(crm.asked) == 8

    service.later(hours=1)
    await service.work()
    assert len(set(crm.call_ids)) == 6


async def test_a_probe_after_a_crash_spends_one_call_of_a_rate_limit(service: Service) -> None:
    crm = await hang(service, limits=(Window(10, 86_400),))
    for each in range(4):
        await service.ask(f"person{each}@customer.example")
    await service.work(until=lambda: len(crm.asked) == 4)
    await service.crash()
    crm.default = retry("unreachable")
    await service.run("""UPDATE virtual_queue SET breaker = '{"until": 1.0}'""")
    crm.gate.set()

    for probes in range(1, 5):
        service.later(minutes=20)
        await service.work()
        assert len(crm.asked) == 4 + probes


async def test_an_engine_that_can_record_nothing_lets_its_leases_run_out(
    embedded: Service,
) -> None:
    crm = await hang(embedded)
    await embedded.ask()
    await embedded.work(until=lambda: bool(crm.asked))
    engine = embedded.runtime.engine
    finisher = next(each for each in engine._services if each.get_name() == "finisher")
    finisher.cancel()
    await asyncio.wait([finisher])

    with pytest.raises(RuntimeError, match="finisher has ended"):
        await engine.step()
    engine._lease = dt.timedelta(seconds=0)
    renewal = asyncio.create_task(engine._renew_forever())
    await asyncio.wait_for(renewal, 5)
    crm.gate.set()


async def test_what_a_connector_says_cannot_stop_others(service: Service) -> None:
    crm, shop = await service.destination("crm"), await service.destination("shop")
    crm.answers = [
        done(facts={"rows": Decimal(3)}),  # type: ignore[dict-item]
        done(residuals=[Residual("invoices", "tax", 2036.5)]),  # type: ignore[arg-type]
    ]
    made = [await service.ask(person) for person in (BOB, CAROL)]
    await service.work()
    assert len(shop.asked) == 2
    for _ in range(4):
        service.later(hours=2)
        await service.work()

    for each in made:
        assert (await service.request(each["id"]))["status"] == "completed"
        assert (await service.claims(each["id"]))["outcome"] == "complete"


async def test_a_deleted_destination_ends_also_when_its_connector_is_gone(
    service: Service,
) -> None:
    await service.destination("crm")
    made = await service.ask()
    await service.step("advance")
    answer = await service.call("DELETE", f"/v1/destinations/{service.destinations['crm']}")
    assert answer.status_code == 204
    for worker in service.workers:
        del worker.catalogue._found["crm"], worker.catalogue._loaders["crm"]
    await service.work()

    (delivery,) = (await service.request(made["id"]))["deliveries"]
    assert (delivery["state"], delivery["reason"]) == ("discarded", "destination_deleted")


async def test_somebody_cancelled_while_their_call_was_held_back_is_done_with(
    service: Service,
) -> None:
    crm = await hang(service)
    crm.default = retry("too_many", dt.timedelta(minutes=10), http_status=429)
    made = [await service.ask(f"person{each}@customer.example") for each in range(8)]
    await service.work(until=lambda: len(crm.asked) == 4)
    sent = {each for call in crm.asked for each in call.deliveries}
    waiting = [
        each["id"] for each in made if (await service.delivery(each["id"]))["id"] not in sent
    ]
    for request_id in waiting:
        await service.post(f"/v1/requests/{request_id}/cancel")
    crm.gate.set()

    await service.work()
    crm.default = done()
    service.later(hours=1)
    await service.work()

    assert len(waiting) == 4
    assert {each for call in crm.asked for each in call.deliveries} == sent
    for request_id in waiting:
        assert (await service.request(request_id))["status"] == "cancelled"
    assert (await service.queue("crm"))["depth"] == 0


async def test_answers_survive_a_database_that_is_away_for_a_moment(
    embedded: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    crm = await hang(embedded)
    made = await embedded.ask()
    await embedded.work(until=lambda: bool(crm.asked))
    writing, failures = embedded.runtime.database.writing, iter(range(2))

    def away() -> Any:
        if next(failures, None) is not None:
            raise ConnectionError("the database is away")
        return writing()

    monkeypatch.setattr(embedded.runtime.database, "writing", away)
    crm.gate.set()
    await eventually(embedded, made["id"], "crm", "succeeded")
    monkeypatch.undo()
    await embedded.work()

    assert len(crm.asked) == 1
    assert (await embedded.request(made["id"]))["status"] == "completed"


async def test_stopping_lets_calls_come_home(embedded: Service) -> None:
    crm = await hang(embedded)
    made = await embedded.ask()
    await embedded.work(until=lambda: bool(crm.asked))

    stopping = asyncio.create_task(embedded.runtime.engine.stop())
    await asyncio.sleep(0.02)
    crm.gate.set()
    await stopping

    assert (await embedded.delivery(made["id"]))["state"] == "succeeded"


# --- operators


async def test_refused_credentials_park_the_queue_until_it_is_resumed(service: Service) -> None:
    crm = await service.destination("crm")
    crm.answers = [retry("unauthorized", parks=True, http_status=401)]
    made = await service.ask()
    await service.work()

    queue = await service.queue("crm")
    assert (queue["parked_reason"], queue["depth"]) == ("unauthorized", 1)
    service.later(days=2)
    await service.ask(CAROL)
    await service.work()
    assert len(crm.asked) == 1, "a parked queue makes no calls, for new requests neither"

    await service.change_queue("crm", "resume")
    await service.work()

    assert len(crm.asked) == 3
    delivery = await service.delivery(made["id"])
    assert [each["attempt"] for each in delivery["transitions"]] == [0, 0, 1]
    assert delivery["transitions"][1]["http_status"] == 401


async def test_a_paused_queue_keeps_its_place_and_goes_on_when_resumed(service: Service) -> None:
    crm = await service.destination("crm")
    await service.ask(BOB)
    await service.work()
    await service.change_queue("crm", "pause")
    await service.ask(CAROL)

    await service.work()
    service.later(hours=1)
    await service.work()
    queue = await service.queue("crm")
    assert (len(crm.asked), queue["paused"], queue["depth"]) == (1, True, 1)

    resumed = await service.change_queue("crm", "resume")
    assert resumed["paused"] is False
    await service.work()
    assert len(crm.asked) == 2


async def test_flush_tries_everything_that_waits_now(service: Service) -> None:
    crm = await service.destination("crm")
    crm.answers = [retry("busy", dt.timedelta(hours=5))]
    made = await service.ask()
    await service.work()

    await service.change_queue("crm", "flush")
    await service.work()

    assert (await service.request(made["id"]))["status"] == "completed"


async def test_a_boosted_queue_is_looked_at_first(
    sqlite_url: str, sqlite_keystore_url: str, tmp_path: Path
) -> None:
    async with running(tmp_path, sqlite_url, sqlite_keystore_url, worker_in_flight=1) as service:
        doubles = [await service.destination(name) for name in ("crm", "news", "shop")]
        await service.ask()
        await service.step("advance")
        await service.change_queue("shop", "boost")

        await service.work()

        first = min((double.asked[0].call_id, double.name) for double in doubles)
        assert first[1] == "shop"


async def test_a_missing_connector_parks_its_queue_and_stops_no_other(service: Service) -> None:
    await service.destination("crm")
    shop = await service.destination("shop")
    made = await service.ask()
    await service.step("advance")
    for kept in (service.runtime.catalogue._found, service.runtime.catalogue._loaders):
        kept.pop("crm")

    await service.work()

    assert (await service.queue("crm"))["parked_reason"] == "connector_missing"
    assert len(shop.asked) == 1
    assert (await service.request(made["id"]))["status"] == "in_progress"


async def test_a_disabled_destination_waits_until_it_is_enabled(service: Service) -> None:
    crm = await service.destination("crm")
    made = await service.ask()
    await service.step("advance")
    path = f"/v1/destinations/{service.destinations['crm']}"
    assert (await service.call("PATCH", path, {"enabled": False})).status_code == 200
    await service.work()
    assert crm.asked == []

    assert (await service.call("PATCH", path, {"enabled": True})).status_code == 200
    await service.work()

    assert (await service.request(made["id"]))["status"] == "completed"


async def test_an_expired_delivery_goes_to_the_archive_and_comes_back_by_replay(
    service: Service,
) -> None:
    crm = await service.destination("crm")
    crm.default = retry("down")
    made = await service.ask()
    await service.work()
    service.later(days=31)
    await service.work()

    delivery = await service.delivery(made["id"])
    assert (delivery["state"], delivery["detail"]) == ("archived", "expired")
    request = await service.request(made["id"])
    assert (request["status"], request["completed_at"]) == ("in_progress", None)

    crm.default = done()
    await service.post(f"/v1/deliveries/{delivery['id']}/replay")
    await service.work()

    assert (await service.delivery(made["id"]))["state"] == "succeeded"
    assert (await service.request(made["id"]))["outcome"] == "complete"


async def test_a_waiting_delivery_is_archived_by_the_sweep(service: Service) -> None:
    await service.destination("crm")
    made = await service.ask()
    await service.step("advance")
    await service.change_queue("crm", "pause")

    service.later(days=31)
    await service.work()

    delivery = await service.delivery(made["id"])
    assert states(delivery) == ["awaiting_scheduling", "archiving", "archived"]
    assert (await service.queue("crm"))["depth"] == 0


async def test_only_an_archived_delivery_can_be_replayed(service: Service) -> None:
    await service.destination("crm")
    made = await service.ask()
    await service.work()
    delivery = await service.delivery(made["id"])

    answer = await service.call("POST", f"/v1/deliveries/{delivery['id']}/replay")

    assert answer.status_code == 409
    assert answer.json()["type"].endswith("not-replayable")


# --- neighbours


async def test_one_hanging_destination_does_not_delay_another(service: Service) -> None:
    crm = await hang(service, "crm")
    shop = await service.destination("shop")
    made = [await service.ask(f"person{each}@customer.example") for each in range(10)]

    await service.work(until=lambda: len(shop.asked) == 10 and bool(crm.asked))

    for each in made:
        await eventually(service, each["id"], "shop", "succeeded")
    assert (await service.request(made[0]["id"]))["status"] == "in_progress"


async def test_a_rate_limit_is_kept_and_everything_still_goes_out(service: Service) -> None:
    crm = await service.destination("crm", limits=(Window(2, 10),))
    for each in range(5):
        await service.ask(f"person{each}@customer.example")
    await service.work()
    assert len(crm.asked) == 2

    for expected in (4, 5):
        service.later(seconds=11)
        await service.work()
        assert len(crm.asked) == expected


async def test_a_failing_destination_is_left_alone_and_tried_with_one_call(
    service: Service,
) -> None:
    crm = await service.destination("crm")
    crm.default = retry("unreachable")
    for each in range(8):
        await service.ask(f"person{each}@customer.example")
    await service.work()
    assert (await service.queue("crm"))["breaker"] == "open"
    tried = len(crm.asked)

    service.later(seconds=40)
    await service.work()
    assert len(crm.asked) == tried + 1

    crm.default = done()
    service.later(hours=2)
    await service.work()
    service.later(hours=2)
    await service.work()
    assert (await service.queue("crm"))["breaker"] == "closed"
    assert (await service.queue("crm"))["depth"] == 0


@pytest.mark.services
async def test_two_workers_share_the_work_and_send_nothing_twice(
    postgres_url: str, postgres_keystore_url: str, tmp_path: Any
) -> None:
    urls = (postgres_url, postgres_keystore_url)
    async with running(tmp_path, *urls, worker_in_flight=4) as service:
        doubles = [await service.destination(f"crm_{each}") for each in range(9)]
        second = await service.add_worker()
        subjects = [
            {"identifiers": [{"kind": "user_id", "value": f"u{each}"}]} for each in range(20)
        ]
        await service.post("/v1/requests/bulk", {"kind": "erasure", "subjects": subjects}, 202)
        shares: Counter[str] = Counter()
        for runtime in (service.runtime, second):
            ask = runtime.engine._ask

            async def counted(*args: Any, ask: Any = ask, who: Engine = runtime.engine) -> Any:
                shares[who.owner] += 1
                return await ask(*args)

            runtime.engine._ask = counted

        for double in doubles:
            double.gate.clear()
        await service.work(until=lambda: len(shares) == 2)
        for double in doubles:
            double.gate.set()

        async def drive(runtime: Any) -> None:
            """Both at once, until everything is done."""
            for _ in range(2000):
                for pump in runtime.pumps:
                    await pump.step()
                open_count = await service.rows("SELECT sum(open_count) FROM subject_request")
                if runtime.engine.is_idle and open_count[0][0] == 0:
                    return
                await asyncio.sleep(0.001)

        await asyncio.gather(drive(service.runtime), drive(second))

        sent = Counter(
            each for double in doubles for call in double.asked for each in call.deliveries
        )
        assert len(sent) == 180
        assert set(sent.values()) == {1}
        items = (await service.get("/v1/requests?limit=100"))["items"]
        assert {each["status"] for each in items} == {"completed"}


# --- identity sources


async def test_an_identity_source_is_erased_after_everything_else(service: Service) -> None:
    known = {BOB: [Identifier("user_id", "u-17")]}
    users = await service.destination(
        "users", source_connector, known, settings={"identity_source": True}
    )
    crm = await service.destination("crm", accepts=("user_id",))
    crm.answers = [retry("down")]

    made = await service.ask(BOB)
    await service.work()
    assert [each.people[0].values("user_id") for each in crm.asked] == [("u-17",)]
    assert [each.method for each in users.asked] == ["lookup"]

    service.later(hours=1)
    await service.work()

    assert [each.method for each in users.asked] == ["lookup", "erase"]
    assert (await service.request(made["id"]))["status"] == "completed"


async def test_a_source_that_is_away_delays_the_plan_and_loses_nothing(service: Service) -> None:
    known = {BOB: [Identifier("user_id", "u-17")]}
    users = await service.destination(
        "users", source_connector, known, settings={"identity_source": True}
    )
    users.answers = [retry("unreachable")]
    crm = await service.destination("crm", accepts=("user_id",))
    made = await service.ask(BOB)
    await service.work()
    assert (await service.request(made["id"]))["status"] == "resolving"
    assert crm.asked == []

    service.later(minutes=1)
    await service.work()

    assert len(crm.asked) == 1
    assert (await service.request(made["id"]))["status"] == "completed"


async def test_more_identifiers_than_anybody_has_need_an_operators_eyes_once(
    service: Service,
) -> None:
    known = {BOB: [Identifier("user_id", f"u-{each}") for each in range(51)]}
    await service.destination("users", source_connector, known, settings={"identity_source": True})
    crm = await service.destination("crm", accepts=("user_id",), accepts_all=True)
    made = await service.ask(BOB)
    await service.work()
    request = await service.request(made["id"])
    assert (request["status"], request["hold_reason"]) == (
        "awaiting_approval", "too_many_identifiers",
    )  # fmt: skip
    assert crm.asked == []

    await service.post(f"/v1/requests/{made['id']}/approve")
    await service.work()

    assert (await service.request(made["id"]))["status"] == "completed"
    assert len(crm.asked[0].people[0].identifiers) == 51


# --- history


@pytest.mark.parametrize("table", ["delivery", "delivery_transition", "call"])
async def test_history_is_only_ever_added_to(service: Service, table: str) -> None:
    crm = await service.destination("crm")
    crm.answers = [retry("down"), accepted("job"), retry("down")]
    made = await service.ask()
    await service.step("advance")
    seen: list[Any] = []
    for _ in range(5):
        rows = await service.rows(f"SELECT * FROM {table}")
        assert all(row in rows for row in seen), "a row of the history changed or went"
        seen = rows
        await service.work()
        service.later(hours=2)

    assert len(seen) > 0
    assert (await service.delivery(made["id"]))["state"] == "succeeded"


async def test_everything_that_was_taken_is_given_back(service: Service) -> None:
    crm = await service.destination("crm", batch=3)
    crm.answers = [retry("down"), accepted("job")]
    for each in range(7):
        await service.ask(f"person{each}@customer.example")
    for _ in range(4):
        await service.work()
        service.later(hours=2)

    for table in ("ready", "open_call"):
        assert await service.rows(f"SELECT * FROM {table}") == []
    leases = await service.rows("SELECT lease_owner, lease_until FROM virtual_queue")
    assert leases == [(None, None)]
    assert await service.rows("SELECT id FROM subject_request WHERE open_count <> 0") == []


# --- health


async def test_wrk_003_work_that_nobody_looks_at_makes_the_service_unready(
    service: Service,
) -> None:
    await service.destination("crm")
    await service.ask()
    await service.step("advance")
    assert (await service.client.get("/readyz")).status_code == 200

    service.later(minutes=3)
    stalled = await service.client.get("/readyz")
    assert stalled.status_code == 503
    assert stalled.json()["checks"]["dispatcher"] == "fail"

    await service.work()
    checks = (await service.client.get("/readyz")).json()["checks"]
    assert checks["dispatcher"] == "ok"


async def test_wrk_007_a_clock_that_is_not_the_databases_makes_the_service_unready(
    service: Service,
) -> None:
    for minutes, expected in ((1, "fail"), (-2, "fail"), (1, "ok")):
        service.later(minutes=minutes)
        checks = (await service.client.get("/readyz")).json()["checks"]
        assert checks["clock"] == ("ok" if service.settings.is_embedded else expected)


async def test_wrk_005_a_full_database_is_said_and_nothing_is_half_done(embedded: Service) -> None:
    crm = await embedded.destination("crm")
    await embedded.run("PRAGMA max_page_count = 1")  # no less than it has now: it cannot grow

    async def fill() -> httpx.Response:
        for each in range(200):
            identifiers = [{"kind": "email", "value": f"person{each}@customer.example"}]
            body = {"kind": "erasure", "identifiers": identifiers}
            answer = await embedded.call("POST", "/v1/requests", body)
            if answer.status_code != 201:
                return answer
        raise AssertionError("it still grows")

    answer = await fill()
    before = len(await embedded.rows("SELECT id FROM subject_request"))

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")
    assert answer.json()["type"] == "urn:quittance:problem:no-room"
    await embedded.run("PRAGMA max_page_count = 1000000")
    assert len(await embedded.rows("SELECT id FROM subject_request")) == before
    made = await embedded.ask()
    await embedded.work()
    assert sum(len(call.deliveries) for call in crm.asked) == before + 1
    assert (await embedded.request(made["id"]))["status"] == "completed"


def operational(original: Exception) -> sa.exc.OperationalError:
    return sa.exc.OperationalError("", {}, original)


def test_postgresql_without_room_is_full() -> None:
    assert is_full(operational(psycopg.errors.DiskFull()))
    assert not is_full(operational(psycopg.errors.DeadlockDetected()))
    assert not is_full(operational(ConnectionError()))


def test_what_may_work_in_a_moment_is_told_from_what_is_broken() -> None:
    for each in (
        psycopg.OperationalError("connection refused"),
        psycopg.errors.AdminShutdown(),
        psycopg.errors.CannotConnectNow(),
        psycopg.errors.TooManyConnections(),
        psycopg.errors.DeadlockDetected(),
        psycopg.errors.LockNotAvailable(),
    ):
        assert is_away(operational(each))
    assert is_away(operational(sqlite3.OperationalError("Connection closed")))
    assert not is_away(operational(psycopg.errors.QueryCanceled()))
    with sqlite3.connect(":memory:") as broken, pytest.raises(sqlite3.OperationalError) as found:
        broken.execute("SELECT * FROM nowhere")
    assert not is_away(operational(found.value))


@pytest.mark.parametrize(
    "url", ["postgresql+psycopg://nobody@127.0.0.1:1/x", "sqlite+aiosqlite:////nowhere/x"]
)
async def test_a_database_that_does_not_answer_is_said(embedded: Service, url: str) -> None:
    there, embedded.app.state.database = embedded.app.state.database, Database(url)
    try:
        answers = [
            await embedded.call("GET", "/v1/requests"),
            await embedded.call("POST", "/v1/requests", {"kind": "erasure", "identifiers": []}),
        ]
    finally:
        embedded.app.state.database = there
    for answer in answers:
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert answer.json()["type"] == "urn:quittance:problem:database-away"


async def test_little_room_makes_the_service_unready(
    embedded: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await embedded.client.get("/readyz")).json()["checks"]["disk"] == "ok"

    monkeypatch.setattr("app.core.db.ROOM", 1 << 60)
    answer = await embedded.client.get("/readyz")

    assert (answer.status_code, answer.json()["checks"]["disk"]) == (503, "fail")


async def test_a_plan_that_lost_its_wake_up_is_found_by_the_sweep(service: Service) -> None:
    """Its queue was due when it looked, and was claimed and given back before it committed."""
    crm = await service.destination("crm")
    crm.answers = [retry("down", dt.timedelta(hours=1))]
    await service.ask(BOB)
    await service.work()
    await service.ask(CAROL)
    await service.step("advance")
    async with service.runtime.database.writing() as session:
        later = utc_now() + dt.timedelta(hours=1)
        await session.execute(sa.update(VirtualQueue).values(next_due=later))

    await service.work()

    assert len(crm.asked) == 2
