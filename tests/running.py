"""The whole service in one process, to be driven step by step: real databases, the real API, and
destinations whose answers a test writes.

No pump runs by itself: ``service.work()`` does what is due until nothing is. Time goes on when a
test says so (``service.later(days=3)``). ``service.crash()`` is a kill -9 of the worker.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import inspect
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
import structlog
import time_machine
from fastapi import FastAPI
from starlette.datastructures import State

import app.main
import app.tables
from app.compose import Runtime
from app.core.clock import utc_now
from app.core.courtesy import Courtesy
from app.core.ids import new_id
from app.core.logging import drop_unknown
from app.core.settings import Settings
from app.crypto import keyring
from app.security import api_keys
from app.security.models import Workspace
from connectors.contract import (
    AnyConnector,
    Connector,
    ConnectorSettings,
    Identifier,
    Outcome,
    PeopleConnector,
    Person,
    done,
)

BOB = "bob.subject@customer.example"
CAROL = "carol.subject@customer.example"
PATIENCE = 15.0


@dataclass(frozen=True)
class Asked:
    """One call that reached a destination."""

    call_id: str
    method: str
    attempt: int
    people: tuple[Person, ...] = ()
    job: str | None = None
    kind: str | None = None
    values: tuple[str, ...] = ()

    @property
    def deliveries(self) -> list[str]:
        return [each.id for each in self.people]


Answer = Outcome | Mapping[Any, Any] | Exception | Callable[[Asked], Any]


class Double:
    """A destination with scripted answers: ``answers`` one after the other, then ``default``."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.answers: list[Answer] = []
        self.default: Answer = done()
        self.asked: list[Asked] = []
        self.gate = asyncio.Event()
        """Closed, it lets nobody out: calls arrive and wait."""
        self.gate.set()
        self.reached = asyncio.Event()
        """Set by the first call."""

    @property
    def call_ids(self) -> list[str]:
        return [each.call_id for each in self.asked]

    async def answer(self, asked: Asked) -> Any:
        self.asked.append(asked)
        self.reached.set()
        await self.gate.wait()
        given = self.answers.pop(0) if self.answers else self.default
        if isinstance(given, Exception):
            raise given
        if not callable(given):
            return given
        found = given(asked)
        return await found if inspect.isawaitable(found) else found


class _Settings(ConnectorSettings):
    identity_source: bool = False


def people_connector(double: Double, **traits: Any) -> type[AnyConnector]:
    """A connector that takes whole people and asks ``double`` what to say."""

    class Scripted(PeopleConnector):
        title = double.name
        Settings = _Settings  # type: ignore[assignment]

        async def test(self) -> Any:
            return await self._ask("test", ())

        async def erase(self, people: Sequence[Person]) -> Any:
            return await self._ask("erase", people)

        async def suppress(self, people: Sequence[Person]) -> Any:
            return await self._ask("suppress", people)

        async def unsuppress(self, people: Sequence[Person]) -> Any:
            return await self._ask("unsuppress", people)

        async def poll(self, job: str) -> Any:
            call = self.tools.call
            return await double.answer(Asked(call.id, "poll", call.attempt, job=job))

        async def _ask(self, method: str, people: Sequence[Person]) -> Any:
            call = self.tools.call
            return await double.answer(Asked(call.id, method, call.attempt, tuple(people)))

    for name, value in traits.items():
        setattr(Scripted, name, value)
    return Scripted


def source_connector(
    double: Double, known: Mapping[str, Sequence[Identifier]]
) -> type[AnyConnector]:
    """An identity source: what it knows of people, by any of their values."""
    base: Any = people_connector(double)

    class Source(base):  # type: ignore[misc]
        async def lookup(self, people: Sequence[Person]) -> Any:
            answer = await double.answer(Asked("lookup", "lookup", 1, tuple(people)))
            if isinstance(answer, Outcome) and answer != done():
                return answer
            return {
                person.id: [
                    found for each in person.identifiers for found in known.get(each.value, ())
                ]
                for person in people
            }

    return Source


def values_connector(double: Double, **traits: Any) -> type[AnyConnector]:
    """A connector that takes values of one kind, as most vendors' APIs do."""

    class Scripted(Connector):
        title = double.name
        accepts = ("email",)
        Settings = _Settings  # type: ignore[assignment]

        async def erase(self, kind: str, values: Sequence[str]) -> Any:
            call = self.tools.call
            return await double.answer(
                Asked(call.id, "erase", call.attempt, kind=kind, values=tuple(values))
            )

    for name, value in traits.items():
        setattr(Scripted, name, value)
    return Scripted


@dataclass
class Service:
    """What a test acts with. alice may do all, eve too but elsewhere; ``keys`` has the rest."""

    runtime: Runtime
    app: FastAPI
    client: httpx.AsyncClient
    settings: Settings
    connectors: dict[str, type[AnyConnector]]
    traveller: Any
    workspaces: dict[str, str] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    doubles: dict[str, Double] = field(default_factory=dict)
    destinations: dict[str, str] = field(default_factory=dict)
    workers: list[Runtime] = field(default_factory=list)
    _crashed: list[Runtime] = field(default_factory=list)
    _maintain: Any = None
    _watch: Any = None

    # --- the API

    async def call(
        self, method: str, path: str, json: Any = None, who: str | None = "alice", **headers: str
    ) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if who is not None:
            named["authorization"] = f"Bearer {self.keys[who]}"
        return await self.client.request(method, path, json=json, headers=named)

    async def get(self, path: str, who: str = "alice") -> Any:
        answer = await self.call("GET", path, who=who)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def post(
        self, path: str, json: Any = None, expect: int = 200, who: str = "alice", **headers: str
    ) -> Any:
        answer = await self.call("POST", path, json, who, **headers)
        assert answer.status_code == expect, answer.text
        return answer.json()

    async def ask(
        self, *people: str, kind: str = "erasure", expect: int = 201, **more: Any
    ) -> dict[str, Any]:
        """A request for the person with these e-mail addresses."""
        identifiers = more.pop("identifiers", None) or [
            {"kind": "email", "value": each} for each in (people or (BOB,))
        ]
        body = {"kind": kind, "identifiers": identifiers} | more
        made: dict[str, Any] = await self.post("/v1/requests", body, expect)
        return made

    async def request(self, request_id: str, who: str = "alice") -> dict[str, Any]:
        found: dict[str, Any] = await self.get(f"/v1/requests/{request_id}", who)
        return found

    async def delivery(self, request_id: str, name: str | None = None) -> dict[str, Any]:
        """The request's only delivery, or the one to the named destination, with its history."""
        found = [
            each
            for each in (await self.request(request_id))["deliveries"]
            if name is None or each["destination"]["id"] == self.destinations[name]
        ]
        assert len(found) == 1, found
        whole: dict[str, Any] = await self.get(f"/v1/deliveries/{found[0]['id']}")
        return whole

    async def queue(self, name: str) -> dict[str, Any]:
        rows = (await self.get("/v1/queues"))["items"]
        found: dict[str, Any] = next(
            each for each in rows if each["destination_id"] == self.destinations[name]
        )
        return found

    async def change_queue(self, name: str, action: str) -> dict[str, Any]:
        path = f"/v1/queues/{self.destinations[name]}/{action}"
        changed: dict[str, Any] = await self.post(path)
        return changed

    async def claims(self, request_id: str) -> dict[str, Any]:
        """What the newest receipt says, checked by its signature."""
        from app.receipts.verify import verify  # noqa: PLC0415 - only some tests read receipts

        answer = await self.call("GET", f"/v1/requests/{request_id}/receipt")
        assert answer.status_code == 200, answer.text
        keys = (await self.client.get("/.well-known/jwks.json")).json()
        return verify(answer.text, keys).claims

    # --- the world around it

    def double(self, name: str, make: Any = people_connector, *given: Any, **traits: Any) -> Double:
        """A kind of destination (a connector) whose answers the test writes."""
        double = self.doubles[name] = Double(name)
        self.connectors[name] = make(double, *given, **traits)
        for runtime in [self.runtime, *self.workers]:
            runtime.catalogue._found[name] = self.connectors[name]
            runtime.catalogue._loaders[name] = lambda: self.connectors[name]
        return double

    async def destination(
        self, name: str, make: Any = people_connector, *given: Any,
        settings: dict[str, Any] | None = None, more: dict[str, Any] | None = None, **traits: Any,
    ) -> Double:  # fmt: skip
        """A double that is configured as a destination of alice's workspace."""
        double = self.double(name, make, *given, **traits)
        body = {"name": name, "connector": name, "settings": settings or {}} | (more or {})
        made = await self.post("/v1/destinations", body, 201)
        self.destinations[name] = made["id"]
        return double

    async def add_workspace(self, name: str, **more: Any) -> str:
        workspace = Workspace(id=new_id("ws"), name=name, created_at=utc_now(), **more)
        async with self.runtime.database.writing() as session:
            session.add(workspace)
        self.workspaces[name] = workspace.id
        return workspace.id

    async def add_key(
        self, name: str, *scopes: str, workspace: str = "alice", expires_at: Any = None
    ) -> str:
        """A key; returns its id."""
        async with self.runtime.database.writing() as session:
            key, self.keys[name] = await api_keys.create(
                session,
                workspace_id=self.workspaces[workspace],
                name=name,
                scopes=scopes,
                created_by="test",
                grantor_scopes=["all"],
                now=utc_now(),
                expires_at=expires_at,
            )
        return key.id

    def later(self, **by: float) -> None:
        """Let time pass."""
        self.traveller.shift(dt.timedelta(**by))

    # --- its work

    async def work(self, until: Callable[[], bool] | None = None) -> None:
        """Do what is due until nothing is (or ``until`` says so), in every worker."""
        end = asyncio.get_running_loop().time() + PATIENCE
        quiet = 0
        while asyncio.get_running_loop().time() < end:
            more = any(not runtime.engine.is_idle for runtime in self.workers)
            for runtime in self.workers:
                for pump in runtime.pumps:
                    more = await pump.step() or more
            if until is not None and until():
                return
            quiet = 0 if more else quiet + 1
            if quiet == 2:  # twice: what the last pump changed, the first one must have seen
                assert until is None, "all is done, but not what was waited for"
                return
            await asyncio.sleep(0.001)
        busy = [(each.engine._held, each.engine._wanting) for each in self.workers]
        raise AssertionError(f"the service does not come to rest: {busy}")

    async def step(self, *names: str) -> None:
        """One step of the named pumps."""
        for pump in self.runtime.pumps:
            if pump.name in names:
                await pump.step()

    async def maintain(self) -> None:
        """What happens once an hour."""
        await self._maintain.step()
        await self.work()

    async def watch(self) -> None:
        """A look for alerts, as there is one every quarter of a minute, and their news."""
        while await self._watch.step():
            pass
        await self.step("alerts", "mail")

    async def add_worker(self) -> Runtime:
        """One more process on the same databases."""
        made = Runtime(self.settings, self.connectors)
        await self._start(made)
        self.workers.append(made)
        return made

    async def crash(self) -> None:
        """The only worker dies at once; another one takes over, its leases still running."""
        (dead,) = self.workers
        await dead.engine.stop(patience=0)
        dead.engine._held.clear()
        self.workers.remove(dead)
        if dead is not self.runtime:
            self._crashed.append(dead)
        await self.add_worker()

    async def expire_leases(self) -> None:
        self.later(seconds=self.settings.lease_seconds + 1)

    async def _start(self, runtime: Runtime) -> None:
        await runtime.start(with_pumps=False, with_worker=False)
        for pump in runtime._make_pumps():
            if pump.name == "maintain":
                self._maintain = pump
            elif pump.name == "watch":
                self._watch = pump
            else:
                runtime.pumps.add(pump)
        runtime.engine.start()

    async def close(self) -> None:
        for each in self.doubles.values():
            each.gate.set()
        for runtime in {*self.workers, *self._crashed, self.runtime}:
            await runtime.stop()

    # --- its rows

    async def rows(self, statement: str, **values: Any) -> list[Any]:
        async with self.runtime.database.reading() as session:
            return list((await session.execute(sa.text(statement), values)).all())

    async def run(self, statement: str, **values: Any) -> None:
        async with self.runtime.database.writing() as session:
            await session.execute(sa.text(statement), values)

    async def dump(self) -> dict[str, list[Any]]:
        """Every row of the main database, by table."""
        async with self.runtime.database.reading() as session:
            return {
                each.name: list((await session.execute(sa.select(each))).all())
                for each in app.tables.MAIN.sorted_tables
            }


@contextmanager
def plain_logs() -> Iterator[None]:
    """Logs as the service writes them, through the standard library, where ``caplog`` hears them.

    Unconfigured, structlog draws every exception with all its variables, for a second each.
    """
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            drop_unknown,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    try:
        yield
    finally:
        structlog.reset_defaults()


_applications: list[FastAPI] = []
"""Those that nobody uses now: making one takes longer than many a test."""


@contextmanager
def application_for(settings: Settings) -> Iterator[FastAPI]:
    """The application as ``create_app`` makes it, with nothing attached."""
    if _applications:
        application: Any = _applications.pop()
        application.state = State()
        application.surround(settings, Courtesy())
    else:
        application = app.main.create_app(settings)
    yield application
    _applications.append(application)


@asynccontextmanager
async def running(
    directory: Path, database_url: str, keystore_url: str, **more: Any
) -> AsyncIterator[Service]:
    """A service with two workspaces and nothing else."""
    settings = Settings(
        data_dir=directory / "data",
        database_url=database_url,
        keystore_url=keystore_url,
        base_url="http://quittance.test",
        **more,
    )
    (settings.data_dir / "shared").mkdir(parents=True, exist_ok=True)
    keyring.create(settings.key_file)
    connectors: dict[str, type[AnyConnector]] = {}
    with (
        plain_logs(),
        time_machine.travel(dt.datetime.now(dt.UTC), tick=True) as traveller,
        application_for(settings) as application,
    ):
        runtime = Runtime(settings, connectors)
        runtime.attach(application)
        application.state.checks = runtime.checks()
        transport = httpx.ASGITransport(
            application, raise_app_exceptions=False, client=("203.0.113.9", 4711)
        )
        async with httpx.AsyncClient(transport=transport, base_url=settings.base_url) as client:
            made = Service(runtime, application, client, settings, connectors, traveller)
            await made._start(runtime)
            made.workers.append(runtime)
            for name in ("alice", "eve"):
                await made.add_workspace(name)
                await made.add_key(name, "all", workspace=name)
            try:
                yield made
            finally:
                await made.close()


@pytest.fixture
async def service(database_url: str, keystore_url: str, tmp_path: Path) -> AsyncIterator[Service]:
    """The service on SQLite and on PostgreSQL."""
    async with running(tmp_path, database_url, keystore_url) as made:
        yield made


@pytest.fixture
async def embedded(
    sqlite_url: str, sqlite_keystore_url: str, tmp_path: Path
) -> AsyncIterator[Service]:
    """The service on SQLite, for what no database can make different."""
    async with running(tmp_path, sqlite_url, sqlite_keystore_url) as made:
        yield made
