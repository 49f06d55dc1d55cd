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


def best(offered: Sequence[str], wanted: Sequence[str]) -> str | None:
    """The first wanted tag that is offered, whole or by its primary part (``de-AT`` finds
    ``de``)."""
    by_tag = {tag.lower(): tag for tag in offered}
    for tag in wanted:
        for candidate in (tag.lower(), tag.lower().partition("-")[0]):
            if found := by_tag.get(candidate):
                return found
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
