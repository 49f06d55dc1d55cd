"""A stage for fault runs: one installation, its destinations, the people who were asked for, and a
way to hurt it that remembers what was in flight.
"""

from __future__ import annotations

import datetime as dt
import os
import random
import signal
import subprocess
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import httpx
import sqlalchemy as sa

from app.core.db import table_of
from app.core.failpoints import VARIABLE
from app.delivery.models import Ready
from tests.faults.destination import Destination, slow_answer
from tests.faults.history import Fault, Person
from tests.journeys.instance import Instance, wait_for

SETTLES_WITHIN = 100.0
"""Seconds: a lease that runs out, retries with their pauses, a breaker that opened once."""
AGAIN_LATER = {409, 429, 502, 503}
BYSTANDERS = 20
SPREAD = 0.8
"""Seconds over which people ask, so that calls are many and small."""


class Stage:
    """``begin`` before each scenario; ``ask``, ``strike``, ``settle``; then ``collect``."""

    def __init__(self, instance: Instance, destinations: Sequence[Destination]) -> None:
        self.instance = instance
        self.destinations = destinations
        self.ids: dict[str, str] = {}
        """Name -> id of the configured destination."""
        database = instance.environment.get(
            "QUITTANCE_DATABASE_URL", f"sqlite:///{instance.directory / 'quittance.sqlite'}"
        )
        self.engine = sa.create_engine(database, poolclass=sa.NullPool, hide_parameters=True)
        self.people: dict[str, Person] = {}
        self.faults: list[Fault] = []
        self.refusals: Counter[str] = Counter()
        """What those heard who had to ask again: ``503 urn:quittance:...``, or an exception."""
        self.sinks: dict[str, bytes] = {}
        """What a scenario found where no identifier may be."""
        self.started_at = 0.0
        self.seed = 0
        self.chance = random.Random()
        self._gone_before: dict[str, Person] = {}
        self._lock = threading.Lock()

    def configure(self) -> None:
        """Name the destinations to the service; strangers who are nobody's business live there."""
        for each in self.destinations:
            if each.name not in self.ids:
                body = {"name": each.name, "connector": "webhook", "settings": {"url": each.url}}
                made = self.instance.api.post("/v1/destinations", json=body).raise_for_status()
                self.ids[each.name] = made.json()["id"]
                each.held |= {value for _ in range(BYSTANDERS) for value in somebody()}

    def begin(self, seed: int) -> None:
        """A new scenario: what happened before is no part of its history."""
        self.seed = seed
        self.chance.seed(seed)
        self.people.clear()
        self.faults.clear()
        self.refusals.clear()
        self.sinks.clear()
        self.started_at = time.time()
        for each in self.destinations:
            each.script.clear()
            each.default = slow_answer(0.2)
            self._gone_before[each.name] = frozenset(each.removed)

    def gone(self, destination: Destination) -> Person:
        """What this scenario took away from a destination."""
        return frozenset(destination.removed) - self._gone_before[destination.name]

    # What people do

    def ask(self, count: int = 12, *, by_mail: bool = False) -> None:
        """Erase so many people, one request each, within a second; returns when all are
        acknowledged.

        Whoever gets no answer asks again under the same Idempotency-Key. ``by_mail``: the receipt
        goes to the person, who is forgotten after that.
        """
        pauses = [self.chance.uniform(0, SPREAD) for _ in range(count)]
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(lambda pause: self._ask_one(pause, by_mail=by_mail), pauses))

    def _ask_one(self, pause: float, *, by_mail: bool) -> None:
        time.sleep(pause)
        person = somebody()
        for each in self.destinations:
            each.held |= person
        body: dict[str, object] = {
            "kind": "erasure",
            "identifiers": [{"kind": kind, "value": value} for kind, value in sorted(person)],
        }
        if by_mail:
            body["contact_email"] = dict(person)["email"]
        key = {"Idempotency-Key": uuid.uuid4().hex}
        request_id = wait_for(lambda: self._post(body, key), "an acknowledgement")
        with self._lock:
            self.people[request_id] = person

    def _post(self, body: dict[str, object], key: dict[str, str]) -> str | None:
        try:
            answer = self.instance.api.post("/v1/requests", json=body, headers=key)
        except (httpx.TransportError, RuntimeError) as error:
            # A client that is closed under us (RuntimeError) belonged to a process that is gone.
            why = type(error).__name__
        else:
            if answer.status_code not in AGAIN_LATER | {401}:
                return str(answer.raise_for_status().json()["id"])
            is_problem = answer.headers.get("Content-Type") == "application/problem+json"
            why = f"{answer.status_code} {answer.json()['type'] if is_problem else ''}"
        with self._lock:
            self.refusals[why] += 1
        return None

    @contextmanager
    def asking(self, count: int = 12, *, by_mail: bool = False) -> Iterator[None]:
        """Ask while something else happens."""
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(self.ask, count, by_mail=by_mail)
            yield
            asked.result()

    def settle(self) -> None:
        """Wait until every acknowledged request has ended."""
        waiting = sa.text(
            "SELECT count(*) FROM subject_request WHERE id IN :ids AND completed_at IS NULL"
        ).bindparams(sa.bindparam("ids", expanding=True))

        def is_over() -> bool:
            with self.engine.connect() as connection:
                found = connection.execute(waiting, {"ids": list(self.people)})
                return bool(found.scalar_one() == 0)

        with suppress(AssertionError):  # the checker says who has not
            wait_for(is_over, "all requests to end", SETTLES_WITHIN)

    def unplanned(self) -> int:
        with self.engine.connect() as connection:
            resolving = "SELECT count(*) FROM subject_request WHERE status = 'resolving'"
            return int(connection.execute(sa.text(resolving)).scalar_one())

    # What is done to the service

    def run_out_of_time(self, destination: Destination) -> int:
        """Let all that waits there expire now, once everybody does; how many do."""
        ready, past = table_of(Ready), dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1)
        with self.engine.begin() as connection:
            waiting = connection.execute(
                sa.select(ready.c.delivery_id).where(
                    ready.c.queue_id == self.ids[destination.name],
                    ready.c.call_id.is_(None),
                )
            )
            found = list(waiting.scalars())
            if len(found) == len(self.people):
                connection.execute(
                    sa.update(ready).where(ready.c.delivery_id.in_(found)).values(expires_at=past)
                )
        return len(found)

    def open_calls(self) -> frozenset[str]:
        with self.engine.connect() as connection:
            return frozenset(connection.execute(sa.text("SELECT call_id FROM open_call")).scalars())

    def strike(
        self,
        name: str,
        hurt: Callable[[], object],
        heal: Callable[[], object] = lambda: None,
        *,
        lasts: float = 0.0,
    ) -> None:
        """Hurt it, heal it, and wait until it answers; notes what was in flight and how long it
        took. ``lasts``: seconds before it is healed.
        """
        before = self.open_calls()
        hurt()
        try:
            in_flight = self.open_calls()
        except sa.exc.OperationalError:  # it is the database that was hurt
            in_flight = before
        time.sleep(lasts)
        began = time.monotonic()
        heal()
        with suppress(AssertionError):
            wait_for(self.is_ready, "the service to be ready")
        recovered = time.monotonic() - began if self.is_ready() else None
        if in_flight is before:
            in_flight |= self.open_calls()
        self.faults.append(Fault(name, in_flight, recovered))

    def strike_lightly(self, name: str, hurt: Callable[[], object]) -> None:
        """Take something away that no call in flight depends on: nothing may be repeated."""
        hurt()
        began = time.monotonic()
        wait_for(self.is_ready, "the service to be ready")
        self.faults.append(Fault(name, frozenset(), time.monotonic() - began))

    def is_ready(self) -> bool:
        try:
            return (
                self.instance.visitor.get("/readyz").status_code == 200
                and self.instance.api.get("/v1/queues").status_code == 200
            )
        except httpx.TransportError:
            return False

    def arm(self, role: str, failpoint: str) -> subprocess.Popen[str]:
        """Start a process anew, to die or stop at this place."""
        self.instance.end(role, signal.SIGTERM)
        before = self.logged("worker_started")
        self._launch(role, **{VARIABLE: failpoint})
        if role == "worker":
            wait_for(lambda: self.logged("worker_started") > before, "the worker to start")
        return self.instance.process(role)

    def logged(self, event: str) -> int:
        """How often a log line of this name was written."""
        return self.instance.logs().count(f'"event": "{event}"')

    def restart(self, role: str) -> None:
        """A killed process as its supervisor would start it: unarmed."""
        self.instance.end(role, signal.SIGKILL)
        self._launch(role)

    def _launch(self, role: str, **more: str) -> None:
        if role == "up":
            self.instance.start(**more)
        else:
            self.instance.launch(role, **more)

    def recover(self) -> None:
        """After a scenario that broke off: everything anew, and unarmed."""
        self.instance.kill()
        self.instance.start()

    def close(self) -> None:
        self.instance.kill()
        self.instance.disconnect()
        for each in self.destinations:
            each.close()


def await_death(process: subprocess.Popen[str]) -> None:
    """Until an armed process has killed itself."""
    wait_for(lambda: process.poll() is not None, "the armed process to die at its failpoint")
    if process.returncode != -signal.SIGKILL:
        raise AssertionError(f"it ended with {process.returncode}, not at its failpoint")


def await_stop(process: subprocess.Popen[str]) -> None:
    """Until an armed process has frozen itself."""
    seen = os.WSTOPPED | os.WNOHANG | os.WNOWAIT
    wait_for(lambda: os.waitid(os.P_PID, process.pid, seen), "the armed process to freeze")


def somebody() -> Person:
    """A person nobody else shares an identifier with."""
    canary = uuid.uuid4().hex
    return frozenset({("email", f"{canary}@customer.example"), ("user_id", f"u-{canary}")})
