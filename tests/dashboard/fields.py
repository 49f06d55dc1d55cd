"""What a browser would send of a page's form."""

from __future__ import annotations

import re
from typing import Any

from tests.dashboard.conftest import Browser


def form_fields(text: str) -> dict[str, Any]:
    """What a browser would send of the site's editor as it was shown."""
    form = text[text.index('<input type="hidden" name="lang"') : text.index('<div class="save">')]
    fields: dict[str, Any] = {}

    def add(name: str, value: str) -> None:
        value = (
            value.replace("&#34;", '"')
            .replace("&#39;", "'")
            .replace("&amp;", "&")
            .replace("&lt;", "<")
            .replace("&gt;", ">")
        )
        fields.setdefault(name, []).append(value)

    for tag in re.findall(r"<input[^>]*>", form):
        found = dict(re.findall(r'(\w+)="([^"]*)"', tag))
        if found.get("type") != "checkbox" or " checked" in tag:
            add(found["name"], found.get("value", ""))
    for name, value in re.findall(
        r'<textarea name="([^"]+)"[^>]*>\n?(.*?)</textarea>', form, re.DOTALL
    ):
        add(name, value)
    for name, options in re.findall(r'<select name="([^"]+)"[^>]*>(.*?)</select>', form, re.DOTALL):
        chosen = re.search(r'value="([^"]*)" selected', options)
        add(name, chosen.group(1) if chosen else "")
    return fields


async def publish(browser: Browser, site: str, asks_again: str = "") -> Any:
    """Press the button of the publish page of the site at this path, as it is shown now."""
    shown = re.search(r'name="draft" value="(\w+)"', (await browser.get(f"{site}/publish")).text)
    assert shown
    return await browser.post(f"{site}/publish", {"asks_again": asks_again, "draft": shown[1]})
