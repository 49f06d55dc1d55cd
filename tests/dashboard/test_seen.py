"""What browsers reported and no rule covers, on the site's page: from there into the draft."""

from __future__ import annotations

import re
from typing import Any

import pytest

from app.core.clock import rfc3339, utc_now
from app.sites import unlisted
from app.sites.models import Site
from tests.dashboard.conftest import Browser, Stage
from tests.dashboard.fields import form_fields, publish


@pytest.fixture
async def browser(stage: Stage) -> Browser:
    return await stage.signed_in(stage.seeded.operator)


async def draft(stage: Stage) -> dict[str, Any]:
    async with stage.runtime.database.reading() as session:
        return dict((await session.get_one(Site, stage.seeded.site_id)).draft)


def card(text: str) -> str:
    found = re.search(r'<section class="card" id="seen">.*?</section>', text, re.S)
    assert found
    return found[0]


def path_of(stage: Stage) -> str:
    return f"/dashboard/sites/{stage.seeded.site_id}"


async def test_what_is_ticked_gets_a_rule_in_the_draft_and_leaves_the_list(
    stage: Stage, browser: Browser
):
    before = await draft(stage)
    shown = card((await browser.get(path_of(stage))).text)
    assert re.findall(r"<code>(.*?)</code>", shown)[:2] == ["_ga_*", "px.ads.linkedin.com"]
    assert "Google Analytics" in shown
    assert '<option value="analytics" selected>' in shown
    assert '<option value="" selected>choose' in shown  # nobody knows whose basket it is

    added = await browser.post(
        f"{path_of(stage)}/trackers",
        {
            "add": ["cookie _ga_*", "host px.ads.linkedin.com"],
            "for cookie _ga_*": "analytics",
            "for cookie basket": "",
            "for host px.ads.linkedin.com": "advertising",
        },
    )

    assert added.status_code == 303
    assert added.headers["location"].endswith("notice=rules-added")
    rules = [(each["pattern"], each["purpose"]) for each in (await draft(stage))["trackers"]]
    kept = [(each["pattern"], each["purpose"]) for each in before["trackers"]]
    new = [("_ga_*", "analytics"), ("px.ads.linkedin.com", "advertising")]
    assert rules == kept + new
    page = (await browser.get(path_of(stage))).text
    left = re.findall(r'name="add" value="([^"]+)"', page)
    assert left == ["cookie basket", "storage &lt;i&gt;x"]
    assert "Unpublished changes" in page
    assert "px.ads.linkedin.com" in (await browser.get(f"{path_of(stage)}/publish")).text


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({}, 303, ""),
        ({"add": "cookie basket", "for cookie basket": ""}, 422, "Choose a purpose for basket"),
        ({"add": "cookie basket", "for cookie basket": "unknown"}, 422, "does not exist"),
        ({"add": "cookie qt_x", "for cookie qt_x": "analytics"}, 422, "a host is written"),
        ({"add": "fax basket", "for fax basket": "analytics"}, 422, "kind"),
    ],
)
async def test_what_cannot_be_a_rule_changes_nothing(
    stage: Stage, browser: Browser, fields: dict[str, str], status: int, words: str
):
    before = await draft(stage)
    answer = await browser.post(f"{path_of(stage)}/trackers", fields)

    assert answer.status_code == status
    assert words in answer.text
    assert await draft(stage) == before


async def test_a_viewer_sees_the_names_and_no_form(stage: Stage):
    viewer = await stage.signed_in(stage.seeded.viewer)
    shown = card((await viewer.get(path_of(stage))).text)

    assert "&lt;i&gt;x" in shown
    assert "<form" not in shown
    refused = await viewer.post(f"{path_of(stage)}/trackers", {"add": "cookie xx"})
    assert refused.status_code == 403


async def test_an_empty_list_says_how_to_begin(stage: Stage, browser: Browser):
    made = await browser.post("/dashboard/sites", {"name": "New", "origins": "https://n.example"})
    path = made.headers["location"].partition("?")[0]
    page = (await browser.get(path)).text
    assert "Nobody looks yet" in card(page)

    await browser.post(path, form_fields(page) | {"modules": "report"})
    assert "Nobody looks yet" in card((await browser.get(path)).text)
    await publish(browser, path)
    assert "?quittance-report" in card((await browser.get(path)).text)


async def test_origins_that_are_not_listed_are_shown_until_they_are(stage: Stage, browser: Browser):
    staging, at = "https://staging.shop.example", utc_now()
    async with stage.runtime.database.writing() as session:
        site = await session.get_one(Site, stage.seeded.site_id)
        site.unlisted_origins = {
            staging: str(rfc3339(at)), "https://old.example": str(rfc3339(at - unlisted.KEPT)),
        }  # fmt: skip

    shown = (await browser.get(path_of(stage))).text
    assert f"<code>{staging}</code>" in shown
    assert "https://old.example" not in shown

    async with stage.runtime.database.writing() as session:
        site = await session.get_one(Site, stage.seeded.site_id)
        site.origins = [*site.origins, staging]
    assert 'id="unlisted"' not in (await browser.get(path_of(stage))).text
