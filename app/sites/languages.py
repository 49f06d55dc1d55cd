"""Languages: the texts we ship (``texts/*.json``) and choosing one for a visitor."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

_TEXTS = Path(__file__).parent / "texts"
_ACCEPTED = re.compile(
    r"\s*([A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8})*)\s*(?:;\s*q=([01](?:\.\d{0,3})?))?\s*"
)

TEXT_KEYS = (
    "title",
    "body",
    "body_opt_out",
    "accept",
    "reject",
    "manage",
    "save",
    "close",
    "dialog_title",
    "dialog_body",
    "dialog_body_opt_out",
    "always_on",
    "gpc_notice",
    "policy_link",
    "do_not_sell",
    "withdraw",
    "placeholder",
    "placeholder_once",
    "placeholder_always",
    "record",
)
"""Every text a banner needs; ``{controller}`` in one stands for the controller's name.

``..._opt_out`` is said instead under laws that let purposes run until somebody objects.
"""

OPTIONAL_TEXT_KEYS = (
    "body_for_notice",
    "understood",
    "limit_use",
    "gpc_badge",
    "gpc_overruled",
    "changed",
    "changed_notice",
    "expired",
    "receipt",
    "your_data",
    "not_cleared",
    "unavailable",
)
"""Texts that came later: notices of before lack them, and then that part is not shown.

``..._for_notice`` is said instead under laws that only want people told.
"""

Language = dict[str, Any]
"""``{name, texts: {key: text}, purposes: {id: {name, description}}}``"""


@cache
def shipped() -> MappingProxyType[str, Language]:
    """The languages that come with Quittance, by tag."""
    return MappingProxyType(
        {
            path.stem: json.loads(path.read_text(encoding="utf-8"))
            for path in sorted(_TEXTS.glob("*.json"))
        }
    )


def direction(tag: str) -> str:
    """The value of ``dir`` for a language."""
    primary = tag.partition("-")[0]
    return "rtl" if primary in {"ar", "fa", "he", "ur", "yi", "ps", "sd", "ckb"} else "ltr"


_OTHER_NAMES = {
    "zh-tw": "zh-hant",
    "zh-hk": "zh-hant",
    "zh-mo": "zh-hant",
    "no": "nb",
    "nn": "nb",
    "iw": "he",
}
"""Tags that browsers send for a language we know by another one."""


def best(offered: Sequence[str], wanted: Sequence[str]) -> str | None:
    """The first wanted tag that is offered: whole, or shortened from the right (RFC 4647, 3.4), so
    that ``de-AT`` finds ``de`` and ``zh-TW`` finds ``zh-Hant`` before ``zh``; else another form of
    the same language.
    """
    by_tag = {tag.lower(): tag for tag in offered}
    primary = {tag.partition("-")[0]: tag for tag in reversed(by_tag)}
    for tag in wanted:
        parts = tag.lower().split("-")
        for count in range(len(parts), 0, -1):
            name = "-".join(parts[:count])
            if found := by_tag.get(name) or by_tag.get(_OTHER_NAMES.get(name, "")):
                return found
        if parts[0] in primary:
            return by_tag[primary[parts[0]]]
    return None


def accepted(header: str | None) -> list[str]:
    """The tags of an Accept-Language header (RFC 9110, 12.5.4), the most wanted first; nonsense is
    passed over."""
    found = []
    for part in (header or "")[:500].split(","):
        if match := _ACCEPTED.fullmatch(part):
            weight = float(match[2] or 1)
            if 0 < weight <= 1:
                found.append((weight, match[1]))
    found.sort(key=lambda each: -each[0])
    return [tag for _, tag in found]
