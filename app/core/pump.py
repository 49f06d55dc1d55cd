"""Pumps: the service's background work, each a step that looks at SQL and does what is due.

The database is the truth. A hint (a Celery message) only says "look now"; a poll every second finds
what a lost hint left behind. One pump runs at most once per process at a time; hints that arrive
meanwhile make it look again.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from app.core.courtesy import Courtesy
from app.core.logging import get_logger

log = get_logger(__name__)

Step = Callable[[], Awaitable[bool]]
"""Does a bounded piece of work; True when there may be more at once."""
Publish = Callable[[Iterable[str]], None]

PUMPS = (
    "dispatch",
    "advance",
    "sign",
    "mail",
    "withdrawals",
    "sweep",
    "archive",
    "watch",
    "alerts",
    "maintain",
)
"""All that there are, by name: what a hint may ask for."""

LONGEST_PAUSE = 10.0
"""Seconds after a look that failed, however often: a database that is back is soon noticed."""
LONGEST_REST = 0.25
"""Seconds between two steps when there is work."""


@dataclass(slots=True)
class Pump:
    """One kind of background work. ``every``: seconds between looks without a hint. ``rest``: how
    long it waits between steps, as a multiple of the time a step took (at most ``LONGEST_REST``);
    what comes meanwhile is done together.
    """

    name: str
    step: Step
    every: float = 1.0
    rest: float = 0.0
    wanted: asyncio.Event = field(default_factory=asyncio.Event)
    looked_at: float = 0.0
    """``time.monotonic()`` of the last look that went well; readiness watches it."""
    failures: int = 0


def spare_the_collector() -> None:
    """Call once everything is up: what lives as long as the process need not be looked through
    again and again, and calls under way make few cycles.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


class Pumps:
    """The pumps of this process, and the way to hint those of others."""

    def __init__(self, publish: Publish, courtesy: Courtesy | None = None) -> None:
        self._courtesy = courtesy or Courtesy()
        self._pumps: dict[str, Pump] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._publish = publish

    def add(self, pump: Pump) -> None:
        self._pumps[pump.name] = pump

    def __iter__(self) -> Iterator[Pump]:
        return iter(self._pumps.values())

    def hint(self, names: Iterable[str]) -> None:
        """Ask whichever process runs these pumps to look now; cheap, may be lost, never waits."""
        self._publish(names)

    def wake(self, name: str) -> bool:
        """Look now, in this process; False when it does not run this pump."""
        pump = self._pumps.get(name)
        if pump is not None:
            pump.wanted.set()
        return pump is not None

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(_run(pump, self._courtesy), name=f"pump-{pump.name}")
            for pump in self._pumps.values()
        ]

    @property
    def have_ended(self) -> bool:
        """One of those that were started runs no more, which only a bug of ours can bring about."""
        return any(task.done() for task in self._tasks)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def drain(self, limit: int = 1000) -> None:
        """Run all steps in turn until none has more to do; for tests and the CLI."""
        for _ in range(limit):
            more = [await pump.step() for pump in self._pumps.values()]
            if not any(more):
                return
        raise RuntimeError("the pumps do not come to rest")


async def _run(pump: Pump, courtesy: Courtesy) -> None:
    while True:
        await courtesy.give_way()
        pump.wanted.clear()
        began = time.monotonic()
        try:
            more = await pump.step()
            pump.looked_at, pump.failures = time.monotonic(), 0
            await asyncio.sleep(min(pump.rest * (pump.looked_at - began), LONGEST_REST))
        except (
            Exception
        ):  # the loop must outlive any bug or outage; readiness shows that it does not get on
            pump.failures += 1
            log.exception("pump_failed", pump=pump.name, count=pump.failures)
            await asyncio.sleep(min(LONGEST_PAUSE, 0.5 * 2 ** min(pump.failures, 10)))
            continue
        if not more:
            with suppress(TimeoutError):
                async with asyncio.timeout(pump.every):
                    await pump.wanted.wait()
