"""Who goes first within a queue."""

from __future__ import annotations

import datetime as dt

from hypothesis import given
from hypothesis import strategies as st

from app.delivery import order

NOW = dt.datetime(2026, 3, 2, 12, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
moments = st.timedeltas(-5000 * DAY, 5000 * DAY).map(lambda each: NOW + each)


def test_what_was_tried_before_is_urgent_only_near_its_deadline() -> None:
    assert order.rank_of(NOW + 3 * DAY, NOW, is_started=True) == order.URGENT
    assert order.rank_of(NOW + 4 * DAY, NOW, is_started=True) == order.STARTED
    assert order.rank_of(None, NOW, is_started=True) == order.STARTED


@given(moments, moments)
def test_the_nearer_deadline_of_two_never_tried_goes_first(
    one: dt.datetime, other: dt.datetime
) -> None:
    first, second = sorted([one, other])
    ranks = [order.rank_of(each, NOW, is_started=False) for each in (first, second)]

    assert ranks == sorted(ranks)
    assert min(ranks) >= order.FRESH


@given(moments)
def test_days_make_a_deadline_urgent_without_any_change_of_its_rank(deadline: dt.datetime) -> None:
    rank = order.rank_of(deadline, NOW, is_started=False)

    assert rank <= order.last_urgent(deadline - order.NEAR)
    assert rank > order.last_urgent(deadline - order.NEAR - DAY)


def test_what_has_no_deadline_waits_behind_a_month_and_before_a_quarter() -> None:
    ranks = [
        order.rank_of(each, NOW, is_started=False)
        for each in (NOW + 30 * DAY, None, NOW + 90 * DAY)
    ]
    assert ranks == sorted(ranks)
