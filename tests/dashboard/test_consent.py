"""The Consent page: what was answered, by whom it was asked, and the proof of one choice."""

from __future__ import annotations

import datetime as dt
import re
import uuid

import pytest

from app.consent.models import ConsentRecord
from app.core.ids import new_id
from app.sites import service
from app.sites.config import SiteConfig
from tests.dashboard.conftest import Browser, Stage
from tests.dashboard.fields import form_fields, publish


@pytest.fixture
async def browser(stage: Stage) -> Browser:
    return await stage.signed_in(stage.seeded.operator)


def path_of(stage: Stage) -> str:
    return f"/dashboard/sites/{stage.seeded.site_id}"


async def test_consent_is_told_by_law_language_and_version(stage: Stage, browser: Browser):
    page = (await browser.get("/dashboard/consent?days=90")).text
    found = re.search(r'<section class="card" id="answers">.*?</section>', page, re.S)
    assert found
    heads = re.findall(r"<thead><tr><th>(\w+)</th><th[^>]*>Shown", found[0])
    assert heads == ["Law", "Language", "Version"]  # one site: no table of sites
    rows: dict[str, list[list[str]]] = {}
    for body in re.findall(r"<tbody>(.*?)</tbody>", found[0], re.S):
        for row in re.findall(r"<tr>(.*?)</tr>", body, re.S):
            cells = re.findall(r"<td[^>]*>(.*?)</td>", row)
            name, *rest = (re.sub(r"<[^>]+>", "", cell).split() for cell in cells)
            rows[" ".join(name)] = rest
    assert rows["GDPR"][0] == rows["1"][0] == ["2", "040"]
    assert rows["Deutsch"][0] == ["840"]
    assert rows["Français"][0] == ["\N{EN DASH}"]  # never counted there
    counts = [int(cell[0]) for cell in rows["GDPR"][1:-1]]
    shares = [int(cell[1]) for cell in rows["GDPR"][1:-1]]
    assert shares == [round(100 * each / sum(counts)) for each in counts]
    assert f"{sum(counts)} in 90 days" in page

    bars = {
        row[0]: {name: float(width) for width, name in re.findall(_RECT, row[1])}
        for row in re.findall(r'<td class="lead-cell">(.*?)</td>(.*?)</tr>', found[0], re.S)
    }
    assert bars["GDPR"]["shown"] == 100
    assert bars["GDPR"]["s1"] == pytest.approx(100 * counts[0] / 2040, abs=0.01)
    assert bars["Deutsch"]["shown"] == 70
    assert "shown" not in bars["Français"]


_RECT = r'<rect [^>]*?width="([\d.]+)"[^>]*? class="(\w+)"/>'


async def test_sites_are_told_apart_and_a_closed_notice_is_no_refusal(
    stage: Stage, browser: Browser
):
    config = SiteConfig(regimes=("gdpr", "au_privacy"), modules=("counts",))
    await add_site(stage, "Aurora magazine", config, [("dismissed", True)] * 3)
    page = (await browser.get("/dashboard/consent?days=14")).text
    rows = {
        re.sub(r"<[^>]+>", "", name): re.findall(r'data-label="([^"]+)"[^>]*>(\d+)', rest)
        for name, rest in re.findall(r'<td class="lead-cell">(.*?)</td>(.*?)</tr>', page, re.S)
    }
    said = {"Accepted all": "0", "Own selection": "0", "Refused": "0", "Signal or other": "3"}
    assert dict(rows["Aurora magazine"]) == said
    assert dict(rows["Privacy Act (AU)"]) == said
    assert "Aurora shop" in rows
    closed = re.findall(r"<title>\d+ \w+: (.*?)</title>", page)
    assert any("Signal or other" in each for each in closed)


async def test_who_does_not_count_displays_is_told_how_to(stage: Stage, browser: Browser):
    path = path_of(stage)
    text = uncounted((await browser.get("/dashboard/consent")).text)
    assert f'<a href="{path}#parts">Aurora shop</a>' in text
    assert "publish it" not in text

    fields = form_fields((await browser.get(path)).text)
    await browser.post(path, fields | {"modules": ["counts"]})
    assert "publish it" in uncounted((await browser.get("/dashboard/consent")).text)
    await publish(browser, path)
    assert uncounted((await browser.get("/dashboard/consent")).text) == ""


def uncounted(page: str) -> str:
    found = re.search(r'<p [^>]*id="uncounted">.*?</p>', page, re.S)
    return found[0] if found else ""


async def add_site(
    stage: Stage, name: str, config: SiteConfig, records: list[tuple[str, bool]]
) -> tuple[str, list[str]]:
    """A published site of the same workspace with records under Australia's law, which grant all or
    nothing; its id and theirs.
    """
    now, workspace_id = stage.now, stage.seeded.workspace_id
    async with stage.runtime.database.writing() as session:
        site = await service.create_site(
            session, workspace_id=workspace_id, name=name, origins=["https://mag.example"],
            config=config, actor="system", now=now,
        )  # fmt: skip
        version = await service.publish_site(session, site, actor="system", now=now)
        rows = [
            ConsentRecord(
                id=new_id("con"), workspace_id=workspace_id, site_id=site.id,
                notice_version_id=version.id, visitor_id=str(uuid.uuid4()),
                event_id=str(uuid.uuid4()), method=method, language="en", region="AU",
                choices=dict.fromkeys(("functional", "analytics", "advertising"), granted),
                regime="au_privacy", gpc=False, is_gpc_applied=False, page=None, fingerprint=b"x",
                decided_at=now, recorded_at=now, expires_at=now + dt.timedelta(days=180),
            )
            for method, granted in records
        ]  # fmt: skip
        session.add_all(rows)
    return site.id, [each.id for each in rows]
