"""Consent over HTTP: choices in, records out; every bad input of the CON list by name."""

from __future__ import annotations

import asyncio
import datetime as dt
import re
import uuid
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import col
from structlog.testing import capture_logs

from app.consent import links, queries
from app.consent.models import ConsentRecord
from app.consent.routes import router
from app.consent.writer import ConsentWriter
from app.core.clock import rfc3339, utc_now
from app.core.settings import Settings
from app.identity import vault
from app.identity.models import PersonalValue
from app.sites import unlisted
from tests.consent.conftest import Shop, open_shop
from tests.sites.stage import SHOP, Stage, stage

ALL = {"functional": True, "analytics": True, "advertising": True}
NONE = dict.fromkeys(ALL, False)


def ago(**length: float) -> str:
    return str(rfc3339(utc_now() - dt.timedelta(**length)))


def at(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)


# --- a choice and its record


async def test_a_choice_is_recorded_before_it_is_answered(shop: Shop) -> None:
    answer = await shop.post(shop.body(page="https://shop.example/a?q=1"))
    body = answer.json()
    async with shop.service.database.reading() as session:
        record = (await session.execute(sa.select(ConsentRecord))).scalar_one()

    assert answer.status_code == 201
    assert body["consent_id"] == record.id
    assert body["consent_id"].startswith("con_")
    assert body["choices"] == ALL == record.choices
    assert (body["regime"], body["gpc_applied"]) == ("gdpr", False)
    assert at(body["recorded_at"]) == record.recorded_at
    assert at(body["expires_at"]) == record.decided_at + dt.timedelta(days=180)
    assert record.page == "https://shop.example/a"
    assert record.notice_version_id == shop.notice_version
    assert answer.headers["access-control-allow-origin"] == SHOP
    assert answer.headers["vary"] == "Origin"
    assert "access-control-allow-credentials" not in answer.headers


async def test_a_required_purpose_may_be_named_but_not_denied(shop: Shop) -> None:
    assert (await shop.choose(choices=ALL | {"necessary": True}))["choices"] == ALL
    assert (await shop.post(shop.body(choices=ALL | {"necessary": False}))).status_code == 422


@pytest.mark.parametrize(
    "changes",
    [
        {"choices": {"analytics": True}},
        {"choices": ALL | {"unknown": True}},
        {"choices": ALL | {"analytics": "yes"}},
        {"choices": ALL | {"analytics": 1}},
        {"choices": []},
        {"method": "reject_all"},
        {"method": "dismissed"},
        {"method": "telepathy"},
        {"method": "api"},
        {"language": "eo"},
        {"region": "Atlantis"},
        {"event_id": "1"},
        {"decided_at": 0},
        {"gpc": "false"},
        {"surprise": 1},
    ],
)
async def test_a_choice_that_does_not_fit_is_refused_readably(
    shop: Shop, changes: dict[str, Any]
) -> None:
    answer = await shop.post(shop.body(**changes))

    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["access-control-allow-origin"] == SHOP, (
        "else the page takes it for an outage"
    )
    assert await shop.count() == 0


@pytest.mark.parametrize(
    ("changes", "at", "problem"),
    [
        ({"choices": ALL | {"analytics": "yes"}}, "choices.analytics", "boolean"),
        ({"event_id": "1"}, "event_id", "send a UUID, such as "),
        ({"surprise": 1}, "surprise", "not known here"),
        ({"decided_at": 0}, "decided_at", "RFC 3339"),
    ],
)
async def test_a_member_that_is_wrong_is_named_with_what_would_be_right(
    shop: Shop, changes: dict[str, Any], at: str, problem: str
) -> None:
    (wrong,) = (await shop.post(shop.body(**changes))).json()["errors"]

    assert wrong["at"] == at
    assert problem in wrong["problem"]
    assert "[0-9" not in wrong["problem"], "a pattern is nothing for people"


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"choices": {"analytics": True}}, "add `advertising`, `functional`."),
        (
            {"choices": ALL | {"unknown": True}},
            "which has `advertising`, `analytics`, `functional`, `necessary`.",
        ),
        ({"choices": ALL | {"necessary": False}}, "leave out `necessary`."),
        ({"language": "eo"}, "`de`, "),
        ({"regime": "hipaa"}, "`gdpr`, "),
    ],
)
async def test_choices_that_do_not_fit_are_told_what_would(
    shop: Shop, changes: dict[str, Any], detail: str
) -> None:
    refused = (await shop.post(shop.body(**changes))).json()

    assert refused["type"] == "urn:quittance:problem:choices-do-not-fit"
    assert detail in refused["detail"]


@pytest.mark.parametrize(
    ("method", "choices", "gpc", "status"),
    [
        ("withdrawal", NONE, False, 201),
        ("withdrawal", NONE | {"functional": True}, False, 422),
        ("reject_all", NONE, False, 201),
        ("reject_all", NONE | {"functional": True}, False, 422),
        ("accept_all", ALL, True, 201),
        ("accept_all", ALL | {"functional": False}, False, 422),
        ("accept_all", ALL | {"advertising": False}, True, 422),
        # What the widget carries over from before may be anything.
        ("gpc", ALL | {"advertising": False}, True, 201),
        ("gpc", NONE, True, 201),
        ("migrated", ALL | {"functional": False}, False, 201),
        ("custom", NONE, False, 201),
        ("custom", ALL, False, 201),
    ],
)
@pytest.mark.parametrize("region", ["DE", "US-CA"])
async def test_an_act_for_all_that_does_not_answer_all_alike_is_refused(
    shop: Shop, region: str, method: str, choices: dict[str, bool], status: int, *, gpc: bool
) -> None:
    answer = await shop.post(shop.body(region=region, method=method, choices=choices, gpc=gpc))

    assert answer.status_code == status, answer.text
    if status == 422:
        assert answer.json()["type"] == "urn:quittance:problem:choices-do-not-fit"
        assert f"`{method}`" in answer.json()["detail"]
        assert "send `custom`" in answer.json()["detail"]
        assert answer.headers["access-control-allow-origin"] == SHOP


async def test_a_clock_that_runs_ahead_is_held_back(shop: Shop) -> None:
    visitor = str(uuid.uuid4())
    await shop.choose(visitor_id=visitor, decided_at=ago(days=-400))
    decided_at = at((await shop.current(visitor))["decided_at"])

    assert abs(decided_at - utc_now() - dt.timedelta(minutes=5)) < dt.timedelta(seconds=30)


async def test_an_earlier_notice_version_still_counts(shop: Shop) -> None:
    service = shop.service
    config = {"config": {"expiry_days": 30}}
    await service.client.patch(f"/v1/sites/{shop.site_key}", json=config, headers=service.auth())
    await service.client.post(f"/v1/sites/{shop.site_key}/publish", headers=service.auth())
    visitor = str(uuid.uuid4())
    await shop.choose(visitor_id=visitor)

    assert (await shop.current(visitor))["stale"] is False, "what is asked is the same"

    purposes = [{"id": "necessary", "required": True}, {"id": "analytics"}]
    asked = {"config": {"purposes": purposes}}
    await service.client.patch(f"/v1/sites/{shop.site_key}", json=asked, headers=service.auth())
    await service.client.post(f"/v1/sites/{shop.site_key}/publish", headers=service.auth())
    assert (await shop.current(visitor))["stale"] is True


async def test_consent_records_are_append_only(shop: Shop) -> None:
    visitor = str(uuid.uuid4())
    await shop.choose(visitor_id=visitor)
    before = await shop.service.rows("select * from consent_record")
    await shop.choose(visitor_id=visitor, choices=NONE, method="withdrawal")
    await shop.current(visitor)
    after = await shop.service.rows("select * from consent_record order by id")

    assert [tuple(each) for each in after][:1] == [tuple(each) for each in before]
    assert len(after) == 2


def test_no_code_updates_a_consent_record() -> None:
    root = Path(__file__).parents[2] / "app"
    update = re.compile(
        r"update\(\s*(ConsentRecord|_RECORD)|UPDATE\s+consent_record", re.IGNORECASE
    )

    assert [
        path.name for path in root.rglob("*.py") if update.search(path.read_text(encoding="utf-8"))
    ] == []


async def test_the_body_is_described_without_loose_references(shop: Shop) -> None:
    described = shop.service.app.openapi()["paths"]["/v1/consent"]["post"]
    schema = described["requestBody"]["content"]["application/json"]["schema"]

    assert "$ref" not in str(schema)
    assert "withdrawal" in schema["properties"]["method"]["enum"]
    assert set(described["responses"]) >= {"201"}


# --- who may send


async def test_con_001_a_strange_origin_stores_nothing(shop: Shop) -> None:
    answer = await shop.post(shop.body(), origin="https://evil.example")

    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers
    assert await shop.count() == 0


async def test_a_page_of_an_origin_that_is_not_listed_is_told_once(shop: Shop) -> None:
    async def load(page: str) -> None:
        headers = {"Referer": page}
        await shop.service.client.get(f"/b/{shop.site_key}.js", headers=headers)

    with capture_logs() as logged:
        for _ in range(2):
            await load("https://staging.shop.example/a?b")
            await shop.post(shop.body(), "https://staging.shop.example")
            await shop.post(shop.body(), "https://other.example")
            await shop.post(shop.body(), "https://bob@shop.example")
            await load(f"{SHOP}/")
            await load("https://consent.example/privacy/x")
        for number in range(50):
            await load(f"https://flood{number}.example/")

    told = [each["origin"] for each in logged if each["event"] == "origin_not_listed"]
    assert told[:3] == [
        "https://staging.shop.example", "https://other.example", "https://flood0.example",
    ]  # fmt: skip
    assert len(told) == unlisted.MOST
    ((kept,),) = await shop.service.rows("select unlisted_origins from site")
    assert "https://other.example" in kept
    assert "flood40" not in str(kept)


async def test_an_origin_is_told_again_after_an_hour_and_when_it_could_not_be_kept(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = unlisted.Told()
    assert [told.is_new("sit", "https://a.example", at) for at in (9.0, 10.0, 3609.0)] == [
        True, False, True,
    ]  # fmt: skip

    async def away(*_: Any) -> None:
        raise TimeoutError

    page = {"Referer": "https://staging.shop.example/"}
    with capture_logs() as logged:
        with monkeypatch.context() as patched:
            patched.setattr(unlisted, "_keep", away)
            assert (
                await shop.service.client.get(f"/b/{shop.site_key}.js", headers=page)
            ).status_code == 200
        await shop.service.client.get(f"/b/{shop.site_key}.js", headers=page)
    assert [each["event"] for each in logged if each["event"].startswith(("orig", "datab"))] == [
        "database_away", "origin_not_listed",
    ]  # fmt: skip


async def test_an_origin_of_another_site_does_not_count(shop: Shop) -> None:
    await open_shop(shop.service, "https://other.example")

    assert (await shop.post(shop.body(), origin="https://other.example")).status_code == 403


async def test_con_003_the_null_origin_is_refused(shop: Shop) -> None:
    answer = await shop.post(shop.body(), origin="null")

    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers


async def test_con_005_without_an_origin_only_a_server_with_a_key_may_send(shop: Shop) -> None:
    service = shop.service
    await service.add_key("reader", "wsp_one", "sites:read")
    await service.add_key("writer", "wsp_one", "sites:write")
    api = shop.body(method="api")

    async def status(body: Any, **headers: str) -> int:
        return (await shop.post(body, None, **headers)).status_code

    assert await status(shop.body(), **{"Sec-Fetch-Site": "cross-site"}) == 403
    assert await status(api) == 403
    assert "Without an `Origin`" in (await shop.post(api, None)).json()["detail"]
    assert await status(shop.body(), **service.auth()) == 403
    assert await status(api, **service.auth("reader")) == 403
    assert await status(api, **service.auth("eve")) == 404
    assert await shop.count() == 0
    assert await status(api, **service.auth("writer")) == 201
    assert await status(shop.body(method="migrated"), **service.auth()) == 201


async def test_con_007_cookies_are_neither_read_nor_set(shop: Shop) -> None:
    answer = await shop.post(shop.body(), Cookie="__Host-session=alice; qt=1")

    assert answer.status_code == 201
    assert "set-cookie" not in answer.headers


async def test_con_009_a_quote_in_the_site_key_finds_nothing(shop: Shop) -> None:
    answer = await shop.post(shop.body(site_key="abc' OR '1'='1"))

    assert answer.status_code == 404
    assert "sql" not in answer.text.lower()


@pytest.mark.parametrize("version", ["ntv_never", "", "'", "1"])
async def test_con_011_a_version_that_was_never_published(shop: Shop, version: str) -> None:
    other = await open_shop(shop.service)

    assert (await shop.post(shop.body(notice_version=version))).status_code == 422
    assert (await shop.post(shop.body(notice_version=other.notice_version))).status_code == 422
    assert await shop.count() == 0


async def test_con_013_the_same_event_a_thousand_times_is_one_record(shop: Shop) -> None:
    body = shop.body()
    answers = await asyncio.gather(*(shop.post(body) for _ in range(1000)))
    late = await shop.post(body)

    assert {each.status_code for each in answers} == {201}
    assert {each.text for each in (*answers, late)} == {answers[0].text}
    assert await shop.count() == 1


async def test_an_event_id_is_not_for_another_choice(shop: Shop) -> None:
    body = shop.body()
    await shop.post(body)
    answer = await shop.post(body | {"choices": NONE, "method": "reject_all"})
    together = shop.body()
    both = await asyncio.gather(
        shop.post(together), shop.post(together | {"choices": NONE, "method": "reject_all"})
    )

    assert answer.status_code == 409
    assert answer.headers["access-control-allow-origin"] == SHOP
    assert sorted(each.status_code for each in both) == [201, 409]
    assert await shop.count() == 2


async def test_con_015_the_order_of_arrival_does_not_matter(shop: Shop) -> None:
    visitor = str(uuid.uuid4())
    await shop.choose(
        visitor_id=visitor, choices=NONE, method="reject_all", decided_at=ago(minutes=1)
    )
    await shop.choose(visitor_id=visitor, decided_at=ago(minutes=2))
    state = await shop.current(visitor)

    assert state["choices"] == NONE
    assert await shop.count() == 2


async def test_con_015_on_a_tie_denied_wins(shop: Shop) -> None:
    visitor, moment = str(uuid.uuid4()), ago(minutes=1)
    one, other = NONE | {"analytics": True}, NONE | {"analytics": True, "advertising": True}
    for choices in (one, other):
        await shop.choose(visitor_id=visitor, choices=choices, method="custom", decided_at=moment)

    assert (await shop.current(visitor))["choices"] == one


async def test_con_017_an_address_is_no_visitor_id(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = await shop.post(shop.body(visitor_id="bob@shop.example"))
    path = f"/v1/sites/{shop.site_key}/visitors/bob@shop.example/consent"
    read = await shop.service.client.get(path)

    assert (answer.status_code, read.status_code) == (422, 422)
    assert "bob@" not in answer.text + read.text + "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("page", "status"),
    [
        ("javascript:alert(1)", 422),
        ("data:text/html,x", 422),
        ("https://user:pass@shop.example/a?b#c", 201),
    ],
)
async def test_con_019_only_origin_and_path_of_a_page_are_kept(
    shop: Shop, page: str, status: int
) -> None:
    answer = await shop.post(shop.body(page=page))

    assert answer.status_code == status
    assert [page for (page,) in await shop.service.rows("select page from consent_record")] in (
        [], ["https://shop.example/a"],
    )  # fmt: skip


async def test_con_021_the_user_agent_is_neither_kept_nor_logged(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = "${jndi:ldap://x}" * 100
    long = await shop.post(shop.body(), **{"User-Agent": hostile * 64})
    fits = await shop.post(shop.body(), **{"User-Agent": hostile})

    assert (long.status_code, fits.status_code) == (400, 201)
    assert "jndi" not in str(await shop.service.rows("select * from consent_record"))
    assert "jndi" not in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    "choices",
    [
        ALL | {"__proto__": {"granted": True}},
        ALL | {"__proto__": True},
        ALL | {"constructor": {"prototype": {}}},
    ],
)
async def test_con_023_prototype_names_are_refused(shop: Shop, choices: dict[str, Any]) -> None:
    assert (await shop.post(shop.body(choices=choices))).status_code == 422
    assert (await shop.post(shop.body() | {"__proto__": {"granted": True}})).status_code == 422


async def test_con_025_one_address_has_a_quota(
    sqlite_url: str, sqlite_keystore_url: str, tmp_path: Path
) -> None:
    async with stage(
        sqlite_url, sqlite_keystore_url, tmp_path, router, consent_per_minute=3
    ) as service:
        service.app.state.consents = writer = ConsentWriter(service.database)
        writer.start()
        shop = await open_shop(service)
        answers = [await shop.post(shop.body()) for _ in range(5)]
        await writer.stop()

    assert [each.status_code for each in answers] == [201, 201, 201, 429, 429]
    assert int(answers[-1].headers["retry-after"]) > 0
    assert {"ratelimit", "ratelimit-policy"} <= set(answers[-1].headers)
    assert answers[-1].headers["access-control-allow-origin"] == "*"
    assert "Retry-After" in answers[-1].headers["access-control-expose-headers"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_con_027_a_beacon_is_not_taken(shop: Shop, kind: str) -> None:
    answer = await shop.service.client.post(
        "/v1/consent", content=b"{}", headers={"Content-Type": kind, "Origin": SHOP}
    )

    assert answer.status_code == 415


async def test_where_the_body_names_no_region_the_request_tells_it(shop: Shop) -> None:
    state = shop.service.app.state
    state.settings = Settings(
        region_header="CF-IPCountry, CF-Region-Code",
        trusted_proxies=(ip_network("203.0.113.0/24"),),
    )
    edge = {"CF-IPCountry": "us", "CF-Region-Code": "ca"}
    silent = shop.body()
    del silent["region"]
    told = await shop.post(silent, **edge)
    named = await shop.post(shop.body(region="BR"), **edge)

    assert [told.json()["regime"], named.json()["regime"]] == ["ccpa", "lgpd"]


@pytest.mark.parametrize(
    ("region", "method", "advertising", "applied"),
    [
        ("US-CA", "gpc", False, True),
        ("US-CA", "dismissed", False, True),
        ("US-CA", "migrated", False, True),
        ("US-CA", "accept_all", True, False),
        ("US-CA", "custom", True, False),
        ("BR", "migrated", True, False),
        ("DE", "migrated", False, True),
    ],
)
async def test_con_029_the_signal_wins_unless_a_person_grants_here(
    shop: Shop, region: str, method: str, *, advertising: bool, applied: bool
) -> None:
    body = shop.body(region=region, method=method)
    by_header = await shop.post(body, **{"Sec-GPC": "1"})
    by_body = await shop.choose(region=region, method=method, gpc=True)
    facts = {bool(gpc) for (gpc,) in await shop.service.rows("select gpc from consent_record")}

    for answer in (by_header.json(), by_body):
        assert answer["choices"] == ALL | {"advertising": advertising}
        assert answer["gpc_applied"] is applied
    assert facts == {True}


async def test_a_preflight_is_answered_to_listed_origins_only(shop: Shop) -> None:
    async def ask(origin: str) -> Any:
        headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        return await shop.service.client.options("/v1/consent", headers=headers)

    good, evil, null = await ask(SHOP), await ask("https://evil.example"), await ask("null")

    assert good.status_code == 204
    assert good.headers["access-control-allow-origin"] == SHOP
    assert good.headers["access-control-allow-headers"] == "Content-Type"
    assert good.headers["access-control-max-age"] == "600"
    assert "access-control-allow-credentials" not in good.headers
    for answer in (evil, null):
        assert "access-control-allow-origin" not in answer.headers
        assert "Origin" in answer.headers["vary"]


async def test_a_huge_or_broken_body_is_refused(shop: Shop) -> None:
    headers = {"Content-Type": "application/json", "Origin": SHOP}

    async def status(content: bytes) -> int:
        return (
            await shop.service.client.post("/v1/consent", content=content, headers=headers)
        ).status_code

    assert await status(b'{"site_key":"' + b"x" * 20_000 + b'"}') == 413
    assert await status(b'{"site_key":"a","site_key":"b"}') == 400
    assert await status(b"[]") == 422
    assert await status(b"null") == 422
    assert await status(b'{"site_key":{}}') == 422


# --- a visitor's state


async def test_an_unknown_visitor_has_no_state(shop: Shop) -> None:
    visitor = str(uuid.uuid4())

    assert await shop.current(visitor) == {
        "visitor_id": visitor, "consent_id": None, "choices": None, "notice_version": None,
        "decided_at": None, "expires_at": None, "stale": None,
    }  # fmt: skip


async def test_a_state_is_fresh_until_it_expires(shop: Shop) -> None:
    new, old = str(uuid.uuid4()), str(uuid.uuid4())
    made = await shop.choose(visitor_id=new.upper())
    await shop.choose(visitor_id=old, decided_at=ago(days=181))
    state = await shop.current(new)

    assert (state["consent_id"], state["stale"]) == (made["consent_id"], False)
    assert state["notice_version"] == shop.notice_version
    assert (await shop.current(old))["stale"] is True


async def test_nobody_is_to_ask_again_within_a_year_where_somebody_opted_out(shop: Shop) -> None:
    """Cal. Civ. Code 1798.135(c)(4); what was not refused is open once its term has ended."""
    mixed = {"choices": ALL | {"advertising": False}, "method": "custom", "region": "US-CA"}
    denied = {"advertising": False}

    async def told(**choice: Any) -> tuple[Any, Any]:
        visitor = str(uuid.uuid4())
        await shop.choose(visitor_id=visitor, **choice)
        state = await shop.current(visitor)
        return state["choices"], state["stale"]

    assert await told(**mixed) == (mixed["choices"], False)
    assert await told(**mixed, decided_at=ago(days=181)) == (denied, False)
    assert await told(**mixed, decided_at=ago(days=365)) == (denied, False)
    assert await told(**mixed, decided_at=ago(days=367)) == (mixed["choices"], True)
    assert await told(**mixed | {"region": "DE"}, decided_at=ago(days=181)) == (
        mixed["choices"], True,
    )  # fmt: skip
    assert await told(region="US-CA", decided_at=ago(days=181)) == (ALL, True)


@pytest.mark.parametrize(
    ("choices", "region", "days"),
    [
        ({"advertising": False}, "US-CA", 366),
        (NONE, "US-CA", 366),
        (ALL | {"advertising": False}, "US-CA", 180),
        (NONE, "DE", 180),
    ],
)
async def test_an_opt_out_lasts_for_as_long_as_nobody_is_asked_again(
    shop: Shop, choices: dict[str, bool], region: str, days: int
) -> None:
    at = ago(days=1)
    made = await shop.choose(choices=choices, method="custom", region=region, decided_at=at)
    lasts = dt.datetime.fromisoformat(made["expires_at"]) - dt.datetime.fromisoformat(at)
    assert round(lasts / dt.timedelta(days=1)) == days


async def test_visitors_are_apart_by_site(shop: Shop) -> None:
    other, visitor = await open_shop(shop.service), str(uuid.uuid4())
    await shop.choose(visitor_id=visitor)

    assert (await other.current(visitor))["consent_id"] is None


# --- withdrawals


async def test_taking_a_grant_back_writes_the_outbox(shop: Shop) -> None:
    visitor = str(uuid.uuid4())
    await shop.choose(visitor_id=visitor)
    assert await shop.outbox() == []
    await shop.choose(visitor_id=visitor, choices=ALL | {"analytics": False}, method="custom")

    assert await shop.outbox() == [(visitor, ["analytics"])]
    assert "withdrawals" in shop.service.hints


async def test_granting_what_was_denied_writes_the_outbox_too(shop: Shop) -> None:
    visitor = str(uuid.uuid4())
    await shop.choose(visitor_id=visitor, choices=NONE, method="reject_all")
    await shop.choose(visitor_id=visitor, choices=NONE | {"analytics": True}, method="custom")
    await shop.choose(visitor_id=visitor, choices=NONE | {"functional": True}, method="custom")

    assert await shop.outbox(is_grant=True) == [
        (visitor, ["analytics"]),
        (visitor, ["functional"]),
    ]
    assert await shop.outbox() == [(visitor, ["analytics"])]


async def test_what_another_tool_had_stored_grants_nothing_again(shop: Shop) -> None:
    visitor = str(uuid.uuid4())
    await shop.choose(visitor_id=visitor, choices=NONE, method="reject_all")
    await shop.choose(visitor_id=visitor, method="migrated")

    assert await shop.outbox(is_grant=True) == []


async def test_a_late_older_record_withdraws_nothing(shop: Shop) -> None:
    visitor = str(uuid.uuid4())
    await shop.choose(visitor_id=visitor)
    await shop.choose(visitor_id=visitor, choices=NONE, method="reject_all", decided_at=ago(days=1))

    assert await shop.outbox() == []


async def test_a_repeated_withdrawal_is_one(shop: Shop) -> None:
    visitor = str(uuid.uuid4())
    await shop.choose(visitor_id=visitor, decided_at=ago(minutes=1))
    body = shop.body(visitor_id=visitor, choices=NONE, method="withdrawal")
    await asyncio.gather(*(shop.post(body) for _ in range(20)))
    await shop.post(body)

    assert await shop.outbox() == [(visitor, sorted(NONE))]


async def test_grant_and_withdrawal_in_one_batch_are_seen(shop: Shop) -> None:
    visitor = str(uuid.uuid4())
    grant = shop.body(visitor_id=visitor, decided_at=ago(minutes=1))
    deny = shop.body(visitor_id=visitor, choices=NONE, method="withdrawal")
    await asyncio.gather(shop.post(grant), shop.post(deny))
    found = await shop.outbox()

    assert (await shop.current(visitor))["choices"] == NONE
    assert found in ([(visitor, sorted(NONE))], []), (
        "deny first: there was nothing to take back yet"
    )


@pytest.mark.parametrize(
    ("region", "method", "gpc", "purposes"),
    [
        ("US-CA", "reject_all", False, ["advertising", "analytics", "functional"]),
        ("US-CA", "reject_all", True, ["analytics", "functional"]),
        ("US-CA", "gpc", True, None),
        ("DE", "reject_all", False, None),
    ],
)
async def test_under_an_opt_out_law_a_first_refusal_takes_back_what_ran_by_default(
    shop: Shop, region: str, method: str, purposes: list[str] | None, *, gpc: bool
) -> None:
    visitor = str(uuid.uuid4())
    await shop.choose(visitor_id=visitor, region=region, method=method, choices=NONE, gpc=gpc)

    assert await shop.outbox() == ([(visitor, purposes)] if purposes else [])


async def test_where_the_law_only_wants_people_told_closing_keeps_what_runs(
    service: Stage,
) -> None:
    shop = await open_shop(service, regimes=["gdpr", "au_privacy"])
    path = f"/v1/sites/{shop.site_key}/banner?lang=en"
    told = (await service.client.get(f"{path}&region=AU", headers={"Sec-GPC": "1"})).json()
    asked = (await service.client.get(path)).json()
    visitor = str(uuid.uuid4())
    closed = await shop.choose(visitor_id=visitor, region="AU", method="dismissed")
    await shop.choose(visitor_id=visitor, region="AU", method="withdrawal", choices=NONE)

    assert (told["regime"], told["mode"], told["shown"]) == ("au_privacy", "notice", True)
    assert all(each["default"] for each in told["purposes"])
    assert told["texts"]["body"] != asked["texts"]["body"]
    assert "body_for_notice" not in told["texts"]
    assert told["texts"]["understood"]
    assert (asked["regime"], asked["mode"]) == ("gdpr", "opt_in")
    assert (closed["regime"], closed["choices"]) == ("au_privacy", ALL)
    assert (await shop.current(visitor))["choices"] == NONE
    assert await shop.outbox() == [(visitor, ["advertising", "analytics", "functional"])]


async def test_a_law_that_only_wants_people_told_holds_only_where_a_site_names_it(
    shop: Shop,
) -> None:
    path = f"/v1/sites/{shop.site_key}/banner?region=AU"
    banner = (await shop.service.client.get(path)).json()
    silent = await shop.post(shop.body(region="AU", method="dismissed"))

    assert (banner["regime"], banner["mode"]) == ("gdpr", "opt_in")
    assert silent.status_code == 422


async def test_a_choice_made_under_the_time_zones_law_is_recorded_under_it(shop: Shop) -> None:
    asked = await shop.choose(region="US-CA", regime="gdpr")
    loosened = await shop.choose(region="DE", regime="ccpa")
    silent = await shop.post(shop.body(region="US-CA", regime="gdpr", method="dismissed"))
    made_up = await shop.post(shop.body(region="US-CA", regime="hipaa"))
    (row,) = await shop.service.rows(
        "select region, regime from consent_record where id = :id", id=asked["consent_id"]
    )

    assert (asked["regime"], loosened["regime"]) == ("gdpr", "gdpr")
    assert tuple(row) == ("US-CA", "gdpr")
    assert silent.status_code == 422, "under the GDPR, closing the banner grants nothing"
    assert made_up.status_code == 422


# --- by key


async def test_a_linked_visitors_identifiers_lie_sealed_until_forgotten(shop: Shop) -> None:
    service, visitor = shop.service, str(uuid.uuid4())
    bob = [{"kind": "email", "value": "Bob@Shop.example"}, {"kind": "user_id", "value": "u7"}]
    body = {"site_key": shop.site_key, "visitor_id": visitor, "identifiers": bob}
    first = await service.client.post("/v1/visitors/link", json=body, headers=service.auth())
    again = await service.client.post("/v1/visitors/link", json=body, headers=service.auth())
    ((site_id,),) = await service.rows("select id from site")

    async with service.database.reading() as session:
        holder_id = await links.holder_of(session, site_id, visitor)
        assert holder_id is not None
        opened = await vault.open_holder(session, service.key_store, [holder_id])
        sealed = list((await session.execute(sa.select(col(PersonalValue.sealed)))).scalars())

    assert first.status_code == 201
    assert first.json() == {"identifier_kinds": ["email", "user_id"], "added": 2, "state": None}
    assert again.json()["added"] == 0
    assert {each.value for each in opened} == {"bob@shop.example", "u7"}
    assert not any(b"bob" in each or b"u7" in each for each in sealed)

    await service.key_store.forget([holder_id])
    async with service.database.writing() as session:
        assert await vault.open_holder(session, service.key_store, [holder_id]) == []
        assert await links.expired(session, utc_now()) == []
        assert await links.expired(session, utc_now() + dt.timedelta(days=181)) == [holder_id]
        await links.forget(session, [holder_id])
    assert (
        await service.rows("select id from visitor_link union select id from personal_value") == []
    )


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"region": "US-CA"}, 201),
        ({"region": "US-CA", "choices": {}}, 422),
        ({"region": "US-CA", "method": "withdrawal"}, 422),
        ({"region": "US-CA", "method": "gpc", "gpc": True}, 422),
        ({"region": "DE"}, 422),
    ],
)
async def test_where_the_law_does_not_ask_first_a_person_may_decide_on_some_purposes(
    shop: Shop, changes: dict[str, Any], status: int
) -> None:
    body = shop.body(**({"method": "custom", "choices": {"advertising": False}} | changes))
    answer = await shop.post(body)

    assert answer.status_code == status, answer.text
    if status == 201:
        assert answer.json()["choices"] == {"advertising": False}
        assert (await shop.current(body["visitor_id"]))["choices"] == {"advertising": False}
        assert await shop.outbox() == [(body["visitor_id"], ["advertising"])]


@pytest.mark.parametrize("refusal", [{"method": "reject_all"}, {"method": "gpc", "gpc": True}])
async def test_what_a_choice_of_some_purposes_left_be_can_be_refused_later(
    shop: Shop, refusal: dict[str, Any]
) -> None:
    mine: dict[str, Any] = {"visitor_id": str(uuid.uuid4()), "region": "US-CA"}
    moments = [rfc3339(utc_now() - dt.timedelta(minutes=each)) for each in (2, 1)]
    some = {"functional": False}
    await shop.choose(**mine, method="custom", choices=some, decided_at=moments[0])
    denied = dict.fromkeys(("functional", "analytics", "advertising"), False)
    await shop.choose(**mine, **refusal, choices=denied, decided_at=moments[1])

    purposes = [purposes for _, purposes in await shop.outbox()]
    assert purposes == [["functional"], ["advertising", "analytics"]]


async def test_linking_in_parallel_makes_one_holder(shop: Shop) -> None:
    service, visitor = shop.service, str(uuid.uuid4())
    bodies = [
        {
            "site_key": shop.site_key,
            "visitor_id": visitor,
            "identifiers": [{"kind": "user_id", "value": f"u{n}"}],
        }
        for n in range(3)
    ]
    answers = await asyncio.gather(
        *(
            service.client.post("/v1/visitors/link", json=each, headers=service.auth())
            for each in bodies
        )
    )

    assert {each.status_code for each in answers} == {201}
    assert len(await service.rows("select distinct holder_id from personal_value")) == 1
    assert len(await service.rows("select 1 from personal_value")) == 3


async def test_linking_needs_a_key_of_the_sites_workspace(shop: Shop) -> None:
    service = shop.service
    body = {
        "site_key": shop.site_key, "visitor_id": str(uuid.uuid4()),
        "identifiers": [{"kind": "user_id", "value": "u7"}],
    }  # fmt: skip

    assert (await service.client.post("/v1/visitors/link", json=body)).status_code == 401
    foreign = await service.client.post("/v1/visitors/link", json=body, headers=service.auth("eve"))
    wrong = await service.client.post(
        "/v1/visitors/link", json=body | {"visitor_id": "bob@shop.example"}, headers=service.auth()
    )
    assert (foreign.status_code, wrong.status_code) == (404, 422)
    assert "send a UUID" in wrong.json()["errors"][0]["problem"]


async def test_an_identifier_that_is_wrong_is_named_by_its_place(shop: Shop) -> None:
    body = {
        "site_key": shop.site_key, "visitor_id": str(uuid.uuid4()),
        "identifiers": [{"kind": "user_id", "value": "u7"}, {"kind": "E-Mail", "value": "bob"}],
    }  # fmt: skip
    link = "/v1/visitors/link"
    refused = await shop.service.client.post(link, json=body, headers=shop.service.auth())

    assert refused.status_code == 422
    (wrong,) = refused.json()["errors"]
    assert wrong["at"] == "identifiers.1"
    assert "`user_id`, `email`, `phone`, `anonymous_id`, `device_id`" in wrong["problem"]
    assert "bob" not in refused.text


async def test_records_are_listed_and_filtered_within_the_workspace(shop: Shop) -> None:
    service = shop.service
    chat = {"id": "chat", "texts": {"en": {"name": "Chat"}}}
    other = await open_shop(service, purposes=[{"id": "necessary", "required": True}, chat])
    made = [(await shop.choose())["consent_id"] for _ in range(3)]
    chatted = (await other.choose(choices={"chat": True}))["consent_id"]
    recorded = [at((await shop.choose())["recorded_at"])]

    async def ids(query: str = "", key: str = "alice") -> list[str]:
        answer = await service.client.get(f"/v1/consents{query}", headers=service.auth(key))
        assert answer.status_code == 200, answer.text
        return [each["consent_id"] for each in answer.json()["items"]]

    everything = await ids()
    assert everything[1:] == [chatted, *made[::-1]]
    assert await ids(f"?site_key={other.site_key}") == [chatted]
    assert await ids("?purpose=chat") == [chatted]
    assert len(await ids("?purpose=analytics")) == 4
    moment = str(rfc3339(recorded[0]))
    assert await ids(f"?since={moment}") == everything[:1]
    assert await ids(f"?until={moment}") == everything[1:]
    assert await ids(key="eve") == []
    foreign = await service.client.get(
        f"/v1/consents?site_key={shop.site_key}", headers=service.auth("eve")
    )
    assert foreign.status_code == 404

    first = (await service.client.get("/v1/consents?limit=2", headers=service.auth())).json()
    rest = await ids(f"?limit=200&cursor={first['next_cursor']}")
    assert [each["consent_id"] for each in first["items"]] + rest == everything
    assert first["items"][1]["site_key"] == other.site_key


async def test_listing_needs_its_scope(shop: Shop) -> None:
    await shop.service.add_key("writer", "wsp_one", "sites:write")

    answer = await shop.service.client.get("/v1/consents", headers=shop.service.auth("writer"))
    assert answer.status_code == 403


async def test_counts_are_per_day_site_and_answer(shop: Shop) -> None:
    other = await open_shop(shop.service)
    for method in ("accept_all", "accept_all", "custom"):
        await shop.choose(method=method)
    await other.choose(method="gpc", gpc=True, region="US-CA")
    now, day = utc_now(), dt.timedelta(days=1)
    async with shop.service.database.reading() as session:
        found = await queries.daily_counts(
            session, queries.Filter("wsp_one", None, now - day, now + day)
        )
        nothing = await queries.daily_counts(session, queries.Filter("wsp_two"))
        newest = await queries.records(session, queries.Filter("wsp_one"), limit=2)
        wanted = queries.Filter("wsp_one")
        exported = [each async for each in queries.export(session, wanted, page=3)]

    assert {each.day for each in found} <= {now.date(), (now - day).date(), (now + day).date()}
    assert sorted((each.answer, each.count) for each in found) == [("accepted", 3), ("other", 1)]
    assert len({each.site_id for each in found}) == 2
    assert nothing == []
    assert [site_key for _, site_key in newest] == [other.site_key, shop.site_key]
    assert len(exported) == 4
    assert len({each["consent_id"] for each in exported}) == 4
