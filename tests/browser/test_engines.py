"""Stories of the consent widget in Firefox and in WebKit, as their users have it; the others are
told in Chromium."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.bidi import Firefox
from tests.browser.engine import ENTER, ESCAPE, TAB, Engine, click, press, until
from tests.browser.shop import NONCE, ORDER, Shop
from tests.browser.webdriver import WebKit
from tests.journeys.instance import Embedded, wait_for

ROOT = "document.querySelector('quittance-banner').shadowRoot"
FOCUSED = f"{ROOT}.activeElement?.dataset.action"
BANNER = f"{ROOT}.querySelector('[role=region]')"
DIALOG = f"{ROOT}.querySelector('dialog[open]')"


KINDS: dict[str, Callable[[Path, Path], Engine]] = {"firefox": Firefox, "webkit": WebKit}


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.browser) for name in KINDS])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    program: Path = request.getfixturevalue(f"{request.param}_path")
    made = KINDS[request.param](program, tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    made = Embedded(tmp_path_factory.mktemp("service"), {})
    try:
        made.start()
        yield made
    finally:
        made.kill()
        made.disconnect()


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    made = Shop()
    yield made
    made.close()


@pytest.fixture
def site_key(service: Embedded, shop: Shop) -> str:
    body = {"name": "Shop", "origins": [shop.origin]}
    made = service.api.post("/v1/sites", json=body).raise_for_status().json()
    service.api.post(f"/v1/sites/{made['site_key']}/publish").raise_for_status()
    return str(made["site_key"])


def page(service: Embedded, shop: Shop, site_key: str, asked: str) -> str:
    banner = f"{service.base_url}/b/{site_key}.js?{asked}"
    tag = f'<script nonce="{NONCE}" src="{banner}" async></script>'
    return shop.embed(tag, service.base_url)


def button(within: str, action: str) -> str:
    return f"{within}.querySelector('[data-action={action}]')"


def records(service: Embedded, site_key: str) -> list[dict[str, Any]]:
    """What the service holds as proof, the newest first."""
    answer = service.api.get("/v1/consents", params={"site_key": site_key})
    return list(answer.raise_for_status().json()["items"])


def record_of(engine: Engine, service: Embedded, site_key: str, method: str) -> dict[str, Any]:
    """The record of the page's last choice, which came about by ``method``."""

    def look() -> dict[str, Any] | None:
        consent_id = engine.evaluate("quittance.consentId")
        return next(
            (
                each
                for each in records(service, site_key)
                if each["consent_id"] == consent_id and each["method"] == method
            ),
            None,
        )

    return wait_for(look, f"the record of {method}", 15)


def test_a_choice_is_asked_for_kept_changed_and_taken_back(
    engine: Engine, service: Embedded, shop: Shop, site_key: str
) -> None:
    shop.log.clear()

    engine.goto(page(service, shop, site_key, "region=DE&amp;lang=en"))
    until(engine, "window.quittance?.visible")
    assert engine.evaluate(f"{BANNER}.checkVisibility({{ visibilityProperty: true }})")
    press(engine, TAB)
    assert engine.evaluate(FOCUSED) == "reject"
    assert engine.evaluate("[document.cookie, localStorage.length]") == ["", 0]

    click(engine, button(BANNER, "reject"))
    until(engine, f"!{BANNER}")
    assert not any(record_of(engine, service, site_key, "reject_all")["choices"].values())
    assert f"qt_{site_key}=" in engine.evaluate("document.cookie")

    engine.reload()
    until(engine, "window.quittance")
    assert engine.evaluate(f"[quittance.decided, {BANNER}, ran]") == [True, None, []]
    assert shop.held == []

    engine.evaluate("quittance.open()")
    until(engine, f"{DIALOG}?.checkVisibility()")
    click(engine, button(DIALOG, "accept"))
    until(engine, f"ran.length === {len(ORDER)}")
    assert engine.evaluate("ran") == ORDER
    assert all(record_of(engine, service, site_key, "accept_all")["choices"].values())

    engine.evaluate("quittance.open()")
    click(engine, button(DIALOG, "withdraw"))
    until(engine, f"!{DIALOG}")
    assert not any(record_of(engine, service, site_key, "withdrawal")["choices"].values())
    assert engine.evaluate("[document.querySelector('iframe')?.src ?? '', broken]") == ["", []]

    engine.reload()
    until(engine, "window.quittance")
    assert engine.evaluate(f"[quittance.has('analytics'), {BANNER}, ran]") == [False, None, []]


def test_the_dialog_is_used_by_keyboard_alone_also_from_the_right_to_the_left(
    engine: Engine, service: Embedded, shop: Shop, site_key: str
) -> None:
    engine.goto(page(service, shop, site_key, "region=DE&amp;lang=ar"))
    until(engine, "window.quittance?.visible")
    side = f"getComputedStyle({BANNER}).direction"
    width = "document.scrollingElement.scrollWidth - document.documentElement.clientWidth"
    assert engine.evaluate(f"[{side}, {width}]") == ["rtl", 0]

    while engine.evaluate(FOCUSED) != "manage":
        press(engine, TAB)
    press(engine, ENTER)
    until(engine, f"{DIALOG}?.checkVisibility()")
    within = f"{ROOT}.activeElement?.closest('dialog') !== null"
    elsewhere = "!['QUITTANCE-BANNER', 'BODY'].includes(document.activeElement.nodeName)"
    for _ in range(12):
        press(engine, TAB)
        assert engine.evaluate(f"[{within}, {elsewhere}]") == [True, False]
    press(engine, ESCAPE)
    until(engine, f"!{DIALOG}")
    assert engine.evaluate(f"[{FOCUSED}, quittance.decided, broken]") == ["manage", False, []]


def test_the_signal_that_firefox_itself_sends_is_honoured_without_a_question(
    firefox_path: Path, tmp_path: Path, service: Embedded, shop: Shop, site_key: str
) -> None:
    shop.log.clear()
    engine = Firefox(firefox_path, tmp_path, {"privacy.globalprivacycontrol.enabled": "true"})
    try:
        engine.goto(page(service, shop, site_key, "region=US-CA&amp;lang=en"))
        until(engine, "window.quittance?.decided")

        record = record_of(engine, service, site_key, "gpc")
        assert (record["gpc"], record["choices"]["advertising"]) == (True, False)
        assert "Global Privacy Control" in engine.evaluate(f"{BANNER}.textContent")
        until(engine, "ran.length === 3")
        assert engine.evaluate("ran") == ORDER[:3]
        assert not {"/held/fourth.js", "/held/pixel.gif"} & set(shop.held)
    finally:
        engine.close()
