"""Makes contact sheets of banner and dialog by language: ``python -m docs.sheets [LANGUAGE ...]``.

Phone and desktop, light and dark, on a new site. Needs Debian's chromium (or ``TEST_CHROMIUM``) and
Debian's pngquant, and the test tools. Nothing else runs it: sheets are looked at before they are
committed.
"""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from tests.journeys.instance import Embedded

PICTURES = Path(__file__).parent / "pictures"
LANGUAGES = ("en", "de", "fr", "ar")
SIZES = {"phone": (360, 740), "desktop": (1280, 800)}
SCHEMES = ("light", "dark")
HEIGHT = 560
"""Of each picture on the sheet, in pixels."""

PAGE = """<!doctype html><html lang="{language}"><meta charset="utf-8"><title>Shop</title>
<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">
<style>
  :root {{ color-scheme: light dark; --bar: light-dark(#e3e7ec, #2b3440); }}
  body {{ margin: 0 auto; padding: 40px 24px; max-width: 960px; background: light-dark(#f6f7f9, #11161d); }}
  i {{ display: block; height: 18px; margin-bottom: 18px; border-radius: 4px; background: var(--bar); }}
  i:nth-child(6n + 1) {{ height: 46px; width: 45%; margin-top: 26px; }}
</style>
<script src="{base}/b/{site_key}.js?lang={language}&amp;region=DE" async></script>
<body>{lines}</body></html>"""  # noqa: E501 - markup reads better in lines of its own
SHEET = """<!doctype html><meta charset="utf-8">
<style>
  body {{ margin: 0; padding: 14px; width: max-content; background: #8d96a3; }}
  p {{ display: flex; gap: 14px; margin: 0; }}
  p + p {{ margin-top: 14px; }}
  img {{ height: {height}px; }}
</style>{rows}"""


def views(browser: Browser, base: str, site_key: str, language: str) -> Iterator[list[bytes]]:
    """Two rows of pictures: the banner, and the dialog over it."""
    page_text = PAGE.format(language=language, base=base, site_key=site_key, lines="<i></i>" * 24)
    rows: tuple[list[bytes], list[bytes]] = ([], [])
    for (width, height), scheme in product(SIZES.values(), SCHEMES):
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            reduced_motion="reduce",
            timezone_id="Europe/Berlin",
        )
        page = context.new_page()
        page.route(
            f"{base}/sheet", lambda route: route.fulfill(body=page_text, content_type="text/html")
        )
        page.goto(f"{base}/sheet")
        page.locator("quittance-banner [role=region]").wait_for()
        page.wait_for_timeout(600)
        rows[0].append(page.screenshot())
        page.locator("quittance-banner [data-action=manage]").click()
        page.locator("quittance-banner dialog").wait_for()
        page.mouse.move(0, 0)
        page.wait_for_timeout(200)
        rows[1].append(page.screenshot())
        context.close()
    yield from rows


def sheet(browser: Browser, rows: list[list[bytes]]) -> bytes:
    def shown(picture: bytes) -> str:
        return f'<img src="data:image/png;base64,{base64.b64encode(picture).decode()}">'

    lines = "".join(f"<p>{''.join(map(shown, row))}</p>" for row in rows)
    page = browser.new_page()
    page.set_content(SHEET.format(height=HEIGHT, rows=lines))
    picture = page.locator("body").screenshot()
    page.close()
    return subprocess.run(
        ["pngquant", "--speed=1", "--strip", "64", "-"],  # noqa: S607 - wherever it is
        input=picture,
        capture_output=True,
        check=True,
    ).stdout


def publish(service: Embedded) -> str:
    """A site as it is before anybody has changed it; returns its key."""
    body = {"name": "Shop", "origins": [service.base_url]}
    site_key = service.api.post("/v1/sites", json=body).raise_for_status().json()["site_key"]
    service.api.post(f"/v1/sites/{site_key}/publish").raise_for_status()
    return str(site_key)


def main() -> None:
    chromium = os.environ.get("TEST_CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        sys.exit("there is no chromium: install it, or name it in TEST_CHROMIUM")
    if shutil.which("pngquant") is None:
        sys.exit("there is no pngquant: install it")
    with tempfile.TemporaryDirectory() as directory, sync_playwright() as playwright:
        service = Embedded(Path(directory), {})
        try:
            service.start()
            site_key = publish(service)
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            for language in sys.argv[1:] or LANGUAGES:
                rows = list(views(browser, service.base_url, site_key, language))
                path = PICTURES / f"banner-{language}.png"
                path.write_bytes(sheet(browser, rows))
                sys.stdout.write(f"{path.name}: {path.stat().st_size >> 10} KiB\n")
            browser.close()
        finally:
            service.kill()
            service.disconnect()


if __name__ == "__main__":
    main()
