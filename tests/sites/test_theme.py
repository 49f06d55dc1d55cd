"""The accent colour stays readable."""

from __future__ import annotations

import itertools

import pytest

from app.sites.theme import DARK_PAGE, WHITE, contrast, palette, sheet

STEPS = ("00", "33", "66", "77", "99", "bb", "cc", "ff")
ACCENTS = ["#" + "".join(each) for each in itertools.product(STEPS, repeat=3)]


@pytest.mark.parametrize(("is_dark", "page"), [(False, WHITE), (True, DARK_PAGE)])
def test_any_accent_leaves_labels_links_and_borders_readable(
    page: tuple[int, int, int], *, is_dark: bool
) -> None:
    palettes = [palette(accent, is_dark=is_dark) for accent in ACCENTS]

    assert min(contrast(each.accent, each.on_accent) for each in palettes) >= 4.5
    assert min(contrast(each.ink, page) for each in palettes) >= 4.5


def test_an_accent_that_can_be_read_stays_as_it_is() -> None:
    found = palette("#1F5FAE", is_dark=False)

    assert (found.accent, found.on_accent, found.ink) == ((31, 95, 174), WHITE, (31, 95, 174))


def test_the_sheet_has_both_schemes() -> None:
    assert sheet({"accent": "#1f5fae", "radius": 8}) == (
        ":host{--theme-radius:8px;--theme-accent:#1f5fae;--theme-on-accent:#ffffff;"
        "--theme-ink:#1f5fae;--theme-shade:rgb(0 0 0/.16)}"
        "@media(prefers-color-scheme:dark){:host{--theme-accent:#628fc6;"
        "--theme-on-accent:#000000;--theme-ink:#628fc6;--theme-shade:rgb(255 255 255/.16)}}"
    )
