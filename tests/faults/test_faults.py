"""The short form of ``make faults``: real processes, real servers, the most telling faults."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import disk, lanes, report, scenarios
from tests.faults.destination import lost_ack
from tests.faults.disk import Disk
from tests.faults.scenarios import Scenario
from tests.faults.servers import Servers, missing
from tests.faults.stage import Stage

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def check(stage: Stage, *played: Scenario) -> None:
    """Play them one after the other; the report says what broke, and what the run did."""
    results = [lanes.play(each, stage) for each in played]
    assert all(each.holds for each in results), report.render(results, {})


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Disk | None]:
    """A disk that can be filled up; None where none can be mounted."""
    if disk.why_not():
        yield None
        return
    with Disk(tmp_path / "small") as made:
        yield made


def test_the_embedded_service_survives_a_full_disk_a_kill_and_lost_answers(
    small: Disk | None, tmp_path: Path
) -> None:
    with lanes.embedded((small.path if small else tmp_path) / "data") as stage:
        if small:
            check(stage, scenarios.disk_full(small, lasts=1))
        check(
            stage,
            scenarios.kill("up", "finish.before_commit"),
            scenarios.misbehaving("resets after applying", lost_ack),
        )


@pytest.mark.services
def test_the_distributed_service_survives_its_servers_and_a_frozen_worker(tmp_path: Path) -> None:
    needed = ("postgres", "redis")
    if absent := missing(needed):
        pytest.skip(f"not on this machine: {', '.join(absent)}")
    with (
        Servers(needed) as servers,
        lanes.distributed(tmp_path / "data", servers, "redis") as stage,
    ):
        check(
            stage,
            scenarios.redis_flushed(servers),
            scenarios.postgres_killed_in_calls(servers),
            scenarios.freeze("worker", "call.after_answer"),
        )
