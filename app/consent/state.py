"""What records add up to: a visitor's current state, a person's on several devices, and what a new
record withdraws or grants again. Pure functions."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from itertools import groupby
from typing import Protocol, TypeVar

from app.consent.schemas import Method

BY_CHOICE = frozenset(
    {Method.ACCEPT_ALL, Method.REJECT_ALL, Method.CUSTOM, Method.WITHDRAWAL, Method.API}
)
"""Records of a person's own explicit choice, which count on all their devices. A closed banner
(dismissed) and what another tool had stored (migrated) hold where they were made; what a signal
(gpc) denies counts for the person, see ``standing`` and ``still_denying``."""


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


class Dated(Protocol):
    """A decision, or the record of one."""

    @property
    def decided_at(self) -> dt.datetime: ...


Made = TypeVar("Made", bound=Dated)


def standing(said: Iterable[Decision]) -> Decision | None:
    """What destinations are to know of a person: the last word on each purpose, on any device, by
    explicit choice or by an opt-out signal, which denies and grants nothing (11 CCR 7025(c)(1): it
    counts for the browser and, where the consumer is known, for the consumer). Of the same moment,
    a denial of any wins.
    """
    state = None
    for words in by_moment(said):
        last = reduce(deny_wins, (each.choices for each in words))
        state = Decision(words[0].decided_at, {**(state.choices if state else {}), **last})
    return state


@dataclass(frozen=True, slots=True)
class Signal(Decision):
    """What an opt-out signal denied in one of a person's browsers, and the record that says so."""

    consent_id: str


def still_denying(signals: Iterable[Signal], choices: Iterable[Decision]) -> Signal | None:
    """What a person's signals deny of which nobody has chosen since, whether or not that choice
    has lapsed; the newest speaks for all.
    """
    chosen = {
        purpose: each.decided_at
        for each in sorted(choices, key=_moment)
        for purpose in each.choices
    }
    denied: set[str] = set()
    newest = None
    for each in sorted(signals, key=lambda signal: (signal.decided_at, signal.consent_id)):
        lasting = {
            purpose
            for purpose in each.choices
            if purpose not in chosen or chosen[purpose] <= each.decided_at
        }
        denied |= lasting
        newest = each if lasting else newest
    return newest and replace(newest, choices=dict.fromkeys(sorted(denied), False))


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


def merge(
    choices: Iterable[Choice], denied_here: Collection[str] = (), asked: Collection[str] = ()
) -> Merged | None:
    """The newest explicit choice on any of the person's devices holds on each; of those made at the
    same moment, a denial of any wins. A grant that may no longer grant is none; a denial stays one.
    Of the purposes in ``asked``, one that the newest choice left be is as it was chosen before.

    ``denied_here``: what this device's own signal (GPC) denies.
    """
    moments = by_moment(choices)
    if not moments:
        return None
    holding: dict[str, bool] = {}
    for made in moments:
        said = {purpose for each in made for purpose in each.choices}
        kept = {each: holding[each] for each in holding if each in asked and each not in said}
        holding = kept | reduce(deny_wins, map(_holding, made))
    holding |= {purpose: False for purpose in denied_here if purpose in holding}
    return Merged(max(moments[-1], key=_weight).consent_id, dict(sorted(holding.items())))


def by_moment(decisions: Iterable[Made]) -> list[list[Made]]:
    """The oldest first."""
    ordered = sorted(decisions, key=_moment)
    return [list(made) for _, made in groupby(ordered, _moment)]


def _moment(made: Dated) -> dt.datetime:
    return made.decided_at


def _holding(choice: Choice) -> dict[str, bool]:
    return dict(sorted(choice.choices.items())) if choice.may_grant else denials(choice.choices)


def denials(choices: Mapping[str, bool]) -> dict[str, bool]:
    return {purpose: False for purpose in sorted(choices) if not choices[purpose]}


def _weight(choice: Choice) -> tuple[int, str]:
    """Of records of one moment, the one that denies most speaks for them, then the youngest id."""
    return len(denials(choice.choices)), choice.consent_id


def refused_since(
    choices: Mapping[str, bool], purposes: Collection[str], sold: Collection[str]
) -> dict[str, bool]:
    """What choices of an earlier notice deny of what is ``sold`` now, without naming it: an opt-out
    of what was sold then covers the next of its kind. What was refused and is none of today's
    ``purposes`` may have been sold. The page judges alike: ``refused`` in
    consent_widget/src/state.ts.
    """
    unsold = set(purposes) - set(sold)
    is_opt_out = bool(denials(choices).keys() - unsold) and not any(map(choices.get, sold))
    later = sorted(each for each in sold if each not in choices)
    return dict.fromkeys(later, False) if is_opt_out else {}


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


def changed(
    was: Decision | None, now: Decision | None, *, asks_first: bool
) -> tuple[set[str], set[str]]:
    """Purposes that a person takes back, and those granted after a refusal; both states are what is
    ``standing``. Under a law that does not ask first (``asks_first``), whatever was not denied
    before may have run.
    """
    if now is None:
        return set(), set()
    taken_back = set(withdrawn(was, now))
    if not asks_first:
        taken_back |= denials(now.choices).keys() - (denials(was.choices).keys() if was else set())
    return taken_back, set(granted_again(was, now))
