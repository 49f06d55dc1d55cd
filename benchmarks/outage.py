"""The outage replay: one of ten destinations is sick for 105 minutes, in virtual time.

``python -m benchmarks.outage`` runs the real engine on a real database against simulated
destinations, once with the outage and once without, prints what it costs everybody, and draws the
curve into docs/pictures. The replay is Segment's of Centrifuge (2018): 15 % success, 105 minutes.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
import math
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.clock import utc_now
from app.core.db import Database, table_of
from app.core.migrate import upgrade
from app.core.pump import Pump, Pumps
from app.crypto.keyring import KeyRing
from app.crypto.keystore import KeyStore
from app.delivery import plan
from app.delivery.engine import Engine
from app.delivery.finish import Settled
from app.delivery.models import DeliveryTransition
from app.delivery.states import State
from app.delivery.sweep import sweep
from app.destinations.models import Destination
from app.destinations.running import Runner
from app.identity import vault
from app.security.models import Workspace
from benchmarks import outage_picture, virtual_time
from benchmarks.outage_picture import Minute
from connectors.contract import Call, Identifier, Outcome, PeopleConnector, Person, done, retry

MINUTE = 60.0
START = dt.datetime(2026, 1, 5, 9, tzinfo=dt.UTC)
WORKSPACE = "ws_replay"
PEOPLE = 100
PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "outage-replay.svg"


@dataclass(frozen=True, slots=True)
class Scenario:
    """Seconds of virtual time; load goes on for a third of the outage after its end."""

    before: float = 10 * MINUTE
    outage: float = 105 * MINUTE
    success: float = 0.15
    seed: int = 1

    @property
    def ends(self) -> float:
        return self.before + self.outage

    @property
    def load_ends(self) -> float:
        return self.ends + self.outage / 3

    @property
    def gives_up(self) -> float:
        return self.load_ends + 180 * MINUTE

    def share_of_success(self, at: float) -> float:
        return self.success if self.before <= at < self.ends else 1.0


@dataclass(frozen=True, slots=True)
class Profile:
    """``share`` of all requests concern it. It works on ``places`` calls at a time, each of which
    ``takes`` so many seconds on average.
    """

    name: str
    share: float
    places: int
    takes: float

    @property
    def capacity(self) -> float:
        """Calls a second it takes when healthy."""
        return self.places / self.takes


REQUESTS = 0.5
"""A second, over all."""
SICK = Profile("sick", share=1.0, places=2, takes=0.8)
HEALTHY = [Profile(f"healthy{each}", each * 2 / 45, places=8, takes=0.2) for each in range(1, 10)]


class Simulated(PeopleConnector):
    """A destination. What it refuses it refuses at the door and at once, but for one call in ten,
    which hangs; the others wait for a place.
    """

    title = "Simulated"

    def __init__(self, profile: Profile, scenario: Scenario) -> None:
        self.profile, self.scenario = profile, scenario
        self.calls: list[float] = []
        self.done: list[tuple[float, str]] = []
        """When, and for which delivery."""
        self._places = asyncio.Semaphore(profile.places)
        self._chance = random.Random(f"{scenario.seed} {profile.name} calls")

    async def erase(self, people: Sequence[Person]) -> Outcome:
        time, chance = asyncio.get_running_loop().time, self._chance
        self.calls.append(time())
        share = self.scenario.share_of_success(time()) if self.profile is SICK else 1.0
        if chance.random() >= share:
            await asyncio.sleep(0.05 if chance.random() < 0.9 else 3600)
            return retry("unavailable", http_status=503)
        async with self._places:
            await asyncio.sleep(_spread(chance, self.profile.takes))
        self.done += [(time(), each.id) for each in people]
        return done()


def _spread(chance: random.Random, mean: float, sigma: float = 0.5) -> float:
    """Log-normal around ``mean``: most are quicker, a few much slower."""
    return chance.lognormvariate(math.log(mean) - sigma**2 / 2, sigma)


@dataclass(slots=True)
class Fate:
    """What became of one delivery; ``settled_at`` is None until it succeeded."""

    destination: str
    planned_at: float
    settled_at: float | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """One run, as the destinations and the database saw it."""

    scenario: Scenario
    fates: dict[str, Fate]
    calls: list[float]
    """When the sick destination was called."""
    done: list[tuple[float, str]]
    """When a destination succeeded, and for which delivery."""
    succeeded: set[str]
    """Deliveries whose history in the database says so."""

    def p99(self, profiles: Collection[Profile]) -> float:
        """Seconds from planned to settled, of what arrived since the outage began."""
        names = {each.name for each in profiles}
        delays = sorted(
            (each.settled_at or math.inf) - each.planned_at
            for each in self.fates.values()
            if each.destination in names and each.planned_at >= self.scenario.before
        )
        return delays[math.ceil(0.99 * len(delays)) - 1]


class Replay:
    """Ten destinations, their load, and one worker process's engine with its pumps."""

    def __init__(self, scenario: Scenario, main_url: str, keys_url: str) -> None:
        self.scenario = scenario
        self.fates: dict[str, Fate] = {}
        self.destinations = {each.name: Simulated(each, scenario) for each in (SICK, *HEALTHY)}
        self._runner = Runner()
        self._pumps = Pumps(self._wake)
        self._database = Database(main_url, self._pumps.hint)
        self._key_database = Database(keys_url)
        self._ring = KeyRing({"m1": bytes(32)}, "m1", [bytes(32)])
        self._keys = KeyStore(self._key_database, self._ring)
        self._identifier_ids: list[str] = []
        self._waiting: set[str] = set()
        self._settled = asyncio.Event()

    async def run(self) -> Result:
        await self._prepare()
        engine = Engine(
            self._database,
            self._keys,
            class_of=lambda _: Simulated,
            ask=self._ask,
            on_settled=self._on_settled,
            stopped=self._stopped,
            in_flight=256,
            lease=dt.timedelta(seconds=60),
            wake=lambda: self._pumps.hint(["dispatch"]),
            chance=random.Random(self.scenario.seed),
        )
        self._pumps.add(Pump("dispatch", engine.step))
        self._pumps.add(Pump("sweep", self._sweep, every=5.0))
        engine.start()
        self._pumps.start()
        await self._load()
        await self._all_settled()
        await self._pumps.stop()
        await engine.stop()
        result = await self._result()
        await self._database.close()
        await self._key_database.close()
        return result

    async def _prepare(self) -> None:
        """Destinations, and a few people with sealed identifiers."""
        holders = [f"req_{each:03}" for each in range(PEOPLE)]
        keys = await self._keys.create(holders, START)
        people = [
            vault.identifier_row(
                self._ring,
                keys[each],
                workspace_id=WORKSPACE,
                holder_id=each,
                identifier=Identifier("email", f"{each}@example.com"),
                now=START,
            )
            for each in holders
        ]
        self._identifier_ids = [each["id"] for each in people]
        async with self._database.writing() as session:
            session.add(Workspace(id=WORKSPACE, name="Replay", created_at=START))
            await session.flush()
            session.add_all(
                Destination(
                    id=each,
                    workspace_id=WORKSPACE,
                    name=each,
                    connector="simulated",
                    settings={},
                    secrets_sealed=b"",
                    created_at=START,
                )
                for each in self.destinations
            )
            await vault.add(session, people)

    async def _load(self) -> None:
        """Requests that arrive independently of one another (Poisson)."""
        loop = asyncio.get_running_loop()
        chance = random.Random(f"{self.scenario.seed} load")
        for number in itertools.count():
            await asyncio.sleep(chance.expovariate(REQUESTS))
            if loop.time() >= self.scenario.load_ends:
                return
            planned = [
                self._planned(number, each.profile)
                for each in self.destinations.values()
                if chance.random() < each.profile.share
            ]
            for each in planned:
                self.fates[each.id] = Fate(each.destination_id, loop.time())
                self._waiting.add(each.id)
            async with self._database.writing() as session:
                await plan.insert(session, planned, utc_now())

    def _planned(self, number: int, profile: Profile) -> plan.Planned:
        return plan.Planned(
            workspace_id=WORKSPACE,
            request_id=f"req_{number:06}",
            destination_id=profile.name,
            operation="erase",
            identifier_ids=[self._identifier_ids[number % PEOPLE]],
            expires_at=START + dt.timedelta(days=30),
            id=f"dlv_{number:06}_{profile.name}",
        )

    async def _all_settled(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self.scenario.gives_up):
                while self._waiting:
                    self._settled.clear()
                    await self._settled.wait()

    async def _ask(self, destination: Destination, call: Call, method: str, *args: Any) -> Any:
        return await self._runner.run(self.destinations[destination.id], method, *args, call=call)

    async def _on_settled(
        self, session: AsyncSession, settled: Sequence[Settled], now: dt.datetime
    ) -> None:
        for each in settled:
            self.fates[each.delivery_id].settled_at = asyncio.get_running_loop().time()
            self._waiting.discard(each.delivery_id)
        self._settled.set()

    async def _stopped(self, session: AsyncSession, request_ids: Collection[str]) -> set[str]:
        return set()

    async def _sweep(self) -> bool:
        async with self._database.writing() as session:
            await sweep(session, utc_now())
        return False

    def _wake(self, names: Iterable[str]) -> None:
        for name in names:
            self._pumps.wake(name)

    async def _result(self) -> Result:
        transition = table_of(DeliveryTransition).c
        async with self._database.reading() as session:
            succeeded = await session.execute(
                sa.select(transition.delivery_id).where(
                    transition.state == State.SUCCEEDED, transition.detail == "done"
                )
            )
            return Result(
                self.scenario,
                self.fates,
                self.destinations[SICK.name].calls,
                [each for one in self.destinations.values() for each in one.done],
                {delivery_id for (delivery_id,) in succeeded},
            )


def replay(scenario: Scenario) -> Result:
    """One run on fresh databases, in virtual time."""
    memory = Path("/dev/shm")  # noqa: S108 (nothing is measured that a disk would change)
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as directory:
        urls = [f"sqlite+aiosqlite:///{directory}/{name}.sqlite" for name in ("main", "keystore")]
        upgrade(urls[0], "main")
        upgrade(urls[1], "keystore")
        return virtual_time.run(lambda: Replay(scenario, *urls).run(), START)


@dataclass(frozen=True, slots=True)
class Figures:
    """What the replay is judged by."""

    p99: float
    """Seconds from planned to settled at the nine healthy destinations, with the outage ..."""
    calm_p99: float
    """... and without."""
    worst: float
    """The ratio of the two at the healthy destination that suffers most."""
    peak: float
    """Calls to the sick destination in its busiest minute, in what it takes when healthy."""
    recovery: float
    """Seconds from the outage's end until all is delivered that arrived before."""
    lost: int
    """Deliveries that did not succeed, at their destination or in the database."""
    repeated: int
    """Successes at a destination beyond the first of each delivery."""

    @property
    def ratio(self) -> float:
        return self.p99 / self.calm_p99


def measure(outage: Result, calm: Result) -> Figures:
    """``calm``: the same load without the outage."""
    ended = [
        each.settled_at or math.inf
        for each in outage.fates.values()
        if each.destination == SICK.name and each.planned_at < outage.scenario.ends
    ]
    done = {delivery_id for _, delivery_id in outage.done}
    return Figures(
        p99=outage.p99(HEALTHY),
        calm_p99=calm.p99(HEALTHY),
        worst=max(outage.p99([each]) / calm.p99([each]) for each in HEALTHY),
        peak=max(each.calls for each in curve(outage)) / (SICK.capacity * MINUTE),
        recovery=max(ended) - outage.scenario.ends,
        lost=len(outage.fates.keys() - (done & outage.succeeded)),
        repeated=len(outage.done) - len(done),
    )


def curve(result: Result) -> list[Minute]:
    """The sick destination minute by minute, until its load has ended and nothing waits."""
    fates = [each for each in result.fates.values() if each.destination == SICK.name]
    load = per_minute(each.planned_at for each in fates)
    settled = per_minute(each.settled_at for each in fates if each.settled_at is not None)
    calls = per_minute(result.calls)
    successes = per_minute(
        at for at, each in result.done if result.fates[each].destination == SICK.name
    )
    minutes = []
    backlog = 0
    for minute in range(1 + max(*load, *calls, *settled)):
        backlog += load[minute] - settled[minute]
        minutes.append(Minute(load[minute], calls[minute], successes[minute], backlog))
    return minutes


def per_minute(moments: Iterable[float]) -> Counter[int]:
    return Counter(int(at // MINUTE) for at in moments)


def picture(result: Result) -> str:
    scenario = result.scenario
    return outage_picture.draw(
        curve(result),
        round(scenario.before / MINUTE),
        round(scenario.ends / MINUTE),
        SICK.capacity * MINUTE,
        scenario.success,
    )


def show(what: str, ours: str, bar: str, more: str = "") -> None:
    print(f"{what:<56}{ours:>10}   {bar:<12}{more}")


def main() -> None:
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    scenario = Scenario(seed=seed)
    with ProcessPoolExecutor(2) as processes:
        outage, calm = processes.map(replay, (scenario, replace(scenario, success=1.0)))
    report(outage, calm)
    PICTURE.write_text(picture(outage))


def report(outage: Result, calm: Result) -> None:
    scenario, found = outage.scenario, measure(outage, calm)
    minutes = curve(outage)
    show(f"{len(outage.fates):,} deliveries", "ours", "bar")
    show(
        "healthy destinations' p99 delay, against no outage",
        f"{found.ratio:.2f}",
        "<= 1.15",
        f"{found.p99:.2f} s against {found.calm_p99:.2f} s; worst of nine {found.worst:.2f}",
    )
    show(
        "calls to the sick one at its peak, against healthy",
        f"{found.peak:.2f}",
        "<= 1.2",
        f"{max(each.calls for each in minutes)} against {SICK.capacity * MINUTE:.0f} a minute;"
        f" {len(outage.calls):,} in all",
    )
    show(
        "all delivered after the end, in the outage's length",
        f"{found.recovery / scenario.outage:.2f}",
        "<= 0.33",
        f"{found.recovery / MINUTE:.1f} minutes; {minutes[round(scenario.ends / MINUTE)].backlog}"
        " waited at the end",
    )
    show("lost", f"{found.lost}", "0")
    show("erased again", f"{found.repeated}", "0")


if __name__ == "__main__":
    main()
