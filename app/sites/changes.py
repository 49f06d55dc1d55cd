"""What differs between two versions of a notice. Pure functions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any


def sha256_of(content: Any) -> str:
    """SHA-256 (hex) of canonical JSON: sorted names, no white space, UTF-8."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def material(content: Mapping[str, Any]) -> str:
    """What a choice rests on, as 16 hex digits: who asks, and for which purposes. While it stays
    the same, earlier choices keep answering (EDPB guidelines 05/2020, 110: consent is asked for
    anew where operations change considerably).

    Of the words only the purposes' own count, in the default language: a visitor who changes the
    language has not been asked something else. For those of the others see ``is_material``.
    """
    flags = ("id", "required", "denied_by_gpc", "sensitive")
    basis = {
        "controller": content["controller"]["name"],
        "purposes": [
            {flag: each[flag] for flag in flags if each.get(flag)} for each in content["purposes"]
        ],
        "words": content["languages"][content["default_language"]]["purposes"],
    }
    return sha256_of(basis)[:16]


CONTROLLER = "@controller"
"""In ``news``, beside ids of purposes."""


def news(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What is new to whoever answered ``before``: ``CONTROLLER`` if another one asks, and ids of
    the purposes that are new in ``after`` or are asked for in another way.
    """
    known = _asked(before)
    is_other = before["controller"]["name"] != after["controller"]["name"]
    purposes = [
        each
        for each, asked in _asked(after).items()
        if known.get(each) != asked or _reworded(before, after, each)[0]
    ]
    return [CONTROLLER, *purposes] if is_other else purposes


def is_material(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether those who answered ``before`` have to be asked again: who asks, for what, or in which
    words, in any language, is another.
    """
    return material(before) != material(after) or any(
        _reworded(before, after, each)[0] for each in _asked(after)
    )


def _asked(content: Mapping[str, Any]) -> dict[str, Any]:
    said = content["languages"][content["default_language"]]["purposes"]
    return {
        each["id"]: ({name: value for name, value in each.items() if value}, said[each["id"]])
        for each in content["purposes"]
    }


def left_behind(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, list[str]]:
    """Purposes that are said in other words in some languages alone, and the languages whose words
    stayed. Whether that is a translation that was forgotten or a misspelling that was mended, only
    people can tell. A language that had none but the default language's words counts as neither.
    """
    found = {}
    for purpose in _asked(after):
        reworded, stayed = _reworded(before, after, purpose)
        if reworded and stayed:
            found[purpose] = stayed
    return found


def _reworded(
    before: Mapping[str, Any], after: Mapping[str, Any], purpose: str
) -> tuple[list[str], list[str]]:
    """The languages that say a purpose in other words than before, and those that say it in the
    same; nowhere those that said nothing of it, or the default language's words."""
    default = before["default_language"]
    said = {tag: each["purposes"].get(purpose) for tag, each in before["languages"].items()}
    changed: list[str] = []
    stayed: list[str] = []
    for tag, language in after["languages"].items():
        words = said.get(tag)
        if words and (tag == default or words != said[default]):
            (stayed if language["purposes"][purpose] == words else changed).append(tag)
    return changed, stayed


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What differs between two contents of a notice, by place; ``before`` or ``after`` is missing
    where something is new or gone.
    """
    old, new = dict(_leaves(before)), dict(_leaves(after))
    return [
        {"at": at}
        | ({"before": old[at]} if at in old else {})
        | ({"after": new[at]} if at in new else {})
        for at in sorted(old.keys() | new.keys())
        if old.get(at, _GONE) != new.get(at, _GONE)
    ]


_GONE = object()


def _leaves(value: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """Places such as ``languages.en.texts.title`` and what stands there; things with an id go by
    it.
    """
    if isinstance(value, Mapping) and value:
        for name, member in value.items():
            yield from _leaves(member, f"{at}.{name}" if at else str(name))
    elif isinstance(value, list) and value and all(_has_id(each) for each in value):
        for each in value:
            yield from _leaves(each, f"{at}.{each['id']}")
    else:
        yield at, value


def _has_id(value: Any) -> bool:
    return isinstance(value, Mapping) and "id" in value
