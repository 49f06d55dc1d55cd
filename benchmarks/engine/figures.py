"""Figures beside their goals: the sums behind the table, and how a line of it reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

NEAR = 0.1
"""A figure that misses its bar by no more than this share is near it."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What must be reached, and what should be; ``is_ceiling``: less is better."""

    bar: float
    stretch: float
    is_ceiling: bool = False

    def verdict(self, value: float) -> str:
        if self._reaches(value, self.stretch):
            return "pass, stretch"
        if self._reaches(value, self.bar):
            return "pass"
        slack = 1 + NEAR if self.is_ceiling else 1 - NEAR
        return "near" if self._reaches(value, self.bar * slack) else "MISS"

    def _reaches(self, value: float, goal: float) -> bool:
        return value <= goal if self.is_ceiling else value >= goal

    def text(self, goal: float) -> str:
        return f"{'<=' if self.is_ceiling else '>='} {goal:g}"


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table. Without a reference the figure itself is held against the goal."""

    what: str
    ours: float
    unit: str
    goal: Goal
    reference: float | None = None

    @property
    def value(self) -> float:
        return self.ours if self.reference is None else self.ours / self.reference

    @property
    def verdict(self) -> str:
        return self.goal.verdict(self.value)

    def line(self) -> str:
        reference = "" if self.reference is None else f"{number(self.reference)} {self.unit}"
        ratio = "" if self.reference is None else f"{self.value:.2f}"
        bar, stretch = self.goal.text(self.goal.bar), self.goal.text(self.goal.stretch)
        return (
            f"{self.what:<58}{number(self.ours) + ' ' + self.unit:>13}{reference:>13}{ratio:>8}"
            f"{bar:>9}{stretch:>9}  {self.verdict}"
        )


HEADING = f"{'what':<58}{'ours':>13}{'reference':>13}{'ratio':>8}{'bar':>9}{'stretch':>9}  verdict"


def number(value: float) -> str:
    """Three digits are all that a shared machine repeats."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of all do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
