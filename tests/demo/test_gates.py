"""The shop in a real browser: nothing tracks before the choice, and the page shows what may."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvicorn
from playwright.async_api import Browser, Page, async_playwright, expect

from app.core import migrate
from app.core.clock import utc_now
from app.core.settings import Settings
from app.crypto import keyring
from app.demo import seed
from app.main import create_app
from tests.journeys.conftest import free_port

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


@pytest.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    """A whole instance with its demo, on a port."""
    settings = Settings(data_dir=tmp_path, port=free_port(), log_level="ERROR")
    (tmp_path / "shared").mkdir()
    keyring.create(settings.key_file)
    migrate.upgrade(settings.main_url, "main")
    migrate.upgrade(settings.keys_url, "keystore")
    application = create_app(settings, lambda runtime: seed.ensure(runtime, utc_now()))
    config = uvicorn.Config(application, port=settings.port, log_config=None, access_log=False)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn offers no event
        await asyncio.sleep(0.02)
    yield settings.public_url
    server.should_exit = True
    await serving


@pytest.fixture
async def browser(chromium_path: Path) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        made = await playwright.chromium.launch(executable_path=chromium_path, args=ARGUMENTS)
        yield made
        await made.close()


async def open_shop(browser: Browser, url: str) -> tuple[Page, list[str], list[str]]:
    """The shop; also what the browser complains of, and the trackers that it asked for."""
    page = await (await browser.new_context()).new_page()
    complaints: list[str] = []
    asked: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
    page.on("request", lambda request: asked.append(request.url.partition("/demo/")[2]))
    await page.goto(f"{url}/demo/")
    return page, complaints, asked


def trackers(asked: list[str]) -> set[str]:
    return {"static/tracker.js", "static/pixel.svg", "film"} & set(asked)


async def test_nothing_tracks_before_the_choice_or_after_its_withdrawal(
    browser: Browser, url: str
) -> None:
    page, complaints, asked = await open_shop(browser, url)
    banner, chips = page.locator("quittance-banner"), page.locator("[data-gate] .chip")
    await expect(banner.locator("[data-action=accept]").first).to_be_visible()

    await expect(chips).to_have_text(["Blocked"] * 4)
    assert not trackers(asked)

    await banner.locator("[data-action=accept]").first.click()
    await expect(chips).to_have_text(["Released"] * 4)
    assert trackers(asked) == {"static/tracker.js", "static/pixel.svg", "film"}

    await page.get_by_role("button", name="Withdraw everything").click()
    # Scripts that have run can only be kept from the next page; pictures and frames go at once.
    await expect(chips).to_have_text(["Stopped", "Stopped", "Blocked", "Blocked"])
    asked.clear()
    await page.reload()
    await expect(chips).to_have_text(["Blocked"] * 4)
    assert not trackers(asked)
    assert complaints == []


async def test_a_partial_choice_opens_only_its_gates(browser: Browser, url: str) -> None:
    page, complaints, asked = await open_shop(browser, url)
    widget = page.locator("quittance-banner")
    await widget.locator("[data-action=manage]").first.click()
    await widget.locator("[data-purpose-id=analytics]").check()
    await widget.locator("[data-action=save]").click()

    chips = page.locator("[data-gate] .chip")
    await expect(chips).to_have_text(["Released", "Released", "Blocked", "Blocked"])
    assert trackers(asked) == {"static/tracker.js"}
    assert complaints == []
