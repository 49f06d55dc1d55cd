"""The Consent page: what was answered, by whom it was asked, and the proof of one choice."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import re
import uuid
from collections.abc import Sequence
from html import unescape
from itertools import repeat
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from markupsafe import escape
from sqlmodel import col

from app.consent import queries
from app.consent.models import ConsentRecord
from app.core.ids import new_id
from app.security.models import AuditEntry, Workspace
from app.sites import service
from app.sites.config import SiteConfig
from app.sites.languages import shipped
from app.sites.models import NoticeVersion, Site
from tests.dashboard.conftest import Browser, Stage
from tests.dashboard.fields import form_fields, publish
from tests.dashboard.seeds import seed


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
        for row in re.findall(
            r'<td class="lead-cell"><a [^>]+>(.*?)</a></td>(.*?)</tr>', found[0], re.S
        )
    }
    assert bars["GDPR"]["shown"] == 100
    assert bars["GDPR"]["s1"] == pytest.approx(100 * counts[0] / 2040, abs=0.01)
    assert bars["Deutsch"]["shown"] == 70
    assert "shown" not in bars["Français"]
    by_method = (await browser.get("/dashboard/consent?days=90&method=accept_all")).text
    assert "accept_all" in by_method
    assert "040" not in by_method, "displays have no method"


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
    assert dict(rows["Privacy Act 1988"]) == said
    assert "Aurora shop" in rows
    closed = re.findall(r"<title>\d+ \w+: (.*?)</title>", page)
    assert any("Signal or other" in each for each in closed)


async def test_a_choice_dated_before_its_notice_tells_of_a_wrong_clock(
    stage: Stage, browser: Browser
):
    _, (made,) = await add_site(stage, "Magazine", SiteConfig(), [("accept_all", True)])
    slow = "The device&#39;s clock was slow"
    assert slow not in (await browser.post("/dashboard/consent", {"consent_id": made})).text
    async with stage.runtime.database.writing() as session:
        record = await session.get_one(ConsentRecord, made)
        version = await session.get_one(NoticeVersion, record.notice_version_id)
        long_ago = version.published_at - dt.timedelta(days=900)
        early = ConsentRecord(**record.model_dump() | {
            "id": new_id("con"), "event_id": str(uuid.uuid4()), "decided_at": long_ago,
        })  # fmt: skip
        session.add(early)
    assert slow in (await browser.post("/dashboard/consent", {"consent_id": early.id})).text


async def test_days_are_those_of_the_workspace_also_when_clocks_change(
    stage: Stage, browser: Browser
):
    berlin = ZoneInfo("Europe/Berlin")
    midnights = [dt.datetime(2026, 3, day, tzinfo=berlin) for day in (29, 30)]  # 23 hours apart
    almost = dt.timedelta(seconds=1)
    moments = [at.astimezone(dt.UTC) - each for at in midnights for each in (almost, almost * 0)]
    records = [("accept_all", True)] * len(moments)
    site_id, _ = await add_site(stage, "Magazine", SiteConfig(), records, moments)
    async with stage.runtime.database.writing() as session:
        workspace = await session.get_one(Workspace, stage.seeded.workspace_id)
        workspace.timezone = "Europe/Berlin"
        found = await queries.daily_counts(
            session, queries.Filter(workspace.id, site_id, moments[0], stage.now), berlin
        )
    assert [(each.day.day, each.count) for each in found] == [(28, 1), (29, 2), (30, 1)]
    assert "Days and times: Europe/Berlin." in (await browser.get("/dashboard/consent")).text


async def test_what_nobody_has_is_said_to_be_unknown(stage: Stage, browser: Browser):
    other = await seed(stage.runtime, stage.now, "Borealis")
    async with stage.runtime.database.reading() as session:
        theirs = (await session.get_one(Site, other.site_id)).published_version_id
    wrong = [
        ("consent", "site", "Site", "nope"),
        ("consent", "site", "Site", other.site_id),
        ("consent", "days", "Period", "abc"),
        ("consent", "regime", "Law", "nope"),
        ("consent", "method", "Method", "nope"),
        ("consent", "language", "Language", "No language"),
        ("consent", "notice_version", "Version", "nope"),
        ("consent", "notice_version", "Version", theirs),
        ("requests", "status", "Status", "nope"),
        ("requests", "kind", "Kind", "nope"),
        ("requests", "regime", "Law", "nope"),
        ("queues", "state", "State", "nonsense"),
        ("archived", "destination", "Destination", "nope"),
        ("archived", "destination", "Destination", other.destinations["webhook"]),
    ]
    for where, name, label, value in wrong:
        path = f"/dashboard/{where}"
        answer = await browser.get(f"{path}?{urlencode({name: value})}")
        assert answer.status_code == 200
        assert f"No such {label.lower()}" in answer.text, (where, name)
        chosen = f'<option value="{value}" selected>Unknown {label.lower()}</option>'
        assert chosen in answer.text, (where, name)
        assert f'<form class="filters" method="get" action="{path}">' in answer.text
        assert f'<a href="{path}">Show all</a>' in answer.text
        assert "<table" not in answer.text
    for name in ("consent?site=", "consent?notice_version=", "archived?destination=", "sites/"):
        assert (await browser.get(f"/dashboard/{name}%00")).status_code == 400
    both = (await browser.get("/dashboard/consent?days=abc&regime=nope&site=")).text
    assert "No such period or law" in both
    for rest in ("archived?destination=nope&since=2026-01-01", "queues?state=nope&name=webhook"):
        answer = await browser.get(f"/dashboard/{rest}")
        name, value = rest.rpartition("&")[2].split("=")
        assert f'<input type="hidden" name="{name}" value="{value}">' in answer.text
    assert (await browser.get("/dashboard/archived?until=9999-12-31")).status_code == 422
    refused = await browser.get("/dashboard/requests.csv?status=nope")
    assert refused.status_code == 422
    assert "There is no such status. Choose one that the list offers." in refused.text


async def test_records_are_narrowed_by_how_they_came_about(stage: Stage, browser: Browser):
    made = [("accept_all", True), ("reject_all", False)]
    site_id, (accepted, rejected) = await add_site(stage, "Magazine", SiteConfig(), made)
    async with stage.runtime.database.reading() as session:
        version = (await session.get_one(Site, site_id)).published_version_id
    asked = {"regime": "au_privacy", "language": "en", "notice_version": version}
    cases: list[tuple[dict[str, Any], set[str]]] = [
        ({"site": site_id}, {accepted, rejected}),
        ({"regime": "au_privacy"}, {accepted, rejected}),
        ({"notice_version": version}, {accepted, rejected}),
        ({"language": "en", "site": site_id}, {accepted, rejected}),
        ({"method": "reject_all", "site": site_id}, {rejected}),
        (asked | {"method": "accept_all"}, {accepted}),
        (asked | {"method": "gpc"}, set()),
        (asked | {"language": "eo"}, set()),
        (asked | {"site": stage.seeded.site_id}, set()),
    ]
    for filters, wanted in cases:
        page = (await browser.get(f"/dashboard/consent?{urlencode(filters)}")).text
        assert records_on(page) == wanted, filters
        assert f"{len(wanted)} in 30 days" in page
        assert ("Nothing fits this filter" in page) == (not wanted)
        form = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page))
        assert {**form, **filters} == form
        export = {name: form[name] for name in ("days", *filters)} | {"format": "ndjson"}
        file = (await browser.post("/dashboard/consent/export", export)).text
        assert {json.loads(each)["consent_id"] for each in file.splitlines()} == wanted


def records_on(page: str) -> set[str]:
    return set(re.findall(r'name="consent_id" value="(con_\w+)"', page))


async def test_each_row_of_the_numbers_leads_to_its_records(stage: Stage, browser: Browser):
    made = [("accept_all", True)] * 2
    _, ids = await add_site(stage, "Magazine", SiteConfig(), made)
    page = (await browser.get("/dashboard/consent?days=14")).text
    for name, parameter in {
        "Magazine": "site", "Privacy Act 1988": "regime", "Magazine, 1": "notice_version",
    }.items():  # fmt: skip
        found = re.search(rf'<td class="lead-cell"><a href="([^"]+)">{name}</a>', page)
        assert found
        assert f"{parameter}=" in found[1]
        assert "days=14" in found[1]
        there = (await browser.get(unescape(found[1]))).text
        assert records_on(there) == set(ids)
        assert re.search(rf'<option value="[^"]+" selected>{name}', there)


async def test_sites_of_one_name_are_told_apart_by_their_keys(stage: Stage, browser: Browser):
    ids = [(await add_site(stage, "Magazine", SiteConfig(), []))[0] for _ in "ab"]
    page = (await browser.get("/dashboard/consent")).text
    async with stage.runtime.database.reading() as session:
        for each in ids:
            key = (await session.get_one(Site, each)).site_key
            assert f'<option value="{each}">Magazine ({key})</option>' in page
    assert f'<option value="{stage.seeded.site_id}">Aurora shop</option>' in page


async def test_a_site_key_leads_to_the_page_of_its_site(stage: Stage, browser: Browser):
    other = await seed(stage.runtime, stage.now, "Borealis")
    async with stage.runtime.database.reading() as session:
        mine, theirs = [
            (await session.get_one(Site, each)).site_key
            for each in (stage.seeded.site_id, other.site_id)
        ]
    found = await browser.get(f"/dashboard/sites/{mine}")
    assert (found.status_code, found.headers["location"]) == (303, path_of(stage))
    foreign, unknown = [
        await browser.get(f"/dashboard/sites/{each}") for each in (theirs, "site_nope")
    ]
    assert foreign.status_code == unknown.status_code == 404
    assert foreign.text == unknown.text.replace("site_nope", theirs)
    stranger = await stage.new_browser().get(f"/dashboard/sites/{mine}")
    assert stranger.headers["location"].startswith("/dashboard/sign-in")


async def test_who_looks_for_a_record_is_led_there_and_stays_there(stage: Stage, browser: Browser):
    await add_site(stage, "Magazine", SiteConfig(), [("accept_all", True)] * 30)
    page = (await browser.get("/dashboard/consent")).text
    assert page.index('id="proof"') < page.index("Choices per day")
    assert page.index('href="#records"') < page.index("Choices per day")
    following = re.search(r'<a href="([^"]+)" rel="next">', page)
    assert following
    assert following[1].endswith("#records")
    page = (await browser.get(unescape(following[1]))).text
    assert 'days=30#records">First page' in page


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
    stage: Stage,
    name: str,
    config: SiteConfig,
    records: list[tuple[str, bool]],
    moments: Sequence[dt.datetime] = (),
) -> tuple[str, list[str]]:
    """A published site of the same workspace with records under Australia's law, which grant all or
    nothing, at these moments or now; its id and theirs.
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
                decided_at=at, recorded_at=at, expires_at=at + dt.timedelta(days=180),
            )
            for (method, granted), at in zip(records, moments or repeat(now), strict=False)
        ]  # fmt: skip
        session.add_all(rows)
    return site.id, [each.id for each in rows]


async def test_the_proof_has_the_words_that_were_shown_and_the_receipt(stage: Stage):
    viewer = await stage.signed_in(stage.seeded.viewer)
    async with stage.runtime.database.writing() as session:
        record = await session.get_one(ConsentRecord, stage.seeded.consent_id)
        version = await session.get_one(NoticeVersion, record.notice_version_id)
        said = version.content["languages"][record.language]
    page = (await viewer.post("/dashboard/consent", {"consent_id": record.id})).text
    shown = notice_on(page)

    assert f'lang="{record.language}" dir="ltr"' in shown
    for text in (said["texts"][each] for each in ("title", "accept", "reject", "manage")):
        assert escape(text) in shown
    assert escape(said["texts"]["body"]) in shown
    assert escape(said["texts"]["do_not_sell"]) not in shown
    for purpose in said["purposes"].values():
        assert escape(purpose["name"]) in shown
        assert escape(purpose["description"]) in shown
    assert f'href="/v1/receipts/{record.id}"' in page
    assert f'href="{path_of(stage)}/versions/1"' in page

    async with stage.runtime.database.writing() as session:
        (await session.get_one(Site, record.site_id)).deleted_at = stage.now
    page = (await viewer.post("/dashboard/consent", {"consent_id": record.id})).text
    assert notice_on(page) == shown
    assert "/versions/1" not in page


async def test_the_proof_says_who_chose_where_and_on_which_page(stage: Stage, browser: Browser):
    _, (chosen,) = await add_site(stage, "Magazine", SiteConfig(), [("accept_all", True)])
    visitor, page = "d5d05b9e-6a39-4a3f-9f0c-6a2e5f0e8c1b", "https://mag.example/<b>&news/"
    async with stage.runtime.database.writing() as session:
        made = (await session.get_one(ConsentRecord, chosen)).model_dump()
        told = made | {"id": new_id("con"), "event_id": str(uuid.uuid4()), "visitor_id": visitor}
        session.add(ConsentRecord(**told | {"region": "US-CA", "page": page}))
        told_less = told | {"id": new_id("con"), "event_id": str(uuid.uuid4()), "region": None}
        session.add(ConsentRecord(**told_less))

    facts = await facts_of(browser, told["id"])
    assert facts["Region"] == "US-CA"
    assert facts["Page"] == f"<code>{escape(page)}</code>"
    assert facts["Visitor"] == "d5d0•••8c1b"
    facts = await facts_of(browser, told_less["id"])
    assert (facts["Region"], facts["Page"]) == ("unknown", "not said")


async def facts_of(browser: Browser, consent_id: str) -> dict[str, str]:
    page = (await browser.post("/dashboard/consent", {"consent_id": consent_id})).text
    proof = page[page.index('id="proof"') : page.index('<figure class="notice-shown"')]
    return dict(re.findall(r"<dt>(.*?)</dt><dd[^>]*>(.*?)</dd>", proof))


async def test_a_closed_notice_had_one_button_and_granted_nothing(stage: Stage, browser: Browser):
    config = SiteConfig(regimes=("gdpr", "au_privacy"))
    records = [("dismissed", True), ("api", True)]
    _, (closed, by_server) = await add_site(stage, "Magazine", config, records)
    texts = shipped()["en"]["texts"]

    shown = notice_on((await browser.post("/dashboard/consent", {"consent_id": closed})).text)
    assert re.findall(r"<span>(.*?)</span>", shown) == [texts["understood"], texts["manage"]]
    assert re.findall(r'data-tone="\w+" lang="en" dir="ltr">(.*?)<', shown) == [
        "always on", "left on", "left on", "left on",
    ]  # fmt: skip
    page = (await browser.post("/dashboard/consent", {"consent_id": by_server})).text
    assert "A server recorded this choice" in page


def notice_on(page: str) -> str:
    found = re.search(r'<figure class="notice-shown".*?</figure>', page, re.S)
    assert found
    return found[0]


async def test_records_are_taken_as_a_file_and_the_audit_log_says_by_whom(stage: Stage):
    viewer = await stage.signed_in(stage.seeded.viewer)
    site_id, ids = await add_site(stage, "Magazine", SiteConfig(), [("accept_all", True)] * 3)
    path = "/dashboard/consent/export"
    asked = {"site": site_id, "days": 14}

    lines = await viewer.post(path, asked | {"format": "ndjson"})
    assert lines.headers["content-disposition"] == 'attachment; filename="consents.ndjson"'
    assert lines.headers["cache-control"] == "no-store"
    assert {json.loads(each)["consent_id"] for each in lines.text.splitlines()} == set(ids)
    sheet = await viewer.post(path, {"site": "", "days": "14", "format": "csv"})
    rows = list(csv.DictReader(io.StringIO(sheet.text)))
    assert set(ids) < {each["consent_id"] for each in rows}
    oldest = min(dt.datetime.fromisoformat(each["recorded_at"]) for each in rows)
    assert stage.now - dt.timedelta(days=14) < oldest < stage.now - dt.timedelta(days=12)

    async with stage.runtime.database.reading() as session:
        found = await session.execute(
            sa.select(AuditEntry).where(col(AuditEntry.verb) == "export_consents")
        )
        entries = [(each.actor, each.target, each.data) for each in found.scalars()]
    actor = f"admin:{stage.seeded.viewer.id}"
    assert sorted(entries, key=repr) == sorted(
        [
            (actor, site_id, {"format": "ndjson", "site": site_id, "days": 14}),
            (actor, stage.seeded.workspace_id, {"format": "csv", "days": 14}),
        ],
        key=repr,
    )


async def test_no_file_of_another_workspace_or_of_another_kind(stage: Stage):
    other = await seed(stage.runtime, stage.now, "Borealis")
    viewer = await stage.signed_in(stage.seeded.viewer)
    path = "/dashboard/consent/export"

    foreign = {"site": other.site_id, "days": "30", "format": "csv"}
    assert (await viewer.post(path, foreign)).status_code == 422
    for wrong in ({"format": "pdf"}, {"days": "9999999"}):
        assert (await viewer.post(path, foreign | {"site": ""} | wrong)).status_code == 422
    mine = await viewer.post(path, foreign | {"site": ""})
    assert mine.status_code == 200
    assert other.consent_id not in mine.text
