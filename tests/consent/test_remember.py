"""Remembering from a site's own host: who may ask, what is set, and what is taken away."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import time_machine
from hypothesis import given
from hypothesis import strategies as st

from app.consent import cookie, remember
from app.consent.errors import NoSharedDomain
from app.consent.models import ConsentRecord
from app.consent.routes import router
from app.consent.writer import ConsentWriter
from app.core.clock import rfc3339, utc_now
from app.sites.directory import Notice
from tests.consent.conftest import Shop, open_shop
from tests.docs.markdown import ROOT
from tests.sites.stage import SHOP, Stage, stage

HOST = "https://privacy.shop.example"
NONE = dict.fromkeys(("functional", "analytics", "advertising"), False)


@pytest.fixture
async def service(database_url: str, keystore_url: str, tmp_path: Path) -> AsyncIterator[Stage]:
    async with stage(database_url, keystore_url, tmp_path, router, remember.router) as made:
        made.app.state.consents = writer = ConsentWriter(made.database)
        writer.start()
        yield made
        await writer.stop()


@pytest.fixture
async def shop(service: Stage) -> Shop:
    return await open_shop(service, SHOP, "https://www.shop.example", first_party=HOST)


async def ask(
    shop: Shop, chosen: dict[str, Any], origin: str | None = SHOP, **changes: Any
) -> httpx.Response:
    body = {"consent_id": chosen["consent_id"], "token": chosen.get("remember_token", "x")}
    headers = {"Origin": origin} if origin else {}
    headers |= changes.pop("headers", {})
    address = f"{HOST}/b/{changes.pop('site_key', shop.site_key)}/remember"
    return await shop.service.client.post(address, json=body | changes, headers=headers)


def set_by(answer: httpx.Response) -> list[str]:
    return answer.headers.get_list("set-cookie")


# --- the line


LINES = json.loads((ROOT / "consent_widget" / "test" / "lines.json").read_text())


def line_of(known: dict[str, Any]) -> str:
    content = {
        "purposes": [{"id": "necessary"}, *({"id": each} for each in known["choices"])],
        "regimes": {"law": {"mode": known["mode"]}},
    }
    notice = Notice(
        known["notice"], "sit_1", 1, "", content, frozenset(), frozenset(), frozenset(),
        known["material"], {},
    )  # fmt: skip
    at = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(milliseconds=known["decidedAt"])
    record = ConsentRecord(
        id=known["consentId"], workspace_id="w", site_id="sit_1", notice_version_id=notice.id,
        visitor_id=known["visitorId"], event_id="e", choices=known["choices"],
        method=known["method"], language="en", regime="law", gpc=known["gpc"],
        is_gpc_applied=False, fingerprint=b"", decided_at=at, recorded_at=at, expires_at=at,
    )  # fmt: skip
    as_stored = dict(sorted(known["choices"].items()))
    return cookie.line(record, as_stored, notice)


@pytest.mark.parametrize("golden", LINES, ids=lambda each: each["line"][:8])
def test_the_line_is_the_one_that_the_widget_writes_and_reads(golden: dict[str, Any]) -> None:
    assert line_of(golden["decision"]) == golden["line"]


@given(st.integers(0, 4_102_444_800_000))
def test_not_a_millisecond_is_lost(at: int) -> None:
    assert line_of(LINES[0]["decision"] | {"decidedAt": at}).split("|")[4] == str(at)


# --- where it is set


@pytest.mark.parametrize(
    ("first_party", "origin", "domain"),
    [
        ("https://shop.example/consent", "https://shop.example", None),
        ("http://127.0.0.1:8000", "http://127.0.0.1:3000", None),
        ("http://[::1]:8000", "http://[::1]:3000", None),
        ("https://privacy.shop.example", "https://shop.example", "shop.example"),
        ("https://shop.example", "https://www.shop.example", "shop.example"),
        ("https://privacy.shop.example", "https://www.shop.example", "shop.example"),
        ("https://privacy.shop.co.uk", "https://www.shop.co.uk", "shop.co.uk"),
        ("https://a.b.shop.example", "https://c.b.shop.example:8443", "b.shop.example"),
        ("https://p.co.de", "https://www.p.co.de", "p.co.de"),
    ],
)
def test_the_cookie_covers_what_host_and_page_have_in_common(
    first_party: str, origin: str, domain: str | None
) -> None:
    assert cookie.place(first_party, origin).domain == domain


@pytest.mark.parametrize(
    ("first_party", "origin"),
    [
        ("https://shop.example", "https://other.example"),
        ("https://privacy.shop.co.uk", "https://other.co.uk"),
        ("https://myshop.example", "https://shop.example"),
        ("http://a.localhost", "http://b.localhost"),
        ("http://127.0.0.1", "http://127.1.0.1"),
        ("http://127.0.0.1", "http://localhost"),
        ("https://10.2.0.1", "https://10.1.0.1"),
        ("http://[::1]:8000", "http://localhost:3000"),
    ],
)
def test_what_has_no_name_in_common_is_refused(first_party: str, origin: str) -> None:
    with pytest.raises(NoSharedDomain):
        cookie.place(first_party, origin)


# --- the call


async def test_a_choice_is_remembered_as_it_was_recorded(shop: Shop) -> None:
    body = shop.body(choices=NONE | {"analytics": True}, method="custom")
    chosen = (await shop.post(body)).json()

    answer = await ask(shop, chosen)

    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == SHOP
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert "Origin" in answer.headers["vary"]
    (line,) = set_by(answer)
    value, *attributes = line.split("; ")
    decided_at = int(dt.datetime.fromisoformat(body["decided_at"]).timestamp() * 1000)
    notice = await shop.service.client.get(f"/v1/sites/{shop.site_key}/banner")
    assert value == (
        f"qt_{shop.site_key}=2|i|{shop.notice_version}|{body['visitor_id']}|{decided_at}|custom|"
        f"-functional:+analytics:-advertising|{chosen['consent_id']}|{notice.json()['material']}"
    )
    assert {"Path=/", "SameSite=Lax", "Secure", "Domain=shop.example"} < set(attributes)
    assert "HttpOnly" not in attributes
    (age,) = [each.partition("=")[2] for each in attributes if each.startswith("Max-Age")]
    assert 180 * 86_400 - 60 <= int(age) <= 180 * 86_400


async def test_the_line_tells_how_people_were_asked_under_a_law_the_site_left_out(
    service: Stage,
) -> None:
    shop = await open_shop(service, SHOP, first_party=HOST, regimes=["au_privacy"])
    for region, letter in (("DE", "i"), ("US-CA", "o"), ("AU", "n")):
        chosen = (await shop.post(shop.body(choices=NONE, method="custom", region=region))).json()
        (line,) = set_by(await ask(shop, chosen))
        assert line.partition("=")[2].split("|")[1] == letter


@pytest.mark.parametrize(("region", "days"), [("DE", 180), ("US-CA", 366)])
async def test_the_cookie_lasts_as_long_as_nobody_may_ask_again(
    shop: Shop, region: str, days: int
) -> None:
    chosen = (await shop.post(shop.body(choices=NONE, method="custom", region=region))).json()

    (line,) = set_by(await ask(shop, chosen))

    (age,) = [each.partition("=")[2] for each in line.split("; ") if each.startswith("Max-Age")]
    assert days * 86_400 - 60 <= int(age) <= days * 86_400


async def test_on_one_loopback_host_there_is_neither_domain_nor_secure(service: Stage) -> None:
    shop = await open_shop(
        service, "http://127.0.0.1:3000", first_party="http://127.0.0.1:8000/consent"
    )
    chosen = (await shop.post(shop.body(), "http://127.0.0.1:3000")).json()
    (line,) = set_by(await ask(shop, chosen, "http://127.0.0.1:3000"))
    assert "Domain" not in line
    assert "Secure" not in line


async def test_con_007_the_choice_itself_sets_no_cookie_and_reads_none(shop: Shop) -> None:
    plain = await shop.post(shop.body())
    with_cookie = await shop.post(shop.body(), Cookie="session=alice; _ga=1")
    for answer in (plain, with_cookie):
        assert answer.status_code == 201
        assert set_by(answer) == []
        assert "access-control-allow-credentials" not in answer.headers
    assert plain.json().keys() == with_cookie.json().keys()


async def test_the_choice_carries_a_token_only_for_a_page_of_a_site_with_such_a_host(
    shop: Shop,
) -> None:
    body = shop.body()
    assert (await shop.post(body)).json()["remember_token"]
    assert (await shop.post(body)).json()["remember_token"]
    by_key = await shop.post(shop.body(method="api"), None, **shop.service.auth())
    assert by_key.status_code == 201
    assert "remember_token" not in by_key.json()

    plain = await open_shop(shop.service)
    chosen = await plain.choose()
    assert "remember_token" not in chosen
    refused = await ask(plain, chosen)
    assert (refused.status_code, set_by(refused)) == (404, [])
    assert refused.json()["type"].endswith("no-first-party-host")


async def test_a_token_may_be_used_again_until_it_is_five_minutes_old(shop: Shop) -> None:
    with time_machine.travel(utc_now(), tick=False) as clock:
        chosen = await shop.choose()
        first, again = await ask(shop, chosen), await ask(shop, chosen)
        assert first.status_code == again.status_code == 204
        assert set_by(first) == set_by(again)
        clock.shift(300)
        assert (await ask(shop, chosen)).status_code == 204
        clock.shift(1)
        late = await ask(shop, chosen)
        assert (late.status_code, set_by(late)) == (403, [])
        assert late.headers["access-control-allow-origin"] == SHOP


async def test_a_token_is_good_for_its_own_site_and_record_only(shop: Shop) -> None:
    chosen, other = await shop.choose(), await shop.choose()
    elsewhere = await open_shop(shop.service, first_party=HOST)
    for answer in (
        await ask(shop, chosen, token=other["remember_token"]),
        await ask(shop, chosen, token=chosen["remember_token"] + "x"),
        await ask(shop, chosen, token="x"),
        await ask(shop, chosen, consent_id="con_unknown"),
        await ask(elsewhere, chosen),
    ):
        assert (answer.status_code, set_by(answer)) == (403, [])
        assert answer.json()["type"].endswith("remember-token-not-valid")


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://shop.example", f"{SHOP}.evil.example", None]
)
async def test_con_001_con_003_other_origins_get_nothing(shop: Shop, origin: str | None) -> None:
    answer = await ask(shop, await shop.choose(), origin)
    assert (answer.status_code, set_by(answer)) == (403, [])
    assert not [each for each in answer.headers if each.startswith("access-control-")]


@pytest.mark.parametrize(
    ("origin", "is_listed"),
    [(SHOP, True), ("null", False), ("https://evil.example", False), (None, False)],
)
async def test_only_this_preflight_allows_credentials_and_only_to_listed_origins(
    shop: Shop, origin: str | None, is_listed: bool
) -> None:
    headers = {"Access-Control-Request-Method": "POST"} | ({"Origin": origin} if origin else {})
    client = shop.service.client
    answer = await client.options(f"/b/{shop.site_key}/remember", headers=headers)
    assert answer.status_code == 204
    assert answer.headers.get("access-control-allow-origin") == (origin if is_listed else None)
    allowed = answer.headers.get("access-control-allow-credentials")
    assert allowed == ("true" if is_listed else None)
    for path in ("/v1/consent", f"/v1/sites/{shop.site_key}/banner"):
        other = await client.options(path, headers=headers)
        assert "access-control-allow-credentials" not in other.headers
    plain = await open_shop(shop.service)
    assert (await client.options(f"/b/{plain.site_key}/remember")).status_code == 404


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("text/plain", '{"consent_id":"x","token":"x"}', 415),
        ("application/json", "{", 400),
        ("application/json", '{"token":"a","token":"b","consent_id":"x"}', 400),
        ("application/json", "[]", 422),
        ("application/json", '{"consent_id":"x"}', 422),
        ("application/json", '{"consent_id":"x","token":1}', 422),
        ("application/json", '{"consent_id":"x","token":"x","choices":{}}', 422),
    ],
)
async def test_what_is_no_proper_body_is_refused_so_that_the_page_can_read_it(
    shop: Shop, content_type: str, body: str, status: int
) -> None:
    answer = await shop.service.client.post(
        f"/b/{shop.site_key}/remember",
        content=body,
        headers={"Origin": SHOP, "Content-Type": content_type},
    )
    assert (answer.status_code, set_by(answer)) == (status, [])
    assert answer.headers["access-control-allow-origin"] == SHOP


async def test_a_page_that_shares_no_domain_is_told_what_to_do(service: Stage) -> None:
    shop = await open_shop(service, SHOP, first_party="https://privacy.other.example")
    answer = await ask(shop, await shop.choose())
    assert (answer.status_code, set_by(answer)) == (422, [])
    assert "first_party" in answer.json()["detail"]


async def test_an_older_choice_is_not_remembered_over_a_newer_one(shop: Shop) -> None:
    visitor = str(uuid.uuid4())
    now = utc_now()
    first = await shop.choose(visitor_id=visitor, decided_at=rfc3339(now))
    second = await shop.choose(
        visitor_id=visitor, decided_at=rfc3339(now + dt.timedelta(seconds=1)),
        choices=NONE, method="withdrawal",
    )  # fmt: skip

    late = await ask(shop, first)
    assert (late.status_code, set_by(late)) == (409, [])
    assert "-analytics" in set_by(await ask(shop, second))[0]


async def test_of_two_choices_of_one_moment_the_denial_is_remembered(shop: Shop) -> None:
    same = {"visitor_id": str(uuid.uuid4()), "decided_at": rfc3339(utc_now())}
    await shop.choose(**same, choices=NONE, method="reject_all")
    later = await shop.choose(**same)
    assert "-functional:-analytics:-advertising" in set_by(await ask(shop, later))[0]


# --- other cookies


def tracker(pattern: str, purpose: str = "analytics", **more: Any) -> dict[str, Any]:
    return {"kind": "cookie", "pattern": pattern, "purpose": purpose, "http_only": True} | more


TRACKERS = [
    tracker("_ga*"),
    tracker("sid"),
    tracker("qt*"),
    tracker("_fb", "advertising"),
    tracker("seen", http_only=False),
    tracker("_gads", kind="storage", http_only=False),
    tracker("track.example", kind="host", http_only=False),
]
SENT = "_ga=1; _ga_X9=2;sid=3; _fb=4; seen=5; qt_x=6; _gb=7; plain; _ga=8; _ga(x)=9"


@pytest.mark.parametrize(
    ("granted", "gone"),
    [
        ({}, ["_ga", "_ga_X9", "sid", "_fb"]),
        ({"analytics": True}, ["_fb"]),
        ({"advertising": True}, ["_ga", "_ga_X9", "sid"]),
        ({"analytics": True, "advertising": True}, []),
    ],
)
async def test_http_only_cookies_of_denied_purposes_are_expired_on_the_host_and_its_parents(
    service: Stage, granted: dict[str, bool], gone: list[str]
) -> None:
    shop = await open_shop(service, SHOP, first_party=HOST, trackers=TRACKERS)
    chosen = await shop.choose(choices=NONE | granted, method="custom")

    _, *taken = set_by(await ask(shop, chosen, headers={"Cookie": SENT}))

    rest = "; Max-Age=0; Path=/; SameSite=Lax"
    assert taken == [
        f"{name}={rest}{domain}; Secure"
        for name in gone
        for domain in ("", "; Domain=privacy.shop.example", "; Domain=shop.example")
    ]


async def test_nothing_is_expired_that_the_browser_did_not_send(service: Stage) -> None:
    shop = await open_shop(service, SHOP, first_party=HOST, trackers=TRACKERS)
    chosen = await shop.choose(choices=NONE, method="reject_all")
    assert len(set_by(await ask(shop, chosen))) == 1
    many = "; ".join(f"_ga{number}=1" for number in range(1000))
    assert len(set_by(await ask(shop, chosen, headers={"Cookie": many}))) == 1 + 3 * 20


def test_on_a_host_without_a_name_only_its_own_cookies_are_expired() -> None:
    for first_party in ("http://127.0.0.1:8000", "http://[::1]:8000", "http://localhost:8000"):
        where = cookie.place(first_party, first_party)
        assert cookie.expired(where, ["a"]) == ["a=; Max-Age=0; Path=/; SameSite=Lax"]
