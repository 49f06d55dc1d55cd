"""The writer's own promises: batches, bad rows, a full queue, an orderly end."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from app.consent.errors import EventReused, WriterBusy
from app.consent.models import IS_CHOICE, IS_SIGNAL, ConsentRecord
from app.consent.queries import newest_of
from app.consent.writer import ConsentWriter, Draft
from app.core.clock import utc_now
from app.core.db import Database
from app.core.ids import new_id
from tests.consent.conftest import Shop


class Counting:
    """A database that counts its writing transactions, and may be away."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.count = 0
        self.is_away = False
        self.is_sqlite = database.is_sqlite

    def writing(self) -> Any:
        self.count += 1
        if self.is_away:
            raise OperationalError("", {}, Exception("away"))
        return self._database.writing()


@pytest.fixture
async def database(shop: Shop) -> Counting:
    return Counting(shop.service.database)


@pytest.fixture
async def row(shop: Shop) -> dict[str, Any]:
    """A row that fits the shop."""
    ((site_id, version_id),) = await shop.service.rows("select id, published_version_id from site")
    now = utc_now()
    return {
        "id": "",
        "workspace_id": "wsp_one",
        "site_id": site_id,
        "notice_version_id": version_id,
        "visitor_id": "v",
        "event_id": "",
        "choices": {"analytics": True},
        "method": "custom",
        "language": "en",
        "region": None,
        "regime": "gdpr",
        "gpc": False,
        "is_gpc_applied": False,
        "page": None,
        "fingerprint": b"f",
        "decided_at": now,
        "recorded_at": now,
        "expires_at": now + dt.timedelta(days=1),
    }


def draft(row: dict[str, Any], event: str, **changes: Any) -> Draft:
    return Draft(row | {"id": new_id("con"), "event_id": event} | changes)


async def gather(writer: ConsentWriter, drafts: list[Draft]) -> list[Any]:
    return await asyncio.gather(*(writer.append(each) for each in drafts), return_exceptions=True)


async def test_choices_of_one_moment_share_a_transaction(
    database: Any, row: dict[str, Any]
) -> None:
    writer = ConsentWriter(database)
    writer.start()
    stored = await gather(writer, [draft(row, f"e{n}", visitor_id=f"v{n}") for n in range(200)])
    await writer.stop()

    assert database.count == 1
    assert [each["event_id"] for each in stored] == [f"e{n}" for n in range(200)]


async def test_a_bad_row_harms_nobody_else(shop: Shop, database: Any, row: dict[str, Any]) -> None:
    writer = ConsentWriter(database)
    writer.start()
    bad = draft(row, "bad", site_id="sit_nowhere")
    found = await gather(writer, [draft(row, "one"), bad, draft(row, "two")])
    await writer.stop()

    assert [isinstance(each, Exception) for each in found] == [False, True, False]
    assert await shop.count() == 2


async def test_while_the_database_is_away_callers_are_told_to_come_back(
    shop: Shop, database: Any, row: dict[str, Any]
) -> None:
    writer = ConsentWriter(database)
    writer.start()
    database.is_away = True
    drafts = [draft(row, f"e{n}") for n in range(50)]
    lost = await gather(writer, drafts)
    tried = database.count
    database.is_away = False
    found = await gather(writer, drafts)
    await writer.stop()

    assert all(isinstance(each, WriterBusy) for each in lost)
    assert lost[0].headers["Retry-After"] == "2"
    assert tried == 2, "it is not asked once per row"
    assert not [each for each in found if isinstance(each, Exception)]
    assert await shop.count() == 50


@pytest.mark.parametrize(
    ("which", "index"),
    [("TRUE", "visitor"), (IS_CHOICE, "choice"), (IS_SIGNAL, "signal")],
)
async def test_a_batch_costs_no_more_for_visitors_who_chose_often(
    shop: Shop, which: str, index: str
) -> None:
    if not shop.service.database.is_sqlite:
        pytest.skip("PostgreSQL reads a small table as a whole")
    plan = [row.detail for row in await shop.service.rows(
        f"explain query plan {newest_of(('choices',), which, on_postgresql=False)}",
        rows='[{"site_id": "s", "visitor_id": "v"}]',
    )]  # fmt: skip
    by_visitor = f"USING INDEX ix_consent_record_{index} (site_id=? AND visitor_id=?"
    assert f"SEARCH record {by_visitor} AND decided_at>?)" in plan
    assert f"SEARCH one {by_visitor})" in [each.replace("COVERING ", "") for each in plan]


async def test_a_full_queue_refuses_at_once(database: Any, row: dict[str, Any]) -> None:
    writer = ConsentWriter(database, capacity=2)
    writer.start()
    found = await gather(writer, [draft(row, f"e{n}") for n in range(4)])
    await writer.stop()

    assert [isinstance(each, WriterBusy) for each in found] == [False, False, True, True]


async def test_stopping_writes_what_waits_and_takes_no_more(
    shop: Shop, database: Any, row: dict[str, Any]
) -> None:
    writer = ConsentWriter(database, gather_seconds=0.05)
    writer.start()
    waiting = asyncio.create_task(writer.append(draft(row, "one")))
    await asyncio.sleep(0)
    await writer.stop()

    assert (await waiting)["event_id"] == "one"
    with pytest.raises(WriterBusy):
        await writer.append(draft(row, "two"))
    assert await shop.count() == 1


async def test_a_caller_that_leaves_does_not_stop_the_others(
    shop: Shop, database: Any, row: dict[str, Any]
) -> None:
    writer = ConsentWriter(database, gather_seconds=0.05)
    writer.start()
    leaving = asyncio.create_task(writer.append(draft(row, "one")))
    staying = asyncio.create_task(writer.append(draft(row, "two")))
    await asyncio.sleep(0)
    leaving.cancel()
    stored = await staying
    await writer.stop()

    assert stored["event_id"] == "two"
    assert await shop.count() == 2


async def test_one_event_with_two_bodies_in_one_batch(
    shop: Shop, database: Any, row: dict[str, Any]
) -> None:
    writer = ConsentWriter(database)
    writer.start()
    found = await gather(
        writer, [draft(row, "e"), draft(row, "e", fingerprint=b"g"), draft(row, "e")]
    )
    await writer.stop()

    assert isinstance(found[1], EventReused)
    assert found[0]["id"] == found[2]["id"]
    assert await shop.count() == 1


async def test_two_processes_see_each_others_grants(shop: Shop, row: dict[str, Any]) -> None:
    """On PostgreSQL two writers commit side by side; whichever comes second sees the first."""
    writers = [ConsentWriter(shop.service.database) for _ in range(2)]
    for writer in writers:
        writer.start()
    visitors = [f"v{n}" for n in range(40)]
    late = row["decided_at"] + dt.timedelta(seconds=1)
    grants = [draft(row, f"g{each}", visitor_id=each) for each in visitors]
    denials = [
        draft(row, f"d{each}", visitor_id=each, decided_at=late, choices={"analytics": False})
        for each in visitors
    ]
    await asyncio.gather(gather(writers[0], grants), gather(writers[1], denials))
    for writer in writers:
        await writer.stop()
    withdrawn = {visitor for visitor, _ in await shop.outbox()}
    async with shop.service.database.reading() as session:
        rows = await session.execute(sa.select(ConsentRecord).order_by(sa.text("id")))
        records = list(rows.scalars())

    assert len(records) == 80
    assert withdrawn in (set(), set(visitors)), "a batch is seen whole or not at all"
