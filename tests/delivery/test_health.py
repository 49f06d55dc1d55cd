"""What answers say of a destination, the breaker and adaptive concurrency, as pure functions."""

from __future__ import annotations

import datetime as dt
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.delivery.health import (
    FAILURES_IN_A_ROW,
    FEWEST_CALLS,
    LONGEST_PAUSE,
    PAUSES_IN_TROUBLE,
    SHORTEST_PAUSE,
    Breaker,
    Sign,
    concurrency_after,
    sign_of,
)
from connectors.contract import Outcome, absent, done, failed, retry

NOW = dt.datetime(2026, 3, 2, 12, tzinfo=dt.UTC)
SECOND = dt.timedelta(seconds=1)
signs = st.sampled_from(Sign)


@pytest.mark.parametrize(
    ("outcomes", "sign"),
    [
        ([done()], Sign.WELL),
        ([failed("unknown_field")], Sign.WELL),
        ([retry("no_answer_for_person"), absent()], Sign.WELL),
        ([retry("unauthorised", parks=True, http_status=401)], Sign.WELL),
        ([retry("server_error", http_status=500)], Sign.FAILING),
        ([retry("unreachable")], Sign.FAILING),
        ([retry("timeout")], Sign.OVERLOADED),
        ([retry("too_many", http_status=429)], Sign.OVERLOADED),
        ([retry("away", http_status=503), retry("away", http_status=503)], Sign.OVERLOADED),
    ],
)
def test_a_call_goes_well_when_anybody_is_answered(outcomes: list[Outcome], sign: Sign) -> None:
    assert sign_of(outcomes, SECOND, 20 * SECOND) is sign


def test_an_answer_that_takes_a_good_part_of_its_deadline_is_slow() -> None:
    assert sign_of([done()], 5 * SECOND, 20 * SECOND) is Sign.WELL
    assert sign_of([done()], 6 * SECOND, 20 * SECOND) is Sign.SLOW
    assert Breaker(in_a_row=3).after(Sign.SLOW, NOW, 0.5).in_a_row == 0


def failing(times: int, breaker: Breaker | None = None) -> Breaker:
    breaker = breaker or Breaker()
    for _ in range(times):
        breaker = breaker.after(Sign.FAILING, NOW, 0.5)
    return breaker


def pause_of(breaker: Breaker, since: dt.datetime = NOW) -> dt.timedelta:
    assert breaker.opens_again_at is not None
    return breaker.opens_again_at - since


def test_the_breaker_opens_after_five_failures_in_a_row() -> None:
    assert failing(FAILURES_IN_A_ROW - 1).state == "closed"
    opened = failing(FAILURES_IN_A_ROW)
    assert (opened.state, pause_of(opened)) == ("open", SHORTEST_PAUSE)


def test_one_success_ends_the_row() -> None:
    shaken = failing(FAILURES_IN_A_ROW - 1).after(Sign.WELL, NOW, 0.5)

    assert failing(FAILURES_IN_A_ROW - 1, shaken).state == "closed"


def alternating(pairs: int, every: dt.timedelta) -> Breaker:
    breaker, now = Breaker(), NOW
    for _ in range(pairs):
        breaker = breaker.after(Sign.WELL, now, 0.5).after(Sign.FAILING, now, 0.5)
        now += every
    return breaker


def test_the_breaker_opens_when_half_of_ten_calls_in_a_minute_fail() -> None:
    assert alternating(FEWEST_CALLS // 2 - 1, SECOND).state == "closed"
    assert alternating(FEWEST_CALLS // 2, SECOND).state == "open"


def test_a_few_failures_an_hour_open_nothing() -> None:
    assert alternating(50, dt.timedelta(minutes=30)).state == "closed"


def test_late_failures_of_the_same_burst_do_not_make_the_pause_longer() -> None:
    assert pause_of(failing(64)) == SHORTEST_PAUSE


def test_an_open_breaker_lets_one_probe_through_once_its_pause_is_over() -> None:
    opened = failing(FAILURES_IN_A_ROW)
    end = NOW + pause_of(opened)

    assert opened.at_lease(end - SECOND).state == "open"
    assert opened.at_lease(end).state == "half_open"


def test_a_good_probe_closes_and_a_bad_one_opens_anew() -> None:
    opened = failing(FAILURES_IN_A_ROW)
    end = NOW + pause_of(opened)
    probing = opened.at_lease(end)

    assert probing.after(Sign.WELL, end, 0.5).state == "closed"
    assert pause_of(probing.after(Sign.FAILING, end, 0.5), end) == SHORTEST_PAUSE


def test_pauses_grow_with_the_trouble_whatever_a_lucky_probe_says() -> None:
    opened = failing(FAILURES_IN_A_ROW)
    later = NOW + dt.timedelta(hours=1)
    lucky = opened.at_lease(later).after(Sign.WELL, later, 0.5)
    assert lucky.state == "closed"

    for _ in range(FAILURES_IN_A_ROW):
        lucky = lucky.after(Sign.FAILING, later, 0.5)

    assert pause_of(lucky, later) == dt.timedelta(hours=1) / PAUSES_IN_TROUBLE


def test_a_good_spell_ends_the_trouble() -> None:
    later = NOW + dt.timedelta(hours=1)
    spell = failing(FAILURES_IN_A_ROW).at_lease(later).after(Sign.WELL, later, 0.5)
    for _ in range(FEWEST_CALLS):
        spell = spell.after(Sign.WELL, later, 0.5)
    for _ in range(FEWEST_CALLS):
        spell = spell.after(Sign.FAILING, later, 0.5)

    assert pause_of(spell, later) == SHORTEST_PAUSE


@given(st.lists(signs, max_size=60), st.floats(0, 1))
def test_the_pause_is_bounded_and_the_state_survives_the_database(
    answers: list[Sign], jitter: float
) -> None:
    breaker, now = Breaker(), NOW
    for sign in answers:
        breaker = breaker.at_lease(now).after(sign, now, jitter)
        breaker = Breaker.load(json.loads(json.dumps(breaker.dump())))
        if breaker.until is not None:
            pause = pause_of(breaker, now)
            assert SHORTEST_PAUSE * 0.74 <= pause <= LONGEST_PAUSE * 1.26
            now += pause


def test_concurrency_grows_by_one_for_a_full_round_and_falls_by_half() -> None:
    assert concurrency_after(4, [Sign.WELL] * 3, 64) == 4
    assert concurrency_after(4, [Sign.WELL] * 4, 64) == 5
    assert concurrency_after(4, [Sign.WELL] * 16, 64) == 5
    assert concurrency_after(64, [Sign.WELL] * 64, 64) == 64
    assert concurrency_after(9, [Sign.WELL, Sign.OVERLOADED], 64) == 4
    assert concurrency_after(1, [Sign.OVERLOADED], 64) == 1
    assert concurrency_after(4, [], 64) == 4


def test_slow_answers_only_end_the_growth() -> None:
    assert concurrency_after(8, [Sign.SLOW] * 2 + [Sign.WELL] * 14, 64) == 8
    assert concurrency_after(8, [Sign.SLOW] + [Sign.WELL] * 31, 64) == 9


def test_one_overload_in_many_calls_only_ends_the_growth() -> None:
    assert concurrency_after(8, [Sign.OVERLOADED] + [Sign.WELL] * 31, 64) == 8


@given(st.integers(1, 64), st.lists(st.lists(signs, max_size=8), max_size=40))
def test_concurrency_never_leaves_its_bounds(cap: int, rounds: list[list[Sign]]) -> None:
    limit = 4
    for answers in rounds:
        limit = concurrency_after(min(limit, cap), answers, cap)
        assert 1 <= limit <= cap
