"""The banner: what one visitor is shown, taken from a notice version by language, region and GPC.
Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from app.sites import regimes
from app.sites.directory import Notice
from app.sites.languages import best
from app.sites.regimes import Regime


def regime_of(notice: Notice, region: str | None, tightened: str | None = None) -> Regime:
    """The law that people of a region are asked under, as it was when the notice was published:
    what a notice promised does not change with a newer law file.

    ``tightened``: the law that the visitor was treated under because of the browser's time zone;
    believed where it asks first and the region's does not.
    """
    regime = _as_published(notice, regimes.asking_regime_for(region, notice.content["regimes"]))
    if tightened and regime.mode != "opt_in":
        return next((law for law in _asking_first(notice) if law.id == tightened), regime)
    return regime


def request_regime_of(notice: Notice, region: str | None) -> Regime:
    """The law that a request from a region goes by, among those the notice was published for."""
    return _as_published(notice, regimes.regime_for(region, notice.content["regimes"]))


def _as_published(notice: Notice, regime: Regime) -> Regime:
    said = notice.content["regimes"].get(regime.id)
    if said is None:  # none of its laws is known any more: today's law of the region
        return regime
    if (said["mode"], said["honours_gpc"]) == (regime.mode, regime.honours_gpc):
        return regime
    return replace(regime, mode=said["mode"], honours_gpc=said["honours_gpc"])


def _asking_first(notice: Notice) -> list[Regime]:
    """The notice's laws under which nothing runs before a choice, strictest first."""
    listed = [law for law in regimes.load().values() if law.id in notice.content["regimes"]]
    return [law for law in map(partial(_as_published, notice), listed) if law.mode == "opt_in"]


def show(
    notice: Notice, languages: Sequence[str] = (), region: str | None = None, *, gpc: bool = False
) -> dict[str, Any]:
    """The answer of ``GET /v1/sites/{site_key}/banner``. ``languages``: wanted tags, the best
    first.

    ``default`` of a purpose is its state before any choice. Where the signal is honoured and
    purposes may run before a choice, the banner stays away: the visitor has already said no.
    """
    content = notice.content
    regime = regime_of(notice, region)
    is_wanted = content["regimes"].get(regime.id, {"shown": True})["shown"]
    is_gpc_honoured = gpc and regime.honours_gpc
    tag = best(list(content["languages"]), languages) or content["default_language"]
    said = content["languages"][tag]
    denied = notice.denied_by_gpc if is_gpc_honoured else frozenset()
    return {
        "site_key": content["site_key"],
        "notice_version": notice.id,
        "version_hash": notice.sha256,
        "material": notice.material,
        "news": notice.news,
        "regime": regime.id,
        "mode": regime.mode,
        "shown": is_wanted and not (is_gpc_honoured and regime.mode != "opt_in"),
        "language": tag,
        "direction": said["direction"],
        "languages": sorted(content["languages"]),
        "expiry_days": content["expiry_days"],
        "reask_after_days": regime.left_alone.days or None,
        "purposes": [
            {
                "id": each["id"],
                **said["purposes"][each["id"]],
                "required": each["required"],
                "default": each["required"]
                or (regime.mode != "opt_in" and each["id"] not in denied),
                "denied_by_gpc": each["denied_by_gpc"],
                "sensitive": each.get("sensitive", False),
            }
            for each in content["purposes"]
        ],
        "mapping": content["mapping"],
        "trackers": content.get("trackers", []),
        "tags": content.get("tags", []),
        "texts": texts_under(said["texts"], regime.mode),
        "theme": content["theme"],
        "controller": content["controller"],
        "policy_url": content["policy_url"],
        "honours_gpc": regime.honours_gpc,
    }


def strict(notice: Notice, shown: Mapping[str, Any]) -> dict[str, Any]:
    """What the widget puts over ``shown`` (of ``show``) where the browser's time zone belongs to a
    law that asks first, though the region's does not; empty where there is none.

    ``zones`` are pairs of a time zone's beginning and a law, the longest first: the first that
    fits counts.
    """
    laws = [] if shown["mode"] == "opt_in" else _asking_first(notice)
    zones = sorted(
        ((zone, law.id) for law in laws for zone in law.timezones),
        key=lambda each: (-len(each[0]), each),
    )
    if not zones:
        return {}
    texts = texts_under(notice.content["languages"][shown["language"]]["texts"], "opt_in")
    return {
        "zones": zones,
        "honours_gpc": [law.id for law in laws if law.honours_gpc],
        "texts": {key: text for key, text in texts.items() if shown["texts"].get(key) != text},
    }


def spoken(
    texts: Mapping[str, str], mode: str, content: Mapping[str, Any], *, may_tighten: bool = False
) -> dict[str, str]:
    """The texts without those that have no place in a banner of this mode. ``content``: with the
    ``purposes`` and ``trackers``. ``may_tighten``: the browser's time zone may change the mode.
    """
    is_sold = mode == "opt_out" and any(
        each["denied_by_gpc"] and not each["required"] for each in content["purposes"]
    )
    has_place = {
        "reject": not is_sold or may_tighten,
        "understood": mode == "notice",
        "do_not_sell": is_sold,
        "limit_use": mode != "opt_in"
        and any(each.get("sensitive") for each in content["purposes"]),
        "not_cleared": bool(content.get("trackers")),
    }
    return {key: text for key, text in texts.items() if has_place.get(key, True)}


def texts_under(texts: dict[str, str], mode: str) -> dict[str, str]:
    """The words that are true under this law: who is asked, or who may object."""
    said = {key: text for key, text in texts.items() if not key.endswith(_OTHER_WORDS)}
    for suffix in _WORDS[mode]:
        said |= {key.removesuffix(suffix): texts[key] for key in texts if key.endswith(suffix)}
    return said


_OTHER_WORDS = ("_opt_out", "_for_notice")
_WORDS = {"opt_in": (), "opt_out": ("_opt_out",), "notice": _OTHER_WORDS}
"""By mode, the endings of words said instead of the plain ones; the last counts."""
