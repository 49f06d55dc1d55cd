"""The dashboard on a port and a browser to look at it, for tests and for the pictures in docs."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from playwright.async_api import Browser, BrowserContext, Dialog, Page, async_playwright

from app.compose import Runtime
from app.security import sessions
from tests.dashboard.seeds import Person, Seeded, seed
from tests.dashboard.site import make_runtime, make_site

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


@dataclass
class Scene:
    """A workspace with something on every page; ``complaints`` is what the browser said of it."""

    url: str
    runtime: Runtime
    seeded: Seeded
    browser: Browser
    complaints: list[str] = field(default_factory=list)

    async def page(self, person: Person | None = None, **options: object) -> Page:
        context: BrowserContext = await self.browser.new_context(**options)  # type: ignore[arg-type]
        if person is not None:
            async with self.runtime.database.writing() as session:
                token = await sessions.start(session, person.id, dt.datetime.now(dt.UTC))
            await context.add_cookies(
                [{"name": "quittance", "value": token, "url": self.url, "sameSite": "Strict"}]
            )
        page = await context.new_page()
        page.on("dialog", self._answer)
        page.on("pageerror", lambda error: self.complaints.append(f"error {error}"))
        page.on("console", self._listen)
        return page

    def _answer(self, dialog: Dialog) -> None:
        """The browser's own question before a page is left is for the test to answer."""
        if dialog.type != "beforeunload":
            self.complaints.append(f"dialog {dialog.message}")

    def _listen(self, message: object) -> None:
        if getattr(message, "type", "") in {"error", "warning"}:
            self.complaints.append(getattr(message, "text", ""))

    def pages(self) -> list[str]:
        ids = self.seeded
        return [
            "",
            "/requests",
            *(f"/requests/{ids.requests[case]}" for case in ("overdue", "answer", "denied")),
            "/tasks",
            "/queues",
            f"/queues/{ids.destinations['webhook']}",
            f"/deliveries/{ids.archived_delivery_id}",
            "/destinations",
            *(f"/destinations/{each}" for each in ids.destinations.values()),
            "/destinations/new",
            "/destinations/new/sql",
            "/sites",
            f"/sites/{ids.site_id}",
            f"/sites/{ids.site_id}/publish",
            "/consent",
            "/suppressions",
            "/keys",
            "/team",
            "/audit",
            "/account",
        ]


@asynccontextmanager
async def opened(
    directory: Path, main_url: str, keys_url: str, chromium: Path
) -> AsyncIterator[Scene]:
    """Both databases have their schema already."""
    runtime = make_runtime(directory, main_url, keys_url)
    seeded = await seed(runtime, dt.datetime.now(dt.UTC))
    server = uvicorn.Server(
        uvicorn.Config(
            make_site(runtime), host="127.0.0.1", port=0, log_level="warning", lifespan="off"
        )
    )
    running = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield Scene(f"http://127.0.0.1:{port}", runtime, seeded, browser)
        await browser.close()
    server.should_exit = True
    await running
    await runtime.stop()
