"""What every benchmark stands on: servers, a sink, seeded databases, processes of the product."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import psycopg
import redis

from app.core.settings import Settings
from app.crypto import keyring
from benchmarks.engine import naive, seed
from benchmarks.engine.databases import Server, given
from benchmarks.engine.pace import FULL, QUICK, Contender, Pace
from benchmarks.engine.processes import python
from benchmarks.engine.sink import HOSTS

DESTINATIONS = [f"d{number}" for number in range(10)]
PEOPLE, COPIES, QUICK_COPIES = 400, 20, 6


class Sink:
    """The scripted destinations, in their own process."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._client = httpx.Client(base_url=f"http://{HOSTS[0]}:{port}", trust_env=False)

    def url(self, name: str) -> str:
        """Every one of ``DESTINATIONS`` is a host of its own."""
        number = DESTINATIONS.index(name) if name in DESTINATIONS else 0
        return f"http://{HOSTS[number]}:{self._port}/d/{name}"

    def behave(self, manners: str, *names: str) -> None:
        """Tell destinations (default: all ten) how to behave; what they saw is forgotten."""
        scripts = dict.fromkeys(names or DESTINATIONS, manners)
        self._client.post("/_behave", json=scripts).raise_for_status()

    def people(self, *names: str) -> int:
        """How many the destinations (default: all) have answered for."""
        seen: dict[str, dict[str, int]] = self._client.get("/_seen").json()
        return sum(each["people"] for name, each in seen.items() if not names or name in names)


@dataclass(frozen=True, slots=True)
class Instance:
    """An installation of the product with work in its databases."""

    settings: Settings
    environment: Mapping[str, str]
    backlog: seed.Backlog
    directory: Path

    @contextmanager
    def worker(self) -> Iterator[Contender]:
        log = self.directory / "worker.log"
        with python(["-m", "app.cli", "worker"], log, self.environment) as group:
            yield Contender(group, self.backlog.left)

    @contextmanager
    def embedded(self) -> Iterator[tuple[Contender, httpx.AsyncClient]]:
        """Everything in one process, and a client of its API."""
        command = ["-m", "app.cli", "up", "--port", "0", "--no-demo", "--json"]
        with python(command, self.directory / "up.log", self.environment) as group:
            welcome = json.loads(group.first_line())
            headers = {"authorization": f"Bearer {welcome['api_key']}"}
            client = httpx.AsyncClient(
                base_url=welcome["base_url"], headers=headers, timeout=30, trust_env=False
            )
            yield Contender(group, self.backlog.left), client


@dataclass
class Bench:
    """One run. ``pace`` says how long it looks; what is seeded once is copied for each instance."""

    directory: Path
    postgres: Server
    redis_url: str
    sink: Sink
    pace: Pace
    _stack: ExitStack = field(default_factory=ExitStack)

    @property
    def is_quick(self) -> bool:
        return self.pace is QUICK

    @contextmanager
    def instance(self, **more: Any) -> Iterator[Instance]:
        """The distributed form, on a copy of the seeded databases. ``more``: other settings."""
        main, keys = self._seeded
        with self.postgres.database(main) as copy, self.postgres.database(keys) as copy_of_keys:
            yield self._instance(self._addresses(copy, copy_of_keys) | more)

    @contextmanager
    def embedded_instance(self) -> Iterator[Instance]:
        """The embedded form with the same work."""
        directory = Path(tempfile.mkdtemp(dir=self.directory))
        found = self._instance({"data_dir": str(directory)})
        asyncio.run(seed.seed(found.settings, self._urls(), PEOPLE, self._copies))
        yield found
        shutil.rmtree(directory)

    @contextmanager
    def naive(self, names: Sequence[str], tasks: int) -> Iterator[Contender]:
        """The naive competitor's worker with its tasks in the broker."""
        broker = self._redis(2)
        with (
            self.postgres.database() as name,
            psycopg.connect(self.postgres.address(name), autocommit=True) as database,
        ):
            database.execute(naive.RECEIPTS)
            urls = [self.sink.url(names[number % len(names)]) for number in range(tasks)]
            published = naive.publish(broker, urls)

            def left() -> int:
                row = database.execute("SELECT count(*) FROM naive_receipt").fetchone()
                assert row is not None
                return published - int(row[0])

            environment = {
                "NAIVE_BROKER": broker,
                "NAIVE_DATABASE": self.postgres.address(name),
            }
            command = ["-m", "celery", "-A", "benchmarks.engine.naive", "worker", "-c", "2"]
            options = ["--without-gossip", "--without-mingle", "-l", "error"]
            log = self.directory / "naive.log"
            with python([*command, *options], log, environment) as group:
                yield Contender(group, left)

    @contextmanager
    def client(self, concurrency: int) -> Iterator[Contender]:
        """The product's HTTP client alone; it never comes to an end."""
        urls = [self.sink.url(name).replace("/d/", "/d/alone-") for name in DESTINATIONS]
        names = [f"alone-{name}" for name in DESTINATIONS]
        command = ["-m", "benchmarks.engine.client", str(concurrency), *urls]
        with python(command, self.directory / "client.log") as group:
            yield Contender(group, lambda: 10**9 - self.sink.people(*names))

    @cached_property
    def _seeded(self) -> tuple[str, str]:
        main = self._stack.enter_context(self.postgres.database())
        keys = self._stack.enter_context(self.postgres.database())
        settings = self._instance(self._addresses(main, keys)).settings
        asyncio.run(seed.seed(settings, self._urls(), PEOPLE, self._copies))
        return main, keys

    @property
    def _copies(self) -> int:
        return QUICK_COPIES if self.is_quick else COPIES

    def _urls(self) -> list[str]:
        return [self.sink.url(name) for name in DESTINATIONS]

    def _addresses(self, main: str, keys: str) -> dict[str, str]:
        return {
            "database_url": self.postgres.address(main),
            "keystore_url": self.postgres.address(keys),
            "broker_url": self._redis(1),
        }

    def _instance(self, given: Mapping[str, Any]) -> Instance:
        values = {
            "data_dir": str(self.directory / "data"),
            "master_key_file": str(self.directory / "master.json"),
            "connectors_dir": str(self.directory / "connectors"),
            "allowed_private_networks": "127.0.0.0/8",
            "log_level": "WARNING",
            "api_per_minute": "1000000",
        } | {name: str(value) for name, value in given.items()}
        settings = Settings(**values)  # type: ignore[arg-type]
        environment = {f"QUITTANCE_{name.upper()}": value for name, value in values.items()}
        return Instance(settings, environment, seed.Backlog(settings), self.directory)

    def _redis(self, number: int) -> str:
        """An emptied database of the Redis server."""
        url = f"{self.redis_url.rpartition('/')[0]}/{number}"
        with redis.Redis.from_url(url) as client:
            client.flushdb()
        return url


@contextmanager
def prepared(*, is_quick: bool) -> Iterator[Bench]:
    """A sink, keys and a scratch directory; all is removed on leaving."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        keyring.create(directory / "master.json")
        seed.write_connectors(directory / "connectors")
        command = ["-m", "benchmarks.engine.sink"]
        group = stack.enter_context(python(command, directory / "sink.log"))
        sink = Sink(int(group.first_line()))
        yield Bench(
            directory,
            Server(given("TEST_POSTGRES_URL")),
            given("TEST_REDIS_URL"),
            sink,
            QUICK if is_quick else FULL,
            stack,
        )
