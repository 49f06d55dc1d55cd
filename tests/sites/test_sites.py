"""Sites over HTTP: what operators configure, and what visitors are shown of it."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import ValidationError

from app.core.clock import utc_now
from app.core.errors import Invalid
from app.sites import script
from app.sites import service as sites
from app.sites.changes import sha256_of
from app.sites.config import SiteConfig
from app.sites.languages import OPTIONAL_TEXT_KEYS, TEXT_KEYS, accepted, best, shipped
from app.sites.models import NoticeVersion, Site
from app.sites.origins import clean_origin
from tests.sites.stage import SHOP, Stage, stage

BANNER_KEYS = {
    "site_key", "notice_version", "version_hash", "regime", "mode", "shown", "language",
    "languages", "expiry_days", "purposes", "texts",
}  # fmt: skip


async def banner(service: Stage, site_key: str, query: str = "", **headers: str) -> dict[str, Any]:
    answer = await service.client.get(f"/v1/sites/{site_key}/banner{query}", headers=headers)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def change(service: Stage, site_key: str, **config: Any) -> None:
    patch = {"config": config}
    done = await service.client.patch(f"/v1/sites/{site_key}", json=patch, headers=service.auth())
    assert done.status_code == 200, done.text


async def publish(service: Stage, site_key: str) -> dict[str, Any]:
    done = await service.client.post(f"/v1/sites/{site_key}/publish", headers=service.auth())
    assert done.status_code == 200, done.text
    found: dict[str, Any] = done.json()
    return found


def inlined(script: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        script.partition("quittanceWidget.start(")[2].removesuffix(",[])})()\n")
    )
    return found


# --- texts


@pytest.mark.parametrize("tag", list(shipped()))
def test_a_shipped_language_says_everything(tag: str) -> None:
    language = shipped()[tag]

    assert set(language["texts"]) == {*TEXT_KEYS, *OPTIONAL_TEXT_KEYS}
    assert all(language["texts"].values())
    assert set(language["purposes"]) == {"necessary", "functional", "analytics", "advertising"}
    assert all(said["name"] and said["description"] for said in language["purposes"].values())


@pytest.mark.parametrize("told_by", ["sites", "subject_requests"])
def test_no_line_of_french_begins_with_a_mark(told_by: str) -> None:
    """French sets a space before ``: ; ? !`` and inside guillemets, where no line may break."""
    told = (Path("app") / told_by / "texts" / "fr.json").read_text(encoding="utf-8")

    assert "\u00a0:" in told
    assert not re.findall(r" [;?!»]|[^\"] :|« ", told)


@pytest.mark.parametrize(
    ("header", "tags"),
    [
        ("de-AT,de;q=0.9,en;q=0.5", ["de-AT", "de", "en"]),
        ("en;q=0.1, fr", ["fr", "en"]),
        ("*, ;;;, de;q=0, xx;q=9", []),
        (None, []),
    ],
)
def test_accept_language_is_read_by_weight(header: str | None, tags: list[str]) -> None:
    assert accepted(header) == tags


def test_a_regional_tag_finds_its_language() -> None:
    assert best(["de", "en"], ["fr", "de-AT"]) == "de"
    assert best(["pt-BR", "en"], ["PT-br"]) == "pt-BR"
    assert best(["pt-BR", "en"], ["pt"]) == "pt-BR"


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("zh", "zh"), ("zh-CN", "zh"), ("zh-Hans-SG", "zh"), ("zh-TW", "zh-Hant"),
        ("zh-HK", "zh-Hant"), ("zh-Hant-MO", "zh-Hant"), ("no", "nb"), ("nn-NO", "nb"),
        ("iw-IL", "he"), ("pt-PT", "pt"), ("pt-BR", "pt-BR"),
    ],
)  # fmt: skip
def test_a_browsers_name_for_a_language_finds_ours(wanted: str, found: str) -> None:
    assert best(["en", "zh", "zh-Hant", "nb", "he", "pt", "pt-BR"], ["xx", wanted, "en"]) == found


def test_a_language_that_is_not_offered_is_not_guessed() -> None:
    assert best(["de"], ["fr"]) is None


# --- what operators may set


@pytest.mark.parametrize(
    ("given", "origin"),
    [
        ("https://Shop.Example/", "https://shop.example"),
        ("https://shop.example:443", "https://shop.example"),
        ("https://shop.example:8443", "https://shop.example:8443"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://127.0.0.1:80", "http://127.0.0.1"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
    ],
)
def test_an_origin_is_kept_as_browsers_send_it(given: str, origin: str) -> None:
    assert clean_origin(given) == origin


@pytest.mark.parametrize(
    "given",
    [
        "*", "null", "", "shop.example", "http://shop.example", "https://*.shop.example", "ftp://shop.example",
        "https://user@shop.example", "https://shop.example/path", "https://shop.example?x", "https://shop.example#",
        "https://shop.example:99999", "https://", "https://a b.example", "https://shop.example\\@evil.example",
        "javascript:alert(1)", "https://shop..example",
    ],
)  # fmt: skip
def test_anything_but_an_exact_origin_is_refused(given: str) -> None:
    with pytest.raises(Invalid):
        clean_origin(given)


async def test_which_of_the_origins_is_not_valid_is_said(service: Stage) -> None:
    body = {"name": "Shop", "origins": [SHOP, "https://shop.example/path"]}
    refused = await service.client.post("/v1/sites", json=body, headers=service.auth())

    assert refused.json()["type"] == "urn:quittance:problem:invalid-origin"
    assert refused.json()["detail"] == "Correct number 2 of the 2 origins."
    (wrong,) = refused.json()["errors"]
    assert wrong["at"] == "origins.1"
    assert "scheme, host and port only" in wrong["problem"]


@pytest.mark.parametrize(
    "config",
    [
        {"theme": {"accent": "red"}},
        {"theme": {"accent": "#12345"}},
        {"theme": {"css": "body{display:none}"}},
        {"theme": {"position": "top"}},
        {"policy_url": "javascript:alert(1)"},
        {"policy_url": "//evil.example"},
        {"policy_url": "http://shop.example/privacy"},
        {"policy_url": "https://u:p@shop.example"},
        {"expiry_days": 391},
        {"expiry_days": True},
        {"texts": {"en": {"unknown": "x"}}},
        {"texts": {"en": {"accept": "x" * 121}}},
        {"texts": {"en": {"accept": ""}}},
        {"texts": {"en": {"accept": "a\x07"}}},
        {"texts": {"en": {"accept": "Accept\u202e"}}},
        {"languages": ["eo"], "default_language": "eo"},
        {"languages": ["de"]},
        {"regimes": ["hipaa"]},
        {"regimes": []},
        {"purposes": [{"id": "necessary", "required": True}]},
        {"purposes": [{"id": "constructor"}]},
        {"purposes": [{"id": "__proto__"}]},
        {"purposes": [{"id": "analytics"}, {"id": "analytics"}]},
        {"purposes": [{"id": "chat"}]},
        {"mapping": {"_ga": "chat"}},
        {"mapping": {"<b>": "analytics"}},
        {"surprise": 1},
    ],
)
def test_a_faulty_draft_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SiteConfig.model_validate(config)


def test_a_vendors_name_for_its_integration_is_a_label() -> None:
    mapping = {"Braze Web Mode (Actions)": "advertising", "Customer.io": "analytics"}
    assert SiteConfig.model_validate({"mapping": mapping}).mapping == mapping


def test_an_own_purpose_is_said_in_the_default_language_where_it_has_no_text() -> None:
    chat = {"id": "chat", "texts": {"en": {"name": "Chat", "description": "Talk to us."}}}
    config = SiteConfig.model_validate({"purposes": [{"id": "necessary", "required": True}, chat]})

    assert [each.id for each in config.purposes] == ["necessary", "chat"]


async def test_ban_003_there_is_no_free_css(service: Stage) -> None:
    for theme in (
        {"accent": "expression(1)"},
        {"accent": "url(javascript:1)"},
        {"css": "@import 'x'"},
    ):
        body = {"name": "Shop", "origins": [SHOP], "config": {"theme": theme}}
        refused = await service.client.post("/v1/sites", json=body, headers=service.auth())
        assert refused.status_code == 422


# --- publishing


async def test_unchanged_content_is_the_same_version(service: Stage) -> None:
    site_key = await service.add_site()
    first = await publish(service, site_key)

    await change(service, site_key, expiry_days=90)
    second = await publish(service, site_key)
    await change(service, site_key)
    third = await publish(service, site_key)

    assert (first["number"], second["number"]) == (1, 2)
    assert second["version_hash"] != first["version_hash"]
    assert third == first, "going back to earlier content is that earlier version"


async def test_a_sale_that_is_no_choice_stays_a_draft(service: Stage) -> None:
    purposes = [{"id": "analytics"}, {"id": "advertising", "required": True, "denied_by_gpc": True}]
    body = {"name": "Shop", "origins": [SHOP], "config": {"purposes": purposes}}
    made = await service.client.post("/v1/sites", json=body, headers=service.auth())
    assert made.status_code == 201

    path = f"/v1/sites/{made.json()['site_key']}/publish"
    refused = await service.client.post(path, headers=service.auth())

    assert refused.status_code == 422
    assert refused.json()["type"] == "urn:quittance:problem:not-publishable"
    assert "advertising" in refused.json()["detail"]


@pytest.mark.parametrize(
    ("regimes", "region", "is_early"),
    [
        (["gdpr", "ccpa"], "US-CA", False),
        (["gdpr", "ccpa"], "US", True),
        (["ccpa"], "US", False),
        (["ccpa"], "DE", True),
        (["gdpr", "au_privacy"], "AU", False),
        (["gdpr"], "AU", True),
    ],
)
async def test_nothing_is_granted_before_the_choice_where_visitors_are_asked_first(
    service: Stage, regimes: list[str], region: str, *, is_early: bool
) -> None:
    config = {"regimes": regimes, "consent_mode": {"granted_in": [region]}}
    body = {"name": "Shop", "origins": [SHOP], "config": config}
    made = await service.client.post("/v1/sites", json=body, headers=service.auth())
    path = f"/v1/sites/{await service.add_site()}"
    changed = await service.client.patch(path, json={"config": config}, headers=service.auth())
    assert [made.status_code, changed.status_code] == ([422] * 2 if is_early else [201, 200])

    async with service.database.writing() as session:  # stored before there was this rule
        site = (
            (await session.execute(sa.select(Site))).scalars().one_or_none() if is_early else None
        )
        if site:
            site.draft = SiteConfig.model_validate(config).model_dump(mode="json")
    published = await service.client.post(f"{path}/publish", headers=service.auth())
    assert published.status_code == (422 if is_early else 200)
    for refused in (made, changed, published) if is_early else ():
        assert f"names {region}, where" in refused.json()["detail"]


async def test_the_draft_is_not_shown_before_it_is_published(service: Stage) -> None:
    site_key = await service.add_site()
    await change(service, site_key, expiry_days=90)

    before = await banner(service, site_key)
    site = (await service.client.get(f"/v1/sites/{site_key}", headers=service.auth())).json()
    await publish(service, site_key)
    after = await banner(service, site_key)

    assert (before["expiry_days"], after["expiry_days"]) == (180, 90)
    assert site["has_unpublished_changes"] is True
    assert site["config"]["expiry_days"] == 90


async def test_a_version_holds_every_language_and_regime_and_its_hash(service: Stage) -> None:
    await service.add_site()
    async with service.database.reading() as session:
        version = (await session.execute(sa.select(NoticeVersion))).scalar_one()

    assert set(version.content["languages"]) == set(shipped())
    assert set(version.content["regimes"]) == {"gdpr", "uk_gdpr", "ccpa", "lgpd"}
    assert version.sha256 == sha256_of(version.content)


async def test_other_looks_and_terms_ask_nobody_again(service: Stage) -> None:
    site_key = await service.add_site()
    first = await banner(service, site_key)
    await change(service, site_key, expiry_days=90, theme={"accent": "#aa0000"})
    await publish(service, site_key)
    second = await banner(service, site_key)

    assert second["notice_version"] != first["notice_version"]
    assert second["material"] == first["material"]
    assert second["news"] == {first["notice_version"]: []}


SURVEYS = {"id": "surveys", "texts": {"en": {"name": "Surveys", "description": "We ask you."}}}
PURPOSES: list[dict[str, Any]] = [
    {"id": "necessary", "required": True},
    {"id": "analytics", "texts": {"en": {"name": "Analytics", "description": "We count."}}},
]


@pytest.mark.parametrize(
    ("purposes", "news"),
    [
        ([*PURPOSES, SURVEYS], ["surveys"]),
        ([PURPOSES[0], PURPOSES[1] | {"denied_by_gpc": True}], ["analytics"]),
        ([PURPOSES[0], PURPOSES[1] | {"texts": {"en": {"name": "Everything"}}}], ["analytics"]),
    ],
)
async def test_other_purposes_ask_everybody_again_and_say_what_is_new(
    service: Stage, purposes: list[Any], news: list[str]
) -> None:
    site_key = await service.add_site(purposes=PURPOSES, languages=["en", "de"])
    first = await banner(service, site_key)
    await change(service, site_key, purposes=purposes, languages=["en", "de"])
    await publish(service, site_key)
    second = await banner(service, site_key)

    assert second["material"] != first["material"]
    assert second["news"] == {first["notice_version"]: news}


async def test_other_words_in_one_language_alone_ask_everybody_again(service: Stage) -> None:
    german = {"en": {"name": "Polls"}, "de": {"name": "Umfragen"}}
    purposes = [PURPOSES[0], PURPOSES[1] | {"texts": german}]
    site_key = await service.add_site(purposes=purposes, languages=["en", "de"])
    first = await banner(service, site_key)
    purposes[1] |= {"texts": german | {"de": {"name": "Weitergabe"}}}
    await change(service, site_key, purposes=purposes, languages=["en", "de"])
    await publish(service, site_key)
    second = await banner(service, site_key)
    await change(service, site_key, purposes=purposes, languages=["en", "de", "fr"])
    await publish(service, site_key)

    assert second["material"] != first["material"]
    assert second["news"] == {first["notice_version"]: [PURPOSES[1]["id"]]}
    assert (await banner(service, site_key))["material"] == second["material"]


async def test_whoever_answered_what_is_asked_again_is_not_asked_again(service: Stage) -> None:
    site_key = await service.add_site(purposes=PURPOSES)
    publish = f"/v1/sites/{site_key}/publish"

    async def material(purposes: list[dict[str, Any]], days: int, said: str = "") -> str:
        await change(service, site_key, purposes=purposes, expiry_days=days)
        answer = await service.client.post(f"{publish}{said}", headers=service.auth())
        return str(answer.json()["material"])

    first = (await banner(service, site_key))["material"]
    more = await material([*PURPOSES, SURVEYS], 180)
    assert await material(PURPOSES, 90) == first != more
    everybody = await material(PURPOSES, 91, "?asks_again=true")
    assert await material([*PURPOSES, SURVEYS], 180) == more, "the very version"
    assert await material(PURPOSES, 92) == everybody, "the newest of those that asked the same"
    assert await material([*PURPOSES, SURVEYS], 180, "?asks_again=false") == everybody


async def test_another_controller_is_named_to_whoever_comes_back(service: Stage) -> None:
    site_key = await service.add_site(controller={"name": "Shop Ltd"})
    first = await banner(service, site_key)
    await change(service, site_key, controller={"name": "Bigger Shop Inc"})
    await publish(service, site_key)
    second = await banner(service, site_key)
    script = inlined((await service.client.get(f"/b/{site_key}.js?region=DE")).text)

    assert second["material"] != first["material"]
    assert second["news"] == {first["notice_version"]: ["@controller"]}
    assert script["news"] == {first["notice_version"]: ["Bigger Shop Inc"]}


async def test_the_operator_has_the_last_word_on_asking_again(service: Stage) -> None:
    site_key = await service.add_site(purposes=PURPOSES)
    first = await banner(service, site_key)
    path = f"/v1/sites/{site_key}/publish"
    await change(service, site_key, purposes=[*PURPOSES, SURVEYS])
    quiet = await service.client.post(f"{path}?asks_again=false", headers=service.auth())
    await change(service, site_key, purposes=[*PURPOSES, SURVEYS], expiry_days=10)
    loud = await service.client.post(f"{path}?asks_again=true", headers=service.auth())

    assert quiet.json()["material"] == first["material"]
    assert loud.json()["material"] not in {first["material"], quiet.json()["material"]}

    same = await service.client.post(path, headers=service.auth())
    again = await service.client.post(f"{path}?asks_again=true", headers=service.auth())
    assert same.json()["notice_version"] == loud.json()["notice_version"]
    assert again.json()["version_hash"] == loud.json()["version_hash"]
    assert again.json()["material"] != loud.json()["material"]
    assert (await banner(service, site_key))["material"] == again.json()["material"]


async def test_the_dialog_is_kept_for_ever_under_its_own_address(service: Stage) -> None:
    site_key = await service.add_site()
    config = inlined((await service.client.get(f"/b/{site_key}.js")).text)
    path = config["dialog"].removeprefix("https://consent.example")
    now = await service.client.get(path)
    outdated = await service.client.get("/b/w/0123456789abcdef/dialog.js")

    assert now.text == outdated.text == "export const openDialog=()=>{}"
    assert now.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert outdated.headers["cache-control"] == "public, max-age=300"
    assert now.headers["access-control-allow-origin"] == "*"  # modules are fetched with CORS


def test_the_first_view_stays_within_its_budget() -> None:
    """Everything a visitor loads before the banner is on the screen, as it comes: 11 kB gzip."""
    site = Site(
        id="sit_1", workspace_id="wsp_1", site_key=f"site_{'x' * 16}", name="Shop", origins=[],
        draft=SiteConfig().model_dump(mode="json"), created_at=utc_now(),
    )  # fmt: skip
    shown = sites.banner(site, None, "en", "DE")
    url = "https://privacy.shop.example"
    config = script.config_of(shown, base_url=url, region="DE", gpc=False, widget=script.WIDGET)
    body, _ = script.script(config, (), script.WIDGET)

    assert len(gzip.compress(body, 9)) <= 11 * 1024


async def test_a_script_tag_with_a_wrong_key_gets_what_browsers_show(service: Stage) -> None:
    answer = await service.client.get("/b/site_none.js", headers={"sec-fetch-dest": "script"})

    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/javascript")
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    assert (
        json.loads(answer.text.removeprefix("// "))["type"] == "urn:quittance:problem:unknown-site"
    )


async def test_who_watches_whether_the_script_is_there_may_ask_for_its_head(service: Stage) -> None:
    site_key = await service.add_site()
    answers = [await service.client.request(each, f"/b/{site_key}.js") for each in ("HEAD", "GET")]

    assert [each.status_code for each in answers] == [200, 200]
    assert answers[0].headers["etag"] == answers[1].headers["etag"]
    assert (await service.client.head("/b/site_none.js")).status_code == 404


async def test_modules_travel_only_with_sites_that_ask_for_them(service: Stage) -> None:
    module = service.app.state.widget.with_name("gpp.js")
    module.write_text("var quittance_gpp={install(){}}")
    with_it = await service.client.get(f"/b/{await service.add_site(modules=['gpp'])}.js")
    without = await service.client.get(f"/b/{await service.add_site()}.js")

    assert module.read_text() in with_it.text
    assert with_it.text.endswith(",[quittance_gpp])})()\n")
    assert "gpp" not in without.text


@pytest.mark.parametrize(
    "tracker",
    [
        {"kind": "host", "pattern": "stats"},
        {"kind": "host", "pattern": "*"},
        {"kind": "host", "pattern": "https://stats.example"},
        {"kind": "cookie", "pattern": "*"},
        {"kind": "cookie", "pattern": "qt_site"},
        {"kind": "cookie", "pattern": "a=b"},
        {"kind": "storage", "pattern": "uid", "http_only": True},
        {"kind": "cookie", "pattern": "_ga", "purpose": "unknown"},
    ],
)
async def test_a_rule_that_could_hit_too_much_is_refused(
    service: Stage, tracker: dict[str, Any]
) -> None:
    config = {"trackers": [{"purpose": "analytics"} | tracker]}
    body = {"name": "Shop", "origins": [SHOP], "config": config}
    refused = await service.client.post("/v1/sites", json=body, headers=service.auth())

    assert refused.status_code == 422


async def test_a_site_with_a_rule_for_a_host_gets_the_part_that_holds_hosts_back(
    service: Stage,
) -> None:
    service.app.state.widget = script.WIDGET
    rule = {"kind": "host", "pattern": "*.stats.example", "purpose": "analytics"}
    holding = (await service.client.get(f"/b/{await service.add_site(trackers=[rule])}.js")).text
    plain = (await service.client.get(f"/b/{await service.add_site()}.js")).text

    assert "quittance_hosts=" in holding
    assert "[quittance_hosts])" in holding
    assert "quittance_hosts" not in plain
    assert script.tag("/c.js", b"x", {"trackers": [rule]}).endswith('"></script>')
    assert script.tag("/c.js", b"x", {"trackers": [rule | {"kind": "cookie"}]}).endswith(
        '" async></script>'
    )


async def test_ban_009_a_reader_can_neither_change_nor_publish(service: Stage) -> None:
    site_key = await service.add_site()
    await service.add_key("reader", "wsp_one", "sites:read")
    reader = service.auth("reader")

    read = await service.client.get(f"/v1/sites/{site_key}", headers=reader)
    changed = await service.client.patch(
        f"/v1/sites/{site_key}", json={"name": "x"}, headers=reader
    )
    published = await service.client.post(f"/v1/sites/{site_key}/publish", headers=reader)

    assert (read.status_code, changed.status_code, published.status_code) == (200, 403, 403)


async def test_another_workspace_sees_nothing_of_a_site(service: Stage) -> None:
    site_key = await service.add_site()
    eve = service.auth("eve")

    answers = [
        await service.client.get(f"/v1/sites/{site_key}", headers=eve),
        await service.client.patch(f"/v1/sites/{site_key}", json={"name": "x"}, headers=eve),
        await service.client.post(f"/v1/sites/{site_key}/publish", headers=eve),
        await service.client.delete(f"/v1/sites/{site_key}", headers=eve),
        await service.client.get(f"/v1/sites/{site_key}/versions", headers=eve),
    ]

    assert {each.status_code for each in answers} == {404}
    assert (await service.client.get("/v1/sites", headers=eve)).json()["items"] == []


async def test_sites_are_listed_page_by_page(service: Stage) -> None:
    made = [await service.add_site() for _ in range(3)]

    first = (await service.client.get("/v1/sites?limit=2", headers=service.auth())).json()
    second = (
        await service.client.get(
            f"/v1/sites?limit=2&cursor={first['next_cursor']}", headers=service.auth()
        )
    ).json()
    foreign = await service.client.get(
        f"/v1/sites?cursor={first['next_cursor']}", headers=service.auth("eve")
    )

    assert [each["site_key"] for each in first["items"] + second["items"]] == made[::-1]
    assert second["next_cursor"] is None
    assert foreign.status_code == 422


async def test_an_idempotent_create_makes_one_site(service: Stage) -> None:
    headers = service.auth() | {"Idempotency-Key": "one"}
    body = {"name": "Shop", "origins": [SHOP]}

    answers = [await service.client.post("/v1/sites", json=body, headers=headers) for _ in range(2)]
    other = await service.client.post("/v1/sites", json=body | {"name": "Other"}, headers=headers)

    assert answers[0].json() == answers[1].json()
    assert other.status_code == 422
    assert len(await service.rows("select id from site")) == 1


async def test_changes_are_in_the_audit_log(service: Stage) -> None:
    site_key = await service.add_site()
    await change(service, site_key, expiry_days=30)
    await service.client.delete(f"/v1/sites/{site_key}", headers=service.auth())

    verbs = [verb for (verb,) in await service.rows("select verb from audit_entry order by id")]
    assert verbs == ["site.create", "site.publish", "site.update", "site.delete"]


# --- the banner


@pytest.mark.parametrize(
    ("region", "regime", "mode", "analytics"),
    [
        ("DE", "gdpr", "opt_in", False),
        ("US-CA", "ccpa", "opt_out", True),
        ("", "gdpr", "opt_in", False),
    ],
)
async def test_the_region_decides_the_law(
    service: Stage, region: str, regime: str, mode: str, *, analytics: bool
) -> None:
    site_key = await service.add_site()
    shown = await banner(service, site_key, f"?region={region}")
    defaults = {each["id"]: each["default"] for each in shown["purposes"]}

    assert shown.keys() >= BANNER_KEYS
    assert (shown["regime"], shown["mode"], shown["shown"]) == (regime, mode, True)
    assert defaults == {
        "necessary": True,
        "functional": analytics,
        "analytics": analytics,
        "advertising": analytics,
    }
    assert {*TEXT_KEYS, *OPTIONAL_TEXT_KEYS} - set(shown["texts"]) == {
        "body_opt_out", "dialog_body_opt_out", "body_for_notice",
    }  # fmt: skip
    assert ("object" in shown["texts"]["body"]) is (mode == "opt_out")


async def test_the_signal_denies_advertising_before_any_choice(service: Stage) -> None:
    site_key = await service.add_site()
    shown = await banner(service, site_key, "?region=US-CA", **{"Sec-GPC": "1"})
    ignored = await banner(service, site_key, "?region=US-CA", **{"Sec-GPC": "1.0"})
    defaults = {each["id"]: each["default"] for each in shown["purposes"]}

    assert defaults == {
        "necessary": True,
        "functional": True,
        "analytics": True,
        "advertising": False,
    }
    assert shown["shown"] is False
    assert ignored["shown"] is True


async def test_the_language_is_asked_for_or_accepted_or_the_default(service: Stage) -> None:
    site_key = await service.add_site()
    accept = {"Accept-Language": "fr-CA, de;q=0.5"}

    assert (await banner(service, site_key, "?lang=es", **accept))["language"] == "es"
    assert (await banner(service, site_key, "?lang=xx", **accept))["language"] == "fr"
    assert (await banner(service, site_key, **{"Accept-Language": "eo"}))["language"] == "en"


async def test_operators_words_replace_ours(service: Stage) -> None:
    texts = {"en": {"title": "Hello from {controller}"}}
    site_key = await service.add_site(texts=texts, controller={"name": "Shop Ltd"})
    shown = await banner(service, site_key)

    assert shown["texts"]["title"] == "Hello from Shop Ltd"
    assert shown["texts"]["body"].startswith("Shop Ltd would like")


async def test_only_listed_origins_may_read_the_banner(service: Stage) -> None:
    path = f"/v1/sites/{await service.add_site()}/banner"
    good = await service.client.get(path, headers={"Origin": SHOP})
    evil = await service.client.get(path, headers={"Origin": "https://evil.example"})
    asked = await service.client.options(path, headers={"Origin": SHOP})

    assert good.headers["access-control-allow-origin"] == SHOP
    assert "access-control-allow-credentials" not in good.headers
    assert "access-control-allow-origin" not in evil.headers
    assert "Origin" in evil.headers["vary"]
    assert asked.headers["access-control-allow-origin"] == SHOP


async def test_unknown_unpublished_and_deleted_sites_are_not_found(service: Stage) -> None:
    body = {"name": "Shop", "origins": [SHOP]}
    draft = (await service.client.post("/v1/sites", json=body, headers=service.auth())).json()[
        "site_key"
    ]
    deleted = await service.add_site()
    await banner(service, deleted)
    await service.client.delete(f"/v1/sites/{deleted}", headers=service.auth())

    for site_key in (draft, deleted, "site_nowhere", "abc' OR '1'='1"):
        for path in (f"/v1/sites/{site_key}/banner", f"/b/{site_key}.js"):
            answer = await service.client.get(path)
            assert answer.status_code == 404
            assert answer.headers["content-type"] == "application/problem+json"


async def test_gpc_is_stated(service: Stage) -> None:
    answer = await service.client.get("/.well-known/gpc.json")

    assert answer.json() == {"gpc": True, "lastUpdate": "2026-11-23"}


# --- the script


async def test_the_script_carries_its_configuration(service: Stage) -> None:
    site_key = await service.add_site()
    answer = await service.client.get(
        f"/b/{site_key}.js?lang=de&region=us-ca", headers={"Sec-GPC": "1"}
    )
    config = inlined(answer.text)

    assert answer.text.startswith(
        '//# allFunctionsCalledOnLoad\n(()=>{"use strict";var quittanceWidget'
    )
    assert config.keys() >= BANNER_KEYS - {"version_hash", "languages", "shown"}
    assert (config["api"], config["gpc"], config["region"]) == (
        "https://consent.example",
        True,
        "US-CA",
    )
    assert config["privacy_url"] == f"https://consent.example/privacy/{site_key}"
    assert "shown" not in config, "the signal was honoured: nobody is asked"
    assert config["theme"]["sheet"].startswith(":host{--theme-radius:8px;")
    assert answer.headers["x-quittance-regime"] == "ccpa"
    assert answer.headers["cache-control"] == (
        "private, max-age=300, stale-while-revalidate=86400, stale-if-error=604800"
    )
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    assert answer.headers["vary"] == "Sec-GPC, Accept-Encoding"


async def test_an_unchanged_script_is_not_sent_again(service: Stage) -> None:
    path = f"/b/{await service.add_site()}.js"
    first = await service.client.get(path)
    again = await service.client.get(
        path, headers={"If-None-Match": f'"x", W/{first.headers["etag"]}'}
    )
    other = await service.client.get(
        path, headers={"If-None-Match": first.headers["etag"], "Accept-Language": "de"}
    )

    assert first.headers["vary"] == "Sec-GPC, Accept-Language, Accept-Encoding"
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert other.status_code == 200


async def test_the_script_travels_packed_to_whoever_takes_it(service: Stage) -> None:
    site_key = await service.add_site()
    path = f"/b/{site_key}.js"
    plain = await service.client.get(path, headers={"Accept-Encoding": "identity"})
    packed = await service.client.get(path, headers={"Accept-Encoding": "br;q=1, gzip"})

    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) < len(plain.content) / 2
    assert packed.content == plain.content  # httpx unpacks
    assert packed.headers["etag"] != plain.headers["etag"]
    for each in (plain, packed):
        assert "Accept-Encoding" in each.headers["vary"]
    again = await service.client.get(
        path, headers={"Accept-Encoding": "gzip", "If-None-Match": packed.headers["etag"]}
    )
    assert (again.status_code, again.headers["etag"]) == (304, packed.headers["etag"])


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("gzip", True), ("GZIP;q=0.5", True), ("br, x-gzip", True), ("deflate, gzip;q=1.0", True),
        ("", False), ("br", False), ("gzip;q=0", False), ("gzip; q=0.000", False),
        ("gzipped", False),
    ],
)  # fmt: skip
def test_who_takes_gzip(header: str, expected: bool) -> None:
    assert script.takes_gzip(header) is expected


async def test_without_a_built_widget_the_script_says_so(service: Stage) -> None:
    path = f"/b/{await service.add_site()}.js"
    service.app.state.widget.unlink()
    answer = await service.client.get(path)

    assert answer.status_code == 503
    assert answer.json()["type"] == "urn:quittance:problem:widget-not-built"


async def test_ban_001_texts_stay_text(service: Stage, tmp_path: Path) -> None:
    hostile = "</script><script>alert(1)</script>\u2028<!--&amp;"
    site_key = await service.add_site(texts={"en": {"title": hostile}})
    script = (await service.client.get(f"/b/{site_key}.js?lang=en")).text

    assert not set("<>&\u2028\u2029") & set(script.partition("quittanceWidget.start(")[2])
    assert inlined(script)["texts"]["title"] == hostile
    if node := shutil.which("node"):
        path = tmp_path / "script.js"
        path.write_text(
            f"{script};process.stdout.write(globalThis.config.texts.title)", encoding="utf-8"
        )
        ran = subprocess.run([node, str(path)], capture_output=True, check=True, timeout=30)  # noqa: ASYNC221
        assert ran.stdout.decode() == hostile


async def test_a_script_for_a_law_that_does_not_ask_carries_the_stricter_ones(
    service: Stage,
) -> None:
    path = f"/b/{await service.add_site()}.js"
    california = inlined((await service.client.get(f"{path}?region=US-CA&lang=en")).text)
    berlin = inlined((await service.client.get(f"{path}?region=DE&lang=en")).text)

    assert ["Europe/", "gdpr"] in california["strict"]["zones"]
    assert california["strict"]["texts"]["body"] == berlin["texts"]["body"]
    objecting = {"do_not_sell": california["texts"]["do_not_sell"]}
    tightened = california["texts"] | california["strict"]["texts"]
    assert tightened == berlin["texts"] | objecting
    assert "strict" not in berlin


async def test_a_script_under_one_law_has_that_laws_labels_only(service: Stage) -> None:
    path = f"/b/{await service.add_site(regimes=['ccpa'])}.js"
    california = inlined((await service.client.get(f"{path}?region=US-CA&lang=en")).text)

    assert "strict" not in california
    assert california["texts"].keys() & {"reject", "do_not_sell", "understood"} == {"do_not_sell"}


async def test_who_sells_nothing_has_no_label_that_says_so(service: Stage) -> None:
    purposes = [{"id": "necessary", "required": True}, {"id": "analytics"}]
    site_key = await service.add_site(regimes=["ccpa"], purposes=purposes)
    california = inlined((await service.client.get(f"/b/{site_key}.js?region=US-CA")).text)

    assert california["texts"].keys() & {"reject", "do_not_sell"} == {"reject"}


async def test_only_a_law_that_leaves_people_alone_after_a_refusal_has_the_script_say_so(
    service: Stage,
) -> None:
    path = f"/b/{await service.add_site()}.js"
    california = inlined((await service.client.get(f"{path}?region=US-CA&lang=en")).text)
    berlin = inlined((await service.client.get(f"{path}?region=DE&lang=en")).text)

    assert california["reask_after_days"] == 366
    assert "reask_after_days" not in berlin


async def test_a_notice_versions_script_is_the_same_for_everybody(service: Stage) -> None:
    site_key = await service.add_site(languages=["en", "de"])
    live = await service.client.get(f"/b/{site_key}.js?lang=de&region=US-CA")
    version = inlined(live.text)["notice_version"]
    path = f"/b/{site_key}/{version}.js?lang=de&region=us-ca"
    plain = await service.client.get(path)
    dressed = await service.client.get(
        path, headers={"Sec-GPC": "1", "Accept-Language": "en", "Accept-Encoding": "identity"}
    )
    unknown = await service.client.get(f"/b/{site_key}/{version}.js?lang=de&region=")

    assert plain.content == dressed.content == live.content
    assert plain.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert plain.headers["vary"] == "Accept-Encoding"
    assert plain.headers["access-control-allow-origin"] == "*"
    assert plain.headers["x-quittance-regime"] == "ccpa"
    digest = base64.b64encode(hashlib.sha384(plain.content).digest()).decode()
    assert plain.headers["integrity"] == f"sha384-{digest}"
    assert inlined(unknown.text)["region"] is None
    assert unknown.headers["x-quittance-regime"] == "gdpr"


async def test_an_earlier_notice_version_keeps_its_script(service: Stage) -> None:
    site_key = await service.add_site(languages=["en"], texts={"en": {"title": "First"}})
    version = inlined((await service.client.get(f"/b/{site_key}.js")).text)["notice_version"]
    path = f"/b/{site_key}/{version}.js?lang=en&region=DE"
    first = await service.client.get(path)
    new = {"config": {"languages": ["en"], "texts": {"en": {"title": "Second"}}}}
    await service.client.patch(f"/v1/sites/{site_key}", json=new, headers=service.auth())
    await service.client.post(f"/v1/sites/{site_key}/publish", headers=service.auth())

    assert inlined(first.text)["texts"]["title"] == "First"
    assert (await service.client.get(path)).content == first.content
    assert inlined((await service.client.get(f"/b/{site_key}.js")).text)["texts"]["title"] == (
        "Second"
    )


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("lang=en&region=DE", 200),
        ("lang=en", 422),
        ("region=DE", 422),
        ("lang=xx&region=DE", 422),
        ("lang=en-GB&region=DE", 422),
        ("lang=en&region=Berlin", 422),
        ("lang=en&region=%0aDE%3b", 422),
    ],
)
async def test_a_kept_script_names_its_language_and_region(
    service: Stage, query: str, status: int
) -> None:
    site_key = await service.add_site(languages=["en"])
    other = await service.add_site(languages=["en"], key="eve")
    version = inlined((await service.client.get(f"/b/{site_key}.js")).text)["notice_version"]

    answer = await service.client.get(f"/b/{site_key}/{version}.js?{query}")
    assert answer.status_code == status
    for path in (f"/b/{other}/{version}.js", f"/b/{site_key}/ntv_none.js"):
        missing = await service.client.get(f"{path}?lang=en&region=DE")
        assert (missing.status_code, missing.headers["cache-control"]) == (404, "no-store")


async def test_only_a_trusted_proxy_names_the_region(
    sqlite_url: str, sqlite_keystore_url: str, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"region_header": "CF-Region", "trusted_proxies": "203.0.113.0/24"}
    async with stage(sqlite_url, sqlite_keystore_url, tmp_path, **settings) as service:
        path = f"/b/{await service.add_site()}.js"
        trusted = await service.client.get(path, headers={"CF-Region": "US-CA"})
        named = await service.client.get(f"{path}?region=BR", headers={"CF-Region": "US-CA"})

    assert trusted.headers["x-quittance-regime"] == "ccpa"
    assert trusted.headers["vary"] == "Sec-GPC, CF-Region, Accept-Language, Accept-Encoding"
    assert named.headers["x-quittance-regime"] == "lgpd"
    assert "CF-Region" not in named.headers["vary"]


async def test_a_stranger_cannot_name_the_region_by_header(
    sqlite_url: str, sqlite_keystore_url: str, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"region_header": "CF-Region", "trusted_proxies": "10.0.0.0/8"}
    async with stage(sqlite_url, sqlite_keystore_url, tmp_path, **settings) as service:
        answer = await service.client.get(
            f"/b/{await service.add_site()}.js", headers={"CF-Region": "US-CA"}
        )

    assert answer.headers["x-quittance-regime"] == "gdpr"
