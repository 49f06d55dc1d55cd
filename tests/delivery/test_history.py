"""History goes by time: in months on PostgreSQL, in batches on SQLite, and never too early."""

from __future__ import annotations

import asyncio
import datetime as dt
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from sqlmodel import col

from app.core import bulk, migrate
from app.core.clock import utc_now
from app.core.db import Database, table_of
from app.core.ids import first_id, new_id
from app.core.settings import Settings
from app.delivery import history
from app.delivery.models import Call, Delivery, DeliveryTransition, QueueActivity
from connectors.contract import retry
from tests.running import CAROL, Service, running

TABLES = ("delivery", "delivery_transition", "call")
BEFORE = "20261125_1530"
DAY = dt.timedelta(days=1)


@pytest.fixture
async def brief(database_url: str, keystore_url: str, tmp_path: Path) -> AsyncIterator[Service]:
    """A service that keeps history for 60 days and the records of requests for two years."""
    async with running(tmp_path, database_url, keystore_url, history_days=60) as made:
        yield made


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    made = Database(database_url)
    yield made
    await made.close()


@pytest.fixture
async def postgres(postgres_url: str) -> AsyncIterator[Database]:
    made = Database(postgres_url)
    yield made
    await made.close()


async def counts(service: Service) -> list[int]:
    return [(await service.rows(f"SELECT count(*) FROM {each}"))[0][0] for each in TABLES]


async def settled(service: Service, *people: str) -> str:
    """A request that is done, and whose person was forgotten."""
    made = await service.ask(*people)
    await service.work()
    for days in (15, 31):  # it counts as delivered, the grace ends
        service.later(days=days)
        await service.work()
    assert (await service.request(made["id"]))["forgotten_at"] is not None
    return str(made["id"])


# --- retention


async def test_a_request_outlives_the_history_of_its_deliveries(brief: Service) -> None:
    await brief.destination("crm")
    request_id = await settled(brief)
    await brief.maintain()
    assert await counts(brief) == [1, 2, 1]

    brief.later(days=60)
    await brief.maintain()

    assert await counts(brief) == [0, 0, 0]
    request = await brief.request(request_id)
    assert (request["status"], request["deliveries"]) == ("completed", [])
    assert (await brief.claims(request_id))["destinations"][0]["state"] == "deleted"
    items = (await brief.get(f"/v1/requests/{request_id}/timeline"))["items"]
    assert [each["type"] for each in items] == ["received", "planned", "completed", "forgotten"]


async def test_history_stays_as_long_as_the_records_unless_told_otherwise(
    service: Service,
) -> None:
    await service.destination("crm")
    request_id = await settled(service)

    service.later(days=730 - 47)
    await service.maintain()
    assert await counts(service) == [1, 2, 1]

    service.later(days=60)
    await service.maintain()
    assert await counts(service) == [0, 0, 0]
    assert (await service.call("GET", f"/v1/requests/{request_id}")).status_code == 404


async def test_what_is_live_or_not_forgotten_stays_however_old(brief: Service) -> None:
    crm = await brief.destination("crm")
    crm.default = retry("down", dt.timedelta(days=100))
    await brief.run("UPDATE destination SET expiry_days = 3650")
    waiting = await brief.ask(CAROL)
    await brief.work()
    archive = await brief.destination("archive")
    archive.default = retry("down")
    expired = await brief.ask()
    await brief.work()

    brief.later(days=125)
    await brief.maintain()

    assert (await brief.delivery(expired["id"], "archive"))["state"] == "archived"
    assert len((await brief.delivery(waiting["id"]))["transitions"]) >= 2
    kept = {row.request_id for row in await brief.rows("SELECT request_id FROM delivery")}
    assert kept == {waiting["id"], expired["id"]}


async def test_history_whose_delivery_went_is_removed_later(brief: Service) -> None:
    """A crash between the two leaves it behind."""
    await brief.destination("crm")
    await settled(brief)
    brief.later(days=60)
    await brief.run("DELETE FROM delivery")

    await brief.maintain()

    assert await counts(brief) == [0, 0, 0]


async def test_an_archived_delivery_stays(brief: Service) -> None:
    await brief.destination("crm")
    await settled(brief)
    await brief.run(
        "INSERT INTO archived (delivery_id, workspace_id, request_id, queue_id, archived_at) "
        "SELECT id, workspace_id, request_id, destination_id, created_at FROM delivery"
    )

    brief.later(days=60)
    await brief._maintain.step()

    assert await counts(brief) == [1, 2, 0]


async def test_an_open_call_stays(brief: Service) -> None:
    """Its delivery may be old and done with, but the call is made again."""
    await brief.destination("crm")
    await settled(brief)
    await brief.run(
        "INSERT INTO open_call (queue_id, call_id, leases) SELECT queue_id, id, 1 FROM call"
    )

    brief.later(days=60)
    await brief._maintain.step()

    assert await counts(brief) == [0, 0, 1]


async def test_counts_of_activity_go_after_a_week(database: Database) -> None:
    now = utc_now()
    async with database.writing() as session:
        for days in (1, 6, 8, 30):
            session.add(QueueActivity(queue_id="q", at=now - days * DAY, event="calls", count=1))

    assert await history.remove_activity(database, now) == 2

    async with database.reading() as session:
        rows = await session.execute(sa.select(col(QueueActivity.at)))
        assert {(now - at).days for (at,) in rows} == {1, 6}


def test_history_cannot_be_kept_longer_than_records(tmp_path: Path) -> None:
    found = Settings(data_dir=tmp_path, history_days=91, request_record_days=90).problems()

    assert len(found) == 1
    assert "QUITTANCE_HISTORY_DAYS" in found[0]
    assert Settings(data_dir=tmp_path, request_record_days=90).problems() == []


# --- SQLite: batches


async def test_no_transaction_deletes_more_than_a_batch(sqlite_url: str) -> None:
    database, now = Database(sqlite_url), utc_now()
    async with database.writing() as session:
        await session.execute(
            sa.insert(Call), [call_at(now - days * DAY) for days in range(200, 1400)]
        )
        await session.execute(sa.insert(Call), [call_at(now)])
    deleted = [0]

    @sa.event.listens_for(database.engine.sync_engine, "after_cursor_execute")
    def count(_: Any, cursor: Any, statement: str, *__: Any) -> None:
        if statement.startswith("DELETE"):
            deleted[-1] += cursor.rowcount

    @sa.event.listens_for(database.engine.sync_engine, "commit")
    def end(_: Any) -> None:
        deleted.append(0)

    removed = await history.remove_old(database, now - 100 * DAY, lambda _: sa.false())

    assert (removed, sum(deleted), max(deleted)) == (1200, 1200, bulk.BITE)
    async with database.reading() as session:
        assert (await session.execute(sa.select(sa.func.count(col(Call.id))))).scalar_one() == 1
    await database.close()


def call_at(at: dt.datetime) -> dict[str, Any]:
    return {
        "id": new_id("call", at.timestamp()),
        "queue_id": "dst_1",
        "token": 1,
        "operation": "erase",
        "delivery_ids": [],
        "attempt": 1,
        "created_at": at,
    }


# --- PostgreSQL: months


async def months(database: Database) -> dict[str, set[str]]:
    async with database.reading() as session:
        return {
            table: {each.name for each in await history.partitions(session, table)}
            for table in TABLES
        }


async def test_this_month_and_two_more_have_partitions(postgres: Database) -> None:
    await history.make_months(postgres, dt.datetime(2031, 11, 30, 23, 59, tzinfo=dt.UTC))

    for table, found in (await months(postgres)).items():
        made = {"before", "2031_11", "2031_12", "2032_01"}
        assert found == {f"{table}_{each}" for each in made}


async def test_partitions_are_made_once_by_however_many_workers(
    postgres: Database, postgres_url: str
) -> None:
    other, now = Database(postgres_url), utc_now()
    await asyncio.gather(*(history.make_months(each, now) for each in (postgres, other)))
    await other.close()
    once = await months(postgres)

    await history.make_months(postgres, now)

    assert await months(postgres) == once
    assert all(len(found) == 3 for found in once.values()), "the first one covers this month"


@pytest.mark.services
@pytest.mark.parametrize("engine_name", ["postgresql"])
async def test_what_came_before_its_month_moves_there(service: Service) -> None:
    await service.destination("crm")
    service.later(days=100)  # nobody maintained anything meanwhile
    made = await service.ask()
    await service.work()
    assert await in_default(service) == [1, 2, 1]

    await service.maintain()

    assert await in_default(service) == [0, 0, 0]
    assert await counts(service) == [1, 2, 1]
    assert (await service.delivery(made["id"]))["state"] == "succeeded"
    await service.ask(CAROL)
    await service.work()
    assert await in_default(service) == [0, 0, 0]


async def in_default(service: Service) -> list[int]:
    return [(await service.rows(f"SELECT count(*) FROM {each}_default"))[0][0] for each in TABLES]


@pytest.mark.services
@pytest.mark.parametrize("engine_name", ["postgresql"])
async def test_what_never_got_a_month_is_removed_all_the_same(brief: Service) -> None:
    await brief.destination("crm")
    brief.later(days=100)
    await settled(brief)
    assert await in_default(brief) == [1, 2, 1]

    brief.later(days=60)  # too late: its month is not made any more
    await brief.maintain()

    assert await counts(brief) == [0, 0, 0]


@pytest.mark.services
@pytest.mark.parametrize("engine_name", ["postgresql"])
async def test_a_month_is_not_dropped_under_somebody_who_reads_it(brief: Service) -> None:
    await brief.destination("crm")
    await settled(brief)
    brief.later(days=60)

    async with brief.runtime.database.reading() as session:
        await session.execute(sa.select(Delivery))
        await brief._maintain.step()
        assert await counts(brief) == [1, 2, 0]

    await brief.maintain()
    assert await counts(brief) == [0, 0, 0]


async def test_a_delivery_is_looked_up_in_one_partition(postgres: Database) -> None:
    now = utc_now()
    await history.make_months(postgres, now)
    delivery_id = new_id("dlv", (now + 40 * DAY).timestamp())
    for model, key in ((Delivery, "id"), (DeliveryTransition, "delivery_id")):
        table = table_of(model)
        query = sa.select(table).where(table.c[key].in_([delivery_id, delivery_id + "x"]))
        async with postgres.reading() as session:
            text = query.compile(compile_kwargs={"literal_binds": True})
            plan = await session.execute(sa.text(f"EXPLAIN (FORMAT JSON) {text}"))
            touched = re.findall(r"'Relation Name': '(\w+)'", str(plan.scalar_one()))
        assert touched == [f"{table.name}_{now + 40 * DAY:%Y_%m}"]


# --- the migration


def test_what_was_there_is_kept(empty_database_url: str) -> None:
    now = utc_now()
    ahead = now + 90 * DAY  # a clock was wrong once
    engine = migrate._engine(empty_database_url)
    with engine.connect() as connection:
        command.upgrade(migrate._config("main", connection), BEFORE)
        fill(connection, "workspace", id="ws_1")
        fill(connection, "destination", id="dst_1", workspace_id="ws_1")
        for at in (now - 800 * DAY, now, ahead):
            delivery_id = new_id("dlv", at.timestamp())
            fill(connection, "delivery", id=delivery_id, destination_id="dst_1")
            for seq in (1, 2):
                fill(connection, "delivery_transition", delivery_id=delivery_id, seq=seq)
            fill(connection, "call", id=new_id("call", at.timestamp()))
        before = {each: everything(connection, each) for each in TABLES}
        connection.commit()

    migrate.upgrade(empty_database_url, "main")

    with engine.connect() as connection:
        assert {each: everything(connection, each) for each in TABLES} == before
        if connection.dialect.name == "postgresql":
            for table, rows in (("delivery", 1), ("delivery_transition", 2), ("call", 1)):
                waiting = connection.execute(sa.text(f"SELECT count(*) FROM {table}_default"))
                assert waiting.scalar_one() == rows
    engine.dispose()


def fill(connection: sa.Connection, table: str, **given: Any) -> None:
    """A row as the schema of that time wants it: what must not be null is made up."""
    there = sa.Table(table, sa.MetaData(), autoload_with=connection)
    made_up = {
        each.name: made_up_for(each.type)
        for each in there.columns
        if not each.nullable and each.server_default is None
    }
    connection.execute(sa.insert(there).values(made_up | given))


def made_up_for(kind: sa.types.TypeEngine[Any]) -> Any:
    if isinstance(kind, sa.JSON):
        return []
    if isinstance(kind, sa.DateTime):
        return utc_now()
    if isinstance(kind, sa.LargeBinary):
        return b"x"
    if isinstance(kind, sa.Boolean):
        return True
    return 7 if isinstance(kind, sa.Integer) else "x"


def everything(connection: sa.Connection, table: str) -> list[Any]:
    return sorted(connection.execute(sa.text(f"SELECT * FROM {table}")).all(), key=repr)


async def test_ids_of_a_month_lie_between_its_bounds() -> None:
    start = dt.datetime(2026, 12, 1, tzinfo=dt.UTC)
    last = (start - dt.timedelta(milliseconds=1)).timestamp()

    assert new_id("dlv", last) < first_id("dlv", start) <= new_id("dlv", start.timestamp())
