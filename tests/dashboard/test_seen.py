"""What browsers reported and no rule covers, on the site's page: from there into the draft."""

from __future__ import annotations

import re
from typing import Any

import pytest

from app.core.db import insert_or_add, table_of
from app.sites.config import SiteConfig
from app.sites.models import Site, TrackerSeen
from tests.dashboard.conftest import Browser, Stage


@pytest.fixture
async def browser(stage: Stage) -> Browser:
    return await stage.signed_in(stage.seeded.operator)


async def report(stage: Stage, *names: tuple[str, str]) -> None:
    async with stage.runtime.database.writing() as session:
        site = await session.get_one(Site, stage.seeded.site_id)
        rows = [
            {
                "site_id": site.id, "kind": kind, "pattern": pattern,
                "workspace_id": site.workspace_id, "first_seen_at": stage.now,
                "last_seen_at": stage.now, "count": 3,
            }
            for kind, pattern in names
        ]  # fmt: skip
        await session.execute(insert_or_add(session, table_of(TrackerSeen)), rows)


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
    await report(stage, ("cookie", "_ga_*"), ("cookie", "basket"), ("host", "px.ads.linkedin.com"))
    before = await draft(stage)
    shown = card((await browser.get(path_of(stage))).text)
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
    assert re.findall(r'name="add" value="([^"]+)"', page) == ["cookie basket"]
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
    await report(stage, ("cookie", "basket"))
    before = await draft(stage)
    answer = await browser.post(f"{path_of(stage)}/trackers", fields)

    assert answer.status_code == status
    assert words in answer.text
    assert await draft(stage) == before


async def test_a_viewer_sees_the_names_and_no_form(stage: Stage):
    await report(stage, ("cookie", "<i>x"))
    viewer = await stage.signed_in(stage.seeded.viewer)
    shown = card((await viewer.get(path_of(stage))).text)

    assert "&lt;i&gt;x" in shown
    assert "<form" not in shown
    refused = await viewer.post(f"{path_of(stage)}/trackers", {"add": "cookie xx"})
    assert refused.status_code == 403


async def test_the_empty_list_says_how_to_begin(stage: Stage, browser: Browser):
    assert "Nobody looks yet" in card((await browser.get(path_of(stage))).text)
    async with stage.runtime.database.writing() as session:
        site = await session.get_one(Site, stage.seeded.site_id)
        config = SiteConfig.model_validate(site.draft | {"modules": ["report"]})
        site.draft = config.model_dump(mode="json")
    await browser.post(f"{path_of(stage)}/publish", {"asks_again": ""})

    assert "?quittance-report" in card((await browser.get(path_of(stage))).text)


async def test_consent_is_told_by_law_language_and_version(stage: Stage, browser: Browser):
    page = (await browser.get("/dashboard/consent?days=90")).text
    found = re.search(r'<section class="card" id="answers">.*?</section>', page, re.S)
    assert found
    heads = re.findall(r"<thead><tr><th>(\w+)</th><th[^>]*>Shown", found[0])
    assert heads == ["Law", "Language", "Version"]
    assert re.search(r"GDPR</td>\s*<td[^>]*>\S</td>\s*<td[^>]*>\d+ <span[^>]*>\d+ %", found[0])
    other = await browser.get("/dashboard/consent?days=14&site=nothing")
    assert other.status_code == 200
