"""Work for the engine, put into its databases: planned deliveries, and queues to hold them.

Intake and planning are the product's own code, run here for a few people; SQL then copies whole
rows, so that no column need be known but the ones that differ. All of the engine's tables that a
benchmark touches are touched in this module.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlmodel import SQLModel

from app import bootstrap
from app.administration import Administration
from app.compose import Runtime
from app.core.clock import utc_now
from app.core.db import table_of
from app.core.settings import Settings
from app.crypto import keyring
from app.delivery.models import Delivery, DeliveryTransition, Ready, VirtualQueue
from app.delivery.states import SETTLED
from app.destinations import sealed
from app.destinations.models import Destination
from app.subject_requests import resolve
from app.subject_requests.models import SubjectRequest

SINGLE, BULK = "bench_single", "bench_bulk"
_CONNECTOR = '''"""A webhook that takes {batch} of the people at once."""

from connectors.webhook import Webhook


class Benchmark(Webhook):
    batch = {batch}
'''
_NAMES_OF_COPIES: dict[type[SQLModel], Sequence[str]] = {
    SubjectRequest: ("id",),
    Delivery: ("id", "request_id"),
    DeliveryTransition: ("delivery_id",),
    Ready: ("delivery_id",),
}
"""Columns that hold the id of something copied: a copy's ids get a number at their end."""

_OPEN_COUNTS = ("open_count", "phase_open_count")
_WIDTH = 10_000_000
"""Added to numbers in ids: as text they then sort like numbers."""
_NOTHING = sealed.Sealed(mask_key=bytes(32))


def write_connectors(directory: Path) -> None:
    """Two webhooks that differ in how many people go into one call."""
    directory.mkdir()
    for name, batch in ((SINGLE, 1), (BULK, 100)):
        (directory / f"{name}.py").write_text(_CONNECTOR.format(batch=batch))


async def seed(settings: Settings, urls: Sequence[str], people: int, copies: int) -> None:
    """A workspace with one destination per URL, and erasures planned: ``people * copies`` requests
    with a delivery to each destination.
    """
    bootstrap.prepare(settings)
    async with Administration(settings) as do:
        await do.create_workspace("Benchmark", "UTC")
        for number, url in enumerate(urls):
            await do.create_destination(None, f"Destination {number}", SINGLE, {"url": url})
        pairs = [[("email", f"person{number}@customer.example")] for number in range(people)]
        await do.import_requests(None, "erasure", pairs, None, lambda _: None)
    runtime = Runtime(settings)
    await runtime.start(with_pumps=False, with_worker=False)
    while await resolve.resolve_due(runtime.services, utc_now()):
        pass
    await runtime.stop()
    with connect(settings) as connection:
        _copy_requests(connection, copies - 1)
    analyse(settings)


def connect(settings: Settings) -> Any:
    """A connection to the main database, in a transaction that ends with the block."""
    return engine_of(settings).begin()


def engine_of(settings: Settings) -> sa.Engine:
    url = settings.main_url.replace("+aiosqlite", "")
    return sa.create_engine(url, poolclass=sa.NullPool, hide_parameters=True)


def _copy_requests(connection: sa.Connection, copies: int) -> None:
    """The copies name the identifiers of their originals, whose keys open them."""
    numbers = _numbers(copies)
    suffix = "-" + sa.cast(numbers.c.n, sa.String)
    for model, names in _NAMES_OF_COPIES.items():
        table = table_of(model)
        _copy(connection, table, numbers, {name: table.c[name] + suffix for name in names})


def _numbers(count: int) -> sa.CTE:
    """The rows 1 to ``count``, on both databases."""
    first = sa.select(sa.literal(1).label("n")).where(sa.literal(count) > 0).cte(recursive=True)
    return first.union_all(sa.select(first.c.n + 1).where(first.c.n < count))


def _copy(
    connection: sa.Connection,
    table: sa.Table,
    numbers: sa.CTE,
    differing: Mapping[str, Any],
    which: sa.ColumnElement[bool] | None = None,
) -> None:
    """Copy rows once per number, whole but for the columns of ``differing``."""
    columns = [differing.get(each.name, each) for each in table.c]
    rows = sa.select(*columns).select_from(table.join(numbers, sa.true()))
    if which is not None:
        rows = rows.where(which)
    connection.execute(sa.insert(table).from_select([each.name for each in table.c], rows))


# Many queues


def add_queues(settings: Settings, count: int, jobs: int, name: str, *, like: int = 0) -> None:
    """``count`` more queues of ``jobs`` deliveries each, paused; their ids begin with ``name``.

    They are like the destination of this number, and all their deliveries belong to one request,
    which never ends. Call it before anything is delivered.
    """
    delivery, queue = table_of(Delivery), table_of(VirtualQueue)
    with connect(settings) as connection:
        ids = sa.select(queue.c.id).order_by(queue.c.id).where(queue.c.id.startswith("dst_"))
        model = connection.execute(ids.offset(like).limit(1)).scalar_one()
        original = connection.execute(
            sa.select(delivery).where(delivery.c.destination_id == model).limit(1)
        ).one()
        _add_destinations(connection, settings, original.destination_id, count, name)
        numbers = _numbers(count)
        paused = {"id": _queue_id(name, numbers.c.n), "is_paused": True, "next_due": sa.null()}
        _copy(connection, queue, numbers, paused, queue.c.id == original.destination_id)
        _add_deliveries(connection, original.id, count, jobs, name)
        request = table_of(SubjectRequest)
        connection.execute(
            sa.update(request)
            .where(request.c.id == original.request_id)
            .values({each: request.c[each] + count * jobs for each in _OPEN_COUNTS})
        )
    analyse(settings)


def _queue_id(name: str, number: Any) -> Any:
    return name + sa.cast(_WIDTH + number, sa.String)


def _add_destinations(
    connection: sa.Connection, settings: Settings, original_id: str, count: int, name: str
) -> None:
    """Each has secrets of its own, sealed for its own place."""
    ring, table = keyring.load(settings.key_file), table_of(Destination)
    original = connection.execute(sa.select(table).where(table.c.id == original_id)).one()._asdict()
    for start in range(1, count + 1, 10_000):
        ids = [f"{name}{_WIDTH + each}" for each in range(start, min(start + 10_000, count + 1))]
        rows = [
            original
            | {
                "id": each,
                "secrets_sealed": sealed.seal(ring, original["workspace_id"], each, _NOTHING),
            }
            for each in ids
        ]
        connection.execute(sa.insert(table), rows)


def _add_deliveries(
    connection: sa.Connection, original_id: str, count: int, jobs: int, name: str
) -> None:
    numbers = _numbers(count * jobs)
    delivery_id = name + "job" + sa.cast(_WIDTH + numbers.c.n, sa.String)
    in_queue = _queue_id(name, (numbers.c.n - 1) // jobs + 1)
    for model, differing in (
        (Delivery, {"id": delivery_id, "destination_id": in_queue}),
        (DeliveryTransition, {"delivery_id": delivery_id}),
        (Ready, {"delivery_id": delivery_id, "queue_id": in_queue}),
    ):
        table = table_of(model)
        key = table.c.id if model is Delivery else table.c.delivery_id
        _copy(connection, table, numbers, differing, key == original_id)


def analyse(settings: Settings) -> None:
    """Statistics for the planner, and visible rows, as after some hours of real use."""
    with engine_of(settings).connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        is_sqlite = connection.dialect.name == "sqlite"
        connection.execute(sa.text("ANALYZE" if is_sqlite else "VACUUM ANALYZE"))


# Steering and watching


class Backlog:
    """The live deliveries of one instance, seen and steered from outside.

    ``name`` picks queues whose id begins so; the empty one picks all.
    """

    def __init__(self, settings: Settings) -> None:
        self._engine = engine_of(settings)

    def left(self, name: str = "") -> int:
        """How many are not settled yet: it walks them all, so ask seldom."""
        queue_id = table_of(Ready).c.queue_id
        count = sa.select(sa.func.count()).where(queue_id.startswith(name))
        with self._engine.connect() as connection:
            return int(connection.execute(count).scalar_one())

    def queues(self) -> list[str]:
        """The ids of all queues, in the order of their destinations."""
        queue = table_of(VirtualQueue)
        with self._engine.connect() as connection:
            return list(connection.execute(sa.select(queue.c.id).order_by(queue.c.id)).scalars())

    def pause(self, name: str = "") -> None:
        """No new calls; those under way finish."""
        self._change(name, is_paused=True, next_due=None)

    def resume(self, name: str = "") -> None:
        """Go on, healthy and at full concurrency; a queue that is leased goes on by itself."""
        queue = table_of(VirtualQueue)
        now = utc_now()
        is_leased = sa.and_(queue.c.lease_until.is_not(None), queue.c.lease_until > now)
        due = sa.case((is_leased, queue.c.next_due), else_=sa.literal(now, queue.c.next_due.type))
        self._change(name, is_paused=False, next_due=due, breaker={}, concurrency_limit=64)

    def use(self, connector: str) -> None:
        """Let every destination be called by this connector."""
        table = table_of(Destination)
        with self._engine.begin() as connection:
            connection.execute(sa.update(table).values(connector=connector))

    def pour_into_first(self) -> None:
        """Put every delivery into the first queue."""
        with self._engine.begin() as connection:
            connection.execute(sa.update(table_of(Ready)).values(queue_id=self.queues()[0]))

    def settled_at(self, name: str) -> list[dt.datetime]:
        """When each delivery added as ``name`` came to its end."""
        table = table_of(DeliveryTransition)
        ends = sa.select(table.c.at).where(
            table.c.delivery_id.startswith(name), table.c.state.in_(sorted(SETTLED))
        )
        with self._engine.connect() as connection:
            return list(connection.execute(ends).scalars())

    def _change(self, name: str, **values: Any) -> None:
        table = table_of(VirtualQueue)
        with self._engine.begin() as connection:
            connection.execute(sa.update(table).where(table.c.id.startswith(name)).values(values))
