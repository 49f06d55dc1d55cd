"""A stage for what people do: the whole application on real databases, pumps turned by hand."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import sqlalchemy as sa
import structlog
from fastapi import FastAPI
from sqlmodel import col

from app.compose import Runtime
from app.core.clock import utc_now
from app.core.settings import Settings
from app.crypto import keyring
from app.notifications.postmen import FilePostman
from app.security import api_keys
from app.security.models import Workspace
from app.subject_requests.models import SubjectRequest
from tests.running import application_for

BASE = "https://privacy.example"
SHOP = "https://shop.example"
BOB = "bob@example.com"
PUMPS = ("advance", "dispatch", "sign", "mail")


@dataclass
class Stage:
    """What a test acts with. ``client`` is a person's browser, as far as the service can tell."""

    client: httpx.AsyncClient
    app: FastAPI
    runtime: Runtime
    directory: Path
    workspace_id: str
    api_key: str
    site_key: str = ""

    @property
    def outbox(self) -> FilePostman:
        assert isinstance(self.runtime.postman, FilePostman)
        return self.runtime.postman

    def mails(self, template: str = "") -> list[dict[str, Any]]:
        """Mails sent, oldest first; ``template``: only with such a link."""
        found = list(reversed(self.outbox.read()))
        return [each for each in found if not template or _has(each, template)]

    async def api(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {self.api_key}"}
        answer = await self.client.request(method, path, json=body, headers=headers)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    async def add_site(self, *origins: str, **config: Any) -> str:
        wanted = {"name": "Shop", "origins": origins or [SHOP], "config": config}
        site_key = str((await self.api("POST", "/v1/sites", wanted))["site_key"])
        await self.api("POST", f"/v1/sites/{site_key}/publish")
        return site_key

    async def add_archive(self, *people: str, name: str = "Event archive") -> Path:
        """A destination that can erase: a directory of events."""
        directory = self.directory / "shared" / "events"
        directory.mkdir(parents=True, exist_ok=True)
        file = directory / "events.ndjson"
        file.write_text(
            "".join(json.dumps({"email": each, "what": "view"}) + "\n" for each in people)
        )
        settings = {"url": str(directory), "format": "ndjson", "match": {"email": "email"}}
        wanted = {"name": name, "connector": "archive", "settings": settings}
        await self.api("POST", "/v1/destinations", wanted)
        return file

    async def add_manual(self, name: str = "Paper files") -> None:
        wanted = {
            "name": name,
            "connector": "manual",
            "settings": {"instructions": "Shred the folder."},
        }
        await self.api("POST", "/v1/destinations", wanted)

    async def form(self, **query: str) -> tuple[httpx.Response, dict[str, str]]:
        """The page, and the hidden fields of its form."""
        page = await self.client.get(f"/privacy/{self.site_key}", params=query)
        return page, fields_of(page.text)

    async def send(self, email: str = BOB, kind: str = "erasure", **more: str) -> httpx.Response:
        _, fields = await self.form()
        sent = {**fields, "kind": kind, "email": email, **more}
        return await self.client.post(f"/privacy/{self.site_key}", data=sent)

    async def ask(self, email: str = BOB, kind: str = "erasure", **more: str) -> str:
        """Send the form, and give the path of the link in the mail."""
        before = len(self.mails("/confirm/"))
        answer = await self.send(email, kind, **more)
        assert answer.status_code == 303, answer.text
        await self.settle()
        mails = self.mails("/confirm/")
        assert len(mails) == before + 1
        return path_of(mails[-1], "/confirm/")

    async def confirmed(self, email: str = BOB, kind: str = "erasure", **more: str) -> str:
        """Ask and confirm; the path of the status page."""
        answer = await self.client.post(await self.ask(email, kind, **more))
        assert answer.status_code == 303, answer.text
        return str(answer.headers["location"])

    async def end_cooling_off(self) -> None:
        """The day to think it over has passed."""
        async with self.runtime.database.writing() as session:
            await session.execute(
                sa.update(SubjectRequest)
                .where(col(SubjectRequest.status) == "cooling_off")
                .values(next_step_at=utc_now())
            )
        await self.settle()

    async def status(self, path: str) -> dict[str, Any]:
        answer = await self.client.get(path, headers={"Accept": "application/json"})
        return {**answer.json(), "http": answer.status_code}

    async def settle(self) -> None:
        """Turn the pumps until nothing moves any more."""
        steps = {each.name: each.step for each in self.runtime._make_pumps()}
        quiet = 0
        while quiet < 3:
            moved = [await steps[name]() for name in PUMPS]
            await asyncio.sleep(0.02)
            quiet = 0 if any(moved) or not self.runtime.engine.is_idle else quiet + 1

    async def rows(self, sql: str, **values: Any) -> list[Any]:
        async with self.runtime.database.reading() as session:
            return list((await session.execute(sa.text(sql), values)).all())

    async def count(self, table: str) -> int:
        return int((await self.rows(f"SELECT count(*) FROM {table}"))[0][0])


def _has(mail: dict[str, Any], part: str) -> bool:
    return any(part in link for link in mail["links"])


def path_of(mail: dict[str, Any], part: str) -> str:
    """The path of the mail's link of that kind."""
    return next(str(urlsplit(link).path) for link in mail["links"] if part in link)


def fields_of(html: str) -> dict[str, str]:
    found = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', html)
    return {name: unescape(value) for name, value in found}


@asynccontextmanager
async def stage(
    database_url: str, keystore_url: str, directory: Path, **changes: Any
) -> AsyncIterator[Stage]:
    """One workspace with a published site."""
    settings = Settings(
        **{
            "data_dir": directory, "database_url": database_url, "keystore_url": keystore_url,
            "base_url": BASE, **changes,
        }
    )  # fmt: skip
    structlog.configure(processors=[structlog.processors.KeyValueRenderer()])
    (directory / "shared").mkdir(exist_ok=True)
    keyring.create(settings.key_file)
    with application_for(settings) as app:
        runtime = Runtime(settings)
        runtime.attach(app)
        await runtime.start(with_pumps=False, with_worker=False)
        runtime.engine.start()
        transport = httpx.ASGITransport(
            app, raise_app_exceptions=False, client=("203.0.113.9", 4711)
        )
        try:
            async with httpx.AsyncClient(transport=transport, base_url=BASE) as client:
                workspace_id, key = await _workspace(runtime)
                made = Stage(client, app, runtime, directory, workspace_id, key)
                made.site_key = await made.add_site()
                yield made
        finally:
            await runtime.stop()


async def _workspace(runtime: Runtime) -> tuple[str, str]:
    async with runtime.database.writing() as session:
        session.add(
            Workspace(
                id="ws_one", name="Shop Ltd", contact="privacy@shop.example", created_at=utc_now()
            )
        )
        await session.flush()
        _, secret = await api_keys.create(
            session, workspace_id="ws_one", name="alice", scopes=["all"], created_by="test",
            grantor_scopes=["all"], now=utc_now(),
        )  # fmt: skip
    return "ws_one", secret
