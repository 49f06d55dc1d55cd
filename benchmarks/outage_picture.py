"""The outage replay's curve as an SVG of its own: no script, no font to load, light and dark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 960, 560
LEFT, RIGHT = 72, 936

STYLE = """
  svg { --paper: #ffffff; --ink: #23291f; --muted: #62685c; --grid: #e2e0d7; --shade: #f6e7d8;
        --load: #62685c; --calls: #c2570c; --successes: #17603f; --backlog: #4a5fa5; }
  @media (prefers-color-scheme: dark) {
    svg { --paper: #121512; --ink: #d9dcd3; --muted: #98a092; --grid: #2b302a; --shade: #33251a;
          --load: #98a092; --calls: #f0924c; --successes: #74c69a; --backlog: #93a5e6; }
  }
  text { font: 13px system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif;
         fill: var(--muted); }
  .title { font-size: 17px; font-weight: 600; fill: var(--ink); }
  .end { text-anchor: end; } .middle { text-anchor: middle; }
  .grid { stroke: var(--grid); } .axis { stroke: var(--muted); }
  path { fill: none; stroke-width: 2; stroke-linejoin: round; }
  .load { stroke: var(--load); stroke-dasharray: 2 3; }
  .calls { stroke: var(--calls); }
  .successes { stroke: var(--successes); stroke-width: 2.5; }
  .backlog { stroke: var(--backlog); fill: var(--backlog); fill-opacity: 0.2; }
  .limit { stroke: var(--ink); stroke-width: 1; stroke-dasharray: 7 4; }
"""


@dataclass(frozen=True, slots=True)
class Minute:
    """One minute of the sick destination; ``backlog``: deliveries not settled at its end."""

    load: int
    calls: int
    successes: int
    backlog: int


@dataclass(frozen=True, slots=True)
class Panel:
    """An area between two heights of the picture, with its own scale from 0 to ``high``."""

    above: float
    below: float
    minutes: int
    high: float

    def x(self, minute: float) -> float:
        return LEFT + (RIGHT - LEFT) * minute / self.minutes

    def y(self, value: float) -> float:
        return self.below - (self.below - self.above) * value / self.high

    def points(self, values: Iterable[float]) -> str:
        """Each value in the middle of its minute."""
        return " ".join(
            f"{self.x(minute + 0.5):.1f},{self.y(value):.1f}" for minute, value in enumerate(values)
        )

    def line(self, kind: str, values: Iterable[float]) -> str:
        return f'<path class="{kind}" d="M{self.points(values)}"/>'

    def area(self, kind: str, values: Sequence[float]) -> str:
        first, last = self.x(0.5), self.x(len(values) - 0.5)
        return (
            f'<path class="{kind}" d="M{first:.1f},{self.below} L{self.points(values)}'
            f' L{last:.1f},{self.below} Z"/>'
        )

    def frame(self, label: str) -> list[str]:
        """Axis, grid and numbers, with what they count above them."""
        parts = [f'<text x="{LEFT}" y="{self.above - 12}">{label}</text>']
        for tick in _ticks(self.high):
            y = self.y(tick)
            kind = "grid" if tick else "axis"
            parts += [
                f'<line class="{kind}" x1="{LEFT}" x2="{RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>',
                f'<text class="end" x="{LEFT - 8}" y="{y + 4:.1f}">{tick:,}</text>',
            ]
        return parts


def draw(curve: Sequence[Minute], begins: int, ends: int, capacity: float, success: float) -> str:
    """``begins`` and ``ends``: the outage, in minutes; ``capacity``: calls a minute it takes when
    healthy.
    """
    most = max(*(each.calls for each in curve), *(each.load for each in curve), capacity)
    calls = Panel(104, 320, len(curve), most * 1.1)
    backlog = Panel(376, 496, len(curve), max(each.backlog for each in curve) * 1.15 or 1)
    shade = f'x="{calls.x(begins):.1f}" width="{calls.x(ends) - calls.x(begins):.1f}"'
    title = f"An outage of {ends - begins} minutes: what the sick destination sees"
    limit = f'x1="{LEFT}" x2="{RIGHT}" y1="{calls.y(capacity):.1f}" y2="{calls.y(capacity):.1f}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{title}</title>",
        f"<style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="8" style="fill: var(--paper)"/>',
        *(
            f'<rect {shade} y="{each.above}" height="{each.below - each.above}"'
            ' style="fill: var(--shade)"/>'
            for each in (calls, backlog)
        ),
        f'<text class="title" x="{LEFT}" y="34">{title}</text>',
        *_legend(),
        *calls.frame("per minute"),
        *backlog.frame("deliveries waiting"),
        f'<text class="middle" x="{calls.x((begins + ends) / 2):.1f}" y="{calls.above + 18}">'
        f"outage: {success:.0%} of its calls succeed</text>",
        f'<line class="limit" {limit}/>',
        calls.line("load", [each.load for each in curve]),
        calls.line("calls", [each.calls for each in curve]),
        calls.line("successes", [each.successes for each in curve]),
        backlog.area("backlog", [each.backlog for each in curve]),
        *_minutes(backlog, begins),
        f'<text class="middle" x="{(LEFT + RIGHT) / 2}" y="{HEIGHT - 16}">'
        "minutes since the outage began</text>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _legend() -> list[str]:
    parts = []
    for x, kind, words in (
        (LEFT, "load", "deliveries that arrive"),
        (LEFT + 190, "calls", "calls made"),
        (LEFT + 310, "successes", "calls that succeed"),
        (LEFT + 480, "limit", "what it takes when healthy"),
    ):
        parts += [
            f'<path class="{kind}" d="M{x},58 h26"/>',
            f'<text x="{x + 34}" y="62">{words}</text>',
        ]
    return parts


def _minutes(panel: Panel, begins: int) -> list[str]:
    """The time axis, in steps of a quarter of an hour from the outage's beginning."""
    return [
        f'<text class="middle" x="{panel.x(minute):.1f}" y="{panel.below + 20}">'
        f"{minute - begins}</text>"
        for minute in range(begins % 15, panel.minutes + 1, 15)
    ]


def _ticks(high: float) -> list[int]:
    """Round numbers from 0 to at most ``high``, five or fewer steps."""
    step = next(
        base * 10**power for power in range(9) for base in (1, 2, 5) if high <= base * 10**power * 5
    )
    return list(range(0, int(high) + 1, step))
