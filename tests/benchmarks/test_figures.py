"""The sums behind the table of benchmarks: a wrong one would praise us in silence."""

import pytest

from benchmarks.engine.figures import Figure, Goal, number, percentile

FASTER = Goal(3, 5)
SLOWER_AT_MOST = Goal(1.15, 1.05, is_ceiling=True)


@pytest.mark.parametrize(
    ("share", "expected"), [(0.5, 50), (0.95, 95), (0.99, 99), (0.991, 100), (1, 100), (0, 1)]
)
def test_percentile_is_the_nearest_rank(share: float, expected: int) -> None:
    assert percentile(list(range(100, 0, -1)), share) == expected


def test_percentile_of_one_value_is_that_value() -> None:
    assert percentile([7.0], 0.99) == 7.0


@pytest.mark.parametrize(
    ("goal", "value", "verdict"),
    [
        (FASTER, 5, "pass, stretch"),
        (FASTER, 4.99, "pass"),
        (FASTER, 3, "pass"),
        (FASTER, 2.8, "near"),
        (FASTER, 2.6, "MISS"),
        (SLOWER_AT_MOST, 1.05, "pass, stretch"),
        (SLOWER_AT_MOST, 1.15, "pass"),
        (SLOWER_AT_MOST, 1.2, "near"),
        (SLOWER_AT_MOST, 1.3, "MISS"),
    ],
)
def test_a_verdict_knows_which_way_is_better(goal: Goal, value: float, verdict: str) -> None:
    assert goal.verdict(value) == verdict


def test_a_figure_is_ours_over_the_reference() -> None:
    line = Figure("deliveries", 1500, "/s", FASTER, 500).line()
    assert " ".join(line.split()) == "deliveries 1500 /s 500 /s 3.00 >= 3 >= 5 pass"


def test_a_figure_without_a_reference_is_held_against_the_goal_itself() -> None:
    figure = Figure("memory", 180.4, "MB", Goal(250, 150, is_ceiling=True))
    assert " ".join(figure.line().split()) == "memory 180 MB <= 250 <= 150 pass"


@pytest.mark.parametrize(
    ("value", "shown"), [(1234.5, "1234"), (99.95, "100"), (2.346, "2.35"), (0.04567, "0.0457")]
)
def test_numbers_have_three_digits(value: float, shown: str) -> None:
    assert number(value) == shown
