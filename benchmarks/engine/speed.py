"""How many deliveries a second: against others, in batches, with more workers, in one process."""

from __future__ import annotations

import asyncio
import statistics
import time

import httpx

from benchmarks.engine import seed
from benchmarks.engine.bench import DESTINATIONS, Bench
from benchmarks.engine.figures import Figure, Goal, percentile
from benchmarks.engine.pace import rate, take_turns, wait_until, warm_up


def plain(bench: Bench) -> list[Figure]:
    """Against one Celery task per delivery, and against the HTTP client with nothing around it."""
    bench.sink.behave("")
    with (
        bench.instance() as ours,
        ours.worker() as worker,
        bench.naive(DESTINATIONS, tasks=4_000 if bench.is_quick else 14_000) as naive,
        bench.client(ours.settings.worker_in_flight) as client,
    ):
        mine, theirs, alone = take_turns(bench.pace, worker, naive, client)
    return [
        Figure("deliveries against one Celery task each", mine, "/s", Goal(3, 5), theirs),
        Figure("deliveries against the HTTP client alone", mine, "/s", Goal(0.5, 0.7), alone),
    ]


def latency(bench: Bench) -> list[Figure]:
    """The same against the naive one, where every destination takes 20 ms."""
    bench.sink.behave("latency=20")
    with (
        bench.instance() as ours,
        ours.worker() as worker,
        bench.naive(DESTINATIONS, tasks=1_000 if bench.is_quick else 3_000) as naive,
    ):
        mine, theirs = take_turns(bench.pace, worker, naive)
    return [Figure("the same, destinations take 20 ms", mine, "/s", Goal(20, 35), theirs)]


def bulk(bench: Bench) -> list[Figure]:
    """One destination that takes a hundred people at once, until all are done, against one call
    each.
    """
    bench.sink.behave("bulk=100")
    with bench.instance() as batched, bench.instance() as one_by_one:
        for each in (batched, one_by_one):
            each.backlog.pour_into_first()
        batched.backlog.use(seed.BULK)
        batched.backlog.pause()
        one_by_one.backlog.resume()
        with batched.worker() as many, one_by_one.worker() as single:
            time.sleep(bench.pace.warm_up)  # both start
            many.group.hold()
            (theirs,) = take_turns(bench.pace, single)
            with many.turn():
                people = many.left()
                began = time.perf_counter()
                batched.backlog.resume()
                wait_until(lambda: many.left() == 0, every=0.1)
                mine = people / (time.perf_counter() - began)
    return [Figure("people, a hundred in a call against one", mine, "/s", Goal(10, 20), theirs)]


def workers(bench: Bench) -> list[Figure]:
    """A second worker beside the first, 16 calls in flight each, destinations take 20 ms."""
    bench.sink.behave("latency=20")
    one, two = [], []
    with bench.instance(worker_in_flight=16) as ours, ours.worker():
        for _ in range(1 if bench.is_quick else 2):
            warm_up(bench.pace, ours.backlog.left)
            one.append(rate(bench.pace, ours.backlog.left))
            with ours.worker():
                time.sleep(3)  # it starts
                warm_up(bench.pace, ours.backlog.left)
                two.append(rate(bench.pace, ours.backlog.left))
    mine, theirs = statistics.median(two), statistics.median(one)
    return [Figure("two workers against one", mine, "/s", Goal(1.6, 1.9), theirs)]


def embedded(bench: Bench) -> list[Figure]:
    """One process on SQLite against a worker on PostgreSQL; and its API while it delivers."""
    bench.sink.behave("")
    with (
        bench.instance() as distributed,
        distributed.worker() as worker,
        bench.embedded_instance() as embedded,
        embedded.embedded() as (whole, client),
    ):
        mine, theirs = take_turns(bench.pace, whole, worker)
        with whole.turn():
            slow = percentile(asyncio.run(_ask(client, seconds=5 if bench.is_quick else 15)), 0.99)
        assert whole.left() > 0
    return [
        Figure("embedded against distributed", mine, "/s", Goal(0.5, 0.8), theirs),
        Figure(
            "its API at 50 requests/s while it delivers, p99",
            slow * 1000,
            "ms",
            Goal(50, 25, is_ceiling=True),
        ),
    ]


async def _ask(client: httpx.AsyncClient, seconds: int, per_second: int = 50) -> list[float]:
    """Seconds from the moment each request should have been made to its answer; every second one
    asks for an erasure, the others look at one.
    """
    latencies: list[float] = []

    async def ask(number: int, due: float, known: str) -> None:
        if number % 2:
            identifiers = [{"kind": "user_id", "value": f"late-{number}"}]
            body = {"kind": "erasure", "identifiers": identifiers}
            answer = await client.post("/v1/requests", json=body)
        else:
            answer = await client.get(f"/v1/requests/{known}")
        answer.raise_for_status()
        latencies.append(time.perf_counter() - due)

    async with client, asyncio.TaskGroup() as group:
        listed = (await client.get("/v1/requests", params={"limit": 1})).raise_for_status()
        known, began = listed.json()["items"][0]["id"], time.perf_counter()
        for number in range(seconds * per_second):
            due = began + number / per_second
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(ask(number, due, known))
    return latencies
