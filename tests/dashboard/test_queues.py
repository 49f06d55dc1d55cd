"""Queues and deliveries as an operator sees them in the middle of an incident."""

from __future__ import annotations

import datetime as dt
import html
import re
from typing import Any

import pytest
import sqlalchemy as sa

from app.core.ids import new_id
from app.dashboard.views.charts import attempt_bars, line_bars
from app.dashboard.views.conditions import condition
from app.dashboard.views.queues import percent, saved_text, window_text
from app.delivery import limits
from app.delivery.activity import Tally
from app.delivery.models import DeliveryTransition, OpenCall, Ready, VirtualQueue
from app.delivery.queue_view import Standing
from app.destinations.models import Destination
from connectors.contract import Window
from tests.dashboard.conftest import Browser, Stage
from tests.dashboard.incident import Incident, seed_incident

NOW = dt.datetime(2026, 11, 25, 12, tzinfo=dt.UTC)


@pytest.fixture
async def scene(stage: Stage) -> tuple[Stage, Incident]:
    return stage, await seed_incident(stage.runtime, stage.now)


async def text_of(browser: Browser, path: str, status: int = 200) -> str:
    """What a reader sees: no tags, single spaces."""
    answer = await browser.get(path)
    assert answer.status_code == status, answer.text
    body = re.sub(r"(?s)<(head|svg|script).*?</\1>|<[^>]+>", " ", answer.text)
    return re.sub(r" (?=[.,:;)])", "", " ".join(html.unescape(body).split()))


async def queue_of(stage: Stage, queue_id: str) -> VirtualQueue:
    async with stage.runtime.database.reading() as session:
        return await session.get_one(VirtualQueue, queue_id)


async def test_the_worst_queue_comes_first(scene: tuple[Stage, Incident]):
    stage, incident = scene
    browser = await stage.signed_in(incident.viewer)
    page = (await browser.get("/dashboard/queues")).text
    rows = re.findall(r'row-main" href="/dashboard/queues/(\w+)"', page)
    order = ["parked", "failing", "paused", "working", "waiting", "idle"]
    assert rows == [incident.queues[each] for each in order]
    text = await text_of(browser, "/dashboard/queues")
    assert "6 queues 3 in trouble" in text
    assert "Mailing service webhook Failing Calls to it fail. 38 7 due 1 hour ago" in text
    assert "2 calls, 0 %" in text
    assert "Steps" not in text


async def test_a_list_is_filtered_by_trouble_and_by_name(scene: tuple[Stage, Incident]):
    stage, incident = scene
    browser = await stage.signed_in(incident.viewer)
    for query, wanted in {
        "state=trouble": {"parked", "failing", "paused"},
        "state=work": {"parked", "failing", "paused", "working", "waiting"},
        "name=SERVICE": {"failing"},
        "name=service&state=work": {"failing"},
    }.items():
        page = (await browser.get(f"/dashboard/queues?{query}")).text
        found = {what for what, each in incident.queues.items() if each in page}
        assert found == wanted, query
    assert "Nothing fits this filter" in await text_of(browser, "/dashboard/queues?name=zzz")


async def test_a_thousand_queues_are_read_page_by_page(scene: tuple[Stage, Incident]):
    stage, incident = scene
    async with stage.runtime.database.writing() as session:
        template = (await session.get_one(Destination, incident.queues["idle"])).model_dump()
        ids = [new_id("dst") for _ in range(1000)]
        await session.execute(
            sa.insert(Destination),
            [{**template, "id": each, "name": f"Shop {each[-6:]}"} for each in ids],
        )
        await session.execute(
            sa.insert(VirtualQueue),
            [{"id": each, "workspace_id": incident.workspace_id} for each in ids],
        )
    browser = await stage.signed_in(incident.viewer)
    path, seen = "/dashboard/queues", list[str]()
    for _ in range(60):
        page = (await browser.get(path)).text
        seen += re.findall(r'row-main" href="/dashboard/queues/(\w+)"', page)
        following = re.search(r'href="([^"]+)" rel="next"', page)
        if following is None:
            break
        path = html.unescape(following.group(1))
    assert len(seen) == len(set(seen)) == 1006
    assert set(seen) == {*ids, *incident.queues.values()}
    assert (await browser.get("/dashboard/queues?cursor=forged")).status_code == 422


async def test_an_empty_list_says_where_queues_come_from(stage: Stage):
    async with stage.runtime.database.writing() as session:
        for table in (Ready, VirtualQueue):
            await session.execute(sa.delete(table))
    browser = await stage.signed_in(stage.seeded.viewer)
    assert "No queues yet" in await text_of(browser, "/dashboard/queues")


async def test_a_failing_queue_says_what_happens_and_what_to_do(scene: tuple[Stage, Incident]):
    stage, incident = scene
    browser = await stage.signed_in(incident.operator)
    text = await text_of(browser, f"/dashboard/queues/{incident.queues['failing']}")
    assert "Calls to it fail. The next call tries it in 3 minutes." in text
    assert "If you know that it is back, press Flush." in text
    assert "Waiting 38 7 due now" in text
    assert "Succeeded, last hour 0 % of the deliveries answered" in text
    assert "Open After too many failures no call goes out" in text
    assert "1 of at most 64; 0 open" in text
    assert "Destination unavailable HTTP 503 11 minutes ago" in text
    assert re.search(r"Of [\d ]+ deliveries that succeeded .* only on a retry", text)
    assert "Segment published for Centrifuge 1.5 %" in text


async def test_the_deliveries_stand_in_the_order_in_which_they_go(scene: tuple[Stage, Incident]):
    """A deadline within 72 hours, then who was begun, by the next try, then the other deadlines."""
    stage, incident = scene
    browser = await stage.signed_in(incident.viewer)
    text = await text_of(browser, f"/dashboard/queues/{incident.queues['failing']}")
    line = re.findall(r"Erase …\S+ (Waiting(?: to retry)?) (\d) (now|in \d+ minutes?)", text)
    assert [tries for _, tries, _ in line] == ["0"] * 1 + ["7"] + ["3"] * 30 + ["0"] * 6
    waits = [int(when.split()[1]) for _, tries, when in line if tries != "0"]
    assert waits == sorted(waits)


async def test_every_state_is_said_in_words(scene: tuple[Stage, Incident]):
    stage, incident = scene
    browser = await stage.signed_in(incident.viewer)
    for what, words in {
        "parked": (
            "It refuses our credentials (HTTP 401 or 403). Since",
            "Put valid credentials into the destination's settings.",
        ),
        "paused": ("Press Resume when it may go on.",),
        "working": ("wrk_2fKp8vTn since 1 minute ago", "Under way"),
        "waiting": ("Waiting for confirmation", "No call was made in the last 24 hours."),
        "idle": ("Nothing waits.", "its connector declares none"),
    }.items():
        text = await text_of(browser, f"/dashboard/queues/{incident.queues[what]}")
        for each in words:
            assert each in text, what


async def test_buttons_pause_resume_boost_and_flush(scene: tuple[Stage, Incident]):
    stage, incident = scene
    browser = await stage.signed_in(incident.operator)

    async def press(what: str, action: str, **more: str) -> str:
        path = f"/dashboard/queues/{incident.queues[what]}"
        answer = await browser.post(path, {"action": action, **more})
        assert answer.status_code == 303, answer.text
        return answer.headers["location"]

    here = f"/dashboard/queues/{incident.queues['parked']}"
    assert await press("parked", "resume") == f"{here}?notice=resume"
    assert (await queue_of(stage, incident.queues["parked"])).parked_reason is None
    assert await press("idle", "pause", back="list") == "/dashboard/queues?notice=pause"
    assert (await queue_of(stage, incident.queues["idle"])).is_paused
    await press("waiting", "boost")
    await press("failing", "flush")
    queue = await queue_of(stage, incident.queues["failing"])
    assert not queue.breaker
    assert queue.next_due is not None
    assert queue.next_due <= dt.datetime.now(dt.UTC)
    log = await text_of(browser, "/dashboard/audit")
    for verb in ("Pause queue", "Resume queue", "Boost queue", "Flush queue"):
        assert verb in log


async def test_a_step_that_is_none_changes_nothing_and_says_so(scene: tuple[Stage, Incident]):
    stage, incident = scene
    browser = await stage.signed_in(incident.operator)
    path = f"/dashboard/queues/{incident.queues['paused']}"
    answer = await browser.post(path, {"action": "drop"})
    assert answer.status_code == 422
    assert "Choose one of pause, resume, boost, flush." in answer.text
    assert "Its queue" in answer.text
    assert (await queue_of(stage, incident.queues["paused"])).is_paused


async def test_viewers_are_offered_no_step(scene: tuple[Stage, Incident]):
    stage, incident = scene
    viewer = await stage.signed_in(incident.viewer)
    operator = await stage.signed_in(incident.operator)
    path = f"/dashboard/queues/{incident.queues['paused']}"
    assert 'value="resume"' in (await operator.get(path)).text
    assert 'value="resume"' not in (await viewer.get(path)).text
    assert (await viewer.post(path, {"action": "resume"})).status_code == 403


async def test_a_trace_tells_when_why_and_with_whom(scene: tuple[Stage, Incident]):
    stage, incident = scene
    browser = await stage.signed_in(incident.viewer)
    text = await text_of(browser, f"/dashboard/deliveries/{incident.delivery_id}")
    assert "8 steps, 7 attempts" in text
    assert re.search(r"Planned \d{4}-\d\d-\d\d \d\d:\d\d:\d\d CES?T", text)
    assert (
        f"Attempt 1 HTTP 503 Took 203 ms Call …{incident.shared_call_id[-8:]} with 31 people"
        in text
    )
    assert "Attempt 3 Took 30.0 s" in text
    assert "with 1 person" in text
    assert "Its queue is in trouble. Calls to it fail." in text
    assert "Before it 1 in its queue (begun)" in text
    assert "Next try in 3 minutes" in text


async def test_what_was_seen_is_shown_without_its_salt(scene: tuple[Stage, Incident]):
    stage, incident = scene
    browser = await stage.signed_in(incident.viewer)
    text = await text_of(browser, f"/dashboard/deliveries/{incident.finished_id}")
    assert "Seen Rows: 3, Tables: 2, Read back: yes" in text
    assert "Kept there Invoices, tax law, until 2034-12-31" in text
    assert "What is known read back, nothing left" in text
    assert "It is settled and waits for nothing." in text
    assert "5a5a" not in (await browser.get(f"/dashboard/deliveries/{incident.finished_id}")).text


async def test_a_call_under_way_is_named(scene: tuple[Stage, Incident]):
    stage, incident = scene
    async with stage.runtime.database.reading() as session:
        found = await session.execute(
            sa.select(Ready, OpenCall).join(OpenCall, OpenCall.call_id == Ready.call_id)  # type: ignore[arg-type]
        )
        ready, call = found.one()
    browser = await stage.signed_in(incident.viewer)
    text = await text_of(browser, f"/dashboard/deliveries/{ready.delivery_id}")
    assert f"Under way in call …{call.call_id[-8:]} with 1 person" in text


async def test_an_archived_delivery_says_what_to_do_and_leads_back(stage: Stage):
    browser = await stage.signed_in(stage.seeded.operator)
    path = f"/dashboard/deliveries/{stage.seeded.archived_delivery_id}"
    text = await text_of(browser, path)
    assert "It ran out of time and was archived" in text
    assert "It is in the archive, in no queue." in text
    refused = await browser.post(f"{path}/waive", {"reason": " "})
    assert refused.status_code == 422
    assert "Give a reason" in refused.text
    request = f"/dashboard/requests/{stage.seeded.requests['overdue']}"
    assert path in (await browser.get(request)).text
    replayed = await browser.post(f"{path}/replay", {"back": "request"})
    assert replayed.headers["location"] == f"{request}?notice=replayed"
    text = await text_of(browser, path)
    assert "Waiting: Replayed" in text
    assert "Before it nobody (boosted)" in text
    again = await browser.post(f"{path}/replay")
    assert again.status_code == 409
    assert "must be `archived`" in again.text


async def test_a_waived_delivery_stays_on_its_own_page(stage: Stage):
    browser = await stage.signed_in(stage.seeded.operator)
    path = f"/dashboard/deliveries/{stage.seeded.archived_delivery_id}"
    waived = await browser.post(f"{path}/waive", {"reason": "The vendor closed"})
    assert waived.headers["location"] == f"{path}?notice=waived"
    assert "Expired: The vendor closed" in await text_of(browser, path)


async def test_hostile_words_in_a_history_are_text(scene: tuple[Stage, Incident]):
    stage, incident = scene
    async with stage.runtime.database.writing() as session:
        session.add(
            DeliveryTransition(
                delivery_id=incident.delivery_id,
                seq=9,
                at=stage.now,
                state="awaiting_retry",
                reason="<b>x</b>",
                evidence={"facts": {"<i>": "<u>"}, "residuals": [{"what": "<s>"}]},
            )
        )
        queue = await session.get_one(VirtualQueue, incident.queues["failing"])
        queue.last_errors = [[stage.now.timestamp(), "<b>y</b>", None]]
    browser = await stage.signed_in(incident.viewer)
    for path in (f"deliveries/{incident.delivery_id}", f"queues/{incident.queues['failing']}"):
        page = (await browser.get(f"/dashboard/{path}")).text
        assert not re.search(r"<b>[xy]|<i>\W|<u>|<s>", page)


async def test_the_overview_tells_the_share_of_retries_and_leads_to_the_queue(
    scene: tuple[Stage, Incident],
):
    stage, incident = scene
    browser = await stage.signed_in(incident.viewer)
    text = await text_of(browser, "/dashboard")
    assert re.search(r"last 7 days: [\d ]+ deliveries succeeded, 1\.\d % only on a retry", text)
    assert "Oldest due: 1 hour ago." in text
    page = (await browser.get("/dashboard")).text
    assert f'href="/dashboard/queues/{incident.queues["failing"]}"' in page
    empty = await text_of(await stage.signed_in(stage.seeded.viewer), "/dashboard")
    assert "no delivery succeeded" in empty


async def test_another_workspace_sees_none_of_it(scene: tuple[Stage, Incident]):
    stage, incident = scene
    browser = await stage.signed_in(stage.seeded.owner)
    assert "Mailing service" not in await text_of(browser, "/dashboard/queues")
    for path in (f"queues/{incident.queues['failing']}", f"deliveries/{incident.delivery_id}"):
        assert (await browser.get(f"/dashboard/{path}")).status_code == 404


QUIET = Standing(
    id="dst_1",
    name="x",
    connector="x",
    is_deleted=False,
    next_due=None,
    not_before=None,
    lease_until=None,
    parked_reason=None,
    parked_at=None,
    is_paused=False,
    breaker={},
    concurrency_limit=4,
)


def minutes(count: float) -> dt.datetime:
    return NOW + dt.timedelta(minutes=count)


@pytest.mark.parametrize(
    ("queue", "badge"),
    [
        ({"parked_reason": "unauthorized", "is_paused": True}, "Parked"),
        ({"is_paused": True, "breaker": {"until": minutes(4).timestamp()}}, "Paused"),
        ({"breaker": {"until": minutes(4).timestamp()}}, "Failing"),
        ({"breaker": {"until": minutes(-1).timestamp(), "probing": True}}, "Probing"),
        ({"next_due": minutes(-3)}, "Stuck"),
        ({"next_due": minutes(-1)}, "Due"),
        ({"next_due": minutes(-3), "lease_until": minutes(1)}, "Working"),
        ({"next_due": minutes(-3), "lease_until": minutes(-1)}, "Stuck"),
        ({"next_due": minutes(5), "not_before": minutes(5)}, "Held back"),
        ({"next_due": minutes(5), "not_before": minutes(-5)}, "Waiting"),
        ({}, "Idle"),
    ],
)
def test_the_worst_thing_is_said_first(queue: dict[str, Any], badge: str):
    found = condition(QUIET._replace(**queue), NOW)
    assert found.badge.text == badge
    assert found.is_trouble == (badge in {"Parked", "Paused", "Failing", "Probing", "Stuck"})
    assert bool(found.advice) == found.is_trouble


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (None, ""), (0.0, "0 %"), (0.0001, "0.1 %"), (0.015, "1.5 %"), (0.5, "50 %"),
        (0.9996, "99.9 %"), (1.0, "100 %"),
    ],
)  # fmt: skip
def test_a_share_is_never_rounded_to_all_or_nothing(share: float | None, text: str):
    assert percent(share) == text


@pytest.mark.parametrize(
    ("window", "text"),
    [
        (Window(3, 1), "3 calls a second"),
        (Window(1, 60), "1 call a minute"),
        (Window(1000, 86_400), "1\u202f000 calls a day"),
        (Window(10, 2.5), "10 calls in 2.5 seconds"),
        (Window(500, 30 * 86_400), "500 calls in 30 days"),
        (Window(50, period="month"), "50 calls each calendar month"),
    ],
)
def test_a_rate_window_is_said_in_words(window: Window, text: str):
    assert window_text(window) == text


def test_what_retries_saved_is_said_plainly():
    assert "Nothing succeeded" in saved_text(Tally())
    assert "on the first attempt" in saved_text(Tally(succeeded={1: 4}))
    assert saved_text(Tally(succeeded={1: 970, 2: 15, 3: 10, 10: 4, 11: 1})) == (
        "Of 1\u202f000 deliveries that succeeded in the last 7 days, 30 (3.0 %) did so only on a "
        "retry, 14 of them on attempts 3 to 10."
    )


def test_bars_end_with_the_last_attempt_that_helped():
    assert [(each.name, each.width) for each in attempt_bars({1: 8, 3: 2})] == [
        ("1", 100), ("2", 0), ("3", 25),
    ]  # fmt: skip
    assert [each.name for each in attempt_bars({12: 1})][-2:] == ["10", "11 and more"]
    assert attempt_bars({}) == []


def test_bars_and_line_share_one_scale():
    chart = line_bars(["00:00", "00:15"], [(1, 2), (0, 0)], [4, 0], ("A", "B"), "calls", labels=2)
    assert chart.top == 4
    assert chart.points == "5,0.0 15,100.0"
    assert [each.title for each in chart.columns] == [
        "00:00, 4 calls: A 1, B 2", "00:15, 0 calls: none",
    ]  # fmt: skip
    assert [(bar.y, bar.height) for bar in chart.columns[0].bars] == [(75, 25), (25, 50)]
    assert chart.labels == ("00:00", "00:15")


async def test_limits_show_what_is_spent(scene: tuple[Stage, Incident]):
    stage, incident = scene
    rates = (Window(3, 1), Window(1000, period="day"))
    archive = stage.runtime.catalogue.find("archive")
    stage.runtime.catalogue._found["archive"] = type("Limited", (archive,), {"limits": rates})
    async with stage.runtime.database.writing() as session:
        queue = await session.get_one(VirtualQueue, incident.queues["idle"])
        queue.windows, _ = limits.spend({}, rates, 2, dt.datetime.now(dt.UTC))
    browser = await stage.signed_in(incident.viewer)
    text = await text_of(browser, f"/dashboard/queues/{incident.queues['idle']}")
    assert re.search(
        "Rate limits [02] of 3 calls a second 2 of 1 000 calls each calendar day", text
    )


async def test_a_page_shows_the_newest_steps_of_a_long_history(scene: tuple[Stage, Incident]):
    stage, incident = scene
    at, step = stage.now, {"state": "awaiting_confirmation", "assurance": "acknowledged"}
    async with stage.runtime.database.writing() as session:
        await session.execute(
            sa.delete(DeliveryTransition).where(
                DeliveryTransition.delivery_id == incident.delivery_id  # type: ignore[arg-type]
            )
        )
        rows = [
            {"delivery_id": incident.delivery_id, "seq": seq, "at": at, "attempt": 0, **step}
            for seq in range(1, 5001)
        ]
        await session.execute(sa.insert(DeliveryTransition), rows)
    browser = await stage.signed_in(incident.viewer)

    path = f"/dashboard/deliveries/{incident.delivery_id}"
    text = await text_of(browser, path)
    assert (
        "5 000 steps, 0 attempts The newest 100 are shown; 4 900 older ones are left out." in text
    )
    whole = (await browser.get(path)).text
    assert whole.count("<li data-tone") == 100
    assert len(whole) < 100_000

    request = re.search(r"/dashboard/requests/req_\w+", whole)
    assert request
    assert "5 000 steps (the newest 100 are shown)" in await text_of(browser, request.group())
