"""What looks again and again, or is on a page that people open all day, goes by an index that leads
to what it is after, in tables that hold thousands of other rows.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import SQLModel

from app.consent import links, queries
from app.consent.models import ConsentRecord, VisitorLink
from app.core.clock import utc_now
from app.core.db import Database, table_of
from app.core.ids import new_id
from app.crypto.models import DataKey
from app.dashboard.views.requests import SOON, due_before
from app.delivery import queues
from app.delivery.models import OpenCall, Ready, VirtualQueue
from app.destinations.models import Destination
from app.identity.models import PersonalValue
from app.notifications import alerts
from app.notifications.models import Alert
from app.security import audit
from app.security.models import AuditEntry
from app.sites.models import NoticeVersion, Site
from app.subject_requests import forget, maintain, resolve
from app.subject_requests.models import SubjectRequest
from tests.running import Service

CROWD = 4000
DAY = dt.timedelta(days=1)
OLDEST = 730 * DAY
Scene = Callable[[Service, dt.datetime], Awaitable[None]]


async def stepped(service: Service, now: dt.datetime) -> None:
    assert not await forget.step_due(service.runtime.services, now)


async def resolved(service: Service, now: dt.datetime) -> None:
    async with service.runtime.database.writing() as session:
        assert len(await resolve._take(session, now)) == resolve.BATCH


async def unlinked(service: Service, now: dt.datetime) -> None:
    async with service.runtime.database.reading() as session:
        assert await links.expired(session, now) == []


async def idled(service: Service, now: dt.datetime) -> None:
    async with service.runtime.database.reading() as session:
        assert await links.idle(session, now) == []


async def capped(service: Service, now: dt.datetime) -> None:
    async with service.runtime.database.writing() as session:
        await maintain._end_waiting(session, service.runtime.services, now)


async def removed(service: Service, now: dt.datetime) -> None:
    assert await maintain._remove_old(service.runtime.services, now - OLDEST) == 0


async def audited(service: Service, now: dt.datetime) -> None:
    await audit.sweep(service.runtime.database, now - OLDEST)


async def alerted(service: Service, now: dt.datetime) -> None:
    await alerts.sweep(service.runtime.database, now - OLDEST)


async def late(service: Service, now: dt.datetime) -> None:
    mine = table_of(SubjectRequest).c.workspace_id == service.workspaces["alice"]
    count = sa.select(sa.func.count()).where(mine, due_before(now + SOON))
    async with service.runtime.database.reading() as session:
        assert (await session.execute(count)).scalar_one() == 0


async def chosen(service: Service, now: dt.datetime) -> None:
    days = [(now - back * DAY).date() for back in range(1, 4)]  # also if midnight has just passed
    async with service.runtime.database.reading() as session:
        assert sum(await queries.daily_totals(session, service.workspaces["alice"], days)) == 30


async def listed(service: Service, now: dt.datetime) -> None:
    wanted = queries.Filter(
        service.workspaces["alice"], "sit", now - 30 * DAY, regime="gdpr", method="gpc",
        language="en", notice_version="nv",
    )  # fmt: skip
    async with service.runtime.database.reading() as session:
        after = f"{now.isoformat()}|con_x"
        assert await queries.records(session, wanted, limit=26) == []
        assert await queries.records(session, wanted, limit=26, after=after) == []
        assert await queries.daily_counts(session, wanted) == []


async def queued(service: Service, now: dt.datetime) -> None:
    async with service.runtime.database.reading() as session:
        (shown,) = await queues.shown(session, service.workspaces["eve"], now)
    assert (shown["depth"], shown["due_count"], shown["in_flight"]) == (CROWD // 100, 20, 1)


async def swept(service: Service, now: dt.datetime) -> None:
    made = service.runtime.keys.made(now - 3 * DAY, now - forget.ORPHAN_AGE)
    assert [each async for each in made] == [["new"]]


async def test_among_thousands_only_what_is_wanted_is_looked_at(crowded: Service) -> None:
    """``alone``: the index has all that is asked for, the table is left in peace. The first way of
    each must be taken, others may.
    """
    wanted: dict[Scene, list[str]] = {
        stepped: ["ix_subject_request_next", "ix_subject_request_known"],
        resolved: ["ix_subject_request_resolving", "pk_subject_request"],
        unlinked: ["ix_personal_value_expires_at"],
        idled: [
            "ix_visitor_link_idle_until",
            "ix_consent_record_visitor",
            "ix_consent_record_visitor alone",
        ],
        capped: ["ix_subject_request_known"],
        removed: ["pk_subject_request"],
        audited: ["pk_audit_entry alone", "pk_audit_entry"],
        alerted: ["pk_alert"],
        late: [
            "ix_subject_request_deadline",
            "ix_subject_request_status",
            "pk_subject_request",
        ],
        chosen: ["ix_consent_record_recorded alone"],
        listed: ["ix_consent_record_recorded", "pk_site", "whole site"],
        queued: ["ix_ready_order alone", "pk_open_call alone"],
        swept: ["ix_data_key_created_at"],
    }
    now, runtime = utc_now(), crowded.runtime

    found = {
        scene.__name__: await paths((runtime.database, runtime.key_database), scene(crowded, now))
        for scene in wanted
    }

    assert found == {
        scene.__name__: found[scene.__name__] & set(ways) | {ways[0]}
        for scene, ways in wanted.items()
    }


@pytest.fixture
async def crowded(service: Service) -> Service:
    now, database = utc_now(), service.runtime.database
    for model, rows in _crowd(service, now):
        await _insert(database, model, rows)
    keys = service.runtime.key_database
    made = [{"holder_id": f"h{n}", "created_at": now - 9 * DAY} for n in range(CROWD)]
    made.append({"holder_id": "new", "created_at": now - 2 * DAY})
    await _insert(keys, DataKey, [{"wrapped": b"", **each} for each in made])
    for each in (database, keys):
        if not each.is_sqlite:
            async with each.engine.connect() as connection:
                await connection.execution_options(isolation_level="AUTOCOMMIT")
                await connection.execute(sa.text("VACUUM ANALYZE"))
    return service


async def _insert(database: Database, model: type[SQLModel], rows: list[dict[str, Any]]) -> None:
    async with database.writing() as session:
        await session.execute(sa.insert(table_of(model)), rows)


def _crowd(
    service: Service, now: dt.datetime
) -> Iterator[tuple[type[SQLModel], list[dict[str, Any]]]]:
    mine = {"workspace_id": service.workspaces["alice"]}

    def ids(prefix: str, ago: dt.timedelta) -> Iterator[str]:
        while True:
            yield new_id(prefix, (now - ago).timestamp())

    def of(prefix: str, ago: dt.timedelta, **values: Any) -> list[dict[str, Any]]:
        made = ids(prefix, ago)
        return [{"id": next(made), **mine, **values} for _ in range(CROWD)]

    # A backlog of people to be resolved, many under way, many done and forgotten long ago.
    asked = {
        "kind": "erasure", "regime": "gdpr", "channel": "api", "identifier_kinds": ["email"],
        "received_at": now - DAY, "due_at": now + 29 * DAY, "next_step_at": None,
        "completed_at": None, "forgotten_at": None,
    }  # fmt: skip
    past = now - 300 * DAY
    done = {"completed_at": past, "forgotten_at": past, "received_at": past, "due_at": past}
    backlog = {"status": "resolving", "next_step_at": now - DAY / 24}
    yield (
        SubjectRequest,
        [
            *of("req", DAY, **asked | backlog),
            *of("req", DAY, **asked | {"status": "in_progress"}),
            *of("req", 300 * DAY, **asked | {"status": "completed"} | done),
        ],
    )
    value = {"purpose": "identifier", "kind": "email", "sealed": b"", "created_at": now}
    for holder, expires_at in (("vis_", now + DAY), ("req_", None)):
        rows = of("pv", DAY, **value, expires_at=expires_at)
        yield PersonalValue, [each | {"holder_id": f"{holder}{each['id']}"} for each in rows]
    yield AuditEntry, of("aud", 9 * DAY, at=now - 9 * DAY, actor="a", verb="v", target="t", data={})
    raised = {"kind": "queue_stuck", "raised_at": now - 9 * DAY, "resolved_at": now - DAY}
    yield Alert, of("alr", 9 * DAY, **raised, subject_id="x", detail={}, tell_attempt=0)
    yield from _choices(mine, now)
    yield from _queues(service, now)


def _choices(
    mine: dict[str, str], now: dt.datetime
) -> Iterator[tuple[type[SQLModel], list[dict[str, Any]]]]:
    site = {"id": "sit", "site_key": "k", "name": "s", "origins": [], "draft": {}}
    yield Site, [{**mine, **site, "is_intake_open": True, "created_at": now}]
    link = {"site_id": "sit", "subject_ref": b"", "created_at": now, "idle_until": now + DAY}
    ids = [f"vis_{number}" for number in range(CROWD)]
    yield VisitorLink, [{"id": each, "visitor_id": each, **link, **mine} for each in ids]
    notice = {"id": "nv", "site_id": "sit", "number": 1, "sha256": "", "content": {}}
    yield NoticeVersion, [{**notice, "published_at": now, "published_by": "a"}]
    record = {
        "site_id": "sit", "notice_version_id": "nv", "choices": {}, "method": "custom",
        "language": "en", "regime": "gdpr", "gpc": False, "is_gpc_applied": False,
        "fingerprint": b"", "expires_at": now + 99 * DAY, **mine,
    }  # fmt: skip
    yield (
        ConsentRecord,
        [
            {
                "id": f"con_{number}", "visitor_id": str(number), "event_id": str(number),
                "decided_at": at, "recorded_at": at, **record,
            }
            for number in range(CROWD)
            for at in [now - (number % (CROWD // 10)) * DAY]
        ],
    )  # fmt: skip


def _queues(
    service: Service, now: dt.datetime
) -> Iterator[tuple[type[SQLModel], list[dict[str, Any]]]]:
    """A hundred queues; one of them is eve's, and a call with two of hers is under way."""
    owners = {f"dst_{n:03}": "alice" if n else "eve" for n in range(100)}
    destination = {"name": "x", "connector": "x", "settings": {}, "secrets_sealed": b""}
    queue: dict[str, Any] = {"windows": {}, "budget": {}, "breaker": {}, "last_errors": []}
    whose = [{"id": each, "workspace_id": service.workspaces[who]} for each, who in owners.items()]
    yield Destination, [{**each, **destination, "created_at": now} for each in whose]
    yield VirtualQueue, [{**each, **queue} for each in whose]
    yield (
        Ready,
        [
            {
                "delivery_id": f"dlv_{n}", "queue_id": f"dst_{n % 100:03}", "rank": 20_000,
                "due_at": now + (DAY if n // 100 % 2 else -DAY), "placed_at": now,
                "operation": "erase", "expires_at": now + 9 * DAY,
                "call_id": "call_0" if n in {0, 100} else None,
            }
            for n in range(CROWD)
        ],
    )  # fmt: skip
    calls = [(each, n) for each, who in owners.items() for n in range(40 if who == "alice" else 1)]
    yield OpenCall, [{"queue_id": each, "call_id": f"call_{n}", "leases": 1} for each, n in calls]


async def paths(databases: Iterable[Database], work: Awaitable[None]) -> set[str]:
    """The indexes by which the work's statements find rows of the crowded tables; ``whole <table>``
    when there is no way but through all of it.
    """
    heard: dict[str, tuple[Database, Any]] = {}
    ears = [
        (engine.sync_engine, partial(_hear, heard, database))
        for database in databases
        for engine in {database._reader, database._writer}
    ]
    for engine, ear in ears:
        sa.event.listen(engine, "before_cursor_execute", ear)
    await work
    for engine, ear in ears:
        sa.event.remove(engine, "before_cursor_execute", ear)
    found: set[str] = set()
    for statement, (database, given) in heard.items():
        if re.match(r"SELECT|UPDATE|DELETE", statement):
            explain = _on_sqlite if database.is_sqlite else _on_postgresql
            async with database.engine.connect() as connection:
                found |= set(await explain(connection, statement, given))
    return {each for each in found if "virtual_queue" not in each}


def _hear(
    heard: dict[str, Any], database: Database, _: Any, __: Any, statement: str, given: Any,
    ___: Any, many: bool,
) -> None:  # fmt: skip
    heard[statement] = database, given[0] if many else given


_SQLITE = re.compile(r"(SCAN|SEARCH) (\w+)(?: USING (COVERING )?INDEX (\w+))?")


async def _on_sqlite(connection: Any, statement: str, given: Any) -> list[str]:
    rows = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", given)
    found = [match.groups() for row in rows if (match := _SQLITE.match(row[-1]))]
    return [
        f"whole {table}" if how == "SCAN" else _named(index or table) + (" alone" if only else "")
        for how, table, only, index in found
        if table not in {"json_each", "CONSTANT"}
    ]


def _named(index: str) -> str:
    return re.sub(r"^sqlite_autoindex_(\w+)_1$", r"pk_\1", index)


async def _on_postgresql(connection: Any, statement: str, given: Any) -> list[str]:
    # It would rather not go by an index alone while VACUUM has not been everywhere.
    await connection.exec_driver_sql("SET LOCAL enable_bitmapscan = off")
    rows = await connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", given)
    return [
        f"{node['Index Name']}{' alone' if node['Node Type'] == 'Index Only Scan' else ''}"
        if "Index Name" in node
        else f"whole {node['Relation Name']}"
        for node in _nodes(rows.scalar_one()[0]["Plan"])
        if "Index Name" in node or node["Node Type"] == "Seq Scan"
    ]


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)
