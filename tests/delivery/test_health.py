"""Rate windows, the breaker and adaptive concurrency, as pure functions."""

from __future__ import annotations

import datetime as dt
import json
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from app.delivery.health import (
    FAILURES_TO_OPEN,
    OPEN_CAP,
    OPEN_FIRST,
    Breaker,
    concurrency_after,
    spend,
)
from connectors.contract import Window

NOW = dt.datetime(2026, 3, 2, 12, tzinfo=dt.UTC)
SECOND = dt.timedelta(seconds=1)


def test_without_limits_everything_is_granted() -> None:
    assert spend({}, (), 1000, NOW) == ({}, 1000, None)


def test_the_tightest_of_several_windows_decides_and_says_when_it_opens_again() -> None:
    limits = (Window(3, 1), Window(100, 60))

    windows, granted, later = spend({}, limits, 10, NOW)

    assert (granted, later) == (3, NOW + SECOND)
    assert [spent for _, spent in windows.values()] == [3, 3]


def test_a_window_opens_again_exactly_when_it_said() -> None:
    limits = (Window(2, 10),)
    windows, _, later = spend({}, limits, 5, NOW)
    assert later is not None

    assert spend(windows, limits, 5, later - SECOND / 1000)[1] == 0
    assert spend(windows, limits, 5, later)[1] == 2


def test_a_clock_that_jumps_back_grants_nothing_new() -> None:
    limits = (Window(2, 10),)
    windows, _, _ = spend({}, limits, 2, NOW)

    assert spend(windows, limits, 2, NOW - dt.timedelta(hours=2))[1] == 0


@given(
    limits=st.lists(
        st.builds(Window, calls=st.integers(1, 9), seconds=st.sampled_from([0.5, 1, 7.5, 60])),
        min_size=1, max_size=3, unique_by=lambda each: each.seconds,
    ),
    asks=st.lists(st.tuples(st.floats(0, 20), st.integers(0, 12)), max_size=30),
)  # fmt: skip
def test_no_window_ever_grants_more_than_it_holds(
    limits: list[Window], asks: list[tuple[float, int]]
) -> None:
    windows: dict[str, Any] = {}
    now = NOW
    spent: dict[tuple[float, float], int] = {}
    for pause, wanted in asks:
        now += dt.timedelta(seconds=pause)
        windows, granted, later = spend(windows, limits, wanted, now)
        windows = json.loads(json.dumps(windows))  # as the database keeps them

        assert 0 <= granted <= wanted
        assert (later is None) == (granted == wanted)
        if later is not None:
            assert later > now
        for limit in limits:
            start, _ = windows[f"{limit.calls}/{limit.seconds}"]
            place = (limit.seconds, start)
            spent[place] = spent.get(place, 0) + granted
            assert spent[place] <= limit.calls
            assert start <= now.timestamp() < start + limit.seconds
    for limit in limits:
        starts = sorted(start for seconds, start in spent if seconds == limit.seconds)
        gaps = [later - earlier for earlier, later in pairwise(starts)]
        assert all(gap >= limit.seconds * 0.999999 for gap in gaps)


def failing(times: int, breaker: Breaker | None = None) -> Breaker:
    breaker = breaker or Breaker()
    for _ in range(times):
        breaker = breaker.after(False, NOW, 0.5)
    return breaker


def test_the_breaker_opens_after_five_failures_in_a_row() -> None:
    assert failing(FAILURES_TO_OPEN - 1).state == "closed"
    opened = failing(FAILURES_TO_OPEN)
    assert (opened.state, opened.until) == ("open", NOW + OPEN_FIRST)


def test_one_success_starts_the_count_anew() -> None:
    shaken = failing(FAILURES_TO_OPEN - 1).after(True, NOW, 0.5)

    assert failing(FAILURES_TO_OPEN - 1, shaken).state == "closed"


def test_late_failures_of_the_same_burst_do_not_make_the_pause_longer() -> None:
    assert failing(64).until == NOW + OPEN_FIRST


def test_an_open_breaker_lets_one_probe_through_once_its_pause_is_over() -> None:
    opened = failing(FAILURES_TO_OPEN)
    assert opened.until is not None

    assert opened.at_lease(opened.until - SECOND).state == "open"
    assert opened.at_lease(opened.until).state == "half_open"


def test_a_good_probe_closes_and_a_bad_one_waits_twice_as_long() -> None:
    opened = failing(FAILURES_TO_OPEN)
    assert opened.until is not None
    probing = opened.at_lease(opened.until)

    assert probing.after(True, opened.until, 0.5) == Breaker()
    assert probing.after(False, opened.until, 0.5).until == opened.until + 2 * OPEN_FIRST


@given(st.lists(st.booleans(), max_size=40), st.floats(0, 1))
def test_the_pause_is_bounded_and_the_state_survives_the_database(
    answers: list[bool], jitter: float
) -> None:
    breaker, now = Breaker(), NOW
    for healthy in answers:
        breaker = breaker.at_lease(now).after(healthy, now, jitter)
        breaker = Breaker.load(json.loads(json.dumps(breaker.dump())))
        if breaker.until is not None:
            assert OPEN_FIRST * 0.75 <= breaker.until - now <= OPEN_CAP * 1.25
            now = breaker.until


def test_concurrency_grows_by_one_and_falls_by_half() -> None:
    assert concurrency_after(4, [True, True], 64) == 5
    assert concurrency_after(64, [True], 64) == 64
    assert concurrency_after(9, [True, False, True], 64) == 4
    assert concurrency_after(1, [False], 64) == 1
    assert concurrency_after(4, [], 64) == 4


@given(st.integers(1, 64), st.lists(st.lists(st.booleans(), max_size=8), max_size=40))
def test_concurrency_never_leaves_its_bounds(cap: int, rounds: list[list[bool]]) -> None:
    limit = 4
    for answers in rounds:
        limit = concurrency_after(min(limit, cap), answers, cap)
        assert 1 <= limit <= cap
