"""Rate windows and the retry budget, as pure functions."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.delivery import limits
from app.delivery.limits import BUDGET_CAP, Budget
from connectors.contract import Window

NOW = dt.datetime(2026, 3, 2, 12, tzinfo=dt.UTC)
SECOND = dt.timedelta(seconds=1)


def stored(windows: Any) -> Any:
    return json.loads(json.dumps(windows))


def test_without_limits_there_is_no_bound() -> None:
    assert limits.room({}, (), NOW) is None
    assert limits.spend({}, (), 1000, NOW) == ({}, None)


def test_the_tightest_of_several_windows_decides_and_says_when_it_opens_again() -> None:
    both = (Window(3, 1), Window(100, 60))
    assert limits.room({}, both, NOW) == 3

    windows, later = limits.spend({}, both, 3, NOW)

    assert later == NOW + SECOND
    assert limits.room(windows, both, NOW) == 0
    assert limits.spent(windows, both, NOW) == [(both[0], 3), (both[1], 3)]


def test_a_window_opens_again_when_it_said() -> None:
    limit = (Window(2, 10),)
    windows, later = limits.spend({}, limit, 2, NOW)
    assert later is not None

    assert limits.room(windows, limit, later - SECOND / 1000) == 0
    assert limits.room(windows, limit, later) == 2


@pytest.mark.parametrize(
    ("period", "opens"),
    [
        ("day", dt.datetime(2026, 3, 3, tzinfo=dt.UTC)),
        ("month", dt.datetime(2026, 4, 1, tzinfo=dt.UTC)),
    ],
)
def test_calendar_windows_open_with_the_next_day_or_month(period: Any, opens: dt.datetime) -> None:
    limit = (Window(1000, period=period), Window(600, 1))
    windows, later = limits.spend({}, limit, 600, NOW)
    assert later == NOW + SECOND
    windows, later = limits.spend(stored(windows), limit, 400, NOW + 2 * SECOND)

    assert later == opens
    assert limits.room(windows, limit, opens - SECOND) == 0
    assert limits.room(windows, limit, opens) == 600


def test_a_month_ends_after_its_last_day() -> None:
    limit = (Window(1, period="month"),)
    last = dt.datetime(2026, 12, 31, 23, 59, 59, tzinfo=dt.UTC)

    assert limits.spend({}, limit, 1, last)[1] == dt.datetime(2027, 1, 1, tzinfo=dt.UTC)


def test_a_clock_that_is_set_back_grants_nothing_new_and_blocks_no_longer_than_a_window() -> None:
    limit = (Window(2, 10),)
    windows, _ = limits.spend({}, limit, 2, NOW)
    back = NOW - dt.timedelta(hours=2)

    assert limits.room(windows, limit, back) == 0
    windows, later = limits.spend(windows, limit, 0, back)
    assert later is not None
    assert later <= back + dt.timedelta(seconds=11)
    assert limits.room(windows, limit, later) == 2


@given(
    st.builds(Window, calls=st.integers(1, 9), seconds=st.sampled_from([0.5, 1, 7.5, 60])),
    st.lists(st.tuples(st.floats(0, 9), st.integers(0, 5)), max_size=60),
)
def test_no_interval_of_a_windows_length_holds_more_calls_than_it_allows(
    limit: Window, asked: list[tuple[float, int]]
) -> None:
    windows: Any = {}
    now, made = NOW, []
    for pause, wanted in asked:
        now += dt.timedelta(seconds=pause)
        calls = min(wanted, limits.room(windows, (limit,), now) or 0)
        windows, _ = limits.spend(stored(windows), (limit,), calls, now)
        made += [now] * calls
        assert len(windows[next(iter(windows))]) <= limits.GRAINS + 2

    length = dt.timedelta(seconds=limit.seconds)
    for start in made:
        assert sum(start <= each < start + length for each in made) <= limit.calls


def test_retries_that_fail_run_the_budget_down_to_one_a_second() -> None:
    budget = Budget().counted(NOW).take(int(BUDGET_CAP))
    assert budget.calls == 0
    assert budget.next_at == NOW + SECOND

    assert budget.counted(NOW + SECOND).calls == 1
    assert budget.counted(NOW + 30 * SECOND).calls == 30


def test_retries_that_go_well_cost_nothing_and_successes_earn_a_fifth() -> None:
    budget = Budget(10.0).counted(NOW)

    assert budget.take(10).earn(10, 10).calls == 12
    assert budget.take(10).earn(50, 0).calls == 10


def test_the_budget_has_a_cap_survives_the_database_and_a_clock_set_back() -> None:
    budget = Budget().counted(NOW).earn(1000, 0)

    assert budget.calls == BUDGET_CAP
    assert Budget.load(stored(budget.dump())) == budget
    assert Budget.load({}).calls == BUDGET_CAP
    assert budget.take(50).counted(NOW - 60 * SECOND).calls == 50
