"""Takes the README's pictures from a fresh demo: ``python -m docs.pictures``.

Needs Debian's chromium (or ``TEST_CHROMIUM``) and the test tools. Nothing else runs it: pictures
are looked at before they are committed.
"""

from __future__ import annotations

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

PICTURES = Path(__file__).parent / "pictures"
VIEW = {"width": 1280, "height": 800}


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
    page.wait_for_load_state("networkidle")
    _save(page, "dashboard.png")


def _save(page: Page, name: str) -> None:
    page.wait_for_timeout(600)  # whatever slides in has come to rest
    page.screenshot(path=PICTURES / name)
    sys.stdout.write(f"{name}: {(PICTURES / name).stat().st_size >> 10} KiB\n")


def main() -> None:
    chromium = os.environ.get("TEST_CHROMIUM") or shutil.which("chromium")
    PICTURES.mkdir(exist_ok=True)
    with demo() as shown, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        context = browser.new_context(
            viewport=VIEW, color_scheme="light", locale="en-GB", timezone_id="Europe/Berlin"
        )
        take(context.new_page(), shown)
        browser.close()


if __name__ == "__main__":
    main()
