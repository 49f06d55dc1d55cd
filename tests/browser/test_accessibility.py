"""Banner and dialog before axe (WCAG 2.2 A and AA, best practice), in the looks visitors have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from app.sites.languages import shipped
from tests.browser.test_widget import (  # noqa: F401 - fixtures of the widget's stage
    NewSite,
    Stage,
    browser,
    new_site,
    press,
    service,
    shop,
    site_key,
    stage,
    until,
)

AXE = Path(__file__).parents[2] / "consent_widget" / "node_modules" / "axe-core" / "axe.min.js"
RUN = """async () => {
  const tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
  // The shop's page is ours to judge no more than anybody's.
  const found = await axe.run("quittance-banner", { runOnly: { type: "tag", values: tags } });
  return found.violations.map(({ id, nodes }) => [id, nodes.map(({ target }) => target.flat())]);
}"""
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "forced colours": {"forced_colors": "active"},
    "320 pixels": {"viewport": {"width": 320, "height": 568}},
    "twice the text": {"viewport": {"width": 640, "height": 400}, "device_scale_factor": 2},
}


@pytest.fixture(scope="module")
def both_ways(new_site: NewSite) -> str:  # noqa: F811
    """A site that speaks English from left to right and from right to left."""
    english = shipped()["en"]
    purposes = [
        {"id": each, "required": each == "necessary", "texts": {"ar": said}}
        for each, said in english["purposes"].items()
    ]
    return new_site(languages=["en", "ar"], texts={"ar": english["texts"]}, purposes=purposes)


def violations(page: Page) -> list[Any]:
    # The page's policy holds for everybody; DevTools may evaluate all the same.
    page.evaluate(AXE.read_text(encoding="utf-8") + ";0")
    return list(page.evaluate(RUN))


@pytest.mark.parametrize("language", ["en", "ar"])
@pytest.mark.parametrize("look", LOOKS)
def test_axe_finds_nothing(stage: Stage, both_ways: str, look: str, language: str) -> None:  # noqa: F811
    address = stage.page(site_key=both_ways, language=language)
    page = stage.open(address, reduced_motion="reduce", **LOOKS[look])
    direction = page.locator("quittance-banner [role=region]").get_attribute("dir")
    assert direction == ("rtl" if language == "ar" else "ltr")

    assert page.evaluate("quittance.visible")
    assert violations(page) == []
    press(page, "manage")
    assert violations(page) == []


@pytest.mark.parametrize("look", LOOKS)
def test_axe_finds_nothing_on_the_page_of_a_receipt(
    stage: Stage,  # noqa: F811
    both_ways: str,
    look: str,
) -> None:
    page = stage.open(stage.page(site_key=both_ways, language="ar"), **LOOKS[look])
    press(page, "reject")
    until(page, "quittance.consentId")
    consent_id = page.evaluate("quittance.consentId")
    page.goto(f"{stage.service.base_url}/v1/receipts/{consent_id}")
    page.locator("summary").last.click()

    assert page.locator("section[lang=ar][dir=rtl] li").count() == 4
    page.evaluate(AXE.read_text(encoding="utf-8") + ";0")
    assert page.evaluate(RUN.replace("quittance-banner", "body")) == []
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")


def test_a_larger_font_keeps_everything_within_reach(stage: Stage) -> None:  # noqa: F811
    """Text twice as large, as browsers' own setting makes it: nothing is cut off or overlaps."""
    page = stage.open(stage.page(), viewport={"width": 320, "height": 568}, reduced_motion="reduce")
    page.locator("quittance-banner").evaluate("(host) => host.style.setProperty('zoom', '2')")

    for action in ("reject", "accept", "manage"):
        button = page.locator(f"quittance-banner [data-action={action}]").last
        button.scroll_into_view_if_needed()
        expect(button).to_be_in_viewport()
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
