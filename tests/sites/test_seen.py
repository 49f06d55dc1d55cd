"""Report-only: what pages may tell of names without a rule, what is kept of it, and whose it is."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlmodel import col

from app.core.clock import utc_now
from app.sites import known_trackers, seen
from app.sites.config import SiteConfig, is_pattern
from app.sites.models import TrackerSeen
from tests.docs.markdown import ROOT
from tests.sites.stage import SHOP, Stage, stage

NAMES = json.loads((ROOT / "consent_widget" / "test" / "names.json").read_text())


@dataclass
class Reporting:
    """A published site whose pages report."""

    service: Stage
    site_key: str

    async def post(self, body: Any, origin: str | None = SHOP, **headers: str) -> httpx.Response:
        sent = headers | ({"Origin": origin} if origin else {})
        return await self.service.client.post(f"/b/{self.site_key}/seen", json=body, headers=sent)

    async def report(self, **names: Sequence[str]) -> None:
        answer = await self.post(names)
        assert (answer.status_code, answer.content) == (204, b""), answer.text

    async def listed(self, key: str = "alice") -> list[dict[str, Any]]:
        answer = await self.service.client.get(
            f"/v1/sites/{self.site_key}/trackers/seen", headers=self.service.auth(key)
        )
        assert answer.status_code == 200, answer.text
        items: list[dict[str, Any]] = answer.json()["items"]
        return items

    async def names(self) -> list[tuple[str, str, int]]:
        return [(each["kind"], each["pattern"], each["count"]) for each in await self.listed()]


async def open_site(service: Stage, **config: Any) -> Reporting:
    return Reporting(service, await service.add_site(modules=["report"], **config))


@pytest.fixture
async def site(service: Stage) -> Reporting:
    module = service.app.state.widget.with_name("report.js")
    module.write_text("var quittance_report={install(){}}")
    return await open_site(service)


async def test_names_are_counted_with_whose_they_usually_are(site: Reporting) -> None:
    await site.report(cookie=["_ga_*", "basket"], host=["connect.facebook.net"])
    await site.report(cookie=["_ga_*"], storage=["_ga_*"])

    found = {(each["kind"], each["pattern"]): each for each in await site.listed()}
    assert next(iter(found)) == ("cookie", "_ga_*")  # most often seen first
    assert {key: each["count"] for key, each in found.items()} == {
        ("cookie", "_ga_*"): 2,
        ("cookie", "basket"): 1,
        ("host", "connect.facebook.net"): 1,
        ("storage", "_ga_*"): 1,
    }
    analytics = {"vendor": "Google Analytics", "purpose": "analytics"}
    assert found["cookie", "_ga_*"]["suggestion"] == analytics
    assert found["host", "connect.facebook.net"]["suggestion"]["purpose"] == "advertising"
    assert found["cookie", "basket"]["suggestion"] is None
    counted = found["cookie", "_ga_*"]
    assert counted["first_seen_at"] < counted["last_seen_at"]


async def test_nothing_of_a_visitor_is_stored(site: Reporting) -> None:
    await site.post(
        {
            "cookie": [
                "uid_5f0c1d5e-8f0a-4c39-9d1e-0a4b5c6d7e8f",
                "bob@shop.example",
                "0123456789",
            ],
            "storage": ["cart:bob@shop.example", "a b", "tab\tbed", "qt_site_x", "x\u202ey"],
            "host": ["5f0c1d5e8f0a4c39.cdn.example", "https://ads.example/?u=bob", "localhost"],
        },
        **{"User-Agent": "Bob's browser", "Cookie": "_ga=bob"},
    )

    assert await site.names() == [("cookie", "uid_*", 1), ("host", "*.cdn.example", 1)]
    stored = str(await site.service.rows("select * from tracker_seen"))
    assert not re.search(
        r"(?<![a-z0-9])bob(?![a-z0-9])", stored, re.IGNORECASE
    )  # ids may hold anything
    assert "5f0c1d5e" not in stored


@pytest.mark.parametrize(("name", "pattern"), NAMES)
def test_what_looks_random_is_cut_off_as_the_widget_does(name: str, pattern: str) -> None:
    assert seen.reduced(name) == pattern


@given(st.from_regex(r"[A-Za-z_.-]{0,5}[0-9a-f]{12,40}[A-Za-z_.-]{0,5}", fullmatch=True))
def test_a_long_hexadecimal_run_never_stays(name: str) -> None:
    assert len(seen.reduced(name)) <= 8
    assert seen.reduced(seen.reduced(name)) == seen.reduced(name)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"cookie": ["_ga"], "values": ["x"]}, 422),
        ({"cookie": "_ga"}, 422),
        ({"cookie": [1]}, 422),
        ({"cookie": ["x" * 254]}, 422),
        ({"cookie": ["aa"] * 51}, 422),
        ({"cookie": ["aa"] * 26, "storage": ["aa"] * 25}, 422),
        ({"cookie": ["aa"] * 50, "storage": []}, 204),
        ([], 422),
        ({}, 204),
    ],
)
async def test_a_report_has_names_by_kind_and_nothing_else(
    site: Reporting, body: Any, status: int
) -> None:
    answer = await site.post(body)

    assert answer.status_code == status
    assert answer.headers["access-control-allow-origin"] == SHOP


async def test_a_report_is_json_under_its_own_type_and_small(site: Reporting) -> None:
    async def post(kind: str, text: str) -> int:
        answer = await site.service.client.post(
            f"/b/{site.site_key}/seen",
            content=text,
            headers={"Origin": SHOP, "Content-Type": kind},
        )
        return answer.status_code

    assert await post("text/plain", '{"cookie":["_ga"]}') == 415
    assert await post("application/json", '{"cookie":["_ga"') == 400
    assert await post("application/json", " " * 20_000) == 413
    assert await site.names() == []


@pytest.mark.parametrize(
    "origin", [None, "null", "https://evil.example", "https://shop.example:8443"]
)
async def test_only_the_sites_own_pages_may_report(site: Reporting, origin: str | None) -> None:
    refused = await site.post({"cookie": ["_ga"]}, origin)
    asked = await site.service.client.options(
        f"/b/{site.site_key}/seen",
        headers={"Origin": origin or "", "Access-Control-Request-Method": "POST"},
    )

    assert refused.status_code == 403
    assert "access-control-allow-origin" not in refused.headers
    assert "access-control-allow-origin" not in asked.headers
    assert await site.names() == []


async def test_a_preflight_lets_the_sites_pages_through_without_credentials(
    site: Reporting,
) -> None:
    answer = await site.service.client.options(
        f"/b/{site.site_key}/seen",
        headers={"Origin": SHOP, "Access-Control-Request-Method": "POST"},
    )

    assert answer.headers["access-control-allow-origin"] == SHOP
    assert answer.headers["access-control-allow-methods"] == "POST"
    assert "access-control-allow-credentials" not in answer.headers


async def test_a_site_that_does_not_ask_gets_no_reports(service: Stage) -> None:
    site = Reporting(service, await service.add_site())

    assert (await site.post({"cookie": ["_ga"]})).status_code == 404
    assert await site.names() == []


async def test_one_address_reports_so_often_and_no_more(
    database_url: str, keystore_url: str, tmp_path: Any
) -> None:
    async with stage(database_url, keystore_url, tmp_path, beacon_per_minute=2) as service:
        site = await open_site(service)
        answers = [(await site.post({"cookie": ["_ga"]})).status_code for _ in range(3)]

        assert answers == [204, 204, 429]
        assert await site.names() == [("cookie", "_ga", 2)]


async def test_what_has_a_rule_in_the_draft_is_no_longer_listed(site: Reporting) -> None:
    await site.report(
        cookie=["_ga", "_ga_*", "_gab"], storage=["_ga"], host=["a.ads.example", "ads.example"]
    )
    trackers = [
        {"kind": "cookie", "pattern": "_ga", "purpose": "analytics"},
        {"kind": "cookie", "pattern": "_ga_*", "purpose": "analytics"},
        {"kind": "host", "pattern": "*.ads.example", "purpose": "advertising"},
    ]
    config = SiteConfig.model_validate({"modules": ["report"], "trackers": trackers})
    changed = await site.service.client.patch(
        f"/v1/sites/{site.site_key}",
        json={"config": config.model_dump(mode="json")},
        headers=site.service.auth(),
    )

    assert changed.status_code == 200, changed.text
    assert await site.names() == [("cookie", "_gab", 1), ("storage", "_ga", 1)]


@pytest.mark.parametrize(
    ("kind", "rule", "pattern", "is_covered"),
    [
        ("cookie", "_ga*", "_ga_*", True),
        ("cookie", "_ga_*", "_ga*", False),
        ("cookie", "_ga", "_ga_*", False),
        ("host", "*.ads.example", "ads.example", True),
        ("host", "*.ads.example", "*.a.ads.example", True),
        ("host", "*.ads.example", "badads.example", False),
        ("host", "ads.example", "*.ads.example", False),
    ],
)
def test_a_rule_covers_what_it_would_hit(
    kind: str, rule: str, pattern: str, is_covered: bool
) -> None:
    assert seen.covers(kind, rule, pattern) is is_covered


async def test_a_site_keeps_so_many_names_and_goes_on_counting_those(
    site: Reporting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seen, "MOST", 60)
    names = [f"{'x' * (index % 30 + 1)}_{'y' * (index // 30 + 1)}" for index in range(100)]
    for start in (0, 50):
        await site.report(cookie=names[start : start + 50])
    await site.report(cookie=[names[0], "_one_more"])

    found = {pattern: count for _, pattern, count in await site.names()}
    assert len(found) == 60
    assert found[names[0]] == 2
    assert "_one_more" not in found


async def test_reports_that_come_at_once_are_all_counted(site: Reporting) -> None:
    names = ["_a_b", "_c_d", "_e_f"]
    reports = [site.post({"cookie": names[::step]}) for step in (1, -1) for _ in range(10)]
    answers = await asyncio.gather(*reports)

    assert {each.status_code for each in answers} == {204}
    assert {count for _, _, count in await site.names()} == {20}


async def test_what_is_not_seen_for_a_month_is_forgotten(site: Reporting) -> None:
    await site.report(cookie=["_old", "_new"])
    now = utc_now()
    async with site.service.database.writing() as session:
        await session.execute(
            sa.update(TrackerSeen)
            .where(col(TrackerSeen.pattern) == "_old")
            .values(last_seen_at=now - seen.KEPT - dt.timedelta(seconds=1))
        )
    async with site.service.database.writing() as session:
        await seen.sweep(session, now)

    assert await site.names() == [("cookie", "_new", 1)]


async def test_sites_do_not_share_what_was_seen(site: Reporting) -> None:
    other = await open_site(site.service)
    await site.report(cookie=["_ga"])

    assert await other.names() == []
    refused = await site.service.client.get(
        f"/v1/sites/{site.site_key}/trackers/seen", headers=site.service.auth("eve")
    )
    assert refused.status_code == 404


# --- well-known trackers


@pytest.mark.parametrize(
    ("kind", "pattern", "vendor", "purpose"),
    [
        ("cookie", "_ga", "Google Analytics", "analytics"),
        ("cookie", "_ga_*", "Google Analytics", "analytics"),
        ("cookie", "_gcl_au", "Google Ads", "advertising"),
        ("cookie", "_hjSession_*", "Hotjar", "analytics"),
        ("storage", "ajs_anonymous_id", "Segment", "analytics"),
        ("cookie", "mp_*", "Mixpanel", "analytics"),
        ("cookie", "__stripe_mid", "Stripe", "necessary"),
        ("host", "region1.google-analytics.com", "Google Analytics", "analytics"),
        ("host", "static.cloudflareinsights.com", "Cloudflare Web Analytics", "analytics"),
        ("host", "px.ads.linkedin.com", "LinkedIn", "advertising"),
        ("host", "www.youtube-nocookie.com", "YouTube", "functional"),
    ],
)
def test_well_known_trackers_are_known(kind: str, pattern: str, vendor: str, purpose: str) -> None:
    assert known_trackers.known(kind, pattern) == known_trackers.Known(vendor, purpose)


def test_the_longest_entry_counts_and_strangers_have_none() -> None:
    of_woo = known_trackers.known("cookie", "wp_woocommerce_session_*")
    assert of_woo is not None
    assert of_woo.vendor == "WooCommerce"
    assert known_trackers.known("cookie", "basket") is None
    assert known_trackers.known("host", "notgoogle-analytics.com") is None


def test_every_entry_could_be_a_rule_and_belongs_to_one_vendor() -> None:
    found: list[tuple[str, str]] = []
    for each in known_trackers.entries():
        found += [("cookie", name) for name in each.names]
        found += [("host", host) for host in each.hosts]

    assert len(known_trackers.entries()) > 80
    assert [each for each in found if not is_pattern(*each)] == []
    assert len(set(found)) == len(found)


async def test_a_purpose_the_site_does_not_have_is_not_suggested(service: Stage) -> None:
    purposes = [
        {"id": "necessary", "required": True},
        {"id": "stats", "texts": {"en": {"name": "Statistics"}}},
    ]
    site = await open_site(service, purposes=purposes, languages=["en"])
    await site.report(cookie=["_ga"])

    (found,) = await site.listed()
    assert found["suggestion"] == {"vendor": "Google Analytics", "purpose": None}
