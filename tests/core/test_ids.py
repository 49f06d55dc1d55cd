"""Ids sort by the time they were made, and say nothing else."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import Invalid
from app.core.http import Cursors
from app.core.ids import base62, new_id

moments = st.floats(0, 2**47 / 1000)


@given(moments, moments)
def test_ids_sort_by_time(one: float, other: float) -> None:
    if int(one * 1000) < int(other * 1000):
        assert new_id("req", one) < new_id("req", other)


def test_ids_are_prefixed_unique_and_of_one_length() -> None:
    made = {new_id("dlv") for _ in range(1000)}

    assert len(made) == 1000
    assert all(re.fullmatch(r"dlv_[0-9A-Za-z]{30}", each) for each in made)


@given(st.integers(0, 62**6 - 1), st.integers(0, 62**6 - 1))
def test_base_62_keeps_the_order_of_numbers(one: int, other: int) -> None:
    assert (one < other) == (base62(one, 6) < base62(other, 6))


def test_a_cursor_works_only_for_the_list_it_was_made_for() -> None:
    cursors = Cursors([b"k" * 32])
    cursor = cursors.write(("ws_1", "requests", "", ""), "req_1")

    assert cursors.read(("ws_1", "requests", "", ""), cursor) == "req_1"
    assert cursors.read(("ws_1", "requests", "", ""), None) is None
    for other in (("ws_2", "requests", "", ""), ("ws_1", "requests", "completed", ""), ("ws_1",)):
        with pytest.raises(Invalid):
            cursors.read(other, cursor)


@pytest.mark.parametrize("cursor", ["", "x", "req_1", "\u00e9", "a" * 9999])
def test_a_made_up_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(Invalid):
        Cursors([b"k" * 32]).read(("ws_1",), cursor)


def test_cursors_of_a_retired_key_still_work() -> None:
    old = Cursors([b"o" * 32]).write(("ws_1",), "req_1")

    assert Cursors([b"o" * 32, b"n" * 32]).read(("ws_1",), old) == "req_1"
    with pytest.raises(Invalid):
        Cursors([b"n" * 32]).read(("ws_1",), old)
