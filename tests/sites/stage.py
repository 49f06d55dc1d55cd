"""A small stage for site and consent tests: the routers on real databases, one workspace, its key,
a second tenant."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa
from fastapi import APIRouter, FastAPI

from app.consent.routes import post_consent
from app.core.clock import utc_now
from app.core.db import Database
from app.core.http import Cursors, Guard, Shortcut, install_problem_handlers
from app.core.outbound import Outbound, Policy
from app.core.settings import Settings
from app.crypto import keyring
from app.crypto.keystore import KeyStore
from app.identity.host_key_sets import KeySets
from app.security import api_keys
from app.security.limits import RateLimits
from app.security.models import Workspace
from app.sites.routes import router as sites_router

SHOP = "https://shop.example"


@dataclass
class Stage:
    """What a test acts with. ``client`` calls the service; ``hints`` are the pumps it asked to
    look."""

    client: httpx.AsyncClient
    app: FastAPI
    database: Database
    key_store: KeyStore
    ring: keyring.KeyRing
    hints: list[str]
    keys: dict[str, str] = field(default_factory=dict)

    def auth(self, key: str = "alice") -> dict[str, str]:
        return {"Authorization": f"Bearer {self.keys[key]}"}

    async def add_workspace(self, workspace_id: str) -> None:
        async with self.database.writing() as session:
            session.add(Workspace(id=workspace_id, name=workspace_id, created_at=utc_now()))

    async def add_key(self, name: str, workspace_id: str, *scopes: str) -> None:
        async with self.database.writing() as session:
            _, self.keys[name] = await api_keys.create(
                session,
                workspace_id=workspace_id,
                name=name,
                scopes=scopes,
                created_by="test",
                grantor_scopes=["all"],
                now=utc_now(),
            )

    async def add_site(self, *origins: str, key: str = "alice", **config: Any) -> str:
        """A published site's key."""
        body = {"name": "Shop", "origins": origins or [SHOP], "config": config}
        made = await self.client.post("/v1/sites", json=body, headers=self.auth(key))
        assert made.status_code == 201, made.text
        site_key = str(made.json()["site_key"])
        done = await self.client.post(f"/v1/sites/{site_key}/publish", headers=self.auth(key))
        assert done.status_code == 200, done.text
        return site_key

    async def rows(self, sql: str, **values: Any) -> list[Any]:
        async with self.database.reading() as session:
            return list((await session.execute(sa.text(sql), values)).all())


@asynccontextmanager
async def stage(
    database_url: str, keystore_url: str, directory: Path, *routers: APIRouter, **settings: Any
) -> AsyncIterator[Stage]:
    """The service, small: sites and the given routers."""
    hints: list[str] = []
    ring = keyring.create(directory / "master.json")
    database, keys = Database(database_url, after_commit=hints.extend), Database(keystore_url)
    app = FastAPI()
    app.state.settings = Settings(
        data_dir=directory, base_url="https://consent.example", **settings
    )
    app.state.database = database
    app.state.ring = ring
    app.state.key_store = KeyStore(keys, ring)
    app.state.limits = RateLimits(app.state.settings)
    app.state.cursors = Cursors(ring.derive("cursor"))
    app.state.outbound = outbound = Outbound(Policy())
    app.state.key_sets = KeySets(outbound.http)
    app.state.widget = directory / "widget.js"
    app.state.widget.write_text(
        "var quittanceWidget={start(c,m){globalThis.config=c;globalThis.modules=m}}"
    )
    app.state.widget.with_name("dialog.js").write_text("export const openDialog=()=>{}")
    install_problem_handlers(app, lambda request, problem: None)
    for router in (sites_router, *routers):
        app.include_router(router)
    choices = Shortcut(app, app, "POST", "/v1/consent", post_consent)
    guarded = Guard(choices, app.state.settings, lambda *_: None)
    transport = httpx.ASGITransport(
        guarded, raise_app_exceptions=False, client=("203.0.113.9", 4711)
    )
    try:
        async with httpx.AsyncClient(
            transport=transport, base_url="https://consent.example"
        ) as client:
            made = Stage(client, app, database, app.state.key_store, ring, hints)
            await made.add_workspace("wsp_one")
            await made.add_workspace("wsp_two")
            await made.add_key("alice", "wsp_one", "all")
            await made.add_key("eve", "wsp_two", "all")
            yield made
    finally:
        await outbound.close()
        await database.close()
        await keys.close()
