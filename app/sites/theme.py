"""The site's accent colour, made readable: text on it and it on the page have a contrast of at
least 4.5 (WCAG 2.2, 1.4.3), in light and in dark, whatever colour was chosen. Pure functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Colour = tuple[int, int, int]

WHITE: Colour = (255, 255, 255)
BLACK: Colour = (0, 0, 0)
DARK_PAGE: Colour = (26, 32, 41)
"""``--bg`` of the widget's base.css under ``prefers-color-scheme: dark``."""
READABLE = 4.5


@dataclass(frozen=True, slots=True)
class Palette:
    """``accent`` lies behind the labels of buttons, ``on_accent`` are the labels; ``ink`` is the
    accent as text, border and focus ring on the page."""

    accent: Colour
    on_accent: Colour
    ink: Colour


def contrast(one: Colour, other: Colour) -> float:
    """The contrast ratio of WCAG 2.2, from 1 to 21."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def palette(accent: str, *, is_dark: bool) -> Palette:
    """``accent`` is ``#rrggbb``."""
    red, green, blue = bytes.fromhex(accent.removeprefix("#"))
    chosen = (red, green, blue)
    ink = _readable(chosen, DARK_PAGE, WHITE) if is_dark else _readable(chosen, WHITE, BLACK)
    ground = ink if is_dark else chosen
    # One of the two always passes: they meet at 4.58.
    return Palette(ground, WHITE if contrast(ground, WHITE) >= READABLE else BLACK, ink)


def sheet(theme: Mapping[str, Any]) -> str:
    """What the widget's style sheets build on; a page's own ``--quittance-...`` come before it."""
    light = _properties(palette(theme["accent"], is_dark=False))
    dark = _properties(palette(theme["accent"], is_dark=True))
    return (
        f":host{{--theme-radius:{int(theme['radius'])}px;{light}}}"
        f"@media(prefers-color-scheme:dark){{:host{{{dark}}}}}"
    )


def _luminance(colour: Colour) -> float:
    parts = [value / 255 for value in colour]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _readable(colour: Colour, page: Colour, end: Colour) -> Colour:
    """The colour itself, or the first step on its way to ``end`` that can be read on ``page``."""
    for step in range(20):
        red, green, blue = (
            round(value + (goal - value) * step / 20)
            for value, goal in zip(colour, end, strict=True)
        )
        if contrast((red, green, blue), page) >= READABLE:
            return red, green, blue
    return end


def _properties(colours: Palette) -> str:
    shade = "0 0 0" if colours.on_accent == WHITE else "255 255 255"
    return (
        f"--theme-accent:{_written(colours.accent)};"
        f"--theme-on-accent:{_written(colours.on_accent)};"
        f"--theme-ink:{_written(colours.ink)};--theme-shade:rgb({shade}/.16)"
    )


def _written(colour: Colour) -> str:
    return f"#{bytes(colour).hex()}"
