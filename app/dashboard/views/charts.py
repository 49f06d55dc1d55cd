"""Charts as numbers: points and rectangles that templates write into SVG attributes."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sparkline:
    """A line over a fixed box, and the area under it."""

    width: int
    height: int
    points: str
    area: str


def sparkline(values: Sequence[int], width: int = 240, height: int = 48) -> Sparkline:
    top = max(values, default=0) or 1
    step = width / max(len(values) - 1, 1)
    places = [
        (round(index * step, 1), round(height - 3 - (height - 6) * value / top, 1))
        for index, value in enumerate(values)
    ]
    points = " ".join(f"{x},{y}" for x, y in places)
    return Sparkline(width, height, points, f"0,{height} {points} {width},{height}")


@dataclass(frozen=True, slots=True)
class Bar:
    """One rectangle; ``series`` is 1 to 4 and decides the colour."""

    x: float
    y: float
    width: float
    height: float
    series: int


@dataclass(frozen=True, slots=True)
class Column:
    """The stacked bars of one day, with what they say in words."""

    title: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Tick:
    at: float
    text: str


@dataclass(frozen=True, slots=True)
class StackedBars:
    width: int
    height: int
    left: int
    base: float
    columns: tuple[Column, ...]
    lines: tuple[Tick, ...]
    days: tuple[Tick, ...]


def stacked_bars(
    days: Sequence[dt.date], counts: Mapping[dt.date, Sequence[int]], names: Sequence[str],
    width: int = 720, height: int = 220,
) -> StackedBars:  # fmt: skip
    """One column per day; ``counts`` holds a number per name, drawn from the bottom up."""
    left, bottom, top_margin = 34, 22, 8
    base = float(height - bottom)
    top = nice_top(max((sum(each) for each in counts.values()), default=0))
    pitch = (width - left) / max(len(days), 1)
    scale = (base - top_margin) / top
    columns = []
    for index, each in enumerate(days):
        bars, y = [], base
        said = []
        for series, (name, count) in enumerate(zip(names, counts.get(each, ()), strict=False), start=1):
            if count:
                said.append(f"{name} {count}")
                y -= count * scale
                bars.append(
                    Bar(round(left + index * pitch + pitch * 0.1, 2), round(y, 2), round(pitch * 0.8, 2),
                        round(count * scale, 2), series)
                )  # fmt: skip
        columns.append(Column(f"{each:%-d %b}: {', '.join(said) or 'none'}", tuple(bars)))
    lines = tuple(Tick(round(base - value * scale, 1), str(value)) for value in (top // 2, top) if value)
    stride = max(1, len(days) // 6)
    ticks = tuple(
        Tick(round(left + index * pitch + pitch / 2, 1), f"{each:%-d %b}")
        for index, each in enumerate(days)
        if index % stride == stride // 2
    )
    return StackedBars(width, height, left, base, tuple(columns), lines, ticks)


def nice_top(value: int) -> int:
    """The next number that halves well: 2, 4, 10, 20, 40, 100 ..."""
    top = 2
    while top < value:
        top = top * 5 // 2 if str(top)[0] == "4" else top * 2
    return top


@dataclass(frozen=True, slots=True)
class Share:
    name: str
    count: int
    percent: int
    series: int
    x: float
    width: float


def shares(counts: Mapping[str, int], order: Sequence[str]) -> list[Share]:
    """Parts of a whole bar of width 100."""
    total = sum(counts.values()) or 1
    found, x = [], 0.0
    for series, name in enumerate(order, start=1):
        width = 100 * counts.get(name, 0) / total
        found.append(Share(name, counts.get(name, 0), round(width), series, round(x, 3), round(width, 3)))
        x += width
    return found
