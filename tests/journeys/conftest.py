"""Journeys run once embedded and once distributed, on Redis and on RabbitMQ."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import NewDatabase, PostgresServer, database_name
from tests.journeys.instance import Distributed, Embedded, Instance
from tests.journeys.receiver import Receiver

FORMS = [
    pytest.param("embedded"),
    pytest.param("redis", marks=pytest.mark.services),
    pytest.param("rabbitmq", marks=pytest.mark.services),
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Installation:
    """One that was set up, to be copied: names of its databases, its data directory, a key."""

    main: str
    keystore: str
    directory: Path
    key: str


@pytest.fixture(scope="session")
def installation(
    postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """On PostgreSQL, by the commands of the command line."""
    main, keystore = postgres_server.new(None), postgres_server.new(None)
    environment = {"QUITTANCE_DATABASE_URL": main, "QUITTANCE_KEYSTORE_URL": keystore}
    directory = tmp_path_factory.mktemp("installation")
    key = Distributed(directory, environment).set_up()
    yield Installation(database_name(main), database_name(keystore), directory, key)
    for url in (main, keystore):
        postgres_server.drop(url)


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Instance]:
    """A fresh embedded instance."""
    yield from _running(Embedded(tmp_path / "data", {}))


@pytest.fixture(params=FORMS)
def instance(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Instance]:
    """A fresh instance in each form."""
    if request.param == "embedded":
        yield from _running(Embedded(tmp_path / "data", {}))
        return
    new_database: NewDatabase = request.getfixturevalue("new_postgres_database")
    installed: Installation = request.getfixturevalue("installation")
    shutil.copytree(installed.directory, tmp_path / "data")
    environment = {
        "QUITTANCE_DATABASE_URL": new_database(installed.main),
        "QUITTANCE_KEYSTORE_URL": new_database(installed.keystore),
        "QUITTANCE_BROKER_URL": request.getfixturevalue(f"{request.param}_url"),
        "QUITTANCE_PORT": str(free_port()),
        "QUITTANCE_WORKER_METRICS_PORT": str(free_port()),
    }
    made = Distributed(tmp_path / "data", environment)
    made.key = installed.key
    yield from _running(made)


def _running(instance: Instance) -> Iterator[Instance]:
    try:
        instance.start()
        yield instance
    finally:
        instance.kill()
        instance.disconnect()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A webhook of somebody else."""
    made = Receiver()
    yield made
    made.close()
