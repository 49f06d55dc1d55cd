"""The preview of a draft: where a visitor may be, what may have happened before, and the page's
script. Pure functions.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.consent import cookie
from app.dashboard import present
from app.sites import regimes, script, service
from app.sites.banner import regime_of, show
from app.sites.directory import Notice
from app.sites.models import NoticeVersion, Site

_PLACES = {
    "DE": "Germany",
    "GB": "United Kingdom",
    "US-CA": "California",
    "BR": "Brazil",
    "AU": "Australia",
}
STATES = {
    "": "First visit",
    "changed": "Back, the notice has changed",
    "expired": "Back, the choice has run out",
    "gpc": "Sends Global Privacy Control",
}


@dataclass(frozen=True, slots=True)
class Region:
    """A place where a law applies; ``law`` is empty where the region is unknown."""

    code: str
    name: str
    law: str


def regions(laws: Collection[str]) -> list[Region]:
    """One place for each of these laws, the strictest first, and nowhere."""
    found = [_region(law) for law in regimes.load().values() if law.id in laws and law.regions]
    return [*found, Region("", "Unknown region", "")]


def _region(law: regimes.Regime) -> Region:
    code = next((each for each in _PLACES if each in law.regions), min(law.regions))
    return Region(code, f"{_PLACES.get(code, code)} ({present.regime(law.id)})", law.id)


@dataclass(frozen=True, slots=True)
class Embed:
    """A frame that a rule of the draft holds back."""

    host: str
    purpose: str


def embed_of(draft: Mapping[str, Any]) -> Embed | None:
    """What the first host that somebody can refuse would put into a page."""
    choices = {each["id"] for each in draft["purposes"] if not each["required"]}
    hosts = (each for each in draft.get("trackers", ()) if each["kind"] == "host")
    found = next((each for each in hosts if each["purpose"] in choices), None)
    return Embed(found["pattern"].removeprefix("*."), found["purpose"]) if found else None


def code_of(
    site: Site, live: NoticeVersion | None, asked: Mapping[str, str], widget: Path, now: dt.datetime
) -> str:
    """The real widget, with a memory of its own in place of the browser's. ``asked``: ``lang``,
    ``region`` and ``state``; ``live``: what a visitor who comes back has answered.
    """
    region, state = asked.get("region", "")[:8] or None, asked.get("state", "")
    notice = service.draft_notice(site, live)
    language = asked.get("lang", "")[:20]
    is_gpc = state == "gpc"
    config = script.config_of(
        show(notice, [language] if language else [], region, gpc=is_gpc),
        base_url="", region=region, gpc=is_gpc, widget=widget,
    )  # fmt: skip
    config.pop("tags", None)  # they would carry the nonce, and run here
    stored = {}
    if line := _earlier(notice, live, region, state, now):
        stored[f"qt_{site.site_key}"] = line
    body, _ = script.script(config, (), widget)
    return _MEMORY.replace("STORED", script.safe_json(stored)) + body.decode()


_MEMORY = """(() => {
  const store = STORED;
  Object.setPrototypeOf(store, {
    getItem: (key) => (Object.hasOwn(store, key) ? store[key] : null),
    setItem: (key, value) => { store[key] = String(value); },
    removeItem: (key) => { delete store[key]; },
  });
  Object.defineProperty(window, "localStorage", { value: store });
  window.fetch = () => new Promise(() => {});
})();
"""
"""A frame without an origin has neither storage nor network: what is kept goes with it, and what is
sent stays on the way."""


def _earlier(
    notice: Notice, live: NoticeVersion | None, region: str | None, state: str, now: dt.datetime
) -> str | None:
    """What the widget would have stored when everything was granted earlier."""
    version_id, material, age = notice.id, notice.material, dt.timedelta(days=1)
    if state == "changed":
        version_id, material = live.id if live else "ntv_before", "earlier"
    elif state == "expired":
        age += dt.timedelta(days=notice.content["expiry_days"])
    else:
        return None
    return cookie.encoded(
        regime_of(notice, region).mode, dict.fromkeys(sorted(notice.choices), True),
        version_id=version_id, material=material, decided_at=now - age, method="accept_all",
        visitor_id="00000000-0000-4000-8000-000000000000",
    )  # fmt: skip
