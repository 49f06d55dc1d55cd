"""Takes the pictures of README and docs: ``python -m docs.pictures``.

Those of the README come from a fresh demo, those of an incident from the one that the browser tests
look at. Needs Debian's chromium (or ``TEST_CHROMIUM``) and the test tools. Nothing else runs it:
pictures are looked at before they are committed.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

from app.core.migrate import upgrade
from tests.browser.scene import opened
from tests.dashboard.incident import seed_incident

PICTURES = Path(__file__).parent / "pictures"
VIEW = {"width": 1280, "height": 800}
WIDE = {"width": 1440, "height": 1080}


@contextmanager
def demo() -> Iterator[dict[str, Any]]:
    """A fresh embedded instance with its demo; yields what ``up --json`` says."""
    with tempfile.TemporaryDirectory() as directory:
        environment = os.environ | {"QUITTANCE_DATA_DIR": directory}
        command = [sys.executable, "-m", "app.cli", "up", "--port", "0", "--json"]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
            try:
                assert process.stdout  # noqa: S101 (asked for above)
                yield json.loads(process.stdout.readline())
            finally:
                process.terminate()


def take(page: Page, shown: dict[str, Any]) -> None:
    """The banner on the shop, and the overview of the dashboard."""
    page.goto(f"{shown['base_url']}/demo/")
    page.locator("quittance-banner [role=region]").wait_for()
    _save(page, "banner.png")
    page.goto(shown["admin_link"])
    page.get_by_label("E-mail").fill("anna@example.com")
    page.get_by_label("Password").fill("four words are better than one")
    page.get_by_role("button", name="Create account and sign in").click()
    page.wait_for_url("**/dashboard**")
    page.goto(f"{shown['base_url']}/dashboard")
    _wait_for_past(page)
    _save(page, "dashboard.png")


def _wait_for_past(page: Page) -> None:
    """The demo tells its past beside the first requests; then the page rests."""
    before = ""
    while (shown := page.inner_text("#live")) != before:
        before = shown
        page.wait_for_timeout(2000)
        page.reload()


def _save(page: Page, name: str) -> None:
    page.wait_for_timeout(600)  # whatever slides in has come to rest
    page.screenshot(path=PICTURES / name)
    _say(name)


def _say(name: str) -> None:
    sys.stdout.write(f"{name}: {(PICTURES / name).stat().st_size >> 10} KiB\n")


async def take_incident(chromium: str) -> None:
    """A queue whose destination fails, and one of the deliveries that wait in it."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        main_url, keys_url = (
            f"sqlite+aiosqlite:///{place / name}.sqlite" for name in ("main", "keys")
        )
        upgrade(main_url, "main")
        upgrade(keys_url, "keystore")
        async with opened(place / "data", main_url, keys_url, Path(chromium)) as scene:
            incident = await seed_incident(scene.runtime, dt.datetime.now(dt.UTC))
            page = await scene.page(incident.operator, viewport=WIDE, color_scheme="light")
            for name, path in {
                "queue.png": f"queues/{incident.queues['failing']}",
                "delivery.png": f"deliveries/{incident.delivery_id}",
            }.items():
                await page.goto(f"{scene.url}/dashboard/{path}")
                await page.screenshot(path=PICTURES / name)
                _say(name)


def main() -> None:
    chromium = os.environ.get("TEST_CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        sys.exit("there is no chromium: install it, or name it in TEST_CHROMIUM")
    PICTURES.mkdir(exist_ok=True)
    with demo() as shown, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        context = browser.new_context(
            viewport=VIEW, color_scheme="light", locale="en-GB", timezone_id="Europe/Berlin"
        )
        take(context.new_page(), shown)
        browser.close()
    asyncio.run(take_incident(chromium))


if __name__ == "__main__":
    main()
