"""The database's URL: which dialects and options are allowed, and how a connection is opened."""

from __future__ import annotations

import sqlite3
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import psycopg
import pymysql
from pymysql.constants import CLIENT
from sqlalchemy import URL, Connection, Engine, create_engine, event, func, make_url, select, text
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import QueuePool

from connectors.contract import ConnectorError, Tools

CONNECT_SECONDS = 10
STATEMENT_SECONDS = 30
LOCK_SECONDS = 5
SILENCE_SECONDS = 60

_DRIVERS = {
    "sqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mysql+pymysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
    "mariadb+pymysql": "mariadb+pymysql",
}
_OPTIONS: Mapping[str, frozenset[str]] = {
    "sqlite": frozenset(),
    "postgresql": frozenset({"sslmode", "sslrootcert", "application_name"}),
    "mysql": frozenset({"charset", "ssl_ca", "ssl_check_hostname"}),
}
_PORTS = {"postgresql": 5432, "mysql": 3306}
_SSL_MODES = frozenset({"disable", "prefer", "require", "verify-ca", "verify-full"})
_YES_NO = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, slots=True)
class Address:
    """A checked database URL; never shown, it can hold a password."""

    url: URL
    dialect: str
    """sqlite, postgresql or mysql (MariaDB too)."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds; the tests shorten them."""

    statement: float = STATEMENT_SECONDS
    lock: float = LOCK_SECONDS


def parse(secret_url: str) -> Address:
    """Check the URL without opening anything; the error never repeats it."""
    try:
        url = make_url(secret_url.strip())
        driver = _DRIVERS.get(url.drivername)
    except (ArgumentError, ValueError):
        raise ConnectorError(
            "The url cannot be read; write it as dialect://user:password@host:port/database"
        ) from None
    if driver is None:
        raise ConnectorError(
            "The url's dialect or driver is not allowed; use one of " + ", ".join(sorted(_DRIVERS))
        )
    dialect = driver.partition("+")[0].replace("mariadb", "mysql")
    _refuse_unknown_options(url, dialect)
    if dialect == "sqlite":
        _refuse_odd_file(url)
    else:
        _refuse_odd_server(url)
    return Address(url.set(drivername=driver), dialect)


def _refuse_unknown_options(url: URL, dialect: str) -> None:
    allowed = _OPTIONS[dialect]
    for name, value in url.query.items():
        if name not in allowed:
            names = ", ".join(sorted(allowed)) or "none"
            raise ConnectorError(f"A url option is not allowed here; allowed: {names}")
        if not isinstance(value, str):
            raise ConnectorError(f"The url option {name} is given twice")
    if url.query.get("sslmode", "prefer") not in _SSL_MODES:
        raise ConnectorError("The url option sslmode is one of " + ", ".join(sorted(_SSL_MODES)))
    if url.query.get("charset", "utf8mb4") != "utf8mb4":
        raise ConnectorError("The url option charset can only be utf8mb4")
    if url.query.get("ssl_check_hostname", "true") not in _YES_NO:
        raise ConnectorError("The url option ssl_check_hostname is true or false")


def _refuse_odd_file(url: URL) -> None:
    name = url.database or ""
    if url.host or url.username or url.password or url.port:
        raise ConnectorError("A SQLite url has no host; write sqlite:////absolute/path.sqlite")
    if name in {"", ":memory:"} or name.startswith("file:"):
        raise ConnectorError("A SQLite url names a file; memory and file: URIs are not allowed")


def _refuse_odd_server(url: URL) -> None:
    host, name = url.host or "", url.database or ""
    if not host or host.startswith(("/", "@")) or "," in host:
        raise ConnectorError("The url names exactly one host; sockets and lists are not allowed")
    if not name or "=" in name or "://" in name or "\0" in name:
        raise ConnectorError("The url ends with the name of the database")


def open_engine(address: Address, tools: Tools, timeouts: Timeouts) -> Engine:
    """An engine of one lazy connection, made through ``tools``; it never sees or shows the URL."""
    engine = create_engine(
        f"{address.url.drivername}://",
        creator=_creator(address, tools, timeouts),
        poolclass=QueuePool,
        pool_size=1,
        max_overflow=0,
        pool_timeout=CONNECT_SECONDS,
        pool_pre_ping=True,
        hide_parameters=True,
        **({} if address.dialect == "sqlite" else {"isolation_level": "READ COMMITTED"}),
    )
    if address.dialect == "sqlite":
        _begin_by_hand(engine)
        _interrupt_slow_statements(engine, timeouts.statement)
    elif address.dialect == "postgresql":
        event.listen(engine, "begin", lambda conn: _limit_postgres(conn, timeouts))
    else:
        event.listen(engine, "begin", lambda conn: _limit_mysql(conn, timeouts))
    return engine


def _creator(address: Address, tools: Tools, timeouts: Timeouts) -> Callable[[], Any]:
    match address.dialect:
        case "sqlite":
            return lambda: _connect_sqlite(address.url, tools, timeouts)
        case "postgresql":
            return lambda: psycopg.connect(**postgres_arguments(address.url, tools))
    return lambda: pymysql.connect(**mysql_arguments(address.url, tools))


def _connect_sqlite(url: URL, tools: Tools, timeouts: Timeouts) -> sqlite3.Connection:
    path = tools.path(url.database or "")
    connection = sqlite3.connect(
        f"file:{quote(path)}?mode=rw", uri=True, timeout=timeouts.lock, check_same_thread=False
    )
    connection.isolation_level = None
    connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
    for pragma in ("foreign_keys=ON", "secure_delete=ON", "trusted_schema=OFF"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def postgres_arguments(url: URL, tools: Tools) -> dict[str, Any]:
    """``hostaddr`` is where libpq connects; ``host`` stays for the certificate's name."""
    port = url.port or _PORTS["postgresql"]
    arguments: dict[str, Any] = {
        "host": url.host,
        "hostaddr": tools.resolve(url.host or "", port),
        "port": port,
        "dbname": url.database,
        "connect_timeout": CONNECT_SECONDS,
        "keepalives_idle": 15,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": SILENCE_SECONDS * 1000,
        "gssencmode": "disable",
        "application_name": "quittance",
    }
    arguments |= {"user": url.username} if url.username else {}
    arguments |= {"password": str(url.password)} if url.password else {}
    arguments |= dict(url.query)
    if arguments.get("sslrootcert", "system") != "system":
        arguments["sslrootcert"] = tools.path(arguments["sslrootcert"])
    return arguments


def mysql_arguments(url: URL, tools: Tools) -> dict[str, Any]:
    """The driver gets the checked address; the TLS context keeps the name for the certificate."""
    port = url.port or _PORTS["mysql"]
    arguments: dict[str, Any] = {
        "host": tools.resolve(url.host or "", port),
        "port": port,
        "database": url.database,
        "user": url.username or "",
        "password": str(url.password or "").encode(),
        "charset": "utf8mb4",
        "connect_timeout": CONNECT_SECONDS,
        "read_timeout": SILENCE_SECONDS,
        "write_timeout": SILENCE_SECONDS,
        "client_flag": CLIENT.FOUND_ROWS,
        "local_infile": False,
        "program_name": "quittance",
    }
    if authority := url.query.get("ssl_ca"):
        checks_name = _YES_NO[str(url.query.get("ssl_check_hostname", "true"))]
        context = _NamedTls(ssl.PROTOCOL_TLS_CLIENT)
        context.peer = url.host or ""
        context.check_hostname = checks_name
        context.load_verify_locations(cafile=tools.path(str(authority)))
        arguments["ssl"] = context
    return arguments


class _NamedTls(ssl.SSLContext):
    """Checks the certificate against the configured name, though the driver knows the address."""

    peer: str = ""

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        return super().wrap_socket(*args, **(kwargs | {"server_hostname": self.peer}))


def _begin_by_hand(engine: Engine) -> None:
    """Readers begin plainly, writers take the write lock at once (no upgrade that could fail)."""

    def begin(conn: Connection) -> None:
        writes = conn.get_execution_options().get("writes", False)
        conn.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    event.listen(engine, "begin", begin)


def _interrupt_slow_statements(engine: Engine, seconds: float) -> None:
    """SQLite has no statement timeout; its progress handler is one."""

    def start(conn: Connection, *_: object) -> None:
        ends_at = time.monotonic() + seconds
        raw: object = conn.connection.dbapi_connection
        if isinstance(raw, sqlite3.Connection):
            raw.set_progress_handler(lambda: int(time.monotonic() > ends_at), 10_000)

    event.listen(engine, "before_cursor_execute", start)


def _limit_postgres(conn: Connection, timeouts: Timeouts) -> None:
    """For this transaction only; late constraints speak at once, so that a person's own fail."""
    for name, seconds in (
        ("statement_timeout", timeouts.statement),
        ("lock_timeout", timeouts.lock),
    ):
        conn.execute(select(func.set_config(name, str(int(seconds * 1000)), True)))
    conn.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))


def _limit_mysql(conn: Connection, timeouts: Timeouts) -> None:
    lock = {"seconds": max(1, round(timeouts.lock))}
    conn.execute(text("SET SESSION innodb_lock_wait_timeout = :seconds"), lock)
    if getattr(conn.dialect, "is_mariadb", False):
        statement = text("SET SESSION max_statement_time = :limit")
        conn.execute(statement, {"limit": timeouts.statement})
    else:
        statement = text("SET SESSION max_execution_time = :limit")
        conn.execute(statement, {"limit": int(timeouts.statement * 1000)})
