"""What records add up to: a visitor's current state, a person's on several devices, and what a new
record withdraws or grants again. Pure functions."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import reduce

from app.consent.schemas import Method

BY_CHOICE = frozenset(
    {Method.ACCEPT_ALL, Method.REJECT_ALL, Method.CUSTOM, Method.WITHDRAWAL, Method.API}
)
"""Records of a person's own explicit choice, which count on all their devices. A signal (gpc), a
closed banner (dismissed) and what another tool had stored (migrated) hold where they were made."""


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


def standing(choices: Iterable[Decision], signals: Iterable[Decision]) -> Decision | None:
    """What a person's records add up to for destinations: the newest explicit choice on any device,
    and what an opt-out signal has denied on any since (11 CCR 7025(c)(1): it counts for the browser
    and, where the consumer is known, for the consumer). ``signals`` have nothing but denials.
    """
    state = combine(choices)
    for each in sorted(signals, key=lambda signal: signal.decided_at):
        state = heed(state, each)
    return state


def heed(state: Decision | None, signal: Decision) -> Decision:
    """The signal's denials on top of what held, unless somebody chose explicitly after it."""
    if state is None:
        return signal
    if state.decided_at > signal.decided_at:
        return state
    return Decision(signal.decided_at, {**state.choices, **signal.choices})


@dataclass(frozen=True, slots=True)
class Choice(Decision):
    """An explicit choice on one of a person's devices. ``may_grant``: made under the notice that is
    shown now, and not expired.
    """

    consent_id: str
    may_grant: bool


@dataclass(frozen=True, slots=True)
class Merged:
    """What holds for a person on one device, and the record that says so. A purpose that is missing
    from ``choices`` is open: its grant has lapsed.
    """

    consent_id: str
    choices: dict[str, bool]


def merge(choices: Iterable[Choice], denied_here: Collection[str] = ()) -> Merged | None:
    """The newest explicit choice on any of the person's devices holds on each; of those made at the
    same moment, a denial of any wins. A grant that may no longer grant is none; a denial stays one.

    ``denied_here``: what this device's own signal (GPC) denies, made since the last choice on it.
    """
    found = list(choices)
    if not found:
        return None
    moment = max(each.decided_at for each in found)
    newest = [each for each in found if each.decided_at == moment]
    holding = reduce(deny_wins, (_holding(each) for each in newest))
    holding |= {purpose: False for purpose in denied_here if purpose in holding}
    return Merged(max(newest, key=_weight).consent_id, holding)


def _holding(choice: Choice) -> dict[str, bool]:
    return dict(sorted(choice.choices.items())) if choice.may_grant else denials(choice.choices)


def denials(choices: Mapping[str, bool]) -> dict[str, bool]:
    return {purpose: False for purpose in sorted(choices) if not choices[purpose]}


def _weight(choice: Choice) -> tuple[int, str]:
    """Of records of one moment, the one that denies most speaks for them, then the youngest id."""
    return len(denials(choice.choices)), choice.consent_id


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


def granted_again(before: Decision | None, after: Decision) -> list[str]:
    """Purposes that were denied and are granted now."""
    denied = denials(before.choices) if before else ()
    return sorted(purpose for purpose in denied if after.choices.get(purpose))


def refused_by(signal: Decision, before: Decision | None) -> list[str]:
    """Purposes that a signal denies and nobody had denied yet; under an opt-out law what was never
    denied may have run.
    """
    return sorted(
        purpose
        for purpose in denials(signal.choices)
        if before is None or before.choices.get(purpose) is not False
    )
