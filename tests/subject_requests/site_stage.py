"""A published site whose visitors choose."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

from app.core.clock import rfc3339, utc_now
from tests.running import Double, Service

SHOP = "https://shop.example"
PURPOSES = ("functional", "analytics", "advertising")


@dataclass
class Site:
    """A published site, to choose on and to link visitors of."""

    service: Service
    site_key: str
    notice_version: str

    def at(self) -> str:
        """A moment of its own."""
        self.service.later(seconds=1)
        return str(rfc3339(utc_now()))

    async def choose(
        self, visitor_id: str, method: str, granted: bool, at: str | None = None, **otherwise: bool
    ) -> None:
        """``granted`` for every purpose, but for those named."""
        now = self.at()
        body = {
            "event_id": str(uuid.uuid4()), "site_key": self.site_key, "visitor_id": visitor_id,
            "notice_version": self.notice_version,
            "choices": dict.fromkeys(PURPOSES, granted) | otherwise,
            "method": method, "language": "en", "region": "DE", "gpc": False,
            "decided_at": at or now,
        }  # fmt: skip
        answer = await self.service.call("POST", "/v1/consent", body, None, origin=SHOP)
        assert answer.status_code == 201, answer.text

    async def accept_and_withdraw(self, visitor_id: str) -> None:
        await self.choose(visitor_id, "accept_all", True)
        await self.choose(visitor_id, "withdrawal", False)

    async def link(self, visitor_id: str, **identifiers: str) -> None:
        named = [{"kind": kind, "value": value} for kind, value in identifiers.items()]
        body = {"site_key": self.site_key, "visitor_id": visitor_id, "identifiers": named}
        await self.service.post("/v1/visitors/link", body, 201)

    async def choices(self, visitor_id: str) -> Any:
        path = f"/v1/sites/{self.site_key}/visitors/{visitor_id}/consent"
        return (await self.service.client.get(path)).json()["choices"]


async def open_site(service: Service) -> Site:
    made = await service.post("/v1/sites", {"name": "Shop", "origins": [SHOP]}, 201)
    version = await service.post(f"/v1/sites/{made['site_key']}/publish")
    return Site(service, made["site_key"], version["notice_version"])


def visitors(count: int) -> list[str]:
    return [str(uuid.uuid4()) for _ in range(count)]


def values_of(double: Double, method: str) -> set[str]:
    people = [person for each in double.asked if each.method == method for person in each.people]
    return {each.value for person in people for each in person.identifiers}
