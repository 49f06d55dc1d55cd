"""What a person asks for on one device reaches them on all, and nobody beside them."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

import pytest

from app.core.clock import rfc3339, utc_now
from tests.running import BOB, Double, Service

SHOP = "https://shop.example"
PURPOSES = ("functional", "analytics", "advertising")


@dataclass
class Site:
    """A published site, to choose on and to link visitors of."""

    service: Service
    site_key: str
    notice_version: str

    async def choose(self, visitor_id: str, method: str, granted: bool) -> None:
        self.service.later(seconds=1)
        body = {
            "event_id": str(uuid.uuid4()), "site_key": self.site_key, "visitor_id": visitor_id,
            "notice_version": self.notice_version, "choices": dict.fromkeys(PURPOSES, granted),
            "method": method, "language": "en", "region": "DE", "gpc": False,
            "decided_at": rfc3339(utc_now()),
        }  # fmt: skip
        answer = await self.service.call("POST", "/v1/consent", body, None, origin=SHOP)
        assert answer.status_code == 201, answer.text

    async def link(self, visitor_id: str, **identifiers: str) -> None:
        named = [{"kind": kind, "value": value} for kind, value in identifiers.items()]
        body = {"site_key": self.site_key, "visitor_id": visitor_id, "identifiers": named}
        await self.service.post("/v1/visitors/link", body, 201)

    async def choices(self, visitor_id: str) -> Any:
        path = f"/v1/sites/{self.site_key}/visitors/{visitor_id}/consent"
        return (await self.service.client.get(path)).json()["choices"]


@pytest.fixture
async def site(service: Service) -> Site:
    made = await service.post("/v1/sites", {"name": "Shop", "origins": [SHOP]}, 201)
    version = await service.post(f"/v1/sites/{made['site_key']}/publish")
    return Site(service, made["site_key"], version["notice_version"])


@pytest.fixture
async def stats(service: Service) -> Double:
    """A destination that is mapped to analytics."""
    return await service.destination("stats", more={"purposes": ["analytics"]})


def visitors(count: int) -> list[str]:
    return [str(uuid.uuid4()) for _ in range(count)]


def values_of(double: Double, method: str) -> set[str]:
    people = [person for each in double.asked if each.method == method for person in each.people]
    return {each.value for person in people for each in person.identifiers}


async def test_a_withdrawal_on_one_device_reaches_all_that_the_person_is_known_by(
    site: Site, stats: Double
) -> None:
    service = site.service
    phone, laptop, strangers = visitors(3)
    await site.choose(phone, "accept_all", True)
    await site.link(phone, user_id="u-1", email=BOB)
    await site.link(laptop, user_id="u-1")
    await site.link(strangers, user_id="u-2")
    assert set((await site.choices(laptop)).values()) == {True}

    await site.choose(laptop, "withdrawal", False)
    await service.work()

    assert values_of(stats, "suppress") == {phone, laptop, "u-1", BOB}
    assert set((await site.choices(phone)).values()) == {False}
    (request,) = (await service.get("/v1/requests"))["items"]
    assert (request["kind"], request["channel"]) == ("opt_out", "consent")
    named = [
        {"kind": "anonymous_id", "value": phone}, {"kind": "user_id", "value": "u-1"},
        {"kind": "user_id", "value": "u-2"}, {"kind": "anonymous_id", "value": strangers},
    ]  # fmt: skip
    checked = await service.post(
        "/v1/suppressions/check", {"identifiers": named, "purpose": "analytics"}
    )
    assert [each["suppressed"] for each in checked["results"]] == [True, True, False, False]


async def test_an_erasure_finds_the_persons_other_devices_and_ends_all_their_links(
    site: Site, service: Service
) -> None:
    crm = await service.destination("crm")
    phone, laptop = visitors(2)
    await site.choose(phone, "accept_all", True)
    await site.link(phone, user_id="u-1", email=BOB)
    await site.link(laptop, user_id="u-1")

    made = await service.ask(BOB)
    await service.work()
    assert values_of(crm, "erase") == {BOB, "u-1", phone, laptop}
    await service.call("GET", f"/v1/requests/{made['id']}/receipt")
    service.later(days=31)
    await service.work()

    assert (await service.request(made["id"]))["forgotten_at"] is not None
    assert await service.rows("select id from visitor_link") == []
    assert await site.choices(laptop) is None
    assert set((await site.choices(phone)).values()) == {True}, "its own record stays as proof"


async def test_a_device_that_two_people_share_leads_from_none_to_the_others_devices(
    site: Site, service: Service
) -> None:
    crm = await service.destination("crm")
    shared, carols = visitors(2)
    await site.link(shared, email=BOB)
    await site.link(shared, user_id="bob")
    await site.link(shared, user_id="carol")
    await site.link(carols, user_id="carol", email="carol@customer.example")

    await service.ask(BOB)
    await service.work()

    reached = values_of(crm, "erase")
    assert reached >= {BOB, shared}
    assert not reached & {carols, "carol@customer.example"}
