"""The dashboard in a real browser: by keyboard, narrow and wide, with and without JavaScript."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Dialog, expect

from app.consent.models import ConsentRecord
from app.core.ids import new_id
from app.delivery.models import VirtualQueue
from app.security import api_keys
from app.sites import regimes
from app.sites.models import Site
from tests.browser.scene import Scene, opened
from tests.dashboard.incident import Incident, seed_incident
from tests.dashboard.seeds import HOSTILE, PASSWORD

OUTSIDE = """[...document.querySelectorAll('.card .badge, .card .nowrap')]
  .filter(it => it.offsetWidth && it.getBoundingClientRect().right >
    it.closest('.card').getBoundingClientRect().right - 1).map(it => it.textContent)"""
WIDER = """[document.documentElement, ...document.querySelectorAll('.table-wrap')]
  .filter(it => it.scrollWidth > it.clientWidth).map(it => it.textContent.trim().slice(0, 40))"""
CUT_CHOICES = """[...document.querySelectorAll('.filters select')]
  .filter(it => it.offsetWidth < 200).map(it => it.name)"""

NARROW_TEXTS = """[...document.querySelectorAll('.texts textarea')]
  .filter(it => it.offsetWidth < it.closest('.texts').offsetWidth).map(it => it.name)"""
TITLES = """[...document.querySelectorAll('.answers th:first-child')].map(it => {
  it.scrollIntoView({block: 'center'});
  const {x, y, height} = it.getBoundingClientRect();
  return document.elementFromPoint(x + 4, y + height / 2).innerText;
})"""


@pytest.fixture
async def scene(
    tmp_path: Path, sqlite_url: str, sqlite_keystore_url: str, chromium_path: Path
) -> AsyncIterator[Scene]:
    async with opened(tmp_path / "data", sqlite_url, sqlite_keystore_url, chromium_path) as found:
        yield found


async def test_signing_in_by_keyboard(scene: Scene):
    page = await scene.page()
    owner = scene.seeded.owner
    await page.goto(f"{scene.url}/dashboard/requests")
    await expect(page.get_by_label("E-mail")).to_be_focused()
    for text in (owner.email, PASSWORD, owner.code(dt.datetime.now(dt.UTC))):
        await page.keyboard.type(text)
        await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Requests")
    assert scene.complaints == []


async def test_dash_001_no_page_runs_what_is_stored_or_breaks_its_policy(scene: Scene):
    """Every page by an owner: no dialog, no script error, no refused resource."""
    page = await scene.page(scene.seeded.owner)
    for path in scene.pages():
        answer = await page.goto(f"{scene.url}/dashboard{path}")
        assert answer
        assert answer.status == 200, path
    await page.goto(f"{scene.url}/dashboard/destinations")
    await expect(page.get_by_text(HOSTILE)).to_be_visible()
    assert scene.complaints == []


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (360, "dark"), (1024, "light")])
async def test_no_page_and_no_table_is_wider_than_its_place(scene: Scene, width: int, scheme: str):
    page = await scene.page(
        scene.seeded.owner, viewport={"width": width, "height": 740}, color_scheme=scheme
    )
    for path in scene.pages():
        await page.goto(f"{scene.url}/dashboard{path}")
        assert await page.evaluate(WIDER) == [], path


async def test_the_longest_choices_and_addresses_fit_a_telephone(scene: Scene):
    async with scene.runtime.database.writing() as session:
        site = await session.get_one(Site, scene.seeded.site_id)
        site.draft = {**site.draft, "regimes": list(regimes.load())}
        consent = await session.get_one(ConsentRecord, scene.seeded.consent_id)
        made = consent.model_dump() | {
            "id": new_id("con"),
            "event_id": str(uuid.uuid4()),
            "page": "https://shop.example/" + "long" * 500,
        }
        session.add(ConsentRecord(**made))
    page = await scene.page(scene.seeded.operator, viewport={"width": 360, "height": 740})
    await page.goto(f"{scene.url}/dashboard/sites/{scene.seeded.site_id}")
    await page.get_by_label("Visitor's region").select_option("AU")
    assert await page.evaluate(WIDER) == []
    await page.goto(f"{scene.url}/dashboard/consent")
    await page.get_by_label("Proof of one choice").fill(made["id"])
    await page.get_by_role("button", name="Look up").click()
    await expect(page.locator("#proof")).to_contain_text(made["page"])
    assert await page.evaluate(WIDER) == []


async def test_on_a_telephone_badges_stay_in_their_cards_and_ids_and_choices_whole(scene: Scene):
    page = await scene.page(scene.seeded.owner, viewport={"width": 360, "height": 740})
    for path in (*scene.pages(), "/archived"):
        await page.goto(f"{scene.url}/dashboard{path}")
        assert await page.evaluate(OUTSIDE) == [], path
        assert await page.evaluate(CUT_CHOICES) == [], path
    await page.goto(f"{scene.url}/dashboard")
    assert await page.get_by_text("Awaiting approval").count() > 2


async def test_on_a_telephone_each_table_of_answers_says_what_it_is_by(scene: Scene):
    page = await scene.page(scene.seeded.owner, viewport={"width": 360, "height": 740})
    await page.goto(f"{scene.url}/dashboard/consent")
    assert await page.evaluate(TITLES) == ["Law", "Language", "Version"]


@pytest.mark.parametrize("width", [768, 1024, 1200, 1440])
async def test_keys_and_team_are_never_cut_off(scene: Scene, width: int):
    now = dt.datetime.now(dt.UTC)
    async with scene.runtime.database.writing() as session:
        key, _ = await api_keys.create(
            session,
            workspace_id=scene.seeded.workspace_id,
            name="Nightly import of the customer service",
            scopes=["destinations:read", "requests:write", "suppressions:read"],
            created_by=f"admin:{scene.seeded.owner.id}",
            grantor_scopes=["all"],
            now=now,
            expires_at=now + dt.timedelta(days=90),
        )
        key.last_used_at = now - dt.timedelta(hours=30)
    page = await scene.page(scene.seeded.owner, viewport={"width": width, "height": 800})
    for path in ("/keys", "/team"):
        await page.goto(f"{scene.url}/dashboard{path}")
        over = await page.locator(".table-wrap").evaluate("it => it.scrollWidth - it.clientWidth")
        assert over <= 0, path


async def test_a_revealed_address_stays_on_one_line_where_there_is_room(scene: Scene):
    page = await scene.page(scene.seeded.operator, viewport={"width": 1440, "height": 800})
    await page.goto(f"{scene.url}/dashboard/tasks")
    await page.get_by_role("button", name="Show whom it is about").first.click()
    address = page.locator("dd", has_text="@customer.example")
    lines = "it => it.offsetHeight / parseFloat(getComputedStyle(it).lineHeight)"
    assert round(await address.evaluate(lines)) == 1


async def test_the_menu_of_a_narrow_page_opens_and_closes_by_keyboard(scene: Scene):
    page = await scene.page(scene.seeded.owner, viewport={"width": 360, "height": 740})
    await page.goto(f"{scene.url}/dashboard")
    link = page.get_by_role("link", name="Audit log")
    await expect(link).to_be_hidden()
    await page.get_by_role("button", name="Menu").focus()
    await page.keyboard.press("Enter")
    await expect(link).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(link).to_be_hidden()


async def test_filters_answer_in_place(scene: Scene):
    page = await scene.page(scene.seeded.viewer)
    await page.goto(f"{scene.url}/dashboard/requests")
    await page.evaluate("window.stayed = true")
    await page.get_by_label("Status").select_option("denied")
    await expect(page.locator("tbody tr")).to_have_count(1)
    assert "status=denied" in page.url
    assert await page.evaluate("window.stayed")
    assert scene.complaints == []


async def test_everything_works_without_javascript(scene: Scene):
    page = await scene.page(java_script_enabled=False)
    operator = scene.seeded.operator
    await page.goto(f"{scene.url}/dashboard")
    await page.get_by_label("E-mail").fill(operator.email)
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_label("Code").fill(operator.code(dt.datetime.now(dt.UTC)))
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_role("link", name="Requests", exact=True).click()
    await page.get_by_label("Status").select_option("awaiting_approval")
    await page.get_by_role("button", name="Filter").click()
    await page.locator("tbody tr").get_by_role("link").click()
    await page.get_by_role("button", name="Approve").click()
    await expect(page.get_by_role("status")).to_contain_text("The request is approved")
    await page.get_by_role("link", name="Human tasks").click()
    await page.get_by_role("button", name="Not found there").first.click()
    await expect(page.get_by_role("status")).to_contain_text("ticked off")


async def test_the_preview_shows_the_draft_in_the_real_widget(scene: Scene):
    if not (Path(__file__).parents[2] / "consent_widget" / "dist" / "widget.js").exists():
        pytest.skip("the widget is not built")
    page = await scene.page(scene.seeded.viewer)
    await page.goto(f"{scene.url}/dashboard/sites/{scene.seeded.site_id}")
    frame = page.frame_locator("iframe.preview")
    await expect(frame.locator("quittance-banner [data-action=reject]")).to_be_visible()
    assert scene.complaints == []


async def test_the_preview_follows_the_form_as_it_is_typed(scene: Scene):
    page = await scene.page(scene.seeded.operator, color_scheme="null")  # as the page has it
    await page.goto(f"{scene.url}/dashboard/sites/{scene.seeded.site_id}")
    frame = page.frame_locator("iframe.preview")
    title = frame.locator("quittance-banner h2")
    await expect(title).to_be_visible()

    steps = await page.evaluate("history.length")
    await page.locator('[name="t.title"]').fill("Typed just now")
    await expect(title).to_have_text("Typed just now")
    await page.get_by_label("Show the banner at the first visit under opt-out laws").check()
    await page.get_by_label("Visitor's region").select_option("US-CA")
    await expect(
        frame.get_by_text("Do Not Sell or Share My Personal Information").first
    ).to_be_visible()
    await page.get_by_label("Language of the preview").select_option("de")
    await expect(frame.get_by_role("button", name="Alle akzeptieren")).to_be_visible()
    await page.get_by_label("Colour scheme of the preview").select_option("dark")
    dark = "matchMedia('(prefers-color-scheme: dark)').matches"
    await page.frames[-1].wait_for_function(dark)  # the frame hears of it with its next picture
    assert await page.evaluate("history.length") == steps, "looking is no step for Back"
    page.once("dialog", lambda dialog: dialog.accept())
    await page.reload()
    await expect(page.locator('[name="t.title"]')).to_have_value("")
    await page.locator('[name="t.title"]').fill("Kept")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("status")).to_contain_text("all else after publishing")
    await expect(page.locator('[name="t.title"]')).to_have_value("Kept")
    assert scene.complaints == []


async def test_who_leaves_a_site_with_unsaved_changes_is_asked(scene: Scene):
    page = await scene.page(scene.seeded.operator)
    path = f"{scene.url}/dashboard/sites/{scene.seeded.site_id}"
    await page.goto(path)
    asked: list[str] = []
    stays = True

    async def answer(dialog: Dialog) -> None:
        asked.append(dialog.type)
        await (dialog.dismiss() if stays else dialog.accept())

    page.on("dialog", answer)
    title, issuer = page.locator('[name="t.title"]'), page.get_by_label("Issuer")
    texts, host = page.locator(".save [data-unsaved]"), page.locator("#host [data-unsaved]")
    save = page.get_by_role("button", name="Save", exact=True)
    leaving = page.get_by_role("link", name="de", exact=True)

    await title.click()
    await page.keyboard.type("Typed")
    await expect(texts).to_have_text("Unsaved changes")
    await expect(texts).to_be_visible()
    await expect(host).to_be_hidden()
    await page.keyboard.press("ControlOrMeta+A")
    await page.keyboard.press("Backspace")
    await expect(texts).to_be_hidden()
    await page.keyboard.type("Kept")
    await expect(page.frame_locator("iframe.preview").locator("quittance-banner h2")).to_have_text(
        "Kept"
    )
    assert asked == [], "looking at the preview is no leaving"
    async with page.expect_event("dialog"):
        await leaving.click()
    assert asked == ["beforeunload"]
    await expect(title).to_have_value("Kept")

    await issuer.fill("https://shop.example")
    await expect(host).to_be_visible()
    async with page.expect_event("dialog"):  # what was typed into the other form would be lost
        await save.click()
    await issuer.fill("")
    await save.click()
    await expect(page.get_by_role("status")).to_contain_text("all else after publishing")
    await expect(title).to_have_value("Kept")
    await leaving.click()
    await page.wait_for_url("**?lang=de*")
    assert len(asked) == 2

    await page.get_by_label("Show the banner at the first visit").click()
    await expect(texts).to_be_visible()
    stays = False
    await page.get_by_role("button", name="Publish the draft").click()
    await page.wait_for_url("**/publish")
    assert len(asked) == 3
    assert scene.complaints == []


async def test_the_form_of_a_site_says_what_acts_at_once_and_leaves_no_gap(scene: Scene):
    page = await scene.page(scene.seeded.operator, viewport={"width": 1440, "height": 900})
    await page.goto(f"{scene.url}/dashboard/sites/{scene.seeded.site_id}")
    site = page.locator(".card", has=page.get_by_text("acts at once when saved"))
    fields = await site.locator("[name]").evaluate_all("its => its.map(it => it.name)")
    assert fields == ["name", "first_party", "origins", "is_intake_open"]
    await expect(page.locator(".save")).to_contain_text("under Site acts at once")
    assert await page.evaluate(NARROW_TEXTS) == []


async def test_the_preview_tells_each_state_and_holds_back_by_the_drafts_rules(scene: Scene):
    page = await scene.page(scene.seeded.operator)
    await page.goto(f"{scene.url}/dashboard/sites/{scene.seeded.site_id}")
    frame = page.frame_locator("iframe.preview")
    words = frame.locator("quittance-banner .words")
    state, region = (
        page.get_by_label("What the visitor comes with"),
        page.get_by_label("Visitor's region"),
    )

    await page.locator('[name="p4.id"]').fill("surveys")
    await page.locator('[name="p4.name"]').fill("Surveys")
    await page.locator('[name="trackers"]').fill("host *.video.example = advertising")
    held = frame.locator("quittance-placeholder")
    await expect(held).to_be_visible()
    await state.select_option("changed")
    await expect(words).to_contain_text("New or changed since your last choice: Surveys.")
    await state.select_option("expired")
    await expect(words).to_contain_text("has run out")
    await region.select_option("US-CA")
    await state.select_option("gpc")
    await expect(words).to_contain_text("Global Privacy Control")
    await expect(held).to_be_visible()
    await state.select_option("")
    embedded = frame.frame_locator("figure iframe")
    await expect(embedded.get_by_text("the other provider's content")).to_be_visible()

    australia = region.locator('option[value="AU"]')
    await expect(australia).to_be_disabled()
    await page.get_by_label("Privacy Act 1988 (Australia)").check()
    await expect(australia).to_be_enabled()
    await region.select_option("AU")
    await expect(frame.get_by_role("button", name="OK")).to_be_visible()
    await page.get_by_label("Privacy Act 1988 (Australia)").uncheck()
    await expect(region).to_have_value("DE")
    assert scene.complaints == []


@pytest.fixture
async def incident(scene: Scene) -> Incident:
    return await seed_incident(scene.runtime, dt.datetime.now(dt.UTC))


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_an_incident_fits_a_telephone(scene: Scene, incident: Incident, scheme: str):
    page = await scene.page(
        incident.operator, viewport={"width": 360, "height": 740}, color_scheme=scheme
    )
    paths = [
        "queues",
        *(f"queues/{each}" for each in incident.queues.values()),
        f"deliveries/{incident.delivery_id}",
        f"deliveries/{incident.finished_id}",
    ]
    for path in paths:
        answer = await page.goto(f"{scene.url}/dashboard/{path}")
        assert answer
        assert answer.status == 200, path
        over = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert over <= 0, path
    assert scene.complaints == []


async def test_an_incident_is_read_from_the_overview_down_without_javascript(
    scene: Scene, incident: Incident
):
    page = await scene.page(incident.operator, java_script_enabled=False)
    await page.goto(f"{scene.url}/dashboard")
    await page.get_by_role("link", name="Mailing service").click()
    await expect(page.get_by_text("Calls to it fail.")).to_be_visible()
    await expect(page.get_by_role("img", name="Per quarter of an hour")).to_be_visible()
    await page.locator("#waiting tbody tr").nth(1).get_by_role("link").click()
    await expect(page.get_by_text("8 steps, 7 attempts")).to_be_visible()
    await page.get_by_role("link", name="See the queue").click()
    flush = page.get_by_role("button", name="Try all of it now")
    await expect(flush).to_be_hidden()
    await page.get_by_text("Flush", exact=True).click()
    await flush.click()
    await expect(page.get_by_role("status")).to_contain_text("Everything that waited is tried now")


async def test_steps_open_over_the_list_and_outlive_its_renewal(scene: Scene, incident: Incident):
    page = await scene.page(incident.operator)
    await page.clock.install()
    await page.goto(f"{scene.url}/dashboard/queues")
    row = page.locator("tbody tr", has_text="Product analytics")
    await row.get_by_role("button", name="Steps").focus()
    await page.keyboard.press("Enter")
    resume = page.get_by_role("button", name="Resume").locator("visible=true")
    await expect(resume).to_be_visible()
    async with scene.runtime.database.writing() as session:
        (await session.get_one(VirtualQueue, incident.queues["idle"])).is_paused = True
    await page.clock.fast_forward(11_000)
    await expect(page.locator("tbody tr", has_text="Event archive")).to_contain_text("Paused")
    await expect(resume).to_be_visible()
    await resume.click()
    await expect(page.get_by_role("status")).to_contain_text("The queue goes on")
    await expect(row).not_to_contain_text("Parked")
    assert scene.complaints == []
