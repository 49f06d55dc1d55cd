"""Vendor jobs that end by a callback: who is believed, and what becomes of it in every order."""

from __future__ import annotations

import base64
import datetime as dt
import json
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from app.core.clock import utc_now
from app.core.db import table_of
from app.core.ids import new_id
from app.delivery import reports
from app.delivery.models import JobReport, Ready
from connectors.contract import (
    NotAuthentic,
    Outcome,
    absent,
    accepted,
    done,
    failed,
    retry,
    skipped,
)
from connectors.webhook import sign
from tests.running import BOB, CAROL, Asked, Double, Service, people_connector, values_connector

pytestmark = pytest.mark.slow

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
WORDS = {
    "done": done(read_back=True), "absent": absent(), "failed": failed("not_possible"),
    "skipped": skipped("rule"), "pending": accepted(), "look": retry("look"),
}  # fmt: skip


def callback(self: Any, headers: Mapping[str, str], body: bytes) -> dict[str, Outcome]:
    """A vendor whose callbacks say ``{job: word}``."""
    if headers.get("x-signed") != "yes":
        raise NotAuthentic
    return {job: WORDS[word] for job, word in json.loads(body).items()}


def only_calls_back(double: Double, **traits: Any) -> Any:
    """A vendor that cannot be asked about its jobs."""
    made: Any = people_connector(double, callback=callback, **traits)
    made.poll = None
    return made


async def report(service: Service, *, name: str = "crm", **told: str) -> httpx.Response:
    answer = await service.client.post(
        f"/hooks/{service.destinations[name]}",
        content=json.dumps(told),
        headers={"x-signed": "yes"},
    )
    assert answer.status_code == 204, answer.text
    assert answer.content == b""
    return answer


def methods(double: Double) -> list[str]:
    return [each.method for each in double.asked]


# --- what a callback does


@pytest.mark.parametrize(
    ("word", "detail", "assurance"),
    [
        ("done", "done", "confirmed"),
        ("absent", "absent", "confirmed"),
        ("failed", "failed", "requested"),
        ("skipped", "skipped", "none"),
    ],
)
async def test_a_callback_closes_the_job_without_a_poll(
    service: Service, word: str, detail: str, assurance: str
) -> None:
    crm = await service.destination("crm", callback=callback)
    crm.answers = [accepted("job1")]
    made = await service.ask()
    await service.work()

    await report(service, job1=word)
    await service.work()

    assert methods(crm) == ["erase"]
    delivery = await service.delivery(made["id"])
    assert (delivery["detail"], delivery["assurance"]) == (detail, assurance)
    (evidence,) = await service.rows(
        "SELECT evidence FROM delivery_transition WHERE state IN ('succeeded', 'discarded')"
    )
    assert "told_by" in str(evidence)


async def test_everybody_of_a_job_is_told_by_one_callback(service: Service) -> None:
    crm = await service.destination("crm", callback=callback, batch=10)
    crm.default = accepted("job1")
    made = [await service.ask(person) for person in (BOB, CAROL)]
    await service.work()

    await report(service, job1="done")
    await service.work()

    assert methods(crm) == ["erase"]
    for each in made:
        assert (await service.request(each["id"]))["status"] == "completed"


async def test_a_job_still_open_changes_nothing_and_a_nod_asks_for_a_poll(service: Service) -> None:
    crm = await service.destination("crm", callback=callback)
    crm.answers = [accepted("job1"), done()]
    made = await service.ask()
    await service.work()

    await report(service, job1="pending")
    await service.work()
    assert methods(crm) == ["erase"]

    await report(service, job1="look")
    await service.work()
    assert methods(crm) == ["erase", "poll"]
    assert (await service.request(made["id"]))["status"] == "completed"
    assert await service.rows("SELECT job FROM job_report") == []


async def test_a_report_that_comes_before_the_answer_was_recorded_is_not_lost(
    service: Service,
) -> None:
    """The vendor is done before it has answered that it began, and cannot be asked."""

    async def quick(asked: Asked) -> Outcome:
        await report(service, job1="done")
        return accepted("job1")

    crm = await service.destination("crm", only_calls_back)
    crm.answers = [quick]
    made = await service.ask()
    await service.work()
    service.later(seconds=2)
    await service.work()

    assert (await service.delivery(made["id"]))["detail"] == "done"


async def test_a_report_while_the_answer_is_being_recorded_is_found_by_the_sweep(
    service: Service,
) -> None:
    crm = await service.destination("crm", only_calls_back)
    crm.answers = [accepted("job1")]
    made = await service.ask()
    await service.work()
    # As if it had been committed beside the recording: stored, but nobody was woken.
    row = {
        "destination_id": service.destinations["crm"], "job": "job1", "at": utc_now(),
        "outcome": {"verdict": "done"}, "expires_at": utc_now() + dt.timedelta(days=14),
    }  # fmt: skip
    async with service.runtime.database.writing() as session:
        await session.execute(sa.insert(table_of(JobReport)), [row])

    await service.work()

    assert (await service.delivery(made["id"]))["detail"] == "done"


async def test_a_report_during_a_poll_is_read_by_the_next_one(service: Service) -> None:
    async def overtaken(asked: Asked) -> Outcome:
        await report(service, job1="done")
        return accepted("job1")

    crm = await service.destination("crm", callback=callback)
    crm.answers = [accepted("job1"), overtaken]
    made = await service.ask()
    await service.work()

    service.later(minutes=6)
    await service.work()

    assert methods(crm) == ["erase", "poll"]
    assert (await service.delivery(made["id"]))["detail"] == "done"


async def test_a_report_survives_a_crash_of_the_worker_that_read_it(service: Service) -> None:
    crm = await service.destination("crm", callback=callback)
    crm.answers = [accepted("job1")]
    made = await service.ask()
    await service.work()
    await report(service, job1="done")
    await service.step("dispatch")  # claimed, read, perhaps not recorded
    await service.crash()

    await service.expire_leases()
    await service.work()

    assert methods(crm) == ["erase"]
    assert (await service.delivery(made["id"]))["detail"] == "done"


async def test_a_destination_that_only_calls_back_is_never_polled_and_given_up_in_the_end(
    service: Service,
) -> None:
    crm = await service.destination("crm", only_calls_back, gives_up_after=dt.timedelta(days=60))
    crm.answers = [accepted("job1")]
    made = await service.ask()
    await service.work()
    waiting = (await service.delivery(made["id"]))["transitions"]
    assert len(waiting) == 2

    service.later(days=59)
    await service.work()
    assert (await service.delivery(made["id"]))["transitions"] == waiting, "it rests"
    service.later(days=1, seconds=1)
    await service.work()

    assert methods(crm) == ["erase"]
    delivery = await service.delivery(made["id"])
    assert (delivery["state"], delivery["detail"]) == ("discarded", "unconfirmed")
    assert (await service.request(made["id"]))["status"] == "completed_with_exceptions"
    told = (await service.claims(made["id"]))["destinations"][0]
    assert (told["state"], told["assurance"], told["reason"]) == (
        "accepted", "acknowledged", "no_confirmation",
    )  # fmt: skip


async def test_a_job_outlives_the_expiry_of_its_delivery(service: Service) -> None:
    crm = await service.destination("crm", callback=callback)
    crm.answers = [accepted("job1", after=dt.timedelta(days=80))]
    made = await service.ask()
    await service.work()

    service.later(days=40)
    await service.work()
    assert (await service.delivery(made["id"]))["state"] == "awaiting_confirmation"
    await report(service, job1="done")
    await service.work()

    assert (await service.delivery(made["id"]))["detail"] == "done"


async def test_several_jobs_of_one_person_are_closed_when_all_were_reported(
    embedded: Service,
) -> None:
    def silent(double: Double, **traits: Any) -> Any:
        return values_connector(double, callback=callback, batch=10, **traits)

    crm = await embedded.destination("crm", silent)
    crm.default = lambda asked: {BOB: accepted("job1"), CAROL: accepted("job2")}
    made = await embedded.ask(BOB, CAROL)
    await embedded.work()

    await report(embedded, job1="done")
    embedded.later(days=1, seconds=1)
    await embedded.work()
    assert (await embedded.delivery(made["id"]))["state"] == "awaiting_confirmation"
    for _ in range(16):
        embedded.later(days=1, seconds=1)
        await embedded.work()
        await embedded.maintain()
    await report(embedded, job2="absent")
    embedded.later(days=1, seconds=1)
    await embedded.work()

    assert methods(crm) == ["erase"]
    assert (await embedded.delivery(made["id"]))["detail"] == "done"


async def test_a_report_says_nothing_of_a_later_job_under_the_same_handle(
    service: Service,
) -> None:
    crm = await service.destination("crm", callback=callback)
    crm.default = accepted("the-job")
    await service.ask(BOB)
    await service.work()
    await report(service, **{"the-job": "done"})
    await service.work()

    service.later(minutes=1)
    made = await service.ask(CAROL)
    await service.work()
    service.later(minutes=6)
    await service.work()
    assert methods(crm) == ["erase", "erase", "poll"]
    assert (await service.delivery(made["id"]))["state"] == "awaiting_confirmation"

    service.later(minutes=6)
    await report(service, **{"the-job": "absent"})
    await service.work()
    assert (await service.delivery(made["id"]))["detail"] == "absent"


async def test_the_first_of_two_reports_counts_so_that_none_can_be_replayed(
    service: Service,
) -> None:
    crm = await service.destination("crm", callback=callback)
    crm.answers = [accepted("job1")]
    made = await service.ask()
    await service.work()

    for word in ("done", "failed", "absent"):
        await report(service, job1=word)
    await service.work()
    await report(service, job1="failed")
    await service.work()

    assert (await service.delivery(made["id"]))["detail"] == "done"
    assert len((await service.delivery(made["id"]))["transitions"]) == 3


async def test_one_destinations_report_says_nothing_of_anothers_job(service: Service) -> None:
    for name in ("crm", "shop"):
        double = await service.destination(name, only_calls_back)
        double.answers = [accepted("job1")]
    made = await service.ask()
    await service.work()

    await report(service, name="shop", job1="done")
    await service.work()

    assert (await service.delivery(made["id"], "shop"))["detail"] == "done"
    assert (await service.delivery(made["id"], "crm"))["state"] == "awaiting_confirmation"


# --- schedules


async def test_a_job_is_polled_on_its_connectors_schedule(service: Service) -> None:
    seconds = (30, 60, 300)
    crm = await service.destination(
        "crm", poll_schedule=tuple(dt.timedelta(seconds=each) for each in seconds)
    )
    crm.answers = [
        accepted("job1"), accepted("job1"), retry("timeout"), accepted("job1"), accepted("job1"),
        accepted("job1", after=dt.timedelta(hours=2)), done(),
    ]  # fmt: skip
    made = await service.ask()
    await service.work()
    waits = []
    for _ in range(6):
        step = (await service.delivery(made["id"]))["transitions"][-1]
        due = dt.datetime.fromisoformat(step["retry_at"])
        waits.append(round((due - dt.datetime.fromisoformat(step["at"])).total_seconds()))
        service.traveller.move_to(due + dt.timedelta(milliseconds=100))
        await service.work()

    assert waits == [30, 60, 300, 300, 300, 7200]
    assert (await service.delivery(made["id"]))["detail"] == "done"


# --- who is believed


async def hook(service: Service, path: str = "", **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await service.client.post(
        f"/hooks/{path or service.destinations['crm']}", content=b'{"job1": "done"}', headers=named
    )


async def test_whatever_is_not_signed_by_a_destination_gets_one_answer(service: Service) -> None:
    await service.destination("crm", callback=callback)
    await service.destination("deaf")
    await service.destination("gone", callback=callback)
    assert (
        await service.call("DELETE", f"/v1/destinations/{service.destinations['gone']}")
    ).status_code == 204
    paths = [
        service.destinations["crm"], service.destinations["deaf"], new_id("dst"), "dst_%00",
        "x" * 500, "dst_" + "a" * 300,
    ]  # fmt: skip

    answers = [await hook(service, path) for path in paths]
    answers.append(await hook(service, service.destinations["gone"], x_signed="yes"))

    assert {(each.status_code, each.content) for each in answers} == {(401, answers[0].content)}
    assert answers[0].json()["type"] == "urn:quittance:problem:not-signed"
    assert answers[0].headers["content-type"] == "application/problem+json"
    assert await service.rows("SELECT job FROM job_report") == []


async def test_known_and_unknown_jobs_get_the_same_answer(service: Service) -> None:
    crm = await service.destination("crm", callback=callback)
    crm.answers = [accepted("job1")]
    await service.ask()
    await service.work()

    known, unknown = await report(service, job1="done"), await report(service, job9="done")

    assert (known.status_code, known.content) == (unknown.status_code, unknown.content)
    assert {name for name, _ in known.headers.items()} == {
        name for name, _ in unknown.headers.items()
    }


async def test_a_connector_that_breaks_on_a_callback_believes_nothing_and_repeats_nothing(
    embedded: Service, caplog: pytest.LogCaptureFixture
) -> None:
    def breaks(self: Any, headers: Mapping[str, str], body: bytes) -> Any:
        raise RuntimeError(body.decode())

    await embedded.destination("crm", callback=breaks)
    assert (await hook(embedded)).status_code == 401
    await embedded.destination("crm", callback=lambda self, headers, body: {"job1": "done"})
    assert (await hook(embedded)).status_code == 401

    assert "callback_failed" in caplog.text
    assert "job1" not in caplog.text


async def test_job_handles_are_in_no_log(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    crm = await service.destination("crm", callback=callback)
    crm.answers = [accepted("very-secret-handle")]
    await service.ask()
    await service.work()

    await report(service, **{"very-secret-handle": "done"})
    await service.work()

    assert "callback_taken" in caplog.text
    assert "very-secret" not in caplog.text


async def test_a_callback_may_be_only_so_large_and_come_only_so_often(
    embedded: Service,
) -> None:
    await embedded.destination("crm", callback=callback)
    path = f"/hooks/{embedded.destinations['crm']}"
    assert (await embedded.client.post(path, content=b" " * 65_537)).status_code == 413
    assert (await embedded.client.post(path, content=b" " * (2 << 20))).status_code == 413
    unreadable = await embedded.client.post(path, content=b"{", headers={"x-signed": "yes"})
    assert unreadable.status_code == 422

    limit = embedded.settings.callback_per_minute
    await embedded.runtime.limits.spend("callback", "203.0.113.9", limit - 2)
    limited = await hook(embedded)
    assert limited.status_code == 429
    assert int(limited.headers["retry-after"]) >= 1


async def test_a_webhooks_endpoint_reports_its_job_under_its_own_secret(service: Service) -> None:
    body = {
        "name": "hook", "connector": "webhook",
        "settings": {"url": "https://hook.example/erase", "signing_secret": SECRET},
    }  # fmt: skip
    hook_id = (await service.post("/v1/destinations", body, 201))["id"]
    message = json.dumps({"type": "quittance.job", "job": "/jobs/7", "status": "done"})
    stamp = str(int(utc_now().timestamp()))
    signed = {
        "webhook-id": "msg_1", "webhook-timestamp": stamp,
        "webhook-signature": sign(SECRET, "msg_1", stamp, message.encode()),
    }  # fmt: skip
    path = f"/hooks/{hook_id}"

    assert (await service.client.post(path, content=message, headers=signed)).status_code == 204
    assert await service.rows("SELECT job FROM job_report") == [("https://hook.example/jobs/7",)]
    assert (await service.client.post(path, content=message)).status_code == 401
    service.later(minutes=6)
    late = await service.client.post(path, content=message, headers=signed)
    assert late.status_code == 401


# --- what stays


async def test_reports_nobody_waits_for_are_few_and_go_after_a_while(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "MOST", 3)
    crm = await service.destination("crm", callback=callback)
    crm.answers = [accepted("mine")]
    await service.ask()
    await service.work()
    await service.change_queue("crm", "pause")
    await report(service, mine="done")
    for number in range(6):
        service.later(minutes=1)
        await report(service, **{f"job{number}": "done"})

    kept = {job for (job,) in await service.rows("SELECT job FROM job_report")}
    assert kept == {"mine", "job3", "job4", "job5"}, "what somebody waits for is not counted"

    service.later(days=15)
    await service.maintain()
    assert await service.rows("SELECT job FROM job_report") == [("mine",)]
    await service.change_queue("crm", "resume")
    await service.work()
    assert methods(crm) == ["erase"]
    service.later(days=15)
    await service.maintain()
    assert await service.rows("SELECT job FROM job_report") == []


@pytest.mark.parametrize("job", ["x" * 5000, "tab\tand\x1epart", "nul\x00", "\ud800", "ü" * 600])
async def test_odd_and_long_handles_are_kept_too(service: Service, job: str) -> None:
    await service.destination("crm", callback=callback)
    await report(service, **{job: "done"})
    await report(service, **{job: "failed"})

    ((key,),) = await service.rows("SELECT job FROM job_report")
    assert key == (job if job.startswith("ü") else reports.key_of(job))


async def test_the_deliveries_of_a_job_are_found_by_an_index(service: Service) -> None:
    """Of 5 000 that wait in the queue, for jobs of their own."""
    ready, now = table_of(Ready), utc_now()
    async with service.runtime.database.writing() as session:
        await session.execute(
            sa.insert(ready),
            [
                {
                    "delivery_id": new_id("dlv"), "queue_id": "dst_q", "rank": 2, "due_at": now,
                    "placed_at": now, "operation": "erase", "attempt": 1, "seq": 2,
                    "job": f"job{number}", "job_since": now, "expires_at": now,
                }
                for number in range(5000)
            ],
        )  # fmt: skip
    where = "WHERE queue_id = 'dst_q' AND job IN ('job1', 'job2') AND length(ready.job) <= 600"
    if service.runtime.database.is_sqlite:
        plan = await service.rows(f"EXPLAIN QUERY PLAN SELECT job FROM ready {where}")
    else:
        await service.run("ANALYZE ready")
        plan = await service.rows(f"EXPLAIN SELECT job FROM ready {where}")

    assert "ix_ready_job" in str(plan)
