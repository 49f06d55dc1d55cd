"""Processes that outlive their parent, known by pid and start time: no stranger is signalled."""

from __future__ import annotations

import os
import pwd
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path


class Failed(Exception):
    """A preparing command did not succeed; the log has its words."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process: a pid alone may have been given to somebody else since."""

    pid: int
    started: str

    @property
    def is_alive(self) -> bool:
        return start_time(self.pid) == self.started


def start_time(pid: int) -> str | None:
    """When ``pid`` began, in the system's own words; None when it is gone or a zombie."""
    if Path("/proc/self/stat").exists():
        try:
            # The name in parentheses may hold spaces: count from the last one.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if fields[0] in "ZX" else fields[19]
    shown = subprocess.run(
        ["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split(maxsplit=1)
    return None if len(shown) < 2 or shown[0].startswith("Z") else shown[1].strip()


def current() -> Process:
    return Process(os.getpid(), start_time(os.getpid()) or "")


def account(name: str) -> str | None:
    """The account a server runs as: its package's own when we are root, else ourselves (None)."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(name).pw_name
    except KeyError:
        return "nobody"


def launch(
    command: Sequence[str], *, log: Path, user: str | None, env: Mapping[str, str] | None = None
) -> Process:
    """Start ``command`` in a session of its own, writing to ``log``."""
    with log.open("ab") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=log.parent,
            env=env,
            start_new_session=True,
            user=user,
            group=None if user is None else ids(user)[1],
            extra_groups=None if user is None else [],
        )
    child.returncode = 0  # it outlives this object on purpose; `stop` reaps it
    return Process(child.pid, start_time(child.pid) or "")


def run(command: Sequence[str], *, log: Path, user: str | None) -> None:
    """Run a preparing command to its end; its output is in ``log``. Raises ``Failed``."""
    with log.open("ab") as output:
        ended = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=log.parent,
            check=False,
            timeout=120,
            user=user,
            group=None if user is None else ids(user)[1],
            extra_groups=None if user is None else [],
        )
    if ended.returncode:
        raise Failed(f"{Path(command[0]).name} ended with {ended.returncode}")


def ids(user: str) -> tuple[int, int]:
    entry = pwd.getpwnam(user)
    return entry.pw_uid, entry.pw_gid


def stop(process: Process, first_signal: signal.Signals, patience: float = 20) -> None:
    """Ask, wait ``patience`` seconds, then insist; the whole process group goes."""
    if not process.is_alive:
        reap(process)
        return
    os.kill(process.pid, first_signal)
    if not wait_until(lambda: not process.is_alive, patience):
        os.killpg(process.pid, signal.SIGKILL)
        wait_until(lambda: not process.is_alive, 5)
    reap(process)


def reap(process: Process) -> None:
    """Take the exit status if it was our own child, so that no zombie stays."""
    try:
        os.waitpid(process.pid, os.WNOHANG)
    except ChildProcessError:
        return


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Poll ``condition`` until it holds or ``seconds`` have passed; the answer says which."""
    deadline = time.monotonic() + seconds
    while not (held := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return held


def free_ports(count: int) -> list[int]:
    """Distinct free loopback ports; all are held until the last is found."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
