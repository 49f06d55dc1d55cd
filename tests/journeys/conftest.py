"""Journeys run once embedded and once distributed, on Redis and on RabbitMQ."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import NewDatabase
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
    environment = {
        "QUITTANCE_DATABASE_URL": new_database(request.getfixturevalue("postgres_template")),
        "QUITTANCE_KEYSTORE_URL": new_database(
            request.getfixturevalue("postgres_keystore_template")
        ),
        "QUITTANCE_BROKER_URL": request.getfixturevalue(f"{request.param}_url"),
        "QUITTANCE_PORT": str(free_port()),
        "QUITTANCE_WORKER_METRICS_PORT": str(free_port()),
    }
    yield from _running(Distributed(tmp_path / "data", environment))


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
