"""The dashboard in a real browser: by keyboard, narrow and wide, with and without JavaScript."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import uvicorn
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from app.compose import Runtime
from app.security import sessions
from tests.dashboard.seeds import HOSTILE, PASSWORD, Person, Seeded, seed
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
    """The dashboard on a port, and a browser to look at it."""

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
        page.on("dialog", lambda dialog: self.complaints.append(f"dialog {dialog.message}"))
        page.on("pageerror", lambda error: self.complaints.append(f"error {error}"))
        page.on("console", self._listen)
        return page

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
            "/destinations",
            *(f"/destinations/{each}" for each in ids.destinations.values()),
            "/destinations/new",
            "/destinations/new/sql",
            "/sites",
            f"/sites/{ids.site_id}",
            "/consent",
            "/suppressions",
            "/keys",
            "/team",
            "/audit",
            "/account",
        ]


@pytest.fixture
async def scene(
    tmp_path: Path, sqlite_url: str, sqlite_keystore_url: str, chromium_path: Path
) -> AsyncIterator[Scene]:
    runtime = make_runtime(tmp_path / "data", sqlite_url, sqlite_keystore_url)
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
        browser = await playwright.chromium.launch(executable_path=chromium_path, args=ARGUMENTS)
        found = Scene(f"http://127.0.0.1:{port}", runtime, seeded, browser)
        yield found
        await browser.close()
    server.should_exit = True
    await running
    await runtime.stop()


async def test_signing_in_by_keyboard(scene: Scene):
    page = await scene.page()
    owner = scene.seeded.owner
    await page.goto(f"{scene.url}/dashboard/requests")
    await expect(page.get_by_label("E-mail")).to_be_focused()
    for text in (owner.email, PASSWORD, owner.code(dt.datetime.now(dt.UTC))):
        await page.keyboard.type(text)
        await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Requests")
    assert scene.complaints == []


async def test_dash_001_no_page_runs_what_is_stored_or_breaks_its_policy(scene: Scene):
    """Every page by an owner: no dialog, no script error, no refused resource."""
    page = await scene.page(scene.seeded.owner)
    for path in scene.pages():
        answer = await page.goto(f"{scene.url}/dashboard{path}")
        assert answer
        assert answer.status == 200, path
    await page.goto(f"{scene.url}/dashboard/destinations")
    await expect(page.get_by_text(HOSTILE)).to_be_visible()
    assert scene.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_no_page_is_wider_than_a_telephone(scene: Scene, scheme: str):
    page = await scene.page(
        scene.seeded.owner, viewport={"width": 360, "height": 740}, color_scheme=scheme
    )
    for path in scene.pages():
        await page.goto(f"{scene.url}/dashboard{path}")
        over = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert over <= 0, path


async def test_the_menu_of_a_narrow_page_opens_and_closes_by_keyboard(scene: Scene):
    page = await scene.page(scene.seeded.owner, viewport={"width": 360, "height": 740})
    await page.goto(f"{scene.url}/dashboard")
    link = page.get_by_role("link", name="Audit log")
    await expect(link).to_be_hidden()
    await page.get_by_role("button", name="Menu").focus()
    await page.keyboard.press("Enter")
    await expect(link).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(link).to_be_hidden()


async def test_filters_answer_in_place(scene: Scene):
    page = await scene.page(scene.seeded.viewer)
    await page.goto(f"{scene.url}/dashboard/requests")
    await page.evaluate("window.stayed = true")
    await page.get_by_label("Status").select_option("denied")
    await expect(page.locator("tbody tr")).to_have_count(1)
    assert "status=denied" in page.url
    assert await page.evaluate("window.stayed")
    assert scene.complaints == []


async def test_everything_works_without_javascript(scene: Scene):
    page = await scene.page(java_script_enabled=False)
    operator = scene.seeded.operator
    await page.goto(f"{scene.url}/dashboard")
    await page.get_by_label("E-mail").fill(operator.email)
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_label("Code").fill(operator.code(dt.datetime.now(dt.UTC)))
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_role("link", name="Requests", exact=True).click()
    await page.get_by_label("Status").select_option("awaiting_approval")
    await page.get_by_role("button", name="Filter").click()
    await page.locator("tbody tr").get_by_role("link").click()
    await page.get_by_role("button", name="Approve").click()
    await expect(page.get_by_role("status")).to_contain_text("The request is approved")
    await page.get_by_role("link", name="Human tasks").click()
    await page.get_by_role("button", name="Not found there").first.click()
    await expect(page.get_by_role("status")).to_contain_text("ticked off")


async def test_the_preview_shows_the_draft_in_the_real_widget(scene: Scene):
    if not (Path(__file__).parents[2] / "consent_widget" / "dist" / "widget.js").exists():
        pytest.skip("the widget is not built")
    page = await scene.page(scene.seeded.viewer)
    await page.goto(f"{scene.url}/dashboard/sites/{scene.seeded.site_id}")
    frame = page.frame_locator("iframe.preview")
    await expect(frame.locator("quittance-banner [data-action=reject]")).to_be_visible()
    assert scene.complaints == []
