"""The dashboard on a real database, with a team that can sign in."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.compose import Runtime
from app.security import sessions
from tests.dashboard.seeds import Person, Seeded, seed
from tests.dashboard.site import make_runtime, make_site

BASE = "http://127.0.0.1:8321"
_CSRF = re.compile(r'name="csrf" value="([^"]+)"')
_FORM = re.compile(r'name="form_token" value="([^"]+)"')


@dataclass
class Browser:
    """A browser on the site: keeps cookies, sends what browsers send with their forms."""

    http: httpx.AsyncClient
    csrf: str = ""

    async def get(self, path: str, **headers: str) -> httpx.Response:
        sent = {"accept": "text/html", "sec-fetch-site": "same-origin", **headers}
        return await self.http.get(path, headers=sent)

    async def post(
        self,
        path: str,
        data: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        files: Any = None,
    ) -> httpx.Response:
        sent = {
            "accept": "text/html",
            "sec-fetch-site": "same-origin",
            "origin": BASE,
            **(headers or {}),
        }
        return await self.http.post(
            path, data={"csrf": self.csrf, **(data or {})}, headers=sent, files=files
        )

    async def form_token(self, path: str) -> str:
        """The token of a form that is shown to somebody not signed in."""
        found = _FORM.search((await self.get(path)).text)
        assert found, f"no form at {path}"
        return found.group(1)

    async def sign_in(self, person: Person, password: str, code: str) -> httpx.Response:
        token = await self.form_token("/dashboard/sign-in")
        answer = await self.post(
            "/dashboard/sign-in",
            {
                "form_token": token,
                "email": person.email,
                "password": password,
                "code": code,
                "next": "",
            },
        )
        await self.learn_csrf()
        return answer

    async def learn_csrf(self) -> None:
        found = _CSRF.search((await self.get("/dashboard/account")).text)
        self.csrf = found.group(1) if found else ""


@dataclass
class Stage:
    """The running site, what is in its database, and ways in."""

    app: FastAPI
    runtime: Runtime
    seeded: Seeded
    new_browser: Callable[[], Browser]
    now: dt.datetime

    async def signed_in(self, person: Person) -> Browser:
        """A browser with a session, without going through the form."""
        browser = self.new_browser()
        async with self.runtime.database.writing() as session:
            token = await sessions.start(session, person.id, dt.datetime.now(dt.UTC))
        browser.http.cookies.set(
            sessions.cookie_name(self.runtime.settings), token, domain="127.0.0.1"
        )
        await browser.learn_csrf()
        return browser


StageMaker = Callable[..., Awaitable[Stage]]


@pytest.fixture
async def new_stage(
    tmp_path: Path, database_url: str, keystore_url: str
) -> AsyncIterator[StageMaker]:
    made: list[tuple[Runtime, list[httpx.AsyncClient]]] = []

    async def make(**settings: Any) -> Stage:
        runtime = make_runtime(tmp_path / "data", database_url, keystore_url, **settings)
        app = make_site(runtime)
        clients: list[httpx.AsyncClient] = []
        made.append((runtime, clients))
        now = dt.datetime.now(dt.UTC)
        seeded = await seed(runtime, now)
        base = settings.get("base_url", BASE)

        def new_browser() -> Browser:
            transport = httpx.ASGITransport(
                app, raise_app_exceptions=False, client=("127.0.0.1", 5000)
            )
            clients.append(httpx.AsyncClient(transport=transport, base_url=base))
            return Browser(clients[-1])

        return Stage(app, runtime, seeded, new_browser, now)

    yield make
    for runtime, clients in made:
        for client in clients:
            await client.aclose()
        await runtime.stop()


@pytest.fixture
async def stage(new_stage: StageMaker) -> Stage:
    """A workspace with something on every page, on SQLite and on PostgreSQL."""
    return await new_stage()
