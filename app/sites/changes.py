"""What differs between two versions of a notice. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


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
