"""The stage with the consent routes and a running writer, on SQLite and on PostgreSQL."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from sqlmodel import col

from app.consent import link_routes
from app.consent.models import ConsentOutbox
from app.consent.routes import router
from app.consent.writer import ConsentWriter
from app.core.clock import rfc3339, utc_now
from tests.sites.stage import SHOP, Stage, stage

OUTBOX = sa.select(col(ConsentOutbox.visitor_id), col(ConsentOutbox.purposes)).order_by(
    col(ConsentOutbox.created_at), col(ConsentOutbox.id)
)


@dataclass
class Shop:
    """A published site and a way to choose on it."""

    service: Stage
    site_key: str
    notice_version: str

    def body(self, **changes: Any) -> dict[str, Any]:
        choices = dict.fromkeys(("functional", "analytics", "advertising"), True)
        return {
            "event_id": str(uuid.uuid4()),
            "site_key": self.site_key,
            "visitor_id": str(uuid.uuid4()),
            "notice_version": self.notice_version,
            "choices": choices,
            "method": "accept_all",
            "language": "en",
            "region": "DE",
            "gpc": False,
            "decided_at": rfc3339(utc_now()),
            "page": "https://shop.example/",
        } | changes

    async def post(self, body: Any, origin: str | None = SHOP, **headers: str) -> httpx.Response:
        sent = headers | ({"Origin": origin} if origin is not None else {})
        return await self.service.client.post("/v1/consent", json=body, headers=sent)

    async def choose(self, **changes: Any) -> dict[str, Any]:
        answer = await self.post(self.body(**changes))
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def current(self, visitor_id: str) -> dict[str, Any]:
        answer = await self.service.client.get(
            f"/v1/sites/{self.site_key}/visitors/{visitor_id}/consent", headers={"Origin": SHOP}
        )
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def count(self) -> int:
        return int((await self.service.rows("select count(*) from consent_record"))[0][0])

    async def outbox(self, *, is_grant: bool = False) -> list[tuple[str, Any]]:
        """What was withdrawn, or granted again: visitor and purposes."""
        async with self.service.database.reading() as session:
            found = await session.execute(OUTBOX.where(col(ConsentOutbox.is_grant).is_(is_grant)))
            return [(visitor_id, purposes) for visitor_id, purposes in found]


@pytest.fixture
async def service(database_url: str, keystore_url: str, tmp_path: Path) -> AsyncIterator[Stage]:
    async with stage(
        database_url,
        keystore_url,
        tmp_path,
        router,
        link_routes.router,
        consent_per_minute=100_000,
    ) as made:
        made.app.state.consents = writer = ConsentWriter(made.database)
        writer.start()
        yield made
        await writer.stop()


@pytest.fixture
async def shop(service: Stage) -> Shop:
    return await open_shop(service)


async def open_shop(service: Stage, *origins: str, key: str = "alice", **config: Any) -> Shop:
    site_key = await service.add_site(*origins, key=key, **config)
    banner = await service.client.get(f"/v1/sites/{site_key}/banner")
    return Shop(service, site_key, banner.json()["notice_version"])
