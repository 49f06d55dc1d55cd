"""Alerts: raised when something is wrong, once; over when it is over; and who is told."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import col
from standardwebhooks import Webhook

from app import checking
from app.core.clock import utc_now
from app.core.db import insert_or_ignore
from app.core.ids import new_id
from app.core.settings import Settings
from app.dashboard.present import OPEN_STATUSES
from app.delivery.models import QueueActivity, Ready, VirtualQueue
from app.notifications.alerts import Kind
from app.subject_requests import watch
from app.subject_requests.models import SubjectRequest
from app.subject_requests.states import FINAL, Status
from connectors.contract import done, retry
from tests.destinations.receiver import Receiver, receiver
from tests.running import BOB, Service, running

SECRET = f"whsec_{base64.b64encode(b'a secret of thirty-two bytes, ok').decode()}"
OPERATORS = ("oscar@aurora.example", "vera@aurora.example")


async def alerts(service: Service, *, is_open: bool | None = True, who: str = "alice") -> list[Any]:
    query = "" if is_open is None else f"?open={str(is_open).lower()}"
    items: list[Any] = (await service.get(f"/v1/alerts{query}", who))["items"]
    return items


async def kinds(service: Service) -> list[str]:
    return sorted(each["kind"] for each in await alerts(service))


async def change_queue(service: Service, name: str, **values: Any) -> None:
    async with service.runtime.database.writing() as session:
        await session.execute(
            sa.update(VirtualQueue)
            .where(col(VirtualQueue.id) == service.destinations[name])
            .values(**values)
        )


async def happened(service: Service, name: str, event: str, at: dt.datetime) -> None:
    """The engine counted an event in the queue."""
    async with service.runtime.database.writing() as session:
        await session.execute(
            insert_or_ignore(session, QueueActivity).values(
                queue_id=service.destinations[name], at=at, event=event, count=1
            )
        )


async def move_to_deadline(service: Service, **by: float) -> None:
    """Go to so long before (negative) or after the last deadline, which falls on a working day."""
    asked = (await service.get("/v1/requests"))["items"]
    ends = [dt.datetime.fromisoformat(each["extended_until"] or each["due_at"]) for each in asked]
    service.traveller.move_to(max(ends) + dt.timedelta(**by))


# --- deadlines


@pytest.mark.parametrize("status", OPEN_STATUSES)
async def test_no_open_request_comes_near_its_deadline_or_passes_it_in_silence(
    embedded: Service, status: str
) -> None:
    made = await embedded.ask()
    await embedded.run(
        "UPDATE subject_request SET status = :status, next_step_at = NULL", status=status
    )
    due_at = dt.datetime.fromisoformat((await embedded.request(made["id"]))["due_at"])

    embedded.traveller.move_to(due_at - dt.timedelta(hours=72, minutes=1))
    await embedded.watch()
    assert await alerts(embedded) == []

    embedded.later(minutes=2)
    await embedded.watch()
    (near,) = await alerts(embedded)
    assert near["kind"] == "deadline_near"
    assert near["subject"] == {"type": "request", "id": made["id"]}
    assert dt.datetime.fromisoformat(near["detail"]["due_at"]) == due_at

    embedded.later(days=3)
    await embedded.watch()
    assert await kinds(embedded) == ["deadline_missed"]


def test_every_status_is_watched_or_final() -> None:
    assert set(OPEN_STATUSES) == set(Status) - FINAL


async def test_a_request_that_ends_or_is_extended_is_no_longer_an_alert(service: Service) -> None:
    crm = await service.destination("crm")
    crm.default = retry("down")
    ends, is_extended = await service.ask(), await service.ask("dave.subject@customer.example")
    await service.step("advance")
    await move_to_deadline(service, hours=-60)
    await service.watch()
    await service.watch()
    near = [each for each in await alerts(service) if each["kind"] == "deadline_near"]
    assert {each["subject"]["id"] for each in near} == {ends["id"], is_extended["id"]}
    assert len(near) == 2

    await service.post(
        f"/v1/requests/{is_extended['id']}/extend", {"days": 30, "reason": "complex"}
    )
    await service.watch()
    left = [each for each in await alerts(service) if each["kind"] == "deadline_near"]
    assert [each["subject"]["id"] for each in left] == [ends["id"]]

    crm.default = done()
    await service.work()
    assert (await service.request(ends["id"]))["status"] == "completed"
    await service.watch()
    assert await alerts(service) == []
    over = await alerts(service, is_open=False)
    assert {each["resolved_at"] is not None for each in over} == {True}


async def test_an_extended_deadline_is_watched_too(embedded: Service) -> None:
    made = await embedded.ask()
    await embedded.run("UPDATE subject_request SET status = 'on_hold', next_step_at = NULL")
    await embedded.post(f"/v1/requests/{made['id']}/extend", {"days": 30, "reason": "complex"})
    await move_to_deadline(embedded, days=-14)
    await embedded.watch()
    assert await alerts(embedded) == []
    await move_to_deadline(embedded, hours=-60)
    await embedded.watch()
    assert await kinds(embedded) == ["deadline_near"]
    await move_to_deadline(embedded, days=1)
    await embedded.watch()
    assert await kinds(embedded) == ["deadline_missed"]


async def test_more_than_one_bite_is_raised_in_one_go(
    embedded: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "BITE", 2)
    for number in range(5):
        await embedded.ask(f"person{number}@customer.example")
    await move_to_deadline(embedded, hours=-60)
    await embedded.watch()
    assert await kinds(embedded) == ["deadline_near"] * 5
    await embedded.run("UPDATE subject_request SET status = 'denied'")
    await embedded.watch()
    assert await alerts(embedded) == []


# --- destinations and queues


async def test_a_destination_that_refuses_us_is_an_alert_until_it_is_mended(
    service: Service,
) -> None:
    crm = await service.destination("crm")
    crm.default = retry("unauthorized", parks=True)
    await service.ask()
    await service.work()
    await service.watch()
    (parked,) = await alerts(service)
    assert parked["kind"] == "destination_parked"
    assert parked["subject"] == {"type": "destination", "id": service.destinations["crm"]}
    assert parked["detail"] == {"reason": "unauthorized"}

    crm.default = done()
    await service.change_queue("crm", "resume")
    await service.watch()
    assert await alerts(service) == []


async def test_a_queue_that_nobody_looks_at_is_stuck_after_an_hour(service: Service) -> None:
    await service.destination("crm")
    await service.ask()
    await service.step("advance")
    service.later(minutes=59)
    await service.watch()
    assert await alerts(service) == []

    planned_at = utc_now() - dt.timedelta(minutes=59)
    service.later(minutes=2)
    await service.watch()
    (stuck,) = await alerts(service)
    assert (stuck["kind"], stuck["subject"]["id"]) == ("queue_stuck", service.destinations["crm"])
    since = dt.datetime.fromisoformat(stuck["detail"]["since"])
    assert abs(since - planned_at) < dt.timedelta(minutes=1)

    await service.work()
    await service.watch()
    assert await alerts(service) == []


async def test_a_queue_that_somebody_paused_is_not_stuck(service: Service) -> None:
    await service.destination("crm")
    await service.ask()
    await service.step("advance")
    service.later(minutes=61)
    await service.watch()
    assert await kinds(service) == ["queue_stuck"]

    await service.change_queue("crm", "pause")
    await service.watch()
    assert await alerts(service) == []


@pytest.mark.parametrize("held_by", ["breaker", "lease"])
async def test_a_queue_that_is_held_back_or_at_work_is_stuck_when_its_deliveries_wait(
    service: Service, held_by: str
) -> None:
    await service.destination("crm")
    await service.ask()
    await service.step("advance")
    service.later(minutes=61)
    soon = utc_now() + dt.timedelta(minutes=10)
    held = {"not_before": soon} if held_by == "breaker" else {"lease_until": soon}
    await change_queue(service, "crm", next_due=soon, **held)
    await service.watch()
    assert await kinds(service) == ["queue_stuck"]


async def test_a_queue_whose_calls_have_only_failed_for_an_hour_is_stuck(service: Service) -> None:
    """Each delivery is due again later, so none of them waits for long."""
    await service.destination("crm")
    await service.ask()
    await service.step("advance")
    start = utc_now()
    later = start + dt.timedelta(hours=3)
    await service.run("UPDATE ready SET attempt = 3")
    async with service.runtime.database.writing() as session:
        await session.execute(sa.update(Ready).values(due_at=later))
    await change_queue(service, "crm", next_due=later, not_before=later)
    await happened(service, "crm", "succeeded:1", start - dt.timedelta(minutes=30))
    await happened(service, "crm", "retried", start - dt.timedelta(minutes=25))
    await happened(service, "crm", "retried", start + dt.timedelta(minutes=30))
    await service.watch()
    assert await alerts(service) == []

    service.later(minutes=36)
    await service.watch()
    assert await kinds(service) == ["queue_stuck"]

    await happened(service, "crm", "succeeded:4", utc_now())
    await service.watch()
    assert await alerts(service) == []


async def test_a_queue_of_retries_that_are_not_due_is_not_stuck(service: Service) -> None:
    crm = await service.destination("crm")
    crm.default = retry("down")
    await service.ask()
    await service.work()
    await change_queue(service, "crm", not_before=utc_now() + dt.timedelta(hours=1))
    await service.watch()
    assert await alerts(service) == []


# --- deliveries


async def test_an_archived_delivery_is_an_alert_until_it_is_replayed(service: Service) -> None:
    crm = await service.destination("crm")
    crm.default = retry("down")
    made = await service.ask()
    await service.work()
    await move_to_deadline(service, days=1)
    await service.work()
    await service.watch()
    delivery = await service.delivery(made["id"])
    assert delivery["state"] == "archived"
    assert await kinds(service) == ["deadline_missed", "delivery_archived"]
    (archived,) = [each for each in await alerts(service) if each["kind"] == "delivery_archived"]
    assert archived["subject"] == {"type": "delivery", "id": delivery["id"]}
    assert archived["detail"] == {
        "request_id": made["id"],
        "destination_id": service.destinations["crm"],
    }

    crm.default = done()
    await service.post(f"/v1/deliveries/{delivery['id']}/replay")
    await service.watch()
    assert await kinds(service) == ["deadline_missed"]
    await service.work()
    await service.watch()
    assert await alerts(service) == []


# --- one alert, one workspace


async def test_workers_that_look_at_once_raise_one_alert(service: Service) -> None:
    for number in range(20):
        await service.ask(f"person{number}@customer.example")
    await move_to_deadline(service, hours=-60)
    looks = [watch.watch(service.runtime.services, utc_now()) for _ in range(4)]
    await asyncio.gather(*looks)
    assert await kinds(service) == ["deadline_near"] * 20


async def test_alerts_are_listed_page_by_page_and_for_their_own_workspace(
    embedded: Service,
) -> None:
    for number in range(5):
        await embedded.ask(f"person{number}@customer.example")
    await move_to_deadline(embedded, hours=-60)
    await embedded.watch()
    assert await alerts(embedded, is_open=None, who="eve") == []
    await embedded.add_key("otto", "requests:read")
    assert (await embedded.call("GET", "/v1/alerts", who="otto")).status_code == 403

    seen, path = [], "/v1/alerts?limit=2"
    for _ in range(3):
        page = await embedded.get(path)
        seen += [each["id"] for each in page["items"]]
        path = f"/v1/alerts?limit=2&cursor={page['next_cursor']}"
    assert page["next_cursor"] is None
    assert seen == sorted(set(seen), reverse=True)
    assert len(seen) == 5


async def test_alerts_that_were_over_long_ago_are_removed(embedded: Service) -> None:
    await embedded.ask()
    await embedded.ask("dave.subject@customer.example")
    await embedded.run("UPDATE subject_request SET status = 'on_hold', next_step_at = NULL")
    await move_to_deadline(embedded, hours=-60)
    await embedded.watch()
    ended, _ = await alerts(embedded)
    await embedded.run(
        "UPDATE subject_request SET status = 'denied' WHERE id = :id", id=ended["subject"]["id"]
    )
    await embedded.watch()
    embedded.later(days=embedded.settings.request_record_days + 1)
    await embedded._maintain.step()
    assert ended["id"] not in {each["id"] for each in await alerts(embedded, is_open=None)}
    assert len(await alerts(embedded)) == 1


# --- who is told


@pytest.fixture
async def hook() -> AsyncIterator[Receiver]:
    async with receiver() as made:
        yield made


@pytest.fixture
async def told(
    database_url: str, keystore_url: str, tmp_path: Path, hook: Receiver
) -> AsyncIterator[Service]:
    """A service that tells its operators."""
    async with running(
        tmp_path,
        database_url,
        keystore_url,
        alert_mail=OPERATORS,
        alert_webhook_url=f"{hook.url}/alerts",
        alert_webhook_secret=SECRET,
        allowed_private_networks="127.0.0.0/8",
    ) as made:
        yield made


def letters(service: Service) -> list[dict[str, Any]]:
    """Mails to operators, oldest first."""
    found = service.app.state.outbox.read()
    return [each for each in reversed(found) if OPERATORS[0] in each["to"]]


def posted(hook: Receiver) -> Iterator[dict[str, Any]]:
    """Bodies, each checked by software we did not write."""
    for _, path, headers, content in hook.seen:
        assert path == "/alerts"
        Webhook(SECRET).verify(content, headers)
        yield json.loads(content)


async def overdue(service: Service) -> dict[str, Any]:
    """An open request with a near deadline, on a destination that refuses us."""
    crm = await service.destination("crm")
    crm.default = retry("unauthorized", parks=True)
    made = await service.ask()
    await service.work()
    await move_to_deadline(service, hours=-60)
    return made


async def test_a_mail_says_what_was_raised_and_what_is_over(told: Service) -> None:
    made = await overdue(told)
    await told.watch()
    await told.watch()
    (letter,) = letters(told)
    assert letter["to"] == ", ".join(OPERATORS)
    assert letter["subject"] == "Quittance: 2 alerts"
    base = told.settings.public_url
    assert letter["links"] == [
        f"{base}/dashboard/requests/{made['id']}",
        f"{base}/dashboard/destinations/{told.destinations['crm']}",
        f"{base}/dashboard/alerts",
    ]
    for part in (letter["text"], letter["html"]):
        assert "Deadline near" in part
        assert "reason unauthorized" in part
        assert all(link in part for link in letter["links"])
        assert BOB not in part

    await told.change_queue("crm", "resume")
    await told.run("UPDATE subject_request SET status = 'denied'")
    await told.watch()
    _, second = letters(told)
    assert second["subject"] == "Quittance: 2 over"
    assert "Over: Destination parked" in second["text"]


async def test_a_long_mail_lists_twenty_and_counts_the_rest(told: Service) -> None:
    for number in range(23):
        await told.ask(f"person{number}@customer.example")
    await move_to_deadline(told, hours=-60)
    await told.watch()
    (letter,) = letters(told)
    assert letter["subject"] == "Quittance: 23 alerts"
    assert letter["text"].count("/dashboard/requests/") == 20
    assert "And 3 more." in letter["text"]


async def test_the_webhook_is_told_of_the_beginning_and_then_of_the_end(
    told: Service, hook: Receiver
) -> None:
    await overdue(told)
    await told.run("UPDATE subject_request SET status = 'denied'")
    await told.watch()
    (raised,) = posted(hook)
    (alert,) = await alerts(told)
    assert raised == {
        "type": "quittance.alert.raised",
        "id": alert["id"],
        "kind": "destination_parked",
        "at": alert["raised_at"],
        "subject": {"type": "destination", "id": told.destinations["crm"]},
        "detail": {"reason": "unauthorized"},
        "dashboard_url": (
            f"{told.settings.public_url}/dashboard/destinations/{told.destinations['crm']}"
        ),
    }

    await told.change_queue("crm", "resume")
    await told.watch()
    await told.step("alerts")
    _, resolved = posted(hook)
    (over,) = await alerts(told, is_open=False)
    assert (resolved["type"], resolved["at"]) == ("quittance.alert.resolved", over["resolved_at"])
    assert resolved["id"] == raised["id"]
    assert len({headers["webhook-id"] for _, _, headers, _ in hook.seen}) == 2


async def test_a_receiver_that_fails_is_told_again_later_in_order_under_the_same_id(
    told: Service, hook: Receiver
) -> None:
    hook.says(503)
    await overdue(told)
    await told.run("UPDATE subject_request SET status = 'denied'")
    await told.watch()
    await told.change_queue("crm", "resume")
    await told.watch()  # over, before anybody took the news that it began
    await told.step("alerts")
    hook.says(204)
    for _ in range(3):
        told.later(minutes=1)
        await told.step("alerts")
    assert [each["type"].rpartition(".")[2] for each in posted(hook)] == [
        "raised",
        "raised",
        "raised",
        "resolved",
    ]
    ids = [headers["webhook-id"] for _, _, headers, _ in hook.seen]
    assert len(set(ids[:3])) == 1
    assert ids[3] != ids[2]


async def test_a_receiver_that_never_answers_well_is_let_go(told: Service, hook: Receiver) -> None:
    hook.says(500)
    await overdue(told)
    await told.run("UPDATE subject_request SET status = 'denied'")
    await told.watch()
    for _ in range(20):
        told.later(hours=7)
        await told.step("alerts")
    assert len(hook.seen) == 12
    assert await kinds(told) == ["destination_parked"]


async def test_an_address_that_the_guard_refuses_is_not_called_and_stops_nothing(
    sqlite_url: str, sqlite_keystore_url: str, tmp_path: Path, hook: Receiver
) -> None:
    async with running(
        tmp_path, sqlite_url, sqlite_keystore_url, alert_webhook_url=f"{hook.url}/alerts"
    ) as made:
        await overdue(made)
        await made.watch()
        assert hook.seen == []
        assert len(await alerts(made)) == 2
        assert await hook_finding(made.settings) is False
    allowed = {"allowed_private_networks": "127.0.0.0/8"}
    assert await hook_finding(Settings(**{**made.settings.model_dump(), **allowed})) is True


async def hook_finding(settings: Settings) -> bool:
    """What ``quittance doctor`` says of the webhook."""
    findings = await asyncio.to_thread(checking.doctor, settings)
    (found,) = [each["ok"] for each in findings if each["name"] == "alert webhook"]
    return bool(found)


async def test_nobody_is_told_where_nobody_is_named(embedded: Service) -> None:
    await overdue(embedded)
    await embedded.watch()
    assert len(await alerts(embedded)) == 2
    assert letters(embedded) == []
    assert await embedded.rows("SELECT id FROM alert WHERE tell_at IS NOT NULL") == []


@pytest.mark.parametrize("secret", ["secret", "whsec_", "whsec_dG9vIHNob3J0", f"{SECRET}AAAA="])
def test_a_secret_that_is_none_is_refused_at_the_start(secret: str) -> None:
    with pytest.raises(ValueError, match="alert_webhook_secret"):
        Settings(alert_webhook_secret=secret)


# --- cost


MANY = 20_000
LARGE = "virtual_queue|ready|subject_request|queue_activity"


async def fill(service: Service) -> None:
    """Queues with a delivery each that is due soon, and open requests far from their deadlines."""
    now = utc_now()
    soon, week = now + dt.timedelta(minutes=5), now + dt.timedelta(days=20)
    workspace_id = service.workspaces["alice"]
    ids = [new_id("dst") for _ in range(MANY)]
    plain = {"workspace_id": workspace_id}
    queues = [
        plain | {"id": each, "next_due": soon, "windows": {}, "budget": {}, "breaker": {},
        "last_errors": [], "token": 0, "deficit": 0, "concurrency_limit": 4, "is_boosted": False,
        "is_paused": False}
        for each in ids
    ]  # fmt: skip
    ready = [
        {"queue_id": each, "delivery_id": new_id("dlv"), "rank": 20_000, "due_at": soon,
        "placed_at": now, "operation": "erase", "attempt": 0, "seq": 1, "expires_at": week}
        for each in ids
    ]  # fmt: skip
    requests = [
        plain | {"id": new_id("req"), "kind": "erasure", "regime": "gdpr", "status": "in_progress",
        "channel": "api", "verification": "api_key", "language": "en", "identifier_kinds": [],
        "purposes": [], "received_at": now, "due_at": week, "asked_by": "", "open_count": 1,
        "phase": 1, "phase_open_count": 1, "has_contact": False}
        for _ in ids
    ]  # fmt: skip
    activity = [{"queue_id": each, "at": now, "event": "calls", "count": 1} for each in ids]
    async with service.runtime.database.writing() as session:
        await session.execute(sa.insert(VirtualQueue), queues)
        await session.execute(sa.insert(QueueActivity), activity)
        await session.execute(sa.insert(Ready), ready)
        await session.execute(sa.insert(SubjectRequest), requests)
    await service.run("ANALYZE")


@pytest.mark.slow
async def test_a_look_at_many_queues_and_requests_reads_by_index_only(service: Service) -> None:
    await fill(service)
    statements = [
        statement
        for each in watch._watched(service.settings, utc_now())
        for statement in (watch.new_ones(each), watch.ended(each))
        if each.kind != Kind.DELIVERY_ARCHIVED
    ]
    for statement in statements:
        for step in await plan_of(service, statement):
            assert not re.match(rf"(Seq Scan on|SCAN) ({LARGE})(?!.* USING)", step), step


async def plan_of(service: Service, statement: sa.Select[Any]) -> list[str]:
    """The plan's steps, without what is around them."""
    async with service.runtime.database.reading() as session:
        dialect = session.get_bind().dialect
        prefix = "EXPLAIN " if dialect.name == "postgresql" else "EXPLAIN QUERY PLAN "
        text = str(statement.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
        raw = await session.connection()
        rows = (await raw.exec_driver_sql(prefix + text.replace("%", "%%"))).all()
    return [str(row[-1]).strip(" ->") for row in rows]
