"""Processes of a benchmark: started in groups of their own, held still, let run, stopped."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Group:
    """A process with all its children. While it is held it uses no processor time."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self.log = log

    @property
    def pid(self) -> int:
        return self.process.pid

    def hold(self) -> None:
        os.killpg(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        if self.process.poll() is not None:
            raise RuntimeError(
                f"a process has ended, see {self.log}:\n{self.log.read_text()[-2000:]}"
            )
        os.killpg(self.pid, signal.SIGCONT)

    def first_line(self) -> str:
        """What it prints once it is ready; waits for it."""
        assert self.process.stdout is not None
        if line := self.process.stdout.readline():
            return line
        raise RuntimeError(f"it did not start:\n{self.log.read_text()[-2000:]}")

    def memory(self) -> float:
        """Resident megabytes of the process itself."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+)", status)
        return int(found[1]) / 1024 if found else float("nan")

    def end(self) -> None:
        """Ask, wait, insist; nothing when it has ended already."""
        if self.process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGCONT)
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(15)
            os.killpg(self.pid, signal.SIGKILL)
        self.process.communicate()


@contextmanager
def python(
    arguments: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[Group]:
    """``python -W ignore ARGUMENTS``, ended on leaving; its errors go to ``log``."""
    with run([sys.executable, "-W", "ignore", *arguments], log, environment) as group:
        yield group


@contextmanager
def run(
    command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[Group]:
    with log.open("ab") as errors:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | (environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
    group = Group(process, log)
    try:
        yield group
    finally:
        group.end()
