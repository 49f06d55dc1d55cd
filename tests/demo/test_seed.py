"""The demo is made once, whole, and says nothing that its data contradicts."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import json
import sqlite3
from collections import Counter
from contextlib import closing
from typing import Any

import pytest

from app import bootstrap
from app.core.clock import utc_now
from app.delivery.activity import WEEK
from app.delivery.stats import slot_of
from app.demo import cast, past, seed, store
from app.demo.newsletter import Newsletter
from app.demo.scenes import ENDED
from app.receipts.signing import jwks
from app.receipts.verify import verify
from app.sites import script
from tests.demo.conftest import Demo, Start

pytestmark = pytest.mark.slow

FORMER = {cast.email_of(name) for name in cast.FORMER}


def moment(micros: int) -> dt.datetime:
    """As SQLite keeps it."""
    return dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=micros)


def micros(at: dt.datetime) -> int:
    return (at - moment(0)) // dt.timedelta(microseconds=1)


async def receipts_of(demo: Demo) -> list[tuple[str, dict[str, Any]]]:
    """(request id, claims), each verified."""
    async with demo.runtime.database.reading() as session:
        keys = await jwks(session)
    rows = await demo.rows("SELECT request_id, jws FROM receipt WHERE is_final")
    return [(request_id, verify(jws, keys).claims) for request_id, jws in rows]


async def test_no_page_of_the_dashboard_is_empty(start: Start) -> None:
    async with start() as demo:
        statuses = Counter(
            each for (each,) in await demo.rows("SELECT status FROM subject_request")
        )
        consents = await demo.rows("SELECT count(*) FROM consent_record")
        tasks = Counter(each for (each,) in await demo.rows("SELECT state FROM human_task"))

    assert set(statuses) == {
        "completed", "completed_with_exceptions", "in_progress", "on_hold", "awaiting_approval",
        "awaiting_verification", "denied", "cancelled", "expired",
    }  # fmt: skip
    assert sum(statuses.values()) >= 25
    assert consents[0][0] > 400
    assert tasks == {"open": 1, "done": 1}


async def test_a_second_start_changes_nothing(start: Start) -> None:
    async with start() as demo:
        before = await demo.dump()
        files = {path.name: path.read_bytes() for path in demo.places.root.rglob("*.ndjson*")}
    async with start() as demo:
        after = await demo.dump()
        assert {
            path.name: path.read_bytes() for path in demo.places.root.rglob("*.ndjson*")
        } == files

    asked_again = ("virtual_queue", "ready", "delivery_transition", "call", "open_call")
    for table in (*asked_again, "queue_activity"):
        before.pop(table), after.pop(table)  # the open human task is asked about again
    assert after == before


async def test_the_activity_is_that_of_the_deliveries(start: Start) -> None:
    async with start() as demo:
        (began,) = await demo.rows("SELECT created_at FROM workspace")
        counted = await demo.rows(
            "SELECT queue_id, sum(count) FROM queue_activity WHERE event LIKE 'succeeded:%' "
            "GROUP BY queue_id"
        )
        until = slot_of(moment(began[0]) + past.OPENED)
        done = await demo.rows(
            "SELECT d.destination_id, count(*) FROM delivery d "
            "JOIN delivery_transition t ON t.delivery_id = d.id "
            "WHERE t.state = 'succeeded' AND t.attempt > 0 AND t.at >= :since AND t.at < :until "
            "GROUP BY d.destination_id",
            since=micros(until - WEEK),
            until=micros(until),
        )
    assert counted
    assert dict(map(tuple, counted)) == dict(map(tuple, done))


async def test_an_interrupted_past_is_told_to_its_end(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between two scenes: the next start plays what is missing, nothing twice."""
    played: list[Any] = []

    class Killed(BaseException):
        pass

    async def play_one(*arguments: Any) -> None:
        if len(played) == 9:
            raise Killed
        played.append(arguments)
        await original(*arguments)

    original = past._play_one
    with monkeypatch.context() as patched:
        patched.setattr(past, "_play_one", play_one)
        with pytest.raises(Killed):
            async with start():
                pass
    async with start() as demo:
        ids = await demo.rows("SELECT id FROM subject_request")
        told = await demo.rows("SELECT count(*) FROM audit_entry WHERE verb = :v", v=past.TOLD)
        assert await receipts_of(demo)

    assert len(ids) == 28
    assert told[0][0] == 1


async def test_the_audit_log_of_the_past_is_in_order(start: Start) -> None:
    async with start() as demo:
        rows = await demo.rows("SELECT at, verb FROM audit_entry ORDER BY id")
        approvals = await demo.rows(
            "SELECT approval_reason FROM subject_request WHERE status = 'awaiting_approval'"
        )

    moments = [at // 1000 for at, _ in rows]  # milliseconds, as in ids
    assert {"held", "extended"} <= {verb for _, verb in rows}
    assert len(set(moments)) > 3
    assert moments == sorted(moments)
    assert {reason for (reason,) in approvals} == {"too_many_identifiers"}


async def test_every_receipt_of_the_past_verifies_and_is_true(start: Start) -> None:
    async with start() as demo:
        found = await receipts_of(demo)
        channels = dict(await demo.rows("SELECT id, channel FROM subject_request"))
        page = await demo.page("/demo/customers")

    assert len(found) >= 20
    erased = [
        claims for _, claims in found
        if claims["request"]["right"] == "erasure" and claims["outcome"] != "refused"
        and claims["destinations"]
    ]  # fmt: skip
    assert len(erased) == len(FORMER)
    for claims in erased:
        seen = {each["kind"]: each["assurance"] for each in claims["destinations"]}
        assert seen["sql"] == seen["archive"] == "verified_absent"
        assert claims["request"]["received_at"] < claims["request"]["closed_at"]
    assert any(each["residuals"] for each in erased)
    assert not [email for email in FORMER if email in page]
    assert set(channels.values()) == {"form", "api", "consent"}


async def test_who_was_erased_is_in_no_place_and_nobody_else_is_missing(start: Start) -> None:
    async with start() as demo:
        with closing(sqlite3.connect(demo.places.shop)) as shop:
            emails = {email for (email,) in shop.execute("SELECT email FROM customers")}
            dump = "\n".join(shop.iterdump())
            orphans = shop.execute("PRAGMA foreign_key_check").fetchall()
        kept = store.overview(demo.places)

    assert emails == {cast.email_of(name) for name in cast.NAMES}
    assert not [name for name in cast.FORMER if name in dump]
    assert not orphans
    assert kept.kept_orders
    assert kept.event_count > 400


async def test_ended_requests_are_forgotten_and_open_ones_are_not(start: Start) -> None:
    async with start() as demo:
        rows = await demo.rows("SELECT id, status, forgotten_at IS NOT NULL FROM subject_request")
        holders = {
            each for (each,) in await demo.rows("SELECT DISTINCT holder_id FROM personal_value")
        }
        keys = await demo.runtime.keys.load([request_id for request_id, _, _ in rows])
        mails = demo.mails()

    forgotten = {request_id for request_id, _, is_forgotten in rows if is_forgotten}
    assert len(forgotten) >= len(ENDED)
    assert holders == set(keys) == {request_id for request_id, _, _ in rows} - forgotten
    assert not mails


async def test_a_consent_record_names_the_notice_that_was_shown_then(start: Start) -> None:
    async with start() as demo:
        wrong = await demo.rows(
            "SELECT count(*) FROM consent_record c"
            " JOIN notice_version n ON n.id = c.notice_version_id"
            " WHERE c.decided_at < n.published_at - 1000000 OR length(c.fingerprint) != 32"
        )
        versions = await demo.rows("SELECT count(DISTINCT notice_version_id) FROM consent_record")
        future = await demo.rows(
            "SELECT count(*) FROM consent_record WHERE recorded_at > :now",
            now=int(utc_now().timestamp() * 1_000_000),
        )

    assert wrong[0][0] == future[0][0] == 0
    assert versions[0][0] == 2


async def test_beside_a_real_workspace_there_is_no_demo(start: Start) -> None:
    async with start(with_demo=False) as demo:
        async with demo.runtime.database.writing() as session:
            await bootstrap.create_workspace(session, "Alice Ltd", utc_now())
        await seed.ensure(demo.runtime, utc_now(), waits=True)

        assert len(await demo.rows("SELECT id FROM workspace")) == 1
        assert not demo.places.root.exists()
        for path in (
            "/demo/",
            "/demo/customers",
            "/demo/received",
            "/demo/customers/1",
            "/demo/film",
        ):
            await demo.page(path, 404)


async def test_the_newsletter_service_keeps_its_port_or_takes_its_destination_along(
    start: Start,
) -> None:
    async def address(demo: Demo) -> str:
        rows = await demo.rows("SELECT settings FROM destination WHERE name = 'Newsletter service'")
        return str(json.loads(rows[0][0])["url"])

    async with start() as demo:
        first = await address(demo)
    async with start() as demo:
        assert await address(demo) == first
    port = int(first.partition("127.0.0.1:")[2].partition("/")[0])
    stranger = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", port)
    async with stranger, start() as demo:
        moved = await address(demo)
        assert moved != first
        assert demo.runtime.outbound.policy.extra_allowed == {
            ("127.0.0.1", int(moved.split(":")[2].split("/")[0]))
        }


async def test_a_command_beside_the_running_service_leaves_its_port_alone(start: Start) -> None:
    async with start() as demo:
        before = await demo.rows("SELECT settings FROM destination ORDER BY id")
        async with start():
            pass
        assert await demo.rows("SELECT settings FROM destination ORDER BY id") == before


async def test_the_newsletter_service_believes_only_signed_and_fresh_calls(start: Start) -> None:
    async with start(with_demo=False) as demo:
        secret = "whsec_" + base64.b64encode(b"k" * 32).decode()
        demo.places.root.mkdir()
        service = Newsletter(demo.places.newsletter, secret, "mark")
        port = await service.start(0)
        demo.runtime.outbound.policy.extra_allowed.add(("127.0.0.1", port))
        body = b'{"type":"quittance.erase","people":[]}'
        headers = {
            "webhook-id": "call_1",
            "webhook-timestamp": "1700000000",
            "webhook-signature": "v1,AAAA",
        }
        try:
            url = f"http://127.0.0.1:{port}/hooks/quittance"
            stale = await demo.runtime.outbound.http.post(url, content=body, headers=headers)
            headers["webhook-timestamp"] = str(int(utc_now().timestamp()))
            wrong = await demo.runtime.outbound.http.post(url, content=body, headers=headers)
            none = await demo.runtime.outbound.http.post(url, content=body)
        finally:
            await service.stop()

    assert [each.status_code for each in (stale, wrong, none)] == [401, 401, 401]
    assert [each.json()["error"] for each in (stale, wrong, none)] == [
        "signature stale", "signature wrong", "signature missing",
    ]  # fmt: skip


def test_the_demo_needs_the_built_widget() -> None:
    assert script.WIDGET.is_file()
