"""A service with nothing but destinations: real database, real HTTP, a connector for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from pydantic import Field, SecretStr

import app.tables
from app.core.clock import utc_now
from app.core.db import Database
from app.core.http import Cursors, install_problem_handlers
from app.core.ids import new_id
from app.core.outbound import Outbound, Policy
from app.core.settings import Settings
from app.crypto import keyring
from app.destinations.catalogue import Catalogue
from app.destinations.files import Files
from app.destinations.instances import Instances
from app.destinations.models import Destination
from app.destinations.routes import router
from app.destinations.running import Runner
from app.security import api_keys
from app.security.limits import RateLimits
from app.security.models import Workspace
from connectors.contract import (
    ConnectorError,
    ConnectorSettings,
    Outcome,
    PeopleConnector,
    done,
)
from tests.destinations.receiver import Receiver, receiver


class Account(ConnectorSettings):
    host: str
    token: SecretStr


class Vault(PeopleConnector):
    """Secrets in every kind of place; ``mood`` says how its check and test end."""

    title = "Vault"

    class Settings(ConnectorSettings):
        url: str = "https://vault.example/"
        mood: str = "well"
        token: SecretStr | None = None
        accounts: tuple[Account, ...] = ()
        headers: dict[str, SecretStr] = Field(default_factory=dict)
        identity_source: bool = False

    opened = 0
    closed = 0

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        type(self).opened += 1

    def check(self) -> None:
        if self.settings.mood == "refusing":
            raise ConnectorError(f"The token {self._token()} is not known at vault.")

    async def test(self) -> Outcome:
        match self.settings.mood:
            case "broken":
                raise RuntimeError(f"secret {self._token()}")
            case "talking":
                raise ConnectorError(f"bad password in postgres://u:{self._token()}@db/x")
        return done()

    async def erase(self, people: Any) -> Outcome:
        return done()

    def close(self) -> None:
        type(self).closed += 1

    def _token(self) -> str:
        return self.settings.token.get_secret_value() if self.settings.token else ""


@dataclass
class Scene:
    """Alice's workspace with an all-powerful key, and Eve's with her own."""

    client: httpx.AsyncClient
    database: Database
    instances: Instances
    runner: Runner
    settings: Settings
    workspace_id: str
    keys: dict[str, str]

    async def call(
        self, method: str, path: str, json: Any = None, who: str = "alice", **headers: str
    ) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        named["authorization"] = f"Bearer {self.keys[who]}"
        return await self.client.request(method, f"/v1{path}", json=json, headers=named)

    async def add(self, connector: str, settings: dict[str, Any], **more: Any) -> httpx.Response:
        body = {"name": "Shop", "connector": connector, "settings": settings, **more}
        return await self.call("POST", "/destinations", body)

    async def row(self, destination_id: str) -> Destination:
        async with self.database.reading() as session:
            found = await session.get(Destination, destination_id)
            assert found is not None
            return found

    async def dump(self) -> str:
        """Everything in the database, as text."""
        async with self.database.reading() as session:
            rows = [
                (await session.execute(sa.select(each))).all()
                for each in app.tables.MAIN.sorted_tables
            ]
        return str(rows)


@pytest.fixture
async def server() -> AsyncIterator[Receiver]:
    async with receiver() as made:
        yield made


@pytest.fixture
async def outbound(server: Receiver) -> AsyncIterator[Outbound]:
    """May reach the receiver, and public addresses."""
    made = Outbound(Policy(extra_allowed={("127.0.0.1", server.port)}))
    yield made
    await made.close()


@pytest.fixture
async def scene(database_url: str, tmp_path: Path, outbound: Outbound) -> AsyncIterator[Scene]:
    settings = Settings(data_dir=tmp_path / "data", database_url=database_url)
    (tmp_path / "data" / "shared").mkdir(parents=True)
    ring = keyring.create(settings.key_file)
    database = Database(database_url)
    catalogue = Catalogue(extra={"vault": Vault})
    instances = Instances(
        database=database, ring=ring, catalogue=catalogue, outbound=outbound,
        files=Files.of(settings),
    )  # fmt: skip
    runner = Runner()
    service = FastAPI()
    service.include_router(router)
    install_problem_handlers(service, lambda *_: None)
    service.state.settings = settings
    service.state.database = database
    service.state.ring = ring
    service.state.limits = RateLimits(settings)
    service.state.cursors = Cursors(ring.derive("cursor"))
    service.state.instances = instances
    service.state.runner = runner
    workspace_id, keys = await _people(database)
    transport = httpx.ASGITransport(service, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://quittance.test") as client:
        yield Scene(client, database, instances, runner, settings, workspace_id, keys)
    await instances.close()
    runner.close()
    await database.close()


async def _people(database: Database) -> tuple[str, dict[str, str]]:
    """Alice's workspace, and keys: alice all, bob reads, carol other things, eve elsewhere."""
    now, ours, theirs = utc_now(), new_id("wsp"), new_id("wsp")
    holders = {
        "alice": (ours, ["all"]),
        "bob": (ours, ["destinations:read"]),
        "carol": (ours, ["requests:write"]),
        "eve": (theirs, ["all"]),
    }
    keys = {}
    async with database.writing() as session:
        session.add_all([Workspace(id=each, name="W", created_at=now) for each in (ours, theirs)])
        await session.flush()
        for name, (workspace_id, scopes) in holders.items():
            _, keys[name] = await api_keys.create(
                session, workspace_id=workspace_id, name=name, scopes=scopes, created_by="test",
                grantor_scopes=["all"], now=now,
            )  # fmt: skip
    return ours, keys
