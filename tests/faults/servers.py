"""PostgreSQL, Redis and RabbitMQ that nobody else uses, to be killed."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Iterable
from types import TracebackType

import psycopg
import redis

from tests.services import install
from tests.services.servers import SERVERS
from tests.services.state import HOME, State


def missing(names: Iterable[str]) -> list[str]:
    """Those of these servers that are not on this machine."""
    return sorted(set(names) & set(install.missing()))


def provide(names: Iterable[str]) -> None:
    """Install those that are missing, if we may."""
    if (absent := missing(names)) and install.can_install():
        HOME.mkdir(parents=True, exist_ok=True)
        install.install(absent, HOME / "apt.log")


class Servers:
    """Started on entry, stopped and deleted on exit. Commits reach the disk, as in production."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = list(names)
        self._state = State(is_durable=True)

    def __enter__(self) -> Servers:
        if failures := self._state.start(self._names):
            self.__exit__(None, None, None)
            raise RuntimeError(f"servers did not start: {failures}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:  # fmt: skip
        self._state.stop(list(self._state.running))

    def url(self, name: str) -> str:
        one = self._state.running[name]
        return SERVERS[name].address(one.ports[0], one.password)

    def kill(self, name: str) -> None:
        self._state.halt(name, signal.SIGKILL)

    def stop(self, name: str) -> None:
        self._state.halt(name, SERVERS[name].stop_signal)

    def start(self, name: str) -> None:
        self._state.resume(name)

    def new_database(self) -> str:
        """The URL of an empty one."""
        name = f"f_{uuid.uuid4().hex}"
        with self._postgres() as connection:
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
        return self.url("postgres").rpartition("/")[0] + f"/{name}"

    def terminate_backends(self) -> None:
        """Cut every connection to PostgreSQL but this one."""
        with self._postgres() as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )

    def flush_redis(self) -> None:
        with redis.Redis.from_url(self.url("redis")) as client:
            client.flushall()

    def _postgres(self) -> psycopg.Connection:
        return psycopg.connect(self.url("postgres").replace("+psycopg", ""), autocommit=True)
