"""Sliding windows of one process: never more than the limit, and a wait that is worth it."""

from __future__ import annotations

import datetime as dt

import pytest
import time_machine
from hypothesis import given
from hypothesis import strategies as st

from app.security.windows import Windows

START = dt.datetime(2026, 11, 27, 12, 0, tzinfo=dt.UTC)


@pytest.fixture
def clock():
    with time_machine.travel(START, tick=False) as traveller:
        yield traveller


def test_the_limit_is_per_caller_and_a_refusal_costs_nothing(clock) -> None:
    windows = Windows(3, 60)
    assert [windows.spend("ann") for _ in range(5)] == [True, True, True, False, False]
    assert windows.spend("bob", 3)
    assert not windows.spend("bob")
    clock.shift(120)
    assert windows.spend("ann", 3)


def test_what_was_spent_in_the_last_window_counts_for_the_part_that_is_left_of_it(clock) -> None:
    windows = Windows(10, 60)
    assert windows.spend("ann", 10)
    clock.shift(60 + 30)
    assert [windows.spend("ann") for _ in range(6)] == [True] * 5 + [False]


def test_a_burst_at_the_border_of_two_windows_is_one_burst(clock) -> None:
    windows = Windows(10, 60)
    clock.shift(59)
    assert windows.spend("ann", 10)
    clock.shift(2)
    assert not windows.spend("ann", 2)


def test_old_counts_are_let_go_of(clock) -> None:
    windows = Windows(3, 60)
    for number in range(1000):
        windows.spend(f"caller-{number}")
    for _ in range(2):
        clock.shift(61)
        windows.spend("ann")
    assert len(windows._last) + len(windows._now) < 5


def test_a_clock_that_is_set_back_forgets_nothing(clock) -> None:
    windows = Windows(3, 60)
    assert windows.spend("ann", 3)
    for step in (-0.4, 0.4, -0.4, 0.4):
        clock.shift(step)
        assert not windows.spend("ann")
    assert 0 <= windows.wait("ann") <= 120


def test_a_clock_that_was_wrong_for_a_week_keeps_nobody_out(clock) -> None:
    windows = Windows(3, 60)
    clock.shift(dt.timedelta(days=7))
    assert windows.spend("ann", 3)
    clock.shift(dt.timedelta(days=-7))
    assert windows.spend("ann", 3)


@given(
    most=st.integers(1, 20),
    steps=st.lists(st.tuples(st.floats(0, 90), st.integers(1, 5)), max_size=40),
)
def test_the_wait_is_long_enough_and_not_longer(most: int, steps: list[tuple[float, int]]) -> None:
    windows = Windows(most, 60)
    with time_machine.travel(START, tick=False) as clock:
        for pause, cost in steps:
            clock.shift(pause)
            windows.spend("ann", cost)
        wait = windows.wait("ann")
        assert 0 <= wait <= 120
        if wait > 0.01:
            clock.shift(wait - 0.01)
            assert not windows.spend("ann")
            clock.shift(0.01)
        clock.shift(0.01)
        assert windows.spend("ann")


def test_a_burst_that_the_border_cuts_anywhere_is_one_burst(clock) -> None:
    for before in range(4):
        windows = Windows(3, 60)
        clock.move_to(START + dt.timedelta(seconds=59))
        assert [windows.spend("ann") for _ in range(before)] == [True] * before
        clock.move_to(START + dt.timedelta(seconds=61))
        after = [windows.spend("ann") for _ in range(5 - before)]
        assert after == [True] * (3 - before) + [False] * 2
