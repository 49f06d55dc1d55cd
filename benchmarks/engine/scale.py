"""What many queues, and many deliveries in them, cost."""

from __future__ import annotations

import statistics
import time

from benchmarks.engine import seed
from benchmarks.engine.bench import Bench, Instance
from benchmarks.engine.figures import Figure, Goal
from benchmarks.engine.pace import Contender, rate_of, warm_up

FEW, MANY, JOBS = 1_000, 100_000, 10
MEASURED = 5_000


def queues(bench: Bench) -> list[Figure]:
    """Deliveries a second out of a hundred thousand queues against a thousand, ten in each; and the
    memory of the worker that has the million before it.
    """
    bench.sink.behave("")
    turns = 1 if bench.is_quick else 2
    many = MANY // 10 if bench.is_quick else MANY
    with bench.instance() as small, bench.instance() as large:
        for turn in range(turns):
            seed.add_queues(small.settings, FEW, JOBS, f"few{turn}-")
        seed.add_queues(large.settings, many, JOBS, "many")
        with small.worker() as one, large.worker() as other:
            one.group.hold()
            other.group.hold()
            for instance, worker in ((small, one), (large, other)):
                _warm_up(bench, instance, worker)
            with other.turn():
                large.backlog.resume("many")
            mine, theirs, memory = [], [], 0.0
            for turn in range(turns):
                with one.turn():
                    small.backlog.resume(f"few{turn}-")
                    theirs.append(rate_of(bench.sink.people, FEW, MEASURED))
                    time.sleep(1)
                with other.turn():
                    mine.append(rate_of(bench.sink.people, FEW, MEASURED))
                    memory = max(memory, other.group.memory())
    return [
        Figure(
            f"deliveries out of {many} queues against {FEW}",
            statistics.median(mine),
            "/s",
            Goal(0.7, 0.9),
            statistics.median(theirs),
        ),
        Figure(
            f"memory of a worker with {many * JOBS} deliveries pending",
            memory,
            "MB",
            Goal(250, 150, is_ceiling=True),
        ),
    ]


def _warm_up(bench: Bench, instance: Instance, worker: Contender) -> None:
    """On the ordinary queues, which then rest."""
    with worker.turn():
        warm_up(bench.pace, instance.backlog.left)
        instance.backlog.pause("dst_")
        time.sleep(1)
