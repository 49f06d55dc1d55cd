"""The consent widget in a real browser, on somebody else's page under a strict policy, in front of
a running service."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    FloatRect,
    Locator,
    Page,
    Request,
    Route,
    expect,
    sync_playwright,
)

from app.core.clock import rfc3339, utc_now
from app.sites import consent_mode
from tests.browser.shop import GATES, NONCE, ORDER, Shop
from tests.identity.hosts import Host
from tests.journeys.instance import Embedded, wait_for

ARGS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run",
]  # fmt: skip
XSS = "</script><script>alert(1)</script>\u2028<!--<img src=x onerror=alert(2)>"
HELD = {"/held/second.js", "/held/fourth.js", "/held/pixel.gif", "/held/film"}
NEXT_RECORD = "id => quittance.consentId && quittance.consentId !== id"


# --- the world around the widget


@dataclass
class Stage:
    """Service, shop and browser; ``open`` visits the shop as a new person."""

    service: Embedded
    shop: Shop
    browser: Browser
    site_key: str
    contexts: list[BrowserContext] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    also: list[str] = field(default_factory=list)
    """Further origins that pages may talk to."""

    def page(
        self,
        *,
        markup: str = GATES,
        region: str = "DE",
        language: str = "",
        site_key: str = "",
        types: str = "quittance",
        tag: str = "",
    ) -> str:
        """The address of a page of the shop that embeds the banner."""
        base = self.service.base_url
        banner = f"{base}/b/{site_key or self.site_key}.js?region={region}&amp;lang={language}"
        tag = tag or f'<script nonce="{NONCE}" src="{banner}" async></script>'
        return self.shop.embed(tag, base, markup=markup, types=types)

    def context(self, **options: Any) -> BrowserContext:
        context = self.browser.new_context(**{"locale": "en-GB", "timezone_id": "UTC", **options})
        self.contexts.append(context)
        context.on("request", self._look_at)
        context.on("weberror", lambda error: self.faults.append(str(error.error)))
        context.on("console", self._listen)
        context.on("dialog", lambda dialog: self.faults.append(f"dialog: {dialog.message}"))
        return context

    def _listen(self, said: ConsoleMessage) -> None:
        if "Content Security Policy" in said.text:
            self.faults.append(said.text)

    def _look_at(self, request: Request) -> None:
        known = tuple(
            f"{each}/"
            for each in (self.service.base_url, self.shop.origin, self.shop.vendor, *self.also)
        )
        if not request.url.startswith((*known, "data:,")):
            self.faults.append(f"third party: {request.url}")

    def open(self, address: str, context: BrowserContext | None = None, **options: Any) -> Page:
        """The page once the widget has read what it knows."""
        page = (context or self.context(**options)).new_page()
        page.goto(address)
        until(page, "window.quittance")
        return page

    def record(self, page: Page) -> dict[str, Any]:
        """What the service holds as proof of the page's last choice."""
        until(page, "quittance.consentId")
        consent_id = page.evaluate("quittance.consentId")
        listed = self.service.api.get("/v1/consents", params={"site_key": self.site_key})
        found = [
            each
            for each in listed.raise_for_status().json()["items"]
            if each["consent_id"] == consent_id
        ]
        assert len(found) == 1
        return dict(found[0])

    def end(self) -> None:
        """No page may have broken its policy, thrown, or talked to anybody else."""
        for context in self.contexts:
            for page in context.pages:
                self.faults += page.evaluate("typeof broken === 'undefined' ? [] : broken")
            context.close()
        assert self.faults == []


@pytest.fixture(scope="module")
def browser(chromium_path: Path) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium_path, args=ARGS)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    made = Shop()
    yield made
    made.close()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    made = Embedded(tmp_path_factory.mktemp("service"), {"QUITTANCE_CONSENT_PER_MINUTE": "1000"})
    try:
        made.start()
        yield made
    finally:
        made.kill()
        made.disconnect()


NewSite = Callable[..., str]


@pytest.fixture(scope="module")
def new_site(service: Embedded, shop: Shop) -> NewSite:
    """Publish a site with this configuration for the shop; returns its key."""

    def make(**config: Any) -> str:
        body = {"name": "Shop", "origins": [shop.origin], "config": config}
        site_key = service.api.post("/v1/sites", json=body).raise_for_status().json()["site_key"]
        service.api.post(f"/v1/sites/{site_key}/publish").raise_for_status()
        return str(site_key)

    return make


@pytest.fixture(scope="module")
def site_key(new_site: NewSite) -> str:
    return new_site()


@pytest.fixture
def stage(service: Embedded, shop: Shop, browser: Browser, site_key: str) -> Iterator[Stage]:
    made = Stage(service, shop, browser, site_key)
    shop.log.clear()
    shop.styles = ""
    yield made
    made.end()


def until(page: Page, expression: str, argument: Any = None) -> None:
    """Wait for the page to say yes. Playwright's own waiting calls eval, which the policy
    forbids."""
    wait_for(lambda: page.evaluate(expression, argument), expression, 15)


def banner(page: Page) -> Locator:
    return page.locator("quittance-banner [role=region]")


def box_of(element: Locator) -> FloatRect:
    box = element.bounding_box()
    assert box
    return box


def press(page: Page, action: str) -> None:
    page.locator(f"quittance-banner [data-action={action}]:visible").last.click()
    if action == "manage":  # the dialog comes as a file of its own
        expect(page.locator("quittance-banner dialog")).to_be_visible()


def ran(page: Page) -> list[str]:
    return list(page.evaluate("ran"))


def stored(page: Page, site_key: str) -> str | None:
    return next(
        (each["value"] for each in page.context.cookies() if each["name"] == f"qt_{site_key}"), None
    )


# --- the question


def test_accept_and_reject_look_and_measure_the_same(stage: Stage) -> None:
    address = stage.page()
    for width, height, scheme in ((360, 740, "light"), (1440, 900, "dark")):
        page = stage.open(
            address,
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            reduced_motion="reduce",
        )
        for place in ("[role=region]", "dialog"):
            if place == "dialog":
                press(page, "manage")
                page.mouse.move(0, 0)  # a button looks different under the pointer
            accept, reject = page.evaluate(_BUTTONS, place)
            assert accept == reject, (width, scheme, place)
            assert accept["size"][1] >= 44


_BUTTONS = """(place) => ["accept", "reject"].map((action) => {
  const root = document.querySelector("quittance-banner").shadowRoot;
  const button = root.querySelector(`${place} [data-action=${action}]`);
  const { width, height } = button.getBoundingClientRect();
  const style = getComputedStyle(button);
  const look = {};
  for (const name of style) {
    // Places and lengths that follow from them; the size is compared as a whole.
    if (!/origin|inset/.test(name)) look[name] = style.getPropertyValue(name);
  }
  return { look, size: [Math.round(width), Math.round(height)] };
})"""


def test_nothing_runs_is_stored_or_is_sent_before_a_choice(stage: Stage) -> None:
    page = stage.open(stage.page())
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))

    expect(banner(page)).to_be_visible()
    page.wait_for_timeout(300)

    assert ran(page) == []
    assert stage.shop.held == []
    assert sent == []
    assert page.context.cookies() == []
    assert page.evaluate("localStorage.length + sessionStorage.length") == 0


def test_the_banner_names_what_consent_is_asked_for(stage: Stage) -> None:
    page = stage.open(stage.page())

    expect(banner(page)).to_contain_text("Functional · Analytics · Advertising")


def test_accepting_opens_every_gate_once_and_in_order_and_leaves_a_record(stage: Stage) -> None:
    page = stage.open(stage.page())
    page.evaluate("document.addEventListener('quittance:change', (e) => (window.told = e.detail))")

    press(page, "accept")

    expect(banner(page)).to_have_count(0)
    until(page, "ran.length === 4")
    wait_for(lambda: set(stage.shop.held) == HELD, "all that was held back to be fetched")
    expect(page.frame_locator("iframe").get_by_text("A film")).to_be_visible()
    record = stage.record(page)
    assert record["method"] == "accept_all"
    assert record["choices"] == {"functional": True, "analytics": True, "advertising": True}
    assert record["regime"] == "gdpr"
    assert page.evaluate("told.method") == "accept_all"
    assert ran(page) == ORDER
    assert len(stage.shop.held) == len(HELD)


def test_a_reload_asks_nothing_and_opens_the_gates_at_once(stage: Stage) -> None:
    page = stage.open(stage.page())
    press(page, "accept")
    stage.record(page)
    stage.shop.log.clear()

    page.reload()

    until(page, "window.quittance && ran.length === 4")
    assert ran(page) == ORDER
    expect(banner(page)).to_have_count(0)
    wait_for(lambda: set(stage.shop.held) == HELD, "all that was held back to be fetched")


def test_rejecting_keeps_every_gate_shut_also_after_a_reload(stage: Stage) -> None:
    page = stage.open(stage.page())

    press(page, "reject")
    record = stage.record(page)
    page.reload()
    until(page, "window.quittance")

    assert record["method"] == "reject_all"
    assert not any(record["choices"].values())
    expect(banner(page)).to_have_count(0)
    assert ran(page) == []
    assert stage.shop.held == []


def test_a_held_back_frame_says_so_and_can_be_loaded_once(stage: Stage) -> None:
    page = stage.open(stage.page())
    press(page, "reject")

    note = page.locator("quittance-placeholder")
    expect(note.locator("b")).to_have_text("Functional")
    expect(note).to_contain_text("blocked until you allow it")
    note.get_by_role("button", name="Show once").click()

    expect(page.frame_locator("iframe").get_by_text("A film")).to_be_visible()
    assert page.evaluate("quittance.has('functional')") is False
    assert stage.shop.held == ["/held/film"]


# --- preferences


def test_one_purpose_can_be_chosen_by_keyboard_alone(stage: Stage) -> None:
    page = stage.open(stage.page())
    focused = (
        "(() => { let at = document.activeElement; while (at?.shadowRoot?.activeElement) "
        "at = at.shadowRoot.activeElement; return at?.dataset.action ?? at?.name ?? ''; })()"
    )

    page.keyboard.press("Tab")
    assert page.evaluate(focused) == "reject"
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate(focused) == "manage"
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Privacy choices")
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    assert page.evaluate(focused) == "manage"
    expect(banner(page)).to_be_visible()

    page.keyboard.press("Enter")
    seen: list[str] = []
    while not seen or seen[-1] != "analytics":
        page.keyboard.press("Tab")
        seen.append(page.evaluate(focused))
        assert len(seen) < 10, seen
    page.keyboard.press("Space")
    expect(dialog.get_by_label("Analytics")).to_be_checked()
    page.keyboard.press("Enter")  # sends no form: there is none
    expect(dialog).to_be_visible()
    while seen[-1] != "save":
        page.keyboard.press("Tab")
        seen.append(page.evaluate(focused))
        assert len(seen) < 20, seen
    page.keyboard.press("Enter")

    record = stage.record(page)
    assert record["method"] == "custom"
    assert record["choices"] == {"functional": False, "analytics": True, "advertising": False}
    until(page, "ran.length === 3")
    assert ran(page) == ORDER[:3]
    assert stage.shop.held == ["/held/second.js"]


def test_focus_stays_inside_the_dialog(stage: Stage) -> None:
    page = stage.open(stage.page())
    press(page, "manage")

    for _ in range(15):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.localName") in {"quittance-banner", "body"}


def test_withdrawing_shuts_what_was_open(stage: Stage) -> None:
    page = stage.open(stage.page())
    press(page, "accept")
    stage.record(page)
    granted = page.evaluate("quittance.consentId")

    page.evaluate("quittance.open()")
    expect(page.get_by_role("dialog")).to_contain_text(granted)
    press(page, "withdraw")
    until(page, NEXT_RECORD, granted)
    record = stage.record(page)
    stage.shop.log.clear()
    page.reload()
    until(page, "window.quittance")

    assert record["method"] == "withdrawal"
    assert not any(record["choices"].values())
    assert page.evaluate("quittance.choices()") == {
        "necessary": True, "functional": False, "analytics": False, "advertising": False,
    }  # fmt: skip
    assert ran(page) == []
    assert stage.shop.held == []


def test_a_withdrawal_clears_the_browser_and_the_sites_own_host_what_scripts_cannot(
    stage: Stage,
) -> None:
    """Under a host of the site's own, which also keeps the choice where scripts' cookies go."""
    shop = stage.shop.origin.replace("localhost", "www.shop.localhost")
    ours = stage.service.base_url.replace("127.0.0.1", "privacy.shop.localhost")
    stage.also += [shop, ours]
    rules = [("cookie", "_ga*", False), ("cookie", "_sid", True), ("storage", "ga_*", False)]
    trackers = [
        {"kind": kind, "pattern": pattern, "purpose": "analytics", "http_only": is_http_only}
        for kind, pattern, is_http_only in rules
    ]
    config = {"first_party": ours, "trackers": trackers}
    body = {"name": "Shop", "origins": [shop], "config": config}
    made = stage.service.api.post("/v1/sites", json=body).raise_for_status().json()
    stage.site_key = made["site_key"]
    stage.service.api.post(f"/v1/sites/{stage.site_key}/publish").raise_for_status()
    tag = f'<script nonce="{NONCE}" src="{ours}/b/{stage.site_key}.js?region=DE" async></script>'
    path = stage.shop.embed(tag, f"{stage.service.base_url} {ours}").removeprefix(stage.shop.origin)
    context = stage.context()
    page = stage.open(f"{shop}{path}", context)

    def names() -> list[str]:
        return sorted({each["name"] for each in context.cookies()})

    with page.expect_response(f"{ours}/b/{stage.site_key}/remember") as kept:
        press(page, "accept")
    assert kept.value.status == 204
    page.evaluate(
        """() => {
          document.cookie = "_ga=1; Path=/";
          document.cookie = "_ga_X=1; Path=/; Domain=shop.localhost";
          document.cookie = "basket=1; Path=/";
          localStorage.setItem("ga_id", "1");
        }"""
    )
    context.add_cookies(
        [{"name": "_sid", "value": "1", "domain": ".shop.localhost", "path": "/", "httpOnly": True}]
    )
    line = f"qt_{stage.site_key}"
    assert names() == ["_ga", "_ga_X", "_sid", "basket", line]
    page.evaluate("(name) => localStorage.removeItem(name)", line)
    page.reload()
    until(page, "window.quittance")
    assert page.evaluate("quittance.has('analytics')"), "the host's cookie is enough"
    assert names() == ["_ga", "_ga_X", "_sid", "basket", line]

    with page.expect_response(f"{ours}/b/{stage.site_key}/remember") as kept:
        page.evaluate("quittance.withdraw()")
    assert kept.value.status == 204
    wait_for(lambda: names() == ["basket", line], f"what is left: {names()}", 5)
    assert page.evaluate("Object.keys(localStorage)") == [line]


MAKERS = f"""
<script nonce="{NONCE}">
  const made = (tag, more) => Object.assign(document.createElement(tag), more);
  const start = (vendor) => {{
    const nonce = "{NONCE}";
    const byAttribute = made("script", {{ nonce }});
    byAttribute.setAttribute("src", vendor + "/held/attribute.js");
    const [first] = document.scripts;
    first.parentNode.insertBefore(made("script", {{ nonce, async: true,
      src: vendor + "/held/property.js", type: "text/javascript", onload: () => ran.push("onload"),
    }}), first);
    document.head.append(byAttribute, made("link", {{
      rel: "stylesheet", href: vendor + "/held/look.css",
    }}));
    made("img", {{ src: vendor + "/held/beacon.gif" }});
    document.body.append(made("img", {{ src: vendor + "/held/pixel.gif", alt: "" }}));
    const frame = document.body.appendChild(made("iframe", {{ title: "Film" }}));
    frame.src = vendor + "/held/film";
  }};
</script>
"""


def test_what_scripts_load_from_a_host_with_a_rule_waits_for_consent_and_goes_with_it(
    stage: Stage, new_site: NewSite
) -> None:
    rule = {"kind": "host", "pattern": "stats.localhost", "purpose": "analytics"}
    stage.site_key = new_site(trackers=[rule])
    vendor, base = stage.shop.vendor, stage.service.base_url
    banner_at = f"{base}/b/{stage.site_key}.js?region=DE&amp;lang=en"
    parsed = f'<script nonce="{NONCE}" src="{vendor}/held/parsed.js"></script>'
    page = stage.context().new_page()
    page.goto(
        stage.shop.embed(
            f'<script nonce="{NONCE}" src="{banner_at}"></script>', base,
            markup=MAKERS + parsed, types="quittance default", also=vendor,
        )
    )  # fmt: skip
    page.evaluate("trustedTypes.createPolicy('default', { createScriptURL: (url) => url })")
    for _ in range(2):
        page.evaluate("(vendor) => start(vendor)", vendor)
    page.wait_for_timeout(300)

    assert ran(page) == []
    assert set(stage.shop.held) <= {"/held/parsed.js"}, "a browser reads ahead in the markup"
    expect(page.locator("quittance-placeholder")).to_have_count(2)

    press(page, "accept")
    until(page, "ran.length === 7")
    assert sorted(ran(page)) == sorted(
        ["parsed", "property", "onload", "attribute", "property", "onload", "attribute"]
    )
    shown = {"/held/look.css", "/held/pixel.gif", "/held/film"}
    wait_for(lambda: shown <= set(stage.shop.held), "the rest", 15)
    assert "/held/beacon.gif" not in stage.shop.held, "what was held and thrown away is not sent"

    page.evaluate("(vendor) => { ran.length = 0; start(vendor); }", vendor)
    until(page, "ran.length === 3")
    advised = "new Promise((told) => quittance.on('change', (c) => told(c.reloadAdvised)))"
    page.evaluate(f"() => {{ window.advised = {advised}; quittance.withdraw(); }}")
    assert page.evaluate("advised") is True
    assert page.evaluate("[...document.querySelectorAll('iframe')].map((f) => f.src)") == [""] * 3


def test_a_script_that_began_before_it_could_be_held_does_not_run_again(
    stage: Stage, new_site: NewSite
) -> None:
    rule = {"kind": "host", "pattern": "stats.localhost", "purpose": "analytics"}
    stage.site_key = new_site(trackers=[rule])
    banner_at = f"{stage.service.base_url}/b/{stage.site_key}.js?region=DE&amp;lang=en"
    written = f'<script src="{stage.shop.vendor}/held/written.js"><\\/script>'
    stage.shop.pages["/written"] = (
        f"""<!doctype html><title>Shop</title><link rel="icon" href="data:,">
<script>const ran = []</script><script src="{banner_at}"></script>
<script>document.write('{written}')</script><main>Shop</main>""",
        "",
    )
    page = stage.context().new_page()
    page.goto(f"{stage.shop.origin}/written")
    until(page, "ran.length === 1")
    press(page, "accept")
    page.wait_for_timeout(300)

    assert ran(page) == ["written"]
    advised = "new Promise((told) => quittance.on('change', (c) => told(c.reloadAdvised)))"
    page.evaluate(f"() => {{ window.advised = {advised}; quittance.withdraw(); }}")
    assert page.evaluate("advised") is True


def test_a_receipt_opens_beside_the_shop_to_be_read_and_saved(stage: Stage) -> None:
    page = stage.open(stage.page())
    press(page, "accept")
    consent_id = stage.record(page)["consent_id"]
    page.evaluate("quittance.open()")
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Save a receipt").click()
    receipt = opened.value

    expect(receipt.get_by_role("heading", name="Your receipt", exact=True)).to_be_visible()
    assert receipt.url.endswith(f"/privacy/receipt/{consent_id}")
    expect(receipt.get_by_role("main")).to_contain_text(consent_id)
    expect(receipt.locator("[data-purpose-id=analytics]")).to_contain_text("Allowed")
    expect(page.get_by_role("dialog")).to_be_visible()
    with receipt.expect_download() as saved:
        receipt.get_by_role("link", name="Download receipt").click()
    assert saved.value.suggested_filename == f"{consent_id}.jws"
    kept = stage.service.visitor.get(f"/v1/receipts/{consent_id}").text
    assert Path(saved.value.path()).read_text() == kept


def test_a_choice_made_on_the_pages_own_switch_is_recorded(stage: Stage) -> None:
    page = stage.open(stage.page())

    page.evaluate("quittance.set({ analytics: true })")

    record = stage.record(page)
    assert record["method"] == "custom"
    assert record["choices"] == {"functional": False, "analytics": True, "advertising": False}


def test_google_is_told_what_holds_before_its_tags_run_at_each_change_and_when_it_lapses(
    stage: Stage, new_site: NewSite
) -> None:
    wished: dict[str, Any] = {"modules": ["consent_mode"], "languages": ["en"]}
    stage.site_key = new_site(**wished)
    api, site = stage.service.api, f"/v1/sites/{stage.site_key}"
    draft = api.get(site).raise_for_status().json()["config"]
    base = stage.service.base_url
    source = f"{base}/b/{stage.site_key}.js?region=DE&amp;lang=en"
    address = stage.shop.embed(
        f'<script nonce="{NONCE}">{consent_mode.stub(stage.site_key, draft)}</script>'
        f'<script nonce="{NONCE}" src="{source}" async></script>',
        base,
    )
    told = """dataLayer.filter((each) => each[0] === "consent").map(([, command, state]) =>
      [command, state.ad_storage, state.analytics_storage])"""
    page = stage.open(address)
    assert page.evaluate(told) == [["default", "denied", "denied"]]

    page.evaluate("quittance.set({ analytics: true })")
    assert page.evaluate(told)[1:] == [["update", "denied", "granted"]]
    page.reload()
    until(page, "window.quittance")
    assert page.evaluate(told) == [[each, "denied", "granted"] for each in ("default", "update")]

    own = {"en": {"name": "Partners", "description": "Hands your address on."}}
    purposes = [*draft["purposes"], {"id": "partners", "texts": own}]
    api.patch(site, json={"config": draft | {"purposes": purposes}}).raise_for_status()
    api.post(f"{site}/publish").raise_for_status()
    page = stage.open(stage.shop.embed(
        f'<script nonce="{NONCE}">{consent_mode.stub(stage.site_key, draft)}</script>'
        f'<script nonce="{NONCE}" src="{source}&amp;again" async></script>',
        base,
    ), page.context)  # fmt: skip
    assert page.evaluate("quittance.decided") is False
    assert page.evaluate(told) == [["default", "denied", "granted"], ["update", "denied", "denied"]]


# --- Global Privacy Control

SIGNAL = "Object.defineProperty(Navigator.prototype, 'globalPrivacyControl', { get: () => true })"


def test_vendors_hear_of_an_opt_out_by_the_iabs_signal_and_by_microsofts(
    stage: Stage, new_site: NewSite
) -> None:
    stage.site_key = new_site(modules=["gpp", "uet"], languages=["en"])
    base = stage.service.base_url
    source = f"{base}/b/{stage.site_key}.js?region=US-CA"
    vendor = """const heard = []; window.__gpp = (...call) => (__gpp.queue ??= []).push(call);
      __gpp("addEventListener", (event) => heard.push([event.eventName, event.data]));"""
    page = stage.open(
        stage.shop.embed(
            f'<script nonce="{NONCE}">{vendor}</script>'
            f'<script nonce="{NONCE}" src="{source}" async></script>',
            base,
        )
    )
    sale = """new Promise((tell) => __gpp("getField", tell, "usca.SaleOptOut"))"""
    assert page.evaluate(sale) == 2, "not opted out"
    assert page.evaluate("uetq.at(-1).ad_storage") == "granted"

    page.evaluate("quittance.reject()")

    assert page.evaluate(sale) == 1, "opted out"
    assert page.evaluate("uetq.slice(-3)") == ["consent", "update", {"ad_storage": "denied"}]
    names = [name for name, _ in page.evaluate("heard")]
    assert names[0] == "listenerRegistered"
    assert names[-2:] == ["sectionChange", "signalStatus"]
    assert page.evaluate("heard.at(-1)[1]") == "ready"


def test_what_was_answered_to_another_consent_manager_is_taken_over_once(
    stage: Stage, new_site: NewSite
) -> None:
    stage.site_key = new_site(modules=["migrate"])
    context = stage.context()
    closed = rfc3339(utc_now().replace(microsecond=0) - dt.timedelta(days=3))
    theirs = {
        "OptanonAlertBoxClosed": str(closed),
        "OptanonConsent": "isGpcEnabled=0&groups=C0001%3A1%2CC0002%3A1%2CC0003%3A0%2CC0004%3A0",
    }
    context.add_cookies(
        [{"name": name, "value": value, "url": stage.shop.origin} for name, value in theirs.items()]
    )
    page = stage.open(stage.page(), context)

    expect(banner(page)).to_have_count(0)
    record = stage.record(page)
    assert (record["method"], record["decided_at"]) == ("migrated", closed)
    assert record["choices"] == {"functional": False, "analytics": True, "advertising": False}
    until(page, "ran.length === 3")

    page.evaluate("quittance.reject()")
    stage.record(page)
    page.reload()
    until(page, "window.quittance")
    assert page.evaluate("quittance.has('analytics')") is False, "their answer has been given up"


@pytest.mark.parametrize("way", ["script", "header", "both"])
def test_the_gpc_signal_is_honoured_without_a_question(stage: Stage, way: str) -> None:
    headers = {} if way == "script" else {"Sec-GPC": "1"}
    context = stage.context(extra_http_headers=headers)
    if way != "header":
        context.add_init_script(SIGNAL)
    page = stage.open(stage.page(region="US-CA"), context)

    expect(banner(page)).to_contain_text("Global Privacy Control")
    expect(page.locator("quittance-banner [data-action=accept]")).to_have_count(0)
    record = stage.record(page)
    assert record["method"] == "gpc"
    assert record["gpc"] is True
    assert record["regime"] == "ccpa"
    assert record["choices"] == {"functional": True, "analytics": True, "advertising": False}
    until(page, "ran.length === 3")
    assert ran(page) == ORDER[:3]
    assert not {"/held/fourth.js", "/held/pixel.gif"} & set(stage.shop.held)

    press(page, "close")
    page.reload()
    until(page, "window.quittance")
    expect(banner(page)).to_have_count(0)
    assert page.evaluate("quittance.consentId") == record["consent_id"]


def test_gpc_denies_what_the_site_says_and_a_later_choice_outweighs_it(
    stage: Stage, new_site: NewSite
) -> None:
    own = {"en": {"name": "Partners", "description": "Hands your address on."}}
    stage.site_key = new_site(
        languages=["en"],
        purposes=[
            {"id": "analytics"},
            {"id": "advertising"},
            {"id": "partners", "denied_by_gpc": True, "texts": own},
        ],
    )
    context = stage.context(extra_http_headers={"Sec-GPC": "1"})
    page = stage.open(stage.page(region="US-CA"), context)
    heeded = stage.record(page)
    assert heeded["choices"] == {"analytics": True, "advertising": True, "partners": False}

    press(page, "manage")
    expect(page.get_by_role("dialog")).to_contain_text("It is honoured")
    page.get_by_role("dialog").get_by_label("Partners").check()
    press(page, "save")
    until(page, NEXT_RECORD, heeded["consent_id"])

    assert stage.record(page)["choices"]["partners"] is True
    page.reload()
    until(page, "window.quittance")
    assert page.evaluate("quittance.has('partners')") is True
    expect(banner(page)).to_have_count(0)


def test_what_the_signal_denies_is_denied_in_all_browsers_of_whoever_signs_in(
    stage: Stage, new_site: NewSite
) -> None:
    stage.site_key = new_site()
    host = Host(audience=stage.service.base_url)
    believed = {"host_identity": {"issuer": host.issuer, "jwks": host.jwks}}
    stage.service.api.patch(f"/v1/sites/{stage.site_key}", json=believed).raise_for_status()

    def sign_in(context: BrowserContext) -> Page:
        page = stage.open(stage.page(region="US-CA"), context)
        if page.evaluate("quittance.decided && !quittance.consentId"):
            stage.record(page)
        assert page.evaluate("(token) => quittance.identify(token)", host.token())
        return page

    laptop, phone = stage.context(), stage.context(extra_http_headers={"Sec-GPC": "1"})
    page = stage.open(stage.page(region="US-CA"), laptop)
    press(page, "accept")
    stage.record(page)
    page = sign_in(laptop)
    until(page, "ran.length === 4")
    assert sign_in(phone).evaluate("quittance.has('advertising')") is False

    page = sign_in(laptop)
    assert page.evaluate("quittance.choices()") == {
        "necessary": True, "functional": True, "analytics": True, "advertising": False,
    }  # fmt: skip
    expect(banner(page)).to_have_count(0)
    stage.shop.log.clear()
    page = stage.open(stage.page(region="US-CA"), laptop)  # nobody says who is there
    until(page, "ran.length === 3")
    assert not {"/held/fourth.js", "/held/pixel.gif"} & set(stage.shop.held)

    page.evaluate("quittance.accept()")
    stage.record(page)
    assert sign_in(laptop).evaluate("quittance.has('advertising')") is True
    for _ in range(2):
        assert sign_in(phone).evaluate("quittance.has('advertising')") is False
    assert sign_in(laptop).evaluate("quittance.has('advertising')") is True
    records = stage.service.api.get(f"/v1/consents?site_key={stage.site_key}").json()["items"]
    assert [each["method"] for each in records] == ["accept_all", "gpc", "accept_all"]


def test_an_opt_out_law_asks_in_its_own_words(stage: Stage) -> None:
    page = stage.open(stage.page(region="US-CA"))

    until(page, "ran.length === 4")
    page.get_by_role("button", name="Do Not Sell or Share My Personal Information").click()

    record = stage.record(page)
    assert record["choices"] == {"advertising": False}, "the others nobody objected to"
    assert record["regime"] == "ccpa"
    assert page.evaluate("quittance.has('analytics')") is True


def test_a_browser_set_to_berlin_is_asked_first_wherever_it_is(stage: Stage) -> None:
    page = stage.open(stage.page(region="US-CA"), timezone_id="Europe/Berlin")

    press(page, "reject")

    record = stage.record(page)
    assert page.evaluate("quittance.mode") == "opt_in"
    assert ran(page) == stage.shop.held == []
    assert (record["region"], record["regime"]) == ("US-CA", "gdpr")


# --- when something fails


def test_a_wrong_site_key_is_a_line_on_the_console(stage: Stage) -> None:
    page = stage.context().new_page()
    with page.expect_console_message(lambda said: "404" in said.text):
        page.goto(stage.page(site_key="site_none"))


@pytest.mark.parametrize("failure", ["refuses", "cannot be reached"])
def test_a_record_that_could_not_be_sent_is_sent_on_the_next_page(
    stage: Stage, failure: str
) -> None:
    page = stage.open(stage.page())
    attempts: list[Any] = []

    def fail(route: Route) -> None:
        if route.request.method == "POST":
            attempts.append(route.request.post_data_json)
        if failure == "refuses":
            route.fulfill(status=500)
        else:
            route.abort()

    page.route("**/v1/consent", fail)
    press(page, "accept")
    wait_for(lambda: page.evaluate("1") and attempts, "the record to be tried")
    assert page.evaluate("quittance.choices().analytics && ran.includes('first')")
    assert page.evaluate("quittance.consentId") is None
    waiting = page.evaluate(f"localStorage.getItem('qt_{stage.site_key}_q')")
    assert [each["event_id"] for each in json.loads(waiting)] == [attempts[0]["event_id"]]
    page.unroute("**/v1/consent")
    page.reload()

    record = stage.record(page)
    assert record["method"] == "accept_all"
    assert record["visitor_id"] == attempts[0]["visitor_id"]
    assert page.evaluate(f"localStorage.getItem('qt_{stage.site_key}_q')") is None


def test_a_banner_the_site_hosts_itself_needs_no_service_to_ask_and_to_act(
    stage: Stage, tmp_path: Path
) -> None:
    file = tmp_path / "consent.js"
    made = stage.service.quittance(
        "site", "script", stage.site_key, "--lang", "en", "--region", "DE", "--output", str(file)
    )
    tag = made.stdout.strip().replace("<script", f'<script nonce="{NONCE}"')
    stage.shop.scripts["/consent.js"] = file.read_bytes()
    assert 'integrity="sha384-' in tag

    context = stage.context()
    context.route(f"{stage.service.base_url}/**", lambda route: route.abort())
    page = stage.open(stage.page(tag=tag), context)
    press(page, "accept")
    until(page, "ran.length === 4")
    assert page.evaluate("quittance.consentId") is None

    context.unroute(f"{stage.service.base_url}/**")
    page.reload()
    record = stage.record(page)
    assert (record["method"], record["region"]) == ("accept_all", "DE")

    stage.shop.scripts["/consent.js"] += b"//"
    changed = stage.context().new_page()
    changed.goto(stage.page(tag=tag), wait_until="load")
    assert changed.evaluate("window.quittance === undefined")


# --- the site's look


def test_any_accent_stays_readable_in_light_and_dark(stage: Stage, new_site: NewSite) -> None:
    for accent in ("#ffe600", "#1b1b3a", "#e0401a"):
        site_key = new_site(theme={"accent": accent, "position": "center", "radius": 0})
        address = stage.page(site_key=site_key)
        for scheme in ("light", "dark"):
            page = stage.open(address, color_scheme=scheme)
            seen = page.evaluate(_CONTRASTS)
            assert len(seen) >= 6
            assert [each for each in seen if each[1] < 4.5] == [], (accent, scheme)
            assert page.evaluate(_STYLE, ["accept", "borderRadius"]) == "0px"
            box = box_of(banner(page))
            assert abs(box["y"] + box["height"] / 2 - 360) < 2, "not in the middle of 720 px"


_STYLE = """([action, name]) => getComputedStyle(document.querySelector("quittance-banner")
  .shadowRoot.querySelector(`[data-action=${action}]`))[name]"""

_CONTRASTS = """() => {
  const parse = (color) => color.match(/[\\d.]+/g).map(Number);
  const channel = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const ground = (at) => {
    for (; at; at = at.parentElement) {
      const color = parse(getComputedStyle(at).backgroundColor);
      if (color.length < 4 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const root = document.querySelector("quittance-banner").shadowRoot;
  const found = [...root.querySelectorAll("h2, p, button, a")].filter((each) => each.innerText);
  return found.map((each) => {
    const [a, b] = [light(parse(getComputedStyle(each).color)), light(ground(each))];
    return [each.innerText, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
  });
}"""


def test_the_embedding_page_has_the_last_word_on_colours(stage: Stage) -> None:
    stage.shop.styles = (
        "quittance-banner { --quittance-accent: #004d40; --quittance-on-accent: #fdfdf0; "
        "--quittance-radius: 30px }"
    )
    page = stage.open(stage.page(), color_scheme="dark")

    assert page.evaluate(_STYLE, ["accept", "backgroundColor"]) == "rgb(0, 77, 64)"
    assert page.evaluate(_STYLE, ["accept", "color"]) == "rgb(253, 253, 240)"
    assert page.evaluate(_STYLE, ["manage", "color"]) == "rgb(0, 77, 64)"
    assert float(page.evaluate(_STYLE, ["accept", "borderRadius"])[:-2]) > 15


@pytest.mark.parametrize("width", [320, 768])
def test_banner_and_dialog_fit_every_width_and_language(stage: Stage, width: int) -> None:
    for tag, accept in {"de": "Alle akzeptieren", "fr": "Tout accepter"}.items():
        address = stage.page(language=tag)
        page = stage.open(address, viewport={"width": width, "height": 568})
        expect(banner(page)).to_contain_text(accept)
        for place in ("[role=region]", "dialog"):
            if place == "dialog":
                press(page, "manage")
            box = box_of(page.locator(f"quittance-banner {place}"))
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
            assert box["y"] >= 0
            assert box["y"] + box["height"] <= 568
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_on_the_smallest_phone_the_banner_leaves_more_than_half_of_the_page(stage: Stage) -> None:
    page = stage.open(stage.page(), viewport={"width": 320, "height": 568})

    assert box_of(banner(page))["height"] <= 0.46 * 568  # 45 per cent; fonts differ a little


# --- bad input (the ids are those of the catalogue)


def test_ban_001_texts_with_markup_are_only_text(stage: Stage, new_site: NewSite) -> None:
    texts = dict.fromkeys(("title", "body", "accept", "reject", "dialog_title", "placeholder"), XSS)
    own = {"en": {"name": XSS, "description": XSS}}
    stage.site_key = new_site(
        languages=["en"],
        texts={"en": texts},
        purposes=[{"id": "analytics"}, {"id": "functional", "texts": own}],
        controller={"name": XSS},
    )
    page = stage.open(stage.page())

    expect(banner(page).locator("h2")).to_have_text(XSS)
    expect(banner(page).locator("[data-action=accept]")).to_have_text(XSS)
    expect(page.locator("quittance-placeholder p")).to_have_text(XSS)
    press(page, "manage")
    expect(page.locator("quittance-banner dialog h2")).to_have_text(XSS)
    expect(page.locator("quittance-banner label").last).to_have_text(XSS)
    assert page.evaluate(
        "[...document.querySelectorAll('quittance-banner, quittance-placeholder')]"
        ".every((host) => !host.shadowRoot.querySelector('script, img'))"
    )


def test_ban_005_elements_named_like_the_pages_own_members_break_nothing(stage: Stage) -> None:
    names = ("quittance", "quittanceWidget", "config", "consent", "localStorage", "fetch", "crypto")
    clobbers = "".join(
        f'<form id="{each}"><input name="config"><input name="withdraw"></form>' for each in names
    ) + "".join(
        f'<img name="{each}" alt=""><form name="{each}"></form>'
        for each in ("cookie", "body", "createElement", "currentScript", "querySelectorAll", "head")
    )
    page = stage.open(stage.page(markup=clobbers + GATES))

    expect(banner(page)).to_be_visible()
    press(page, "accept")

    until(page, "ran.length === 4")
    assert ran(page) == ORDER
    assert stage.record(page)["method"] == "accept_all"
    assert stored(page, stage.site_key)
    page.evaluate("localStorage.clear()")  # the cookie alone has to do
    page.reload()
    until(page, "window.quittance?.withdraw && ran.length === 4")
    expect(banner(page)).to_have_count(0)


@pytest.mark.parametrize("types", ["quittance", "'none'"])
def test_ban_007_a_strict_policy_with_trusted_types_leaves_the_banner_whole(
    stage: Stage, types: str
) -> None:
    markup = GATES if types == "quittance" else "<p>Nothing is held back here.</p>"
    page = stage.open(stage.page(markup=markup, types=types))

    assert page.evaluate(_STYLE, ["accept", "backgroundColor"]) == "rgb(31, 95, 174)"
    press(page, "manage")
    press(page, "accept")

    assert stage.record(page)["method"] == "accept_all"
    until(page, f"ran.length === {4 if types == 'quittance' else 0}")
    assert page.evaluate("broken") == []


@pytest.mark.parametrize("failure", ["blocked", "500", "slow"])
def test_ban_011_without_the_banner_the_page_works_and_nothing_is_granted(
    stage: Stage, failure: str
) -> None:
    context = stage.context()
    asked: list[str] = []

    def fail(route: Route) -> None:
        asked.append(route.request.url)
        if failure == "blocked":
            route.abort()
        elif failure == "500":
            route.fulfill(status=500, content_type="text/javascript", body="throw new Error(500)")

    context.route(f"{stage.service.base_url}/**", fail)
    page = context.new_page()
    page.goto(stage.page(), wait_until="domcontentloaded")
    wait_for(lambda: page.evaluate("1") and asked, "the banner to be asked for")
    page.get_by_role("link", name="A link").click()

    expect(page.get_by_role("heading", name="Shop")).to_be_visible()
    page.wait_for_timeout(200)
    assert ran(page) == []
    assert stage.shop.held == []
    assert page.context.cookies() == []
    assert len(asked) == 1


# --- what a page tells in passing


OPEN_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Shop</title>
<link rel="icon" href="data:,">
<script src="{banner}"></script>
<body><img src="{ads}/pixel.gif?u=bob" alt=""><script>
  for (const name of ["_ga_G1ABC2DEF", "_known_1", "basket"]) document.cookie = `${{name}}=secret`;
  localStorage.setItem("uid_5f0c1d5e-8f0a-4c39-9d1e-0a4b5c6d7e8f", "secret");
</script></body></html>"""


def test_a_page_tells_what_has_no_rule_and_that_the_banner_was_shown(
    stage: Stage, new_site: NewSite
) -> None:
    rules = [{"kind": "cookie", "pattern": "_known*", "purpose": "analytics"}]
    site_key = new_site(modules=["report", "counts"], trackers=rules)
    # Names of their own for the same server: to the browser, the advertiser is somebody else.
    origin, ads = (
        stage.shop.origin.replace("localhost", host) for host in ("shop.localhost", "ads.localhost")
    )
    stage.service.api.patch(f"/v1/sites/{site_key}", json={"origins": [origin]}).raise_for_status()
    tag = f"{stage.service.base_url}/b/{site_key}.js?region=DE&amp;lang=de"
    html = OPEN_PAGE.format(banner=tag, ads=ads)
    stage.shop.pages["/open?quittance-report"] = html, ""
    context = stage.browser.new_context()
    page = context.new_page()

    def seen() -> dict[tuple[str, str], Any]:
        listed = stage.service.api.get(f"/v1/sites/{site_key}/trackers/seen").raise_for_status()
        return {
            (each["kind"], each["pattern"]): each["suggestion"] for each in listed.json()["items"]
        }

    def shown() -> list[dict[str, Any]]:
        asked = {"site_key": site_key, "by": "language"}
        listed = stage.service.api.get("/v1/consents/stats", params=asked).raise_for_status()
        return list(listed.json()["items"])

    page.goto(origin + "/open?quittance-report")
    expect(banner(page)).to_be_visible()
    wait_for(shown, "the banner to be counted", 15)
    assert seen() == {}
    press(page, "accept")
    page.goto(origin + "/look.css")
    wait_for(seen, "the report", 15)
    wait_for(lambda: shown()[0]["accepted"], "the choice to be counted", 15)
    context.close()

    assert seen() == {
        ("host", "ads.localhost"): None,
        ("cookie", "_ga_*"): {"vendor": "Google Analytics", "purpose": "analytics"},
        ("cookie", "basket"): None,
        ("storage", "uid_*"): None,
    }
    (counted,) = shown()
    assert (counted["key"], counted["shown"], counted["accepted"]) == ("de", 1, 1)


# --- a page made with the npm package


PACKAGE = Path(__file__).parents[2] / "consent_widget" / "dist" / "npm.js"
OWN_BANNER = """
<aside id="mine" hidden><button id="no">No</button><button id="some">Analytics</button></aside>
"""
PROGRAM = """<script type="module" nonce="{nonce}">
import {{ load }} from "/npm.js";
const shop = {{ service: "{service}", siteKey: "{site_key}", region: "DE", nonce: "{nonce}" }};
window.failed = await load({{ ...shop, siteKey: "nobody" }}).catch((error) => error.message);
const quittance = await load({{ ...shop, headless: true }});
window.same = quittance === await load(shop) && quittance === window.quittance;
const show = () => {{ mine.hidden = !quittance.visible; }};
quittance.on("display", show);
show();
no.onclick = () => quittance.reject();
some.onclick = () => quittance.set({{ analytics: true }});
</script>"""


def test_a_page_made_with_the_package_asks_with_a_banner_of_its_own(stage: Stage) -> None:
    stage.shop.scripts["/npm.js"] = PACKAGE.read_bytes()
    base = stage.service.base_url
    tag = PROGRAM.format(nonce=NONCE, service=base, site_key=stage.site_key)
    types = "quittance-load quittance"

    page = stage.open(stage.page(markup=OWN_BANNER + GATES, tag=tag, types=types))

    own = page.locator("#mine")
    expect(own).to_be_visible()
    expect(banner(page)).to_have_count(0)
    assert f"{base}/b/nobody.js?region=DE could not be loaded" in page.evaluate("failed")
    assert page.evaluate("same")
    page.locator("#some").click()
    expect(own).to_be_hidden()
    until(page, "ran.length === 3")
    record = stage.record(page)
    assert record["method"] == "custom"
    assert record["choices"] == {"functional": False, "analytics": True, "advertising": False}
    page.evaluate("quittance.open()")
    expect(page.get_by_role("dialog", name="Privacy choices")).to_be_visible()
    page.reload()
    until(page, "window.quittance && ran.length === 3")
    expect(own).to_be_hidden()
