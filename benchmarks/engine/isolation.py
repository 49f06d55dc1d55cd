"""What others feel of a destination that hangs, of a queue full of work, of a lost broker."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from app.core.clock import utc_now
from benchmarks.engine import seed
from benchmarks.engine.bench import DESTINATIONS, Bench, Instance
from benchmarks.engine.figures import Figure, Goal, percentile
from benchmarks.engine.pace import rate, rate_of, wait_until, warm_up
from benchmarks.engine.processes import Group, run
from tests.services.install import find
from tests.services.processes import free_ports
from tests.services.servers import is_open

LONGEST = 60.0


def hang(bench: Bench) -> list[Figure]:
    """Nine healthy destinations while the tenth hangs, having been healthy until then; against the
    nine alone.
    """
    bench.sink.behave("")
    *healthy, sick = DESTINATIONS
    alone, beside = [], []
    with bench.instance() as ours, ours.worker():
        tenth = ours.backlog.queues()[-1]
        warm_up(bench.pace, ours.backlog.left)
        jobs = int(3 * rate(bench.pace, ours.backlog.left))

        def seconds() -> float:
            """For as many jobs as take about three seconds."""
            done = rate_of(lambda: bench.sink.people(*healthy), 0, jobs, at_most=LONGEST)
            return jobs / done

        for _ in range(bench.pace.turns):
            ours.backlog.pause(tenth)
            alone.append(seconds())
            bench.sink.behave("hang=1", sick)
            ours.backlog.resume(tenth)
            beside.append(seconds())
            bench.sink.behave("", sick)
    mine, theirs = statistics.median(beside), statistics.median(alone)
    goal = Goal(1.15, 1.05, is_ceiling=True)
    return [Figure("nine destinations while the tenth hangs, time", mine, "s", goal, theirs)]


def crowd(bench: Bench) -> list[Figure]:
    """A thousand queues of two deliveries each, all due at once, beside one of 50 000."""
    bench.sink.behave("")
    turns = 1 if bench.is_quick else 2
    with bench.instance() as ours:
        seed.add_queues(ours.settings, 1, 50_000, "whale", like=1)  # on a host of its own
        for number in range(2 * turns):
            seed.add_queues(ours.settings, 1000, 2, f"small{number}-")
        alone, beside = [], []
        with ours.worker():
            warm_up(bench.pace, ours.backlog.left)
            ours.backlog.pause("dst_")
            for number in range(0, 2 * turns, 2):
                alone.append(_slowest(ours, f"small{number}-"))
                ours.backlog.resume("whale")
                warm_up(bench.pace, lambda: ours.backlog.left("whale"))
                beside.append(_slowest(ours, f"small{number + 1}-"))
                ours.backlog.pause("whale")
        assert ours.backlog.left("whale") > 0
    mine, theirs = statistics.median(beside), statistics.median(alone)
    goal = Goal(1.5, 1.2, is_ceiling=True)
    return [Figure("1 000 small queues beside one of 50 000, p95", mine, "s", goal, theirs)]


def _slowest(ours: Instance, name: str) -> float:
    """Seconds after which 95 % of the deliveries of these queues were settled."""
    began = utc_now()
    ours.backlog.resume(name)
    wait_until(lambda: ours.backlog.left(name) == 0, every=0.25)
    delays = [(each - began).total_seconds() for each in ours.backlog.settled_at(name)]
    return percentile(delays, 0.95)


def broker(bench: Bench) -> list[Figure]:
    """Deliveries a second after Redis was gone for some seconds, against before."""
    bench.sink.behave("")
    port = free_ports(1)[0]
    before, after = [], []
    with bench.instance(broker_url=f"redis://127.0.0.1:{port}/0") as ours, ExitStack() as stack:
        redis = stack.enter_context(_redis(bench, port))
        stack.enter_context(ours.worker())
        warm_up(bench.pace, ours.backlog.left)
        before += [rate(bench.pace, ours.backlog.left) for _ in range(bench.pace.turns)]
        redis.end()
        time.sleep(3)
        stack.enter_context(_redis(bench, port))
        warm_up(bench.pace, ours.backlog.left)
        after += [rate(bench.pace, ours.backlog.left) for _ in range(bench.pace.turns)]
    mine, theirs = statistics.median(after), statistics.median(before)
    return [Figure("after the loss of the broker against before", mine, "/s", Goal(0.9, 1), theirs)]


@contextmanager
def _redis(bench: Bench, port: int) -> Iterator[Group]:
    """A Redis server of the benchmark's own, which keeps nothing."""
    program = find("redis-server")
    assert program is not None
    options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    with run([program, *options], bench.directory / "redis.log") as group:
        wait_until(lambda: is_open(port))
        yield group
