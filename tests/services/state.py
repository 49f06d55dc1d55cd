"""What runs, where, and for whom: one JSON file per set of servers, changed only under a lock."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.services import install, processes
from tests.services.install import find
from tests.services.processes import Process
from tests.services.servers import SERVERS, Plan

HOME = Path(__file__).resolve().parents[2] / "var" / "test-services"
START_SECONDS = 90


@dataclass(slots=True)
class Running:
    """One server: its processes in the order they were started, and what it takes to ask it."""

    directory: str
    ports: list[int]
    password: str
    processes: list[Process]

    @property
    def has_ended(self) -> bool:
        return not all(process.is_alive for process in self.processes)


@dataclass(slots=True)
class State:
    """A set of servers, those who use it, and whether it stays when the last user leaves."""

    is_durable: bool
    is_kept: bool = False
    users: list[Process] = field(default_factory=list)
    running: dict[str, Running] = field(default_factory=dict)

    def plan(self, name: str) -> Plan:
        one = self.running[name]
        return Plan(Path(one.directory), tuple(one.ports), one.password, self.is_durable)

    def is_healthy(self, name: str) -> bool:
        return not self.running[name].has_ended and SERVERS[name].answers(self.plan(name))

    def start(self, names: list[str]) -> dict[str, str]:
        """Start those of ``names`` that do not run well, side by side; returns failures."""
        wanted = [name for name in names if name not in self.running or not self.is_healthy(name)]
        self.stop([name for name in wanted if name in self.running])
        with ThreadPoolExecutor(max_workers=max(1, len(wanted))) as pool:
            reasons = dict(zip(wanted, pool.map(self._start_twice, wanted), strict=True))
        return {name: reason for name, reason in reasons.items() if reason}

    def _start_twice(self, name: str) -> str:
        """Somebody may take a port between our finding and using it: a second try gets others."""
        return self._start(name) and self._start(name)

    def _start(self, name: str) -> str:
        """Start one server and wait until it answers; returns the reason when it does not."""
        server = SERVERS[name]
        user = processes.account(server.account)
        directory = private_directory(name, user, is_durable=self.is_durable)
        one = Running(
            str(directory), processes.free_ports(server.port_count), secrets.token_hex(16), []
        )
        self.running[name] = one
        plan = self.plan(name)
        try:
            one.processes = server.start(plan, user)
        except (OSError, processes.Failed) as error:
            reason = str(error)
        else:
            if processes.wait_until(lambda: one.has_ended or server.answers(plan), START_SECONDS):
                if not one.has_ended:
                    return ""
                reason = "it ended"
            else:
                reason = f"no answer in {START_SECONDS} s"
        with suppress(FileNotFoundError):
            reason += "\n" + plan.log.read_text(errors="replace")[-2000:]
        self.stop([name])
        return reason

    def stop(self, names: list[str]) -> None:
        """Stop servers we started, side by side, and delete what they wrote."""
        with ThreadPoolExecutor(max_workers=max(1, len(names))) as pool:
            list(pool.map(self._stop, names))

    def _stop(self, name: str) -> None:
        one = self.running.pop(name)
        for process in reversed(one.processes):
            processes.stop(process, SERVERS[name].stop_signal)
        shutil.rmtree(one.directory, ignore_errors=True)

    def halt(self, name: str, number: signal.Signals) -> None:
        """End a server's processes, the server first; what they wrote stays for ``resume``."""
        for process in reversed(self.running[name].processes):
            processes.stop(process, number)

    def resume(self, name: str) -> None:
        """Start a halted server again, where it was and with what it had."""
        one, server = self.running[name], SERVERS[name]
        for _ in range(20):  # what a killed server left behind may bar the way for a moment
            one.processes = server.start(self.plan(name), processes.account(server.account))
            processes.wait_until(lambda: one.has_ended or self.is_healthy(name), START_SECONDS)
            if self.is_healthy(name):
                return
        raise processes.Failed(f"{name} does not start again")

    def environment(self) -> dict[str, str]:
        """The variables that tell the tests where everything is."""
        found = {
            SERVERS[name].variable: SERVERS[name].address(one.ports[0], one.password)
            for name, one in sorted(self.running.items())
        }
        absent = install.missing()
        for name, variable in install.BROWSERS.items():
            if path := os.environ.get(variable):
                found[variable] = path
            elif name not in absent:
                found[variable] = find(install.PROGRAMS[name][0]) or ""
        return found


def private_directory(name: str, user: str | None, *, is_durable: bool) -> Path:
    """A new directory outside the repository, which a server's account may be unable to reach.

    In memory where there is room, unless commits must reach a disk: a new database then takes
    12 ms instead of 330.
    """
    parents = [Path(tempfile.gettempdir()), Path("/var/tmp")]  # noqa: S108 - mkdtemp below
    memory = Path("/dev/shm")  # noqa: S108 - likewise
    if not is_durable and os.access(memory, os.W_OK) and has_room(memory):
        parents.insert(0, memory)
    parent = next(p for p in parents if user is None or is_traversable(p))
    directory = Path(tempfile.mkdtemp(prefix=f"quittance-{name}-", dir=parent))
    if user is not None:
        os.chown(directory, *processes.ids(user))
    return directory


def has_room(path: Path) -> bool:
    return shutil.disk_usage(path).free > 2 << 30


def is_traversable(path: Path) -> bool:
    """Whether any account may walk through ``path`` and all above it."""
    return all(each.stat().st_mode & 0o001 for each in (path.resolve(), *path.resolve().parents))


@contextmanager
def opened(*, is_durable: bool) -> Iterator[State]:
    """The state, locked; what happened to it inside is written back, also after a failure."""
    HOME.mkdir(parents=True, exist_ok=True)
    path = HOME / ("durable.json" if is_durable else "state.json")
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        state = load(path, is_durable=is_durable)
        try:
            yield state
        finally:
            save(path, state)


def load(path: Path, *, is_durable: bool) -> State:
    if not path.exists():
        return State(is_durable)
    raw: dict[str, Any] = json.loads(path.read_text())
    running = {
        name: Running(**one | {"processes": [Process(**p) for p in one["processes"]]})
        for name, one in raw["running"].items()
    }
    users = [user for user in (Process(**p) for p in raw["users"]) if user.is_alive]
    return State(is_durable, raw["is_kept"], users, running)


def save(path: Path, state: State) -> None:
    if not state.running:
        path.unlink(missing_ok=True)
        return
    draft = path.with_suffix(".new")
    draft.touch(mode=0o600)
    draft.write_text(json.dumps(asdict(state), indent=1))
    draft.replace(path)
