"""Every statement of the hot path finds its rows through an index, with 10^6 live deliveries in
10^4 queues: none reads a whole table, however the planner likes it.
"""

from __future__ import annotations

import datetime as dt
import random
import re
from collections.abc import Awaitable, Callable, Iterator
from itertools import cycle
from typing import Any

import pytest
import sqlalchemy as sa

import app.tables
from app.core.clock import utc_now
from app.core.db import Database
from app.core.ids import new_id
from app.delivery import finish, history, plan, queues, reports, service
from app.delivery.carry import Answered
from app.delivery.claim import Lease, Traits, claim
from app.delivery.sweep import sweep
from app.destinations.models import Destination
from app.security.models import Workspace
from connectors.contract import Outcome, accepted, done, failed, retry

LIVE, QUEUES = 1_000_000, 10_000
MONTHS, A_MONTH = 5, 40_000
WATCHED = ("ready", "virtual_queue", "delivery", "delivery_transition", "call", "open_call")
PARTIAL = {
    index.name
    for name in WATCHED
    for index in app.tables.MAIN.tables[name].indexes
    if index.dialect_options["sqlite"]["where"] is not None
}
"""Indexes of a few rows only: these may be read from end to end."""
WORKSPACES = 100
DAY = dt.timedelta(days=1)
LEASE = dt.timedelta(seconds=60)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_the_hot_path_reads_by_index_only(database_url: str) -> None:
    database = Database(database_url)
    world = World(database)
    await world.seed()

    found = {scene.__name__: await world.whole_reads(scene) for scene in SCENES}

    await database.close()
    assert {name: reads for name, reads in found.items() if reads} == {}


# What happens all the time, in this order


async def claimed(world: World) -> None:
    """New work, and calls that a crash left open."""
    world.leases = await world.claim(world.now)
    assert any(call.is_repeat for lease in world.leases for call in lease.calls)
    assert any(not call.is_repeat for lease in world.leases for call in lease.calls)


async def finished(world: World) -> None:
    outcomes: Iterator[Outcome] = cycle([done(), retry("busy"), accepted("job"), failed("no")])
    answered = [
        Answered(lease, call, {member.delivery_id: next(outcomes) for member in call.members}, 5)
        for lease in world.leases
        for call in lease.calls
    ]
    async with world.database.writing() as session:
        await finish.record(
            session, answered, world.leases, _nothing, _nobody, world.now, random.Random(1)
        )


async def swept(world: World) -> None:
    async with world.database.writing() as session:
        assert await sweep(session, world.now) > 0


async def stopped(world: World) -> None:
    async with world.database.writing() as session:
        requests = [f"req_{number:020}" for number in (5, 17, 900)]
        assert await service.stop_all(session, requests, "cancelled", world.now, reason="denied")


async def steered(world: World) -> None:
    async with world.database.writing() as session:
        for action in queues.QueueAction:
            await queues.change(session, "ws_0007", queue_id(7), action, world.now)


async def reported(world: World) -> None:
    async with world.database.writing() as session:
        told = {"job": done(), "unknown": failed("no")}
        await reports.store(session, queue_id(7), told, world.now, 180 * DAY)
        await reports.wake_recent(session, world.now)
    await reports.drop_expired(world.database, world.now)


async def shown(world: World) -> None:
    async with world.database.writing() as session:
        assert len(await queues.shown(session, "ws_0007", world.now)) == QUEUES // WORKSPACES
        found = await service.of_requests(session, ["req_" + "7".zfill(20)])
        assert len(await service.latest(session, [each.id for each in found])) == 3
        assert await service.trace(session, found[0].id)


async def planned(world: World) -> None:
    made = [
        plan.Planned("ws_0007", "req_new", queue_id(7), "erase", [], world.now + DAY, phase=phase)
        for phase in (1, 2)
    ]
    async with world.database.writing() as session:
        await plan.insert(session, made, world.now)
        await plan.release_phase(session, ["req_new"], 2, world.now)


async def _nothing(*_: Any) -> None:
    """Nobody is told of what is settled."""


async def _nobody(*_: Any) -> set[str]:
    """No request was stopped."""
    return set()


SCENES = (claimed, finished, swept, stopped, steered, reported, shown, planned)


class World:
    """A crowded database, and ears for what is asked of it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.now = utc_now()
        self.leases: list[Lease] = []
        self._id = new_id("dlv")[:14]

    def delivery_id(self, number: int) -> str:
        return f"{self._id}{number:020}"

    async def claim(self, now: dt.datetime) -> list[Lease]:
        traits = Traits(1, (), 4, DAY, DAY, DAY)
        async with self.database.writing() as session:
            return await claim(
                session, owner="me", room=256, traits_of=lambda _: traits, now=now, lease=LEASE
            )

    async def whole_reads(self, scene: Callable[[World], Awaitable[None]]) -> list[str]:
        """What in the scene's statements reads a watched table from end to end."""
        heard: dict[str, Any] = {}
        engine = self.database.engine.sync_engine

        def hear(_: Any, __: Any, statement: str, given: Any, ___: Any, many: bool) -> None:
            heard[statement] = given[0] if many else given

        sa.event.listen(engine, "before_cursor_execute", hear)
        await scene(self)
        sa.event.remove(engine, "before_cursor_execute", hear)
        assert heard, scene.__name__
        explain = _explain_on_sqlite if self.database.is_sqlite else _explain_on_postgresql
        async with self.database.engine.connect() as connection:
            return [
                f"{line}: {statement}"
                for statement, given in heard.items()
                if re.match(r"(SELECT|INSERT|UPDATE|DELETE|WITH)\b", statement)
                for line in await explain(connection, statement, given)
            ]

    async def seed(self) -> None:
        say = _Sql(self.now, self.database.is_sqlite)
        async with self.database.writing() as session:
            workspaces = [f"ws_{number:04}" for number in range(WORKSPACES)]
            await session.execute(
                sa.insert(Workspace),
                [{"id": each, "name": each, "created_at": self.now} for each in workspaces],
            )
            await session.execute(
                sa.insert(Destination),
                [
                    {
                        "id": queue_id(number), "workspace_id": workspaces[number % WORKSPACES],
                        "name": "x", "connector": "x", "settings": {}, "secrets_sealed": b"",
                        "created_at": self.now,
                    }
                    for number in range(QUEUES)
                ],
            )  # fmt: skip
            for statement in (
                *say.history(self._id, "req", LIVE),
                *say.working_set(self._id, new_id("call")[:15]),
            ):
                await session.execute(sa.text(statement))
        if not self.database.is_sqlite:
            await self._add_months(say)
            await self._analyze()

    async def _add_months(self, say: _Sql) -> None:
        """More partitions. The first one ends with this month: the others lie ahead."""
        for month in range(1, 1 + MONTHS):
            moment = self.now + month * 30 * DAY
            await history.make_months(self.database, moment)
            async with self.database.writing() as session:
                for statement in say.history(
                    new_id("dlv", moment.timestamp())[:14], "old", A_MONTH
                ):
                    await session.execute(sa.text(statement))

    async def _analyze(self) -> None:
        """As autovacuum does: partitions, never the table as a whole."""
        async with self.database.writing() as session:
            tables = ["ready", "virtual_queue", "open_call", "destination"]
            for parent in ("delivery", "delivery_transition", "call"):
                tables += [each.name for each in await history.partitions(session, parent)]
            for table in tables:
                await session.execute(sa.text(f"ANALYZE {table}"))


def queue_id(number: int) -> str:
    return f"dst_{number:010}"


class _Sql:
    """Rows by the million, made by the database itself; ``n`` is a row's number."""

    def __init__(self, now: dt.datetime, is_sqlite: bool) -> None:
        self._is_sqlite = is_sqlite
        self._now = (
            str(round(now.timestamp() * 1_000_000))
            if is_sqlite
            else f"CAST('{now}' AS timestamptz)"
        )
        self._ago, self._later = self._moved("- n % 100000"), self._moved("+ 2592000")
        self._queue = f"'dst_' || {self._padded(f'n % {QUEUES}', 10)}"
        self._workspace = f"'ws_' || {self._padded(f'n % {WORKSPACES}', 4)}"

    def _moved(self, seconds: str) -> str:
        sign, amount = seconds[0], seconds[2:]
        unit = "1000000" if self._is_sqlite else "interval '1 second'"
        return f"{self._now} {sign} ({amount}) * {unit}"

    def _padded(self, value: str, width: int) -> str:
        if self._is_sqlite:
            return f"printf('%0{width}d', {value})"
        return f"lpad(CAST({value} AS text), {width}, '0')"

    def _json(self, text: str) -> str:
        return f"'{text}'" if self._is_sqlite else f"CAST('{text}' AS jsonb)"

    def _series(self, count: int) -> str:
        if self._is_sqlite:
            return (
                "(WITH RECURSIVE c(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM c "
                f"WHERE n + 1 < {count}) SELECT n FROM c) AS numbers"
            )
        return f"generate_series(0, {count} - 1) AS numbers(n)"

    def history(self, born: str, request: str, count: int) -> tuple[str, ...]:
        """Three deliveries a request; ``born``: how their ids begin."""
        delivery = f"'{born}' || {self._padded('n', 20)}"
        return (
            "INSERT INTO delivery (id, workspace_id, request_id, destination_id, operation, "
            f"identifier_ids, phase, created_at, expires_at) SELECT {delivery}, {self._workspace}, "
            f"'{request}_' || {self._padded('n / 3', 20)}, {self._queue}, 'erase', "
            f"{self._json('[]')}, 1, {self._ago}, {self._later} FROM {self._series(count)}",
            "INSERT INTO delivery_transition (delivery_id, seq, at, state, assurance, attempt) "
            f"SELECT {delivery}, 1, {self._ago}, 'awaiting_scheduling', 'requested', 0 "
            f"FROM {self._series(count)}",
        )

    def working_set(self, born: str, called: str) -> tuple[str, ...]:
        """Of a hundred deliveries three are retries that wait, two are in a call that a crash left
        open; a few expired. Half of the queues have something due, some were forgotten.
        """
        delivery = f"'{born}' || {self._padded('n', 20)}"
        call = f"'{called}' || {self._padded('n', 20)}"
        in_call = f"n / {QUEUES} BETWEEN 30 AND 37 AND n % 4 = 1"
        array = "json_array" if self._is_sqlite else "jsonb_build_array"
        return (
            "INSERT INTO ready (delivery_id, queue_id, rank, due_at, placed_at, operation, "
            f"attempt, seq, expires_at, call_id) SELECT {delivery}, {self._queue}, "
            "CASE WHEN n % 100 < 3 THEN 2 ELSE 20000 + n % 40 END, "
            f"CASE WHEN n % 100 < 3 THEN {self._moved('+ n % 5000')} ELSE {self._ago} END, "
            f"{self._ago}, 'erase', 0, 1, "
            f"CASE WHEN n % 50000 = 7 THEN {self._ago} ELSE {self._later} END, "
            f"CASE WHEN {in_call} THEN {call} END FROM {self._series(LIVE)}",
            "INSERT INTO call (id, queue_id, token, operation, delivery_ids, attempt, created_at) "
            f"SELECT {call}, {self._queue}, 1, 'erase', {array}({delivery}), 1, {self._ago} "
            f"FROM {self._series(LIVE)} WHERE n % 10 = 5 OR {in_call}",
            "INSERT INTO open_call (queue_id, call_id, leases) SELECT queue_id, call_id, 1 "
            "FROM ready WHERE call_id IS NOT NULL",
            "INSERT INTO virtual_queue (id, workspace_id, next_due, token, deficit, windows, "
            "budget, last_errors, concurrency_limit, breaker, is_boosted, is_paused) "
            f"SELECT {self._queue}, {self._workspace}, "
            f"CASE WHEN n % 2 = 1 THEN {self._ago} WHEN n % 100 > 0 THEN {self._later} END, 1, 0, "
            f"{self._json('{}')}, {self._json('{}')}, {self._json('[]')}, 4, {self._json('{}')}, "
            f"false, false FROM {self._series(QUEUES)}",
        )


_SHARDS = r"(_before|_default|_\d{4}_\d\d|_\d+)?"
_WATCHED = rf"({'|'.join(WATCHED)}){_SHARDS}"
"""On PostgreSQL a table or one of its partitions, on SQLite a table or its alias."""


async def _explain_on_postgresql(connection: Any, statement: str, given: Any) -> list[str]:
    rows = await connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", given)
    # A month that has just begun is read fastest as a whole.
    small = await connection.execute(
        sa.text("SELECT relname FROM pg_class WHERE reltuples < 1000 AND relkind = 'r'")
    )
    ignored = set(small.scalars())
    return [
        f"{node['Node Type']} on {node['Relation Name']}"
        for node in _nodes(rows.scalar_one()[0]["Plan"])
        if re.fullmatch(_WATCHED, node.get("Relation Name", ""))
        and node["Relation Name"] not in ignored
        and node["Node Type"] in {"Seq Scan", "Index Scan", "Index Only Scan"}
        and "Index Cond" not in node
        and node.get("Index Name") not in PARTIAL
    ]


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)


async def _explain_on_sqlite(connection: Any, statement: str, given: Any) -> list[str]:
    rows = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", given)
    found = [re.fullmatch(rf"SCAN {_WATCHED}(?: USING .*INDEX (\w+))?", row[-1]) for row in rows]
    return [each[0] for each in found if each and each[3] not in PARTIAL]
