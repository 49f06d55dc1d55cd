"""Publishing a site from the dashboard: what changes, who is asked again, what a version was."""

from __future__ import annotations

import base64
import hashlib
import re
from html import unescape
from typing import Any

import pytest
import sqlalchemy as sa

from app.sites import script
from app.sites.directory import directory_of, notice_of
from app.sites.models import NoticeVersion, Site
from tests.dashboard.conftest import Browser, Stage
from tests.dashboard.fields import form_fields, publish


@pytest.fixture
async def browser(stage: Stage) -> Browser:
    return await stage.signed_in(stage.seeded.operator)


async def live(stage: Stage) -> NoticeVersion:
    async with stage.runtime.database.reading() as session:
        site = await session.get_one(Site, stage.seeded.site_id)
        return await session.get_one(NoticeVersion, site.published_version_id)


async def save(stage: Stage, browser: Browser, **fields: Any) -> str:
    """Change the draft; returns the site's path."""
    path = f"/dashboard/sites/{stage.seeded.site_id}"
    saved = await browser.post(path, form_fields((await browser.get(path)).text) | fields)
    assert saved.status_code == 303, saved.text
    return path


async def test_other_words_ask_nobody_again_unless_the_operator_says_so(
    stage: Stage, browser: Browser
):
    before = await live(stage)
    path = await save(stage, browser, **{"t.title": "Your <b>choice</b> at Aurora"})
    page = (await browser.get(f"{path}/publish")).text
    assert "English: title" in page
    assert "Your &lt;b&gt;choice&lt;/b&gt; at Aurora" in page
    assert "Nobody: who asks, and for what, is unchanged" in page

    assert (await publish(browser, path)).status_code == 303
    second = await live(stage)
    assert (second.number, second.material) == (before.number + 1, before.material)

    await save(stage, browser, **{"t.title": "Your choice"})
    await publish(browser, path, "all")
    asked = await live(stage)
    assert asked.material != before.material
    await save(stage, browser, **{"t.title": "Your own choice"})
    assert (
        "Nobody: who asks, and for what, is unchanged"
        in (await browser.get(f"{path}/publish")).text
    )
    await publish(browser, path)
    assert (await live(stage)).material == asked.material, "asking once is asking once"


async def test_a_new_purpose_asks_everybody_again_unless_the_operator_vouches_for_it(
    stage: Stage, browser: Browser
):
    before = await live(stage)
    path = await save(stage, browser, **{"p4.id": "surveys", "p4.name": "Surveys"})
    page = (await browser.get(f"{path}/publish")).text
    assert "Everybody who has chosen" in page
    assert "(Surveys)" in page
    assert "Purposes: surveys" in page
    assert page.count("purposes, surveys, name") == 1, "not once for each language"
    assert re.search(r"English and \d+ more: purposes, surveys, name", page)

    await publish(browser, path, "nobody")
    assert (await live(stage)).material == before.material


async def test_what_somebody_else_changed_meanwhile_is_not_published_unseen(
    stage: Stage, browser: Browser
):
    before = await live(stage)
    path = await save(stage, browser, **{"t.title": "Mine"})
    shown = re.search(r'name="draft" value="(\w+)"', (await browser.get(f"{path}/publish")).text)
    assert shown
    await save(stage, browser, **{"t.title": "A colleague's"})
    refused = await browser.post(f"{path}/publish", {"draft": shown[1]})

    assert refused.status_code == 409
    assert "A colleague" in refused.text
    assert (await live(stage)).id == before.id


async def test_the_preview_runs_no_script_of_the_site(stage: Stage, browser: Browser):
    path = await save(stage, browser, tags="https://stats.example/s.js = analytics")
    page = (await browser.get(path)).text
    for looked in (
        await browser.get(f"{path}/preview"),
        await browser.post(f"{path}/preview", form_fields(page)),
    ):
        assert "quittanceWidget.start(" in looked.text
        assert "stats.example" not in looked.text


async def test_there_is_nothing_to_publish_when_nothing_changed(stage: Stage, browser: Browser):
    path = f"/dashboard/sites/{stage.seeded.site_id}"
    page = (await browser.get(f"{path}/publish")).text

    assert "Nothing to publish" in page
    assert "<button>Publish" not in page


async def test_a_draft_that_may_not_stand_before_visitors_is_refused_where_it_is_published(
    stage: Stage, browser: Browser
):
    path = await save(
        stage, browser,
        **{"p4.id": "sale", "p4.name": "Sale", "p4.required": "on", "p4.gpc": "on"},
    )  # fmt: skip
    refused = await publish(browser, path)

    assert refused.status_code == 422
    assert "must be a choice" in refused.text
    assert "Publish version" in refused.text


async def test_who_publishes_is_told_what_is_not_translated(stage: Stage, browser: Browser):
    path = await save(stage, browser, accent="#112233")
    assert "Not translated" not in (await browser.get(f"{path}/publish")).text

    await save(stage, browser, **{"p4.id": "surveys", "p4.name": "Surveys"})
    page = (await browser.get(f"{path}/publish")).text
    (told,) = re.findall(r"<li>(Surveys: .*)</li>", page)
    assert re.fullmatch(r"Surveys: in English for readers of \S+ and \d+ more", told)


async def test_who_rewords_a_purpose_in_one_language_is_told_which_ones_stayed(
    stage: Stage, browser: Browser
):
    hint, name, words = "Reworded in some languages only", "p2.name", "p2.description"
    few = {"languages": ["en", "de", "fr"]}
    path = await save(stage, browser, accent="#112233", **few)
    await publish(browser, path)

    await save(stage, browser, **{words: "What we count."})
    page = unescape((await browser.get(f"{path}/publish")).text)
    assert hint in page
    (told,) = re.findall(r"<li>(Analytics: .*)</li>", page)
    assert told == "Analytics: Deutsch, Français"

    german = form_fields((await browser.get(f"{path}?lang=de")).text)
    await browser.post(path, german | {name: "Messung", words: "Was wir zählen."})
    page = unescape((await browser.get(f"{path}/publish")).text)
    assert "<li>Analytics: Français</li>" in page

    assert (await publish(browser, path)).status_code == 303, "a hint, no error"
    await save(stage, browser, accent="#445566")
    assert hint not in (await browser.get(f"{path}/publish")).text, "against what is live"


async def test_who_publishes_is_told_what_visitors_do_not_learn_of_the_controller(
    stage: Stage, browser: Browser
):
    path = await save(stage, browser, accent="#112233", controller_name="")
    page = (await browser.get(f"{path}/publish")).text
    assert "Not said." in page
    for each in ("Controller", "Contact", "Privacy policy"):
        assert f"<li>{each}: " in page

    await save(
        stage, browser, controller_name="Aurora Ltd", controller_contact="dpo@aurora.example"
    )
    page = (await browser.get(f"{path}/publish")).text
    assert "<li>Privacy policy: " in page
    assert "<li>Controller: " not in page
    assert "<li>Contact: " not in page

    await save(stage, browser, policy_url="/privacy")
    assert "Not said." not in (await browser.get(f"{path}/publish")).text


async def test_a_version_tells_what_it_changed(stage: Stage, browser: Browser):
    path = await save(
        stage, browser, **{"accent": "#112233", "p4.id": "surveys", "p4.name": "Surveys"}
    )
    await publish(browser, path)
    version = await live(stage)
    page = (await browser.get(f"{path}/versions/{version.number}")).text

    assert version.sha256 in page
    assert "Everybody who had chosen" in page
    assert re.search(r"Theme: accent.*<ins>#112233</ins>", page, re.S)
    first = (await browser.get(f"{path}/versions/1")).text
    assert "It was the first." in first
    for none in (99, 0, -1, 10**30):
        assert (await browser.get(f"{path}/versions/{none}")).status_code == 404


async def test_an_earlier_version_is_gone_back_to_by_way_of_the_draft(
    stage: Stage, browser: Browser
):
    first = await live(stage)
    path = await save(stage, browser, **{"accent": "#112233", "t.title": "Worse"})
    await publish(browser, path)
    worse = await live(stage)
    await save(
        stage, browser, **{"t.title": "Never published", "first_party": "https://p.shop.example"}
    )
    page = (await browser.get(f"{path}/versions/1")).text
    assert "unpublished are lost" in page

    taken = await browser.post(f"{path}/versions/1", {})
    assert taken.status_code == 303
    editor = (await browser.get(path)).text

    assert (await live(stage)).id == worse.id, "visitors see it once it is published"
    assert "Never published" not in editor
    assert "https://p.shop.example" in editor, "that acts at once, so it stays"
    await publish(browser, path)
    assert (await live(stage)).id == first.id
    page = (await browser.get(f"{path}/versions/1")).text
    assert "Take it as the draft" not in page, "the draft says that already"
    assert "Take it as the draft" in (await browser.get(f"{path}/versions/2")).text


async def test_a_version_of_before_drafts_were_kept_cannot_be_gone_back_to(
    stage: Stage, browser: Browser
):
    path = await save(stage, browser, **{"t.title": "Mine"})
    async with stage.runtime.database.writing() as session:
        await session.execute(sa.text("UPDATE notice_version SET config = NULL"))
    page = (await browser.get(f"{path}/versions/1")).text
    assert "Take it as the draft" not in page

    refused = await browser.post(f"{path}/versions/1", {})

    assert refused.status_code == 409
    assert "before versions kept" in refused.text
    assert 'value="Mine"' in (await browser.get(path)).text


async def test_a_version_that_was_changed_in_the_database_says_so(stage: Stage, browser: Browser):
    path = f"/dashboard/sites/{stage.seeded.site_id}/versions/{(await live(stage)).number}"
    assert "in the database" not in (await browser.get(path)).text
    database = stage.runtime.database
    async with database.writing() as session:
        on = "" if database.is_sqlite else " ON notice_version"
        await session.execute(sa.text(f"DROP TRIGGER notice_version_stays{on}"))
        await session.execute(sa.text(f"UPDATE notice_version SET sha256 = '{'0' * 64}'"))

    assert "Somebody has changed this version in the database." in (await browser.get(path)).text


@pytest.mark.parametrize(
    ("query", "lang", "region"),
    [
        ("", "en", "DE"),
        ("?lang=de&region=US-CA", "de", "US-CA"),
        ("?lang=tlh&region=XX", "en", "DE"),
    ],
)
async def test_a_version_offers_its_script_to_be_hosted_elsewhere(
    stage: Stage, browser: Browser, query: str, lang: str, region: str
):
    async with stage.runtime.database.reading() as session:
        site = await session.get_one(Site, stage.seeded.site_id)
    version = await live(stage)
    page = (await browser.get(f"/dashboard/sites/{site.id}/versions/{version.number}{query}")).text

    (address,) = re.findall(r'href="([^"]+)" download="consent.js"', page)
    assert unescape(address).endswith(
        f"/b/{site.site_key}/{version.id}.js?lang={lang}&region={region}"
    )
    body, _ = script.pinned(
        await directory_of(stage.runtime.database).site(site.site_key), notice_of(version),
        lang=lang, region=region, base_url=stage.runtime.settings.public_url, widget=script.WIDGET,
    )  # fmt: skip
    digest = base64.b64encode(hashlib.sha384(body).digest()).decode()
    assert f'integrity="sha384-{digest}"' in unescape(page)


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({"t.title": "Not saved </script><script>alert(1)</script>"}, r"Not saved \\u003c/script"),
        ({"preview_region": "US-CA"}, '"mode":"opt_out"'),
        ({"preview_lang": "de"}, "Ihre Daten, Ihre Entscheidung"),
        ({"policy_url": "javascript:alert(1)"}, "policy_url"),
        ({"expiry_days": "soon"}, "give a whole number"),
    ],
)
async def test_the_preview_shows_what_the_form_says_and_saves_nothing(
    stage: Stage, browser: Browser, change: dict[str, Any], shown: str
):
    path = f"/dashboard/sites/{stage.seeded.site_id}"
    page = (await browser.get(path)).text
    looked = await browser.post(f"{path}/preview", form_fields(page) | change)

    assert looked.status_code == 200
    assert re.search(shown, looked.text)
    assert "<script>alert(1)" not in looked.text
    assert "sandbox allow-scripts" in looked.headers["content-security-policy"]
    assert form_fields((await browser.get(path)).text) == form_fields(page)


def places(page: str) -> dict[str, bool]:
    """Of the preview's regions, whether one is offered."""
    (select,) = re.findall(r'aria-label="Visitor\'s region"[^>]*>(.*?)</select>', page)
    options = re.findall(r'<option value="([^"]*)"([^>]*)>', select)
    return {value: "disabled" not in rest for value, rest in options}


async def test_the_preview_offers_a_place_for_each_law_of_the_draft(stage: Stage, browser: Browser):
    path = f"/dashboard/sites/{stage.seeded.site_id}"
    before = (await browser.get(path)).text
    known = {"DE": True, "GB": True, "BR": True, "US-CA": True, "AU": False, "": True}
    found = places(before)
    assert {each: found.pop(each) for each in known} == known
    assert found
    assert not any(found.values()), "laws that the site does not follow"
    assert "region=DE" in before

    await save(stage, browser, regimes=["au_privacy", "ccpa"])
    page = (await browser.get(path)).text
    offered = {each for each, is_offered in places(page).items() if is_offered}
    assert offered == {"US-CA", "AU", ""}
    assert re.search(r'<iframe class="preview"[^>]*region=US-CA"', page)
    told = await browser.get(f"{path}/preview?region=AU")
    assert '"mode":"notice"' in told.text


async def test_the_preview_comes_back_with_what_was_answered_before(stage: Stage, browser: Browser):
    path = await save(stage, browser, **{"p4.id": "surveys", "p4.name": "Surveys"})
    number = (await live(stage)).id

    async def looked(state: str, region: str = "DE") -> str:
        return (await browser.get(f"{path}/preview?lang=en&region={region}&state={state}")).text

    first, changed, expired = [await looked(each) for each in ("", "changed", "expired")]
    assert "|accept_all|" not in first
    assert f'"news":{{"{number}":["Surveys"]}}' in changed
    assert f"2|i|{number}|" in changed
    assert re.search(r"2\|i\|ntv_draft\|[^|]+\|\d+\|accept_all\|", expired)
    assert '"gpc":true' in await looked("gpc", "US-CA")
    assert '"gpc":true' not in first
    page = (await browser.get(path)).text
    posted = await browser.post(f"{path}/preview", form_fields(page) | {"preview_state": "changed"})
    assert f"2|i|{number}|" in posted.text


@pytest.mark.parametrize(
    ("rules", "host"),
    [
        ("cookie _ga* = analytics", None),
        ("host cdn.example = necessary\nhost *.video.example = advertising", "video.example"),
    ],
)
async def test_a_host_rule_of_the_draft_holds_in_the_preview(
    stage: Stage, browser: Browser, rules: str, host: str | None
):
    path = await save(stage, browser, trackers=rules)
    looked = (await browser.get(f"{path}/preview")).text
    frames = re.findall(r'<iframe title="([^"]*)" data-purpose="([^"]*)" data-src="/dash', looked)
    assert frames == ([(host, "advertising")] if host else [])
    assert "https://" not in looked.partition("quittanceWidget.start(")[0].partition("<main>")[2]


async def test_a_viewer_previews_the_saved_draft_only(stage: Stage):
    viewer = await stage.signed_in(stage.seeded.viewer)
    path = f"/dashboard/sites/{stage.seeded.site_id}"

    assert "Your privacy, your choice" in (await viewer.get(f"{path}/preview?lang=en")).text
    assert (await viewer.post(f"{path}/preview", {"lang": "en"})).status_code == 403
    assert (await viewer.get(f"{path}/publish")).status_code == 403
