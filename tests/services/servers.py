"""How each server is prepared, started, probed and addressed; all listen on loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.services import processes
from tests.services.install import find
from tests.services.processes import Process


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything one server needs to know before it starts."""

    directory: Path
    ports: tuple[int, ...]
    password: str
    is_durable: bool
    """Whether commits reach the disk as in production; tests do without, benchmarks must not."""

    @property
    def port(self) -> int:
        return self.ports[0]

    @property
    def log(self) -> Path:
        return self.directory / "server.log"


@dataclass(frozen=True, slots=True)
class Server:
    """One kind of server. ``start`` may return several processes; the last is the server itself."""

    variable: str
    url: str
    account: str
    port_count: int
    start: Callable[[Plan, str | None], list[Process]]
    answers: Callable[[Plan], bool]
    stop_signal: signal.Signals = signal.SIGTERM

    def address(self, port: int, password: str) -> str:
        return self.url.format(port=port, password=password)


def program(name: str) -> str:
    path = find(name)
    if path is None:
        raise FileNotFoundError(name)
    return path


def start_postgres(plan: Plan, user: str | None) -> list[Process]:
    data, secret = plan.directory / "data", plan.directory / "password"
    write(secret, plan.password, user)
    locale = "C.UTF-8" if sys.platform == "linux" else "en_US.UTF-8"
    if not data.exists():
        processes.run(
            [
                program("initdb"),
                f"--pgdata={data}",
                "--username=quittance",
                "--auth=scram-sha-256",
                f"--pwfile={secret}",
                "--encoding=UTF8",
                f"--locale={locale}",
                "--no-sync",
            ],
            log=plan.log,
            user=user,
        )
    on = "on" if plan.is_durable else "off"
    settings = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "max_connections": "200",
        "shared_buffers": "256MB",
        "fsync": on,
        "synchronous_commit": on,
        "full_page_writes": on,
        "timezone": "UTC",
    }
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    command = [program("postgres"), "-D", str(data), "-p", str(plan.port), *options]
    return [processes.launch(command, log=plan.log, user=user)]


def postgres_answers(plan: Plan) -> bool:
    """Log in and ask: a starting server accepts connections before it can serve them."""
    query = [program("psql"), "--no-psqlrc", "--host=127.0.0.1", f"--port={plan.port}"]
    query += ["--username=quittance", "--dbname=postgres", "--quiet", "--command=SELECT 1"]
    environment = os.environ | {"PGPASSWORD": plan.password, "PGCONNECT_TIMEOUT": "3"}
    return subprocess.run(query, env=environment, capture_output=True, check=False).returncode == 0


def start_mariadb(plan: Plan, user: str | None) -> list[Process]:
    data, grants = plan.directory / "data", plan.directory / "grants.sql"
    # Without DNS look-ups an account is matched by the numeric address.
    write(
        grants,
        f"CREATE USER IF NOT EXISTS 'quittance'@'127.0.0.1' IDENTIFIED BY '{plan.password}';\n"
        "GRANT ALL ON *.* TO 'quittance'@'127.0.0.1' WITH GRANT OPTION;\n"
        "CREATE DATABASE IF NOT EXISTS quittance CHARACTER SET utf8mb4;\n",
        user,
    )
    processes.run(
        [
            program("mariadb-install-db"),
            "--no-defaults",
            f"--datadir={data}",
            "--auth-root-authentication-method=socket",
            "--skip-name-resolve",
            "--skip-test-db",
        ],
        log=plan.log,
        user=user,
    )
    command = [
        program("mariadbd"),
        "--no-defaults",
        f"--datadir={data}",
        f"--socket={plan.directory / 'socket'}",
        f"--pid-file={plan.directory / 'pid'}",
        f"--port={plan.port}",
        "--bind-address=127.0.0.1",
        f"--init-file={grants}",
        "--skip-name-resolve",
        "--character-set-server=utf8mb4",
        f"--innodb-flush-log-at-trx-commit={1 if plan.is_durable else 0}",
    ]
    return [processes.launch(command, log=plan.log, user=user)]


def mariadb_answers(plan: Plan) -> bool:
    """The greeting, protocol version 10 after a header; grants are made before it is sent."""
    return ask(plan.port, b"")[4:5] == b"\x0a"


def start_redis(plan: Plan, user: str | None) -> list[Process]:
    configuration = plan.directory / "redis.conf"
    write(
        configuration,
        f"bind 127.0.0.1\nport {plan.port}\ndir {plan.directory}\nrequirepass {plan.password}\n"
        f'daemonize no\nsave ""\nappendonly {"yes" if plan.is_durable else "no"}\n',
        user,
    )
    return [
        processes.launch([program("redis-server"), str(configuration)], log=plan.log, user=user)
    ]


def redis_answers(plan: Plan) -> bool:
    return b"+PONG" in ask(plan.port, f"AUTH {plan.password}\r\nPING\r\nQUIT\r\n".encode())


def start_rabbitmq(plan: Plan, user: str | None) -> list[Process]:
    """A node with its own cookie, name and port mapper, so that it meets no other RabbitMQ."""
    directory = plan.directory
    _, distribution_port, epmd_port = plan.ports
    # `.conf`, because RabbitMQ reads no other file name.
    write(
        directory / "rabbitmq.conf",
        f"listeners.tcp.1 = 127.0.0.1:{plan.port}\ndefault_user = quittance\n"
        f"default_pass = {plan.password}\ndisk_free_limit.absolute = 50MB\n",
        user,
    )
    write(directory / "enabled_plugins", "[].\n", user)
    write(directory / ".erlang.cookie", plan.password, user, mode=0o400)
    environment = {
        "HOME": str(directory),
        "PATH": os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "ERL_EPMD_PORT": str(epmd_port),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": f"quittance-{plan.port}@localhost",
        "RABBITMQ_DIST_PORT": str(distribution_port),
        "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(directory / "advanced.config"),
        "RABBITMQ_CONF_ENV_FILE": str(directory / "rabbitmq-env.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
        "RABBITMQ_GENERATED_CONFIG_DIR": str(directory / "generated"),
        "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
        "RABBITMQ_LOG_BASE": str(directory / "log"),
        "RABBITMQ_PID_FILE": str(directory / "pid"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
            "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none"
        ),
    }
    mapper = [program("epmd"), "-port", str(epmd_port), "-address", "127.0.0.1"]
    port_mapper = processes.launch(mapper, log=directory / "epmd.log", user=user, env=environment)
    processes.wait_until(lambda: is_open(epmd_port), 10)
    # Debian's wrapper in sbin changes the account by itself; the script behind it does not.
    script = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
    server = str(script) if script.exists() else program("rabbitmq-server")
    return [port_mapper, processes.launch([server], log=plan.log, user=user, env=environment)]


def rabbitmq_answers(plan: Plan) -> bool:
    """A method frame (type 1) answers the header; users exist before the port opens."""
    return ask(plan.port, b"AMQP\x00\x00\x09\x01")[:1] == b"\x01"


def ask(port: int, question: bytes) -> bytes:
    """The first bytes a server answers; nothing when it does not."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=3) as connection:
            connection.sendall(question)
            answer = b""
            while len(answer) < 12 and (more := connection.recv(256)):
                answer += more
            return answer
    except OSError:
        return b""


def is_open(port: int) -> bool:
    with socket.socket() as attempt:
        return attempt.connect_ex(("127.0.0.1", port)) == 0


def write(path: Path, text: str, user: str | None, mode: int = 0o600) -> None:
    """Write a file that may hold a secret for the account that reads it."""
    path.touch(mode=0o600)
    path.write_text(text)
    if user is not None:
        os.chown(path, *processes.ids(user))
    path.chmod(mode)


SERVERS = {
    "postgres": Server(
        variable="TEST_POSTGRES_URL",
        url="postgresql+psycopg://quittance:{password}@127.0.0.1:{port}/postgres",
        account="postgres",
        port_count=1,
        start=start_postgres,
        answers=postgres_answers,
        stop_signal=signal.SIGINT,  # "fast": open connections are cut, not waited for
    ),
    "mariadb": Server(
        variable="TEST_MARIADB_URL",
        url="mysql+pymysql://quittance:{password}@127.0.0.1:{port}/quittance",
        account="mysql",
        port_count=1,
        start=start_mariadb,
        answers=mariadb_answers,
    ),
    "redis": Server(
        variable="TEST_REDIS_URL",
        url="redis://:{password}@127.0.0.1:{port}/0",
        account="redis",
        port_count=1,
        start=start_redis,
        answers=redis_answers,
    ),
    "rabbitmq": Server(
        variable="TEST_RABBITMQ_URL",
        url="amqp://quittance:{password}@127.0.0.1:{port}//",
        account="rabbitmq",
        port_count=3,
        start=start_rabbitmq,
        answers=rabbitmq_answers,
    ),
}
