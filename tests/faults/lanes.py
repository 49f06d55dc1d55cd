"""Lanes: installations on which scenarios are played one after the other, and what came of each."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.collect import collect
from tests.faults.destination import Destination
from tests.faults.history import History, Violation, violations
from tests.faults.scenarios import LEASE_SECONDS, Scenario
from tests.faults.servers import Servers
from tests.faults.stage import Stage
from tests.journeys.instance import Distributed, Embedded, Instance

NAMES = ("crm", "shop", "news", "ads")
SETTINGS = {
    "QUITTANCE_FORGET_GRACE_DAYS": "0",
    "QUITTANCE_LEASE_SECONDS": str(LEASE_SECONDS),
    "QUITTANCE_LOG_LEVEL": "INFO",
    "QUITTANCE_ALLOWED_PRIVATE_NETWORKS": "127.0.0.0/8",
}


@dataclass
class Result:
    """A scenario and its history; ``error`` when it could not be played to its end."""

    scenario: str
    seconds: float
    history: History | None = None
    error: str = ""
    found: list[Violation] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return not self.error and not self.found


def play(scenario: Scenario, stage: Stage, seed: int = 0) -> Result:
    """One scenario from its beginning to its judgement."""
    began = time.monotonic()
    stage.begin(seed)
    result = Result(scenario.name, 0.0)
    try:
        scenario.play(stage)
        stage.settle()
        result.history = collect(stage)
        result.found = violations(result.history)
    except Exception as error:  # whatever it is, the other scenarios are still to be played
        result.error = f"{type(error).__name__}: {error}"
        stage.recover()
    result.seconds = time.monotonic() - began
    return result


@contextmanager
def embedded(directory: Path, far: socket.socket | None = None) -> Iterator[Stage]:
    """One process on SQLite. ``far``: a listener of a fifth destination, in another network."""
    settings = dict(SETTINGS)
    destinations = [Destination(name) for name in NAMES]
    if far is not None:
        destinations.append(Destination("far", listener=far))
        settings["QUITTANCE_ALLOWED_PRIVATE_NETWORKS"] += ",10.231.77.0/30"
    with _staged(Embedded(directory, settings), destinations) as stage:
        yield stage


@contextmanager
def distributed(directory: Path, servers: Servers, broker: str) -> Iterator[Stage]:
    """Web process, worker and scheduler on PostgreSQL and a broker."""
    settings = SETTINGS | {
        "QUITTANCE_DATABASE_URL": servers.new_database(),
        "QUITTANCE_KEYSTORE_URL": servers.new_database(),
        "QUITTANCE_BROKER_URL": servers.url(broker),
        "QUITTANCE_PORT": str(_free_port()),
    }
    destinations = [Destination(name) for name in NAMES]
    with _staged(Distributed(directory, settings), destinations) as stage:
        yield stage


@contextmanager
def _staged(instance: Instance, destinations: Sequence[Destination]) -> Iterator[Stage]:
    stage = Stage(instance, destinations)
    with ExitStack() as stack:
        stack.callback(stage.close)
        instance.start()
        stage.configure()
        yield stage


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
