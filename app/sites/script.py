"""The script a site embeds: the built widget with the banner's configuration inlined."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from app.core.errors import Invalid
from app.sites import theme
from app.sites.banner import show, spoken, strict
from app.sites.changes import CONTROLLER
from app.sites.directory import Notice, PublishedSite
from app.sites.errors import WidgetNotBuilt
from app.sites.regimes import clean_region

WIDGET = Path(__file__).parents[2] / "consent_widget" / "dist" / "widget.js"

_UNSAFE = str.maketrans({each: f"\\u{ord(each):04x}" for each in "<>&\u2028\u2029"})


_AT_ONCE = "//# allFunctionsCalledOnLoad\n"
"""Has Chromium compile all of it while it arrives, on another thread, instead of one function after
the other on the thread that the visitor waits for (v8.dev/blog/explicit-compile-hints, 2025-04-29).
Counts only in the first line.
"""


def script(config: dict[str, Any], modules: Sequence[str], widget: Path) -> tuple[bytes, str]:
    """The script and its entity tag; 503 while the widget is not built.

    ``modules``: parts of the widget that stand in files of their own beside it.
    """
    parts = [_read(widget), *(_read(widget.with_name(f"{each}.js")) for each in modules)]
    starters = ",".join(f"quittance_{each}" for each in modules)
    start = f"quittanceWidget.start({safe_json(config)},[{starters}])"
    lines = "\n;".join(('(()=>{"use strict";' + parts[0], *parts[1:], start + "})()\n"))
    body = (_AT_ONCE + lines).encode()
    return body, f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def modules_of(content: Mapping[str, Any]) -> tuple[str, ...]:
    """The parts of the widget that a notice version needs: those its site has turned on, and what
    holds back hosts where it has a rule for one.
    """
    has_hosts = any(each["kind"] == "host" for each in content.get("trackers", ()))
    return (*(["hosts"] if has_hosts else []), *content.get("modules", ()))


def loading(content: Mapping[str, Any]) -> str:
    """How the tag of a site loads: what is to hold back hosts has to be there before they are."""
    return "" if "hosts" in modules_of(content) else " async"


def config_for(
    site: PublishedSite,
    notice: Notice,
    *,
    languages: Sequence[str],
    region: str | None,
    gpc: bool,
    base_url: str,
    widget: Path,
) -> dict[str, Any]:
    """What the widget needs to know to show this notice to this visitor."""
    shown = show(notice, languages, region, gpc=gpc)
    return config_of(
        shown | {"strict": strict(notice, shown)}, base_url=base_url, region=region, gpc=gpc,
        widget=widget, first_party=site.first_party,
    )  # fmt: skip


def pinned(
    site: PublishedSite, notice: Notice, *, lang: str, region: str, base_url: str, widget: Path
) -> tuple[bytes, str]:
    """The script for one language and region, whoever asks, and the law it follows. An empty
    region is an unknown one.
    """
    if lang not in notice.content["languages"]:
        listed = ", ".join(sorted(notice.content["languages"]))
        raise Invalid(f"`lang` is one of the notice's languages: {listed}.")
    place = clean_region(region)
    if region and place is None:
        raise Invalid("`region` is an ISO 3166 code such as DE or US-CA; empty: unknown.")
    config = config_for(
        site, notice, languages=[lang], region=place, gpc=False, base_url=base_url, widget=widget
    )
    body, _ = script(config, modules_of(notice.content), widget)
    return body, config["regime"]


def live_tag(base_url: str, site_key: str, content: Mapping[str, Any]) -> str:
    """The element that pages embed. ``content``: of the site's draft or published notice."""
    return f'<script src="{html.escape(base_url)}/b/{site_key}.js"{loading(content)}></script>'


def tag(src: str, body: bytes, content: Mapping[str, Any]) -> str:
    """The element for a copy of ``body`` at ``src``; the browser runs nothing but these bytes.
    ``content``: of the notice version in it.
    """
    attributes = f'integrity="{integrity(body)}"{loading(content)}'
    return f'<script src="{html.escape(src)}" {attributes}></script>'


def integrity(body: bytes) -> str:
    """For a script element's ``integrity`` (W3C Subresource Integrity)."""
    return f"sha384-{base64.b64encode(hashlib.sha384(body).digest()).decode()}"


def config_of(
    banner: Mapping[str, Any],
    *,
    base_url: str,
    region: str | None,
    gpc: bool,
    widget: Path,
    first_party: str = "",
) -> dict[str, Any]:
    """What the widget needs to know: the banner (``app.sites.banner.show``) and where the service
    is.
    """
    digest = hashlib.sha256(_read(widget.with_name("dialog.js")).encode()).hexdigest()[:16]
    read = {name: value for name, value in banner.items() if name in _READ and value}
    names = {each["id"]: each["name"] for each in banner["purposes"] if not each["required"]}
    names[CONTROLLER] = banner["controller"]["name"]
    news = {
        version: [names[each] for each in ids if each in names]
        for version, ids in banner["news"].items()
    }
    return {
        **read,
        **({"news": news} if news else {}),
        "purposes": [
            {name: value for name, value in each.items() if name != "sensitive" or value}
            for each in banner["purposes"]
        ],
        "texts": spoken(
            banner["texts"], banner["mode"], banner, may_tighten=bool(banner.get("strict"))
        ),
        "theme": {"position": banner["theme"]["position"], "sheet": theme.sheet(banner["theme"])},
        "api": base_url,
        "dialog": f"{base_url}/b/w/{digest}/dialog.js",
        "gpc": gpc,
        "privacy_url": f"{base_url}/privacy/{banner['site_key']}",
        "region": region,
        **({"first_party": first_party} if first_party else {}),
    }


_READ = frozenset({
    "site_key", "notice_version", "material", "regime", "mode", "shown", "honours_gpc",
    "language", "direction", "expiry_days", "reask_after_days", "mapping", "trackers", "tags",
    "policy_url", "strict",
})  # fmt: skip
"""The members of a banner that the widget reads, and only where they say something: every visitor
pays for them."""


def dialog(widget: Path) -> bytes:
    """The preference dialog, which the widget loads when somebody is about to open it."""
    return _read(widget.with_name("dialog.js")).encode()


def widget_of(state: Any) -> Path:
    """The built widget that this application serves."""
    return getattr(state, "widget", WIDGET)


@lru_cache(maxsize=256)
def packed(body: bytes) -> bytes:
    """As ``Content-Encoding: gzip``. There is no secret in it that a length could tell of."""
    return gzip.compress(body, 9, mtime=0)


def takes_gzip(accept_encoding: str) -> bool:
    """Whether the header names gzip, and not with the weight 0 (RFC 9110, 12.5.3)."""
    for part in accept_encoding.lower().split(","):
        coding, _, weight = part.partition(";")
        if coding.strip() in {"gzip", "x-gzip"}:
            return not re.fullmatch(r"\s*q\s*=\s*0(\.0{0,3})?\s*", weight)
    return False


def safe_json(value: Any) -> str:
    """JSON that is also JavaScript and cannot end a script element, a comment or a line of
    either."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).translate(_UNSAFE)


def _read(widget: Path) -> str:
    try:
        return _text(widget, widget.stat().st_mtime_ns)
    except FileNotFoundError:
        raise WidgetNotBuilt from None


@lru_cache(maxsize=16)
def _text(widget: Path, _: int) -> str:
    return widget.read_text(encoding="utf-8")
