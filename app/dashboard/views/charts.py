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
class StackedBars:
    """Bars over a box that is stretched to the page; ``days`` label equal groups of columns."""

    width: int
    height: int
    top: int
    columns: tuple[Column, ...]
    days: tuple[str, ...]


def stacked_bars(
    days: Sequence[dt.date], counts: Mapping[dt.date, Sequence[int]], names: Sequence[str]
) -> StackedBars:
    """One column per day; ``counts`` holds a number per name, drawn from the bottom up."""
    top = nice_top(max((sum(each) for each in counts.values()), default=0))
    columns = tuple(
        _column(index, f"{each:%-d %b}", counts.get(each, ()), names, top)
        for index, each in enumerate(days)
    )
    stride = _stride(len(days))
    labels = tuple(f"{days[at + stride // 2]:%-d %b}" for at in range(0, len(days), stride))
    return StackedBars(_PITCH * len(days), _HEIGHT, top, columns, labels)


_PITCH, _HEIGHT = 10, 100


def _column(
    index: int, label: str, counts: Sequence[int], names: Sequence[str], top: int
) -> Column:
    bars, said, y = [], [], float(_HEIGHT)
    for series, (name, count) in enumerate(zip(names, counts, strict=False), 1):
        if count:
            said.append(f"{name} {count}")
            size = count * _HEIGHT / top
            y -= size
            bars.append(Bar(index * _PITCH + 1, round(y, 2), _PITCH - 2, round(size, 2), series))
    return Column(f"{label}: {', '.join(said) or 'none'}", tuple(bars))


@dataclass(frozen=True, slots=True)
class LineBars:
    """Stacked bars with a line over them, on one scale; ``labels`` begin equal groups of
    columns.
    """

    width: int
    height: int
    top: int
    columns: tuple[Column, ...]
    points: str
    labels: tuple[str, ...]


def line_bars(
    names: Sequence[str],
    counts: Sequence[Sequence[int]],
    line: Sequence[int],
    series: Sequence[str],
    line_name: str,
    labels: int,
) -> LineBars:
    """One column per name; ``labels`` of them are written below, evenly."""
    top = nice_top(max((*map(sum, counts), *line), default=0))
    columns = tuple(
        _column(index, f"{name}, {line[index]} {line_name}", counts[index], series, top)
        for index, name in enumerate(names)
    )
    points = " ".join(
        f"{index * _PITCH + _PITCH // 2},{round(_HEIGHT - value * _HEIGHT / top, 2)}"
        for index, value in enumerate(line)
    )
    return LineBars(
        _PITCH * len(names), _HEIGHT, top, columns, points, tuple(names[:: len(names) // labels])
    )


@dataclass(frozen=True, slots=True)
class AttemptBar:
    """How many succeeded on one attempt; ``width`` is of 100."""

    name: str
    count: int
    width: float


MOST_ATTEMPTS = 10


def attempt_bars(succeeded: Mapping[int, int]) -> list[AttemptBar]:
    """Attempts one by one up to the tenth, the rest together; none after the last that helped."""
    counts = [succeeded.get(attempt, 0) for attempt in range(1, MOST_ATTEMPTS + 1)]
    later = sum(count for attempt, count in succeeded.items() if attempt > MOST_ATTEMPTS)
    names = [str(attempt) for attempt in range(1, MOST_ATTEMPTS + 1)]
    while counts and not counts[-1] and not later:
        counts.pop()
    if later:
        names.append(f"{MOST_ATTEMPTS + 1} and more")
        counts.append(later)
    most = max(counts, default=0) or 1
    return [
        AttemptBar(name, count, round(100 * count / most, 2))
        for name, count in zip(names, counts, strict=False)
    ]


def _stride(count: int) -> int:
    """Days per label: the smallest divisor that leaves at most five labels."""
    return next(
        (each for each in range(1, count + 1) if count % each == 0 and count // each <= 5), 1
    )


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
        found.append(
            Share(name, counts.get(name, 0), round(width), series, round(x, 3), round(width, 3))
        )
        x += width
    return found


@dataclass(frozen=True, slots=True)
class SplitBar:
    """What was answered, over how often it was asked (``shown``, None: nobody counted). Widths and
    places are of 100.
    """

    shown: float | None
    bars: tuple[Bar, ...]


def split_bars(rows: Sequence[tuple[int | None, Sequence[int]]]) -> list[SplitBar]:
    """One bar per row, on one scale; a row is the times shown and a number per series."""
    top = max((max(shown or 0, sum(counts)) for shown, counts in rows), default=0) or 1
    return [
        SplitBar(None if shown is None else round(100 * shown / top, 2), _pieces(counts, top))
        for shown, counts in rows
    ]


def _pieces(counts: Sequence[int], top: int) -> tuple[Bar, ...]:
    found, x = [], 0.0
    for series, count in enumerate(counts, 1):
        width = 100 * count / top
        if count:
            found.append(Bar(round(x, 2), 2, round(width, 2), 6, series))
        x += width
    return tuple(found)
