"""People on a shop's site: browsers with a visitor id each, signed in by the shop's own server."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.consent.conftest import Shop
from tests.identity.hosts import Host
from tests.sites.stage import SHOP


async def believe(shop: Shop, host: Host, key: str = "alice", **identity: Any) -> httpx.Response:
    """Name the host whose tokens count on the site."""
    given = {"issuer": host.issuer} | (identity or {"jwks": host.jwks})
    return await shop.service.client.patch(
        f"/v1/sites/{shop.site_key}", json={"host_identity": given}, headers=shop.service.auth(key)
    )


@dataclass
class Browser:
    """One device on one site."""

    shop: Shop
    visitor_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    async def sign_in(self, token: str, origin: str | None = SHOP, **more: Any) -> httpx.Response:
        """What the widget sends once the page knows who is there."""
        headers = {"Authorization": f"Bearer {token}"} | ({"Origin": origin} if origin else {})
        body = {"site_key": self.shop.site_key, "visitor_id": self.visitor_id} | more
        return await self.shop.service.client.post("/v1/visitors/link", json=body, headers=headers)

    async def state(self, token: str) -> dict[str, Any] | None:
        """What signing in says that holds here."""
        found: dict[str, Any] | None = (await self.linked(token))["state"]
        return found

    async def linked(self, token: str) -> dict[str, Any]:
        answer = await self.sign_in(token)
        assert answer.status_code == 201, answer.text
        said: dict[str, Any] = answer.json()
        return said

    async def choose(self, **changes: Any) -> str:
        """The id of the consent record."""
        made = await self.shop.choose(visitor_id=self.visitor_id, **changes)
        return str(made["consent_id"])

    async def current(self) -> dict[str, Any]:
        return await self.shop.current(self.visitor_id)
