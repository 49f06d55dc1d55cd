"""A running Quittance as its users have it: real processes, real databases, HTTP only."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import httpx

PATIENCE = 60.0
Found = TypeVar("Found")


def wait_for(look: Callable[[], Found | None], what: str, seconds: float = PATIENCE) -> Found:
    """Poll until ``look`` answers something true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited {seconds:.0f} s for {what}")


class Instance:
    """One installation; ``start`` and ``kill`` its processes, talk to it with ``api``."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self.directory = directory
        self.shared = directory / "shared"
        self.shared.mkdir(parents=True, exist_ok=True)
        self.environment = {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith("QUITTANCE_")
            },
            "QUITTANCE_DATA_DIR": str(directory),
            "QUITTANCE_ALLOWED_PRIVATE_NETWORKS": "127.0.0.0/8",
            "QUITTANCE_LEASE_SECONDS": "10",
            **environment,
        }
        self.processes: list[subprocess.Popen[str]] = []
        self.base_url = ""
        self.key = ""
        self.admin_link = ""
        self.site_key: str | None = None
        self.api = self.visitor = httpx.Client(trust_env=False)

    def quittance(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command of the CLI to its end."""
        return subprocess.run(
            [sys.executable, "-m", "app.cli", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=check,
            cwd=Path(__file__).parents[2],
        )

    def launch(self, *arguments: str, **more: str) -> subprocess.Popen[str]:
        """Start a long-running command; its log goes beside the data. ``more``: variables for it
        alone.
        """
        log = (self.directory / f"{arguments[0]}.log").open("a")
        process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", *arguments],
            env=self.environment | more,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        log.close()
        self.processes.append(process)
        return process

    def start(self, **more: str) -> None:
        """Everything; ``more``: variables for this start."""
        raise NotImplementedError

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        for process in self.processes:
            process.send_signal(number)
        for process in self.processes:
            process.communicate(timeout=PATIENCE)
        self.processes.clear()

    def process(self, role: str) -> subprocess.Popen[str]:
        """The newest process of that command: ``up``, ``serve``, ``worker`` or ``scheduler``."""
        return next(each for each in reversed(self.processes) if role in cast("Any", each.args))

    def end(self, role: str, number: signal.Signals) -> None:
        """One process; it may have ended by itself."""
        process = self.process(role)
        process.send_signal(number)
        process.communicate(timeout=PATIENCE)
        self.processes.remove(process)

    def kill(self) -> None:
        """Everything at once, without a goodbye."""
        self.stop(signal.SIGKILL)

    def _connect(self) -> None:
        """Clients for the address and key that are known now: ``api`` with the key, ``visitor``
        without.
        """
        self.disconnect()
        self.api = httpx.Client(
            base_url=self.base_url,
            headers={"Authorization": f"Bearer {self.key}"},
            timeout=30,
            trust_env=False,
        )
        self.visitor = httpx.Client(base_url=self.base_url, timeout=30, trust_env=False)

    def disconnect(self) -> None:
        for client in (self.api, self.visitor):
            client.close()

    def settled(self, request_id: str) -> dict[str, Any]:
        """The request once it has come to its end."""

        def look() -> dict[str, Any] | None:
            found: dict[str, Any] = (
                self.api.get(f"/v1/requests/{request_id}").raise_for_status().json()
            )
            return found if found["completed_at"] else None

        return wait_for(look, f"{request_id} to settle")

    def watched_at(self) -> str:
        """Where health and metrics of the process are that delivers."""
        port = self.environment.get("QUITTANCE_WORKER_METRICS_PORT")
        return f"http://127.0.0.1:{port}" if port else self.base_url

    def logs(self) -> str:
        """All that the processes wrote."""
        return "".join(path.read_text() for path in sorted(self.directory.glob("*.log")))


class Embedded(Instance):
    """One process, SQLite, in-memory broker."""

    def start(self, **more: str) -> None:
        process = self.launch("up", "--port", "0", "--no-demo", "--json", **more)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, self.logs()
        welcome = json.loads(line)
        self.base_url, self.key, self.admin_link = (
            welcome["base_url"],
            welcome["api_key"],
            welcome["admin_link"],
        )
        self.site_key = welcome["site_key"]
        self._connect()


class Distributed(Instance):
    """Web, worker and scheduler processes on PostgreSQL and a real broker."""

    def start(self, **more: str) -> None:
        self.base_url = f"http://127.0.0.1:{self.environment['QUITTANCE_PORT']}"
        if not self.key:
            self.key = self.set_up()
        self._connect()
        for role in ("serve", "worker", "scheduler"):
            self.launch(role, **more)
        wait_for(self._is_ready, "the web process to be ready")

    def set_up(self) -> str:
        """Make databases, key file and a workspace as an operator does; returns a key."""
        self.quittance("migrate")
        self.quittance("workspace", "create", "--name", "Journey")
        made = self.quittance("key", "create", "--name", "test", "--scope", "all", "--json")
        return str(json.loads(made.stdout)["key"])

    def _is_ready(self) -> bool:
        try:
            return self.visitor.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False
