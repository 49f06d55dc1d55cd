"""A short outage in virtual time: `make outage` replays a long one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.outage import MINUTE, Figures, Scenario, measure, replay

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def figures() -> Figures:
    scenario = Scenario(before=MINUTE, outage=10 * MINUTE)
    return measure(replay(scenario), replay(replace(scenario, success=1.0)))


def test_healthy_destinations_do_not_feel_the_outage(figures: Figures) -> None:
    assert figures.ratio <= 1.15


def test_the_sick_destination_is_not_called_more_than_when_it_was_healthy(figures: Figures) -> None:
    assert figures.peak <= 1.2


def test_everything_is_delivered_soon_after_the_outage(figures: Figures) -> None:
    assert figures.recovery <= 10 * MINUTE / 3


def test_nothing_is_lost_and_nothing_done_twice(figures: Figures) -> None:
    assert (figures.lost, figures.repeated) == (0, 0)


def test_the_same_seed_replays_the_same() -> None:
    scenario = Scenario(before=0.0, outage=MINUTE, seed=2)
    assert replay(scenario) == replay(scenario)
