"""The figures of the consent endpoint, on both databases."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from app.core.clock import rfc3339, utc_now
from benchmarks.engine.databases import Server, given
from benchmarks.engine.figures import HEADING, Figure, Goal
from benchmarks.engine.pace import FULL, QUICK, Pace
from benchmarks.engine.processes import ROOT, Group, python

CONNECTIONS = 64
ORIGIN = "https://shop.example"
PURPOSES = ("functional", "analytics", "advertising")


class Load:
    """The load generator, in a process of its own."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "benchmarks.consent.load"]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._line()

    def post(self, server: Contender, seconds: float) -> dict[str, float]:
        """One turn of posting; whatever is refused makes the turn worthless."""
        wanted = {
            "port": server.port,
            "connections": CONNECTIONS,
            "seconds": seconds,
            "head": ["host: localhost", f"origin: {ORIGIN}", "content-type: application/json"],
            "body": json.dumps(server.body),
        }
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(wanted) + "\n")
        self._process.stdin.flush()
        seen: dict[str, float] = json.loads(self._line())
        if seen["refused"]:
            raise RuntimeError(f"{seen['refused']:.0f} choices were refused by port {server.port}")
        return seen

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def end(self) -> None:
        self._process.terminate()
        self._process.communicate()


@dataclass(frozen=True, slots=True)
class Contender:
    """A server that takes choices, held still while others are measured."""

    group: Group
    port: int
    body: Mapping[str, Any]


def show(*, is_quick: bool) -> None:
    """Measure and print, line by line."""
    print(HEADING, flush=True)
    pace = QUICK if is_quick else FULL
    with ExitStack() as stack:
        load = Load()
        stack.callback(load.end)
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        nothing = stack.enter_context(_reference(directory, None))
        for name in ("PostgreSQL", "SQLite"):
            for figure in _figures(name, pace, load, directory, nothing):
                print(figure.line(), flush=True)


def _figures(
    name: str, pace: Pace, load: Load, directory: Path, nothing: Contender
) -> Iterator[Figure]:
    with ExitStack() as stack:
        if name == "PostgreSQL":
            server = Server(given("TEST_POSTGRES_URL"))
            main, keys, plain = (
                server.address(stack.enter_context(server.database())) for _ in range(3)
            )
            where = {"QUITTANCE_DATABASE_URL": main, "QUITTANCE_KEYSTORE_URL": keys}
            plain = plain.replace("postgresql://", "postgresql+psycopg://")
        else:
            where, plain = {}, f"sqlite+aiosqlite:///{directory / 'plain.sqlite'}"
        ours = stack.enter_context(_quittance(directory / name, where))
        each = stack.enter_context(_reference(directory, plain))
        measured = _take_turns(pace, load, ours, nothing, each)
    rate, p99 = ([seen[what] for seen in measured] for what in ("rate", "p99"))
    yield Figure(
        f"choices stored, {name}, against an endpoint that stores none",
        rate[0], "/s", Goal(0.5, 1.0), rate[1],
    )  # fmt: skip
    yield Figure(
        f"... p99, {name}, against one ORM commit per request",
        p99[0], "ms", Goal(0.25, 0.1, is_ceiling=True), p99[2],
    )  # fmt: skip


def _take_turns(pace: Pace, load: Load, *contenders: Contender) -> list[dict[str, float]]:
    """The median of each figure over the turns, one contender after the other in each turn."""
    seen: list[list[dict[str, float]]] = [[] for _ in contenders]
    for each in contenders:
        each.group.hold()
    for number in range(pace.turns + 1):
        for mine, each in zip(seen, contenders, strict=True):
            each.group.go_on()
            mine.append(load.post(each, pace.seconds if number else pace.warm_up / 2))
            each.group.hold()
            time.sleep(0.2)
    return [
        {name: statistics.median(turn[name] for turn in mine[1:]) for name in mine[0]}
        for mine in seen
    ]


@contextmanager
def _quittance(directory: Path, where: Mapping[str, str]) -> Iterator[Contender]:
    """The product in one process, with a published site."""
    directory.mkdir()
    environment = {
        "QUITTANCE_DATA_DIR": str(directory),
        "QUITTANCE_LOG_LEVEL": "WARNING",
        "QUITTANCE_CONSENT_PER_MINUTE": "100000000",
        **where,
    }
    command = ["-m", "app.cli", "up", "--port", "0", "--no-demo", "--json"]
    with python(command, directory / "up.log", environment) as group:
        welcome = json.loads(group.first_line())
        headers = {"authorization": f"Bearer {welcome['api_key']}"}
        with httpx.Client(
            base_url=welcome["base_url"], headers=headers, timeout=30, trust_env=False
        ) as client:
            made = client.post("/v1/sites", json={"name": "Shop", "origins": [ORIGIN]})
            site_key = made.raise_for_status().json()["site_key"]
            published = client.post(f"/v1/sites/{site_key}/publish").raise_for_status().json()
        port = httpx.URL(welcome["base_url"]).port
        assert port is not None
        yield Contender(group, port, _body(site_key, published["notice_version"]))


@contextmanager
def _reference(directory: Path, database: str | None) -> Iterator[Contender]:
    environment = {"REFERENCE_DATABASE": database} if database else {}
    log = directory / "reference.log"
    with python(["-m", "benchmarks.consent.reference"], log, environment) as group:
        yield Contender(group, int(group.first_line()), _body("site", "version"))


def _body(site_key: str, notice_version: str) -> dict[str, Any]:
    """What the widget posts when somebody accepts."""
    return {
        "event_id": "EVENT", "site_key": site_key, "visitor_id": "VISITOR",
        "notice_version": notice_version, "choices": dict.fromkeys(PURPOSES, True),
        "method": "accept_all", "language": "en", "region": "DE", "gpc": False,
        "decided_at": rfc3339(utc_now()), "page": f"{ORIGIN}/",
    }  # fmt: skip
