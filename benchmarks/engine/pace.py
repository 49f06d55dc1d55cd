"""How long a benchmark looks, and taking turns: whoever is not measured is held still."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.engine.processes import Group

Count = Callable[[], int]

PATIENCE = 120.0
SETTLING = 0.5
"""Seconds between letting somebody run and beginning to count."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds, and how many turns everybody has; a figure is the median of its turns."""

    warm_up: float = 5.0
    seconds: float = 4.0
    turns: int = 3


FULL, QUICK = Pace(), Pace(warm_up=2.0, seconds=1.5, turns=1)


@dataclass(frozen=True, slots=True)
class Contender:
    """Somebody who works off a backlog. ``left``: how much of it is not done yet."""

    group: Group
    left: Count

    @contextmanager
    def turn(self) -> Iterator[None]:
        self.group.go_on()
        try:
            yield
        finally:
            self.group.hold()


def take_turns(pace: Pace, *contenders: Contender) -> list[float]:
    """Things done in a second by each contender, the others held still meanwhile."""
    for each in contenders:
        each.group.hold()
    for each in contenders:
        with each.turn():
            warm_up(pace, each.left)
    rates: list[list[float]] = [[] for _ in contenders]
    for _ in range(pace.turns):
        for mine, each in zip(rates, contenders, strict=True):
            with each.turn():
                time.sleep(SETTLING)
                mine.append(rate(pace, each.left))
    return [statistics.median(mine) for mine in rates]


def warm_up(pace: Pace, left: Count) -> None:
    """Wait until work has begun, and then some time more."""
    at_first = left()
    wait_until(lambda: left() < at_first)
    time.sleep(pace.warm_up)


def rate(pace: Pace, left: Count) -> float:
    """Things done in a second, from two counts with nothing but waiting between them."""
    before, began = left(), time.perf_counter()
    time.sleep(pace.seconds)
    after, took = left(), time.perf_counter() - began
    if after <= 0:
        raise RuntimeError("all was done before the time was over: seed more work")
    return (before - after) / took


def rate_of(done: Count, first: int, count: int, at_most: float = 8.0) -> float:
    """Things done in a second over ``count`` things after the ``first`` ones, or over ``at_most``
    seconds. ``done`` must be cheap: it is asked all the time.
    """
    at_first = done() + first
    wait_until(lambda: done() >= at_first)
    before, began = done(), time.perf_counter()
    wait_until(lambda: done() >= before + count or time.perf_counter() > began + at_most)
    return (done() - before) / (time.perf_counter() - began)


def wait_until(
    condition: Callable[[], bool], patience: float = PATIENCE, every: float = 0.02
) -> None:
    end = time.monotonic() + patience
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"nothing came of waiting for {patience:.0f} s")
        time.sleep(every)
