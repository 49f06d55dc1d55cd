"""What a visitor's records add up to: the current state, and what a new record withdraws. Pure
functions."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Decision:
    """The part of a record that decides."""

    decided_at: dt.datetime
    choices: Mapping[str, bool]


def combine(decisions: Iterable[Decision]) -> Decision | None:
    """The greatest ``decided_at`` holds; of records decided at the same moment, a denial of either
    wins."""
    current: Decision | None = None
    for each in decisions:
        if current is None or each.decided_at > current.decided_at:
            current = each
        elif each.decided_at == current.decided_at:
            current = Decision(each.decided_at, deny_wins(current.choices, each.choices))
    return current


def deny_wins(one: Mapping[str, bool], other: Mapping[str, bool]) -> dict[str, bool]:
    return {
        purpose: one.get(purpose, True) and other.get(purpose, True)
        for purpose in sorted({**one, **other})
    }


def withdrawn(
    before: Decision | None, after: Decision, granted_by_default: Collection[str] = ()
) -> list[str]:
    """Purposes that were granted and no longer are.

    ``granted_by_default``: what ran without any choice (opt-out laws); counts when there was none
    before.
    """
    granted = (
        granted_by_default
        if before is None
        else {key for key, value in before.choices.items() if value}
    )
    return sorted(purpose for purpose in granted if after.choices.get(purpose) is False)
