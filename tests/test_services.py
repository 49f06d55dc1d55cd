"""The test servers' own promises: nobody else's process is touched, every server really answers."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pymysql
import pytest
import pytest_socket
import redis
from kombu.connection import Connection

from tests.services import processes
from tests.services.processes import Process


@pytest.fixture
def sleeper() -> Iterator[Process]:
    """A process that would sleep for a minute."""
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with subprocess.Popen(command, start_new_session=True) as child:
        yield Process(child.pid, processes.start_time(child.pid) or "")
        child.kill()


def test_a_process_we_started_is_stopped(sleeper: Process) -> None:
    processes.stop(sleeper, signal.SIGTERM)

    assert not sleeper.is_alive


def test_a_stranger_with_a_reused_pid_is_left_alone(sleeper: Process) -> None:
    processes.stop(replace(sleeper, started="long ago"), signal.SIGTERM)

    assert sleeper.is_alive


def test_tests_reach_loopback_only() -> None:
    with socket.socket() as outside, pytest.raises(pytest_socket.SocketConnectBlockedError):
        outside.connect(("192.0.2.1", 80))
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()


def test_postgres_databases_are_fresh_and_apart(new_postgres_database) -> None:
    urls = [new_postgres_database(None).replace("+psycopg", "") for _ in range(2)]

    for url in urls:
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE thing (id int)")


def test_mariadb_answers(mariadb_url: str) -> None:
    account, _, place = mariadb_url.removeprefix("mysql+pymysql://").partition("@")
    user, password = account.split(":")
    address, _, name = place.partition("/")
    host, port = address.split(":")
    with pymysql.connect(
        host=host, port=int(port), user=user, password=password, database=name
    ) as connection:
        connection.cursor().execute("CREATE TABLE thing (id int)")


def test_redis_answers(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as connection:
        assert connection.ping()


def test_rabbitmq_answers(rabbitmq_url: str) -> None:
    with Connection(rabbitmq_url) as connection:
        connection.ensure_connection(max_retries=1)


def test_each_engine_gets_a_migrated_main_database_and_key_store(
    database_url: str, keystore_url: str, engine_name: str
) -> None:
    assert database_url.startswith(engine_name)
    assert keystore_url.startswith(engine_name)
    assert database_url != keystore_url


def test_chromium_is_there(chromium_path) -> None:
    assert chromium_path.is_file()
