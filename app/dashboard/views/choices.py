"""What a select offers, and what of it was chosen; above a list, from the list's address."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from app.core.errors import Invalid
from app.dashboard import present
from app.sites import regimes


@dataclass(frozen=True, slots=True)
class Option:
    value: str
    text: str
    is_chosen: bool


def options(choices: Mapping[str, str], chosen: str) -> list[Option]:
    return [Option(value, text, value == chosen) for value, text in choices.items()]


@dataclass(frozen=True, slots=True)
class Choice:
    """One filter of a list. ``chosen`` was written by anybody: it need not be ``offered``."""

    name: str
    label: str
    offered: Mapping[str, str]
    chosen: str

    @property
    def is_unknown(self) -> bool:
        return self.chosen not in self.offered

    @property
    def options(self) -> list[Option]:
        unknown = {self.chosen: f"Unknown {self.label.lower()}"} if self.is_unknown else {}
        return options({**unknown, **self.offered}, self.chosen)


def choice(
    asked: Mapping[str, str], name: str, label: str, offered: Mapping[str, str], default: str = ""
) -> Choice:
    """``default`` where nothing was asked; what was, is never taken for something else."""
    return Choice(name, label, offered, asked.get(name, "")[:48] or default)


def chosen(choices: Iterable[Choice]) -> dict[str, str]:
    return {each.name: each.chosen for each in choices}


def has_unknown(choices: Iterable[Choice]) -> bool:
    return any(each.is_unknown for each in choices)


def refuse_unknown(choices: Iterable[Choice]) -> None:
    """For what is no page and cannot show what is on offer: ``Invalid``."""
    names = " or ".join(each.label.lower() for each in choices if each.is_unknown)
    if names:
        raise Invalid(f"There is no such {names}. Choose one that the list offers.")


def laws() -> dict[str, str]:
    return {"": "Any law", **{each: present.regime(each) for each in regimes.load()}}
