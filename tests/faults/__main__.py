"""``make faults``: every fault in long form, and the invariant report. Exit status 1 when an
invariant is broken or a scenario could not be played.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from tests.faults import disk, lanes, network, report, scenarios
from tests.faults.disk import Disk
from tests.faults.lanes import Result
from tests.faults.network import Wire
from tests.faults.scenarios import Scenario
from tests.faults.servers import Servers, missing, provide
from tests.faults.stage import Stage


class Run:
    """What is to be played, and what came of it; lanes run side by side."""

    def __init__(self, seeds: int, only: str) -> None:
        self.seeds = seeds
        self.only = only
        self.results: list[Result] = []
        self.skipped: dict[str, str] = {}
        self.began = time.monotonic()

    def play(self, lane: str, stage: Stage, planned: Iterable[Scenario], seeds: int = 1) -> None:
        for scenario in planned:
            named = replace(scenario, name=f"{lane}: {scenario.name}")
            if self.only in named.name:
                for seed in range(seeds):
                    self._note(lanes.play(named, stage, seed), seed)

    def _note(self, result: Result, seed: int) -> None:
        self.results.append(result)
        at = time.monotonic() - self.began
        word = "holds" if result.holds else "BROKEN"
        sys.stderr.write(f"{at:6.0f} s  {result.scenario} (seed {seed}): {word}\n")


def embedded(run: Run, directory: Path) -> None:
    """One process on SQLite: kills with several seeds, and what destinations can do."""
    with ExitStack() as stack:
        wire = None
        if why := network.why_not():
            run.skipped["embedded: cut the wire"] = why
        else:
            wire = stack.enter_context(Wire())
        stage = stack.enter_context(lanes.embedded(directory, wire.listener if wire else None))
        run.play("embedded", stage, scenarios.kills("up"), run.seeds)
        run.play("embedded", stage, [scenarios.freeze("up", each) for each in FREEZES])
        run.play("embedded", stage, scenarios.misbehaviours())
        if wire:
            run.play("embedded", stage, [scenarios.wire_cut(wire)])
    with_little_room(run, directory / "small")


def with_little_room(run: Run, directory: Path) -> None:
    """The embedded installation on a disk that can be filled up."""
    if why := disk.why_not():
        run.skipped["embedded: disk full"] = why
        return
    with Disk(directory) as small, lanes.embedded(small.path / "data") as stage:
        run.play("embedded", stage, [scenarios.disk_full(small, LONG_FULL)])


LONG_FULL = 40.0
"""Seconds: leases run out, answers are given up, and background work is at its longest pauses."""
FREEZES = ("claim.before_commit", "call.before_send", "call.after_answer", "finish.before_commit")


def distributed(
    broker: str, plan: Callable[[Run, Servers], Iterator[Scenario]], run: Run, directory: Path
) -> None:
    """Three processes on PostgreSQL and a broker of our own."""
    names = ("postgres", broker)
    if absent := missing(names):
        run.skipped[f"{broker}: everything"] = f"not on this machine: {', '.join(absent)}"
        return
    with Servers(names) as servers, lanes.distributed(directory, servers, broker) as stage:
        run.play(broker, stage, plan(run, servers))


def with_redis(run: Run, servers: Servers) -> Iterator[Scenario]:
    for role in ("worker", "serve", "scheduler"):
        yield from scenarios.kills(role)
    yield from (scenarios.freeze("worker", each) for each in FREEZES)
    yield from with_broker(servers, "redis")
    yield scenarios.redis_flushed(servers)
    yield scenarios.postgres_killed(servers)
    yield scenarios.postgres_killed_in_calls(servers)
    yield scenarios.backends_terminated(servers)
    if library := scenarios.faketime():
        yield from (scenarios.clock_of_worker(library, hours) for hours in (2, -2))
    else:
        run.skipped["redis: clock of worker"] = "Debian's package faketime is not installed"


def with_rabbitmq(_: Run, servers: Servers) -> Iterator[Scenario]:
    yield from with_broker(servers, "rabbitmq")
    yield from (
        scenarios.kill("worker", each) for each in ("claim.after_commit", "call.after_answer")
    )


def with_broker(servers: Servers, broker: str) -> Iterator[Scenario]:
    yield scenarios.broker_restarted(servers, broker)
    yield scenarios.broker_gone(servers, broker)
    yield scenarios.hints_repeated_and_late(servers.url(broker))
    yield scenarios.broker_read(servers.url(broker))


LANES: dict[str, Callable[[Run, Path], None]] = {
    "embedded": embedded,
    "redis": partial(distributed, "redis", with_redis),
    "rabbitmq": partial(distributed, "rabbitmq", with_rabbitmq),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2, help="runs of each embedded kill")
    parser.add_argument("--only", default="", help="only scenarios whose name contains this")
    options = parser.parse_args()
    run = Run(options.seeds, options.only)
    provide(("postgres", "redis", "rabbitmq"))
    with tempfile.TemporaryDirectory() as directory, ThreadPoolExecutor(2) as pool:
        wanted = [name for name in LANES if run.only.partition(":")[0] in {name, run.only}]
        lanes_done = [pool.submit(LANES[name], run, Path(directory) / name) for name in wanted]
        for each in lanes_done:
            each.result()
    sys.stdout.write(report.render(run.results, run.skipped))
    return 0 if run.results and all(each.holds for each in run.results) else 1


sys.exit(main())
