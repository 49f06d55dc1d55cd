"""Collecting a history after a run: from the destinations' notes, the database and the API, which
must tell the same story.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa
from sqlmodel import col

import app.tables
from app.core.db import table_of
from app.delivery.models import Archived, Call, DeliveryTransition, Ready, VirtualQueue
from app.delivery.models import Delivery as DeliveryRow
from app.receipts.verify import NotValid, verify
from app.subject_requests.models import SubjectRequest
from connectors.contract import Identifier
from tests.faults import history
from tests.faults.history import History, Person
from tests.faults.stage import Stage


def collect(stage: Stage) -> History:
    """Everything since ``stage.begin()``."""
    with stage.engine.connect() as connection:
        requests = _requests(connection, list(stage.people))
        deliveries = _deliveries(connection, list(stage.people), stage.ids)
        calls = {
            row.id: frozenset(row.delivery_ids)
            for row in connection.execute(sa.select(table_of(Call)))
        }
        alarmed = _alarmed(connection)
    _compare_with_api(stage.instance.api, deliveries)
    return History(
        asked=dict(stage.people),
        requests=requests,
        deliveries=deliveries,
        calls=calls,
        hits=[hit for each in stage.destinations for hit in each.hits_since(stage.started_at)],
        receipts=_receipts(stage),
        faults=list(stage.faults),
        alarmed=frozenset(alarmed),
        removed={each.name: stage.gone(each) for each in stage.destinations},
        sinks=stage.sinks
        | {
            "the logs": stage.instance.logs().encode(),
            "the main database": dump(stage.engine),
            "the archive": _content(stage.instance.directory / "archive"),
        },
    )


def _requests(connection: sa.Connection, ids: list[str]) -> dict[str, history.Request]:
    rows = connection.execute(
        sa.select(
            col(SubjectRequest.id), col(SubjectRequest.outcome), col(SubjectRequest.duplicate_of)
        ).where(col(SubjectRequest.id).in_(ids))
    )
    return {row.id: history.Request(row.outcome, row.duplicate_of) for row in rows}


def _deliveries(
    connection: sa.Connection, request_ids: list[str], destinations: dict[str, str]
) -> dict[str, history.Delivery]:
    names = {destination_id: name for name, destination_id in destinations.items()}
    table, steps = table_of(DeliveryRow), table_of(DeliveryTransition)
    rows = connection.execute(
        sa.select(table.c.request_id, table.c.destination_id, steps)
        .join(steps, steps.c.delivery_id == table.c.id)
        .where(table.c.request_id.in_(request_ids))
        .order_by(steps.c.delivery_id, steps.c.seq)
    )
    found: dict[str, history.Delivery] = {}
    for row in rows:
        step = history.Step(row.state, row.detail, row.call_id, (row.evidence or {}).get("sha256"))
        known = found.get(row.delivery_id)
        found[row.delivery_id] = history.Delivery(
            row.request_id,
            names[row.destination_id],
            (*(known.steps if known else ()), step),
        )
    return found


def _alarmed(connection: sa.Connection) -> set[str]:
    """Deliveries that operators are shown as stuck: in parked queues, or in the archive."""
    parked = connection.execute(
        sa.select(col(Ready.delivery_id))
        .join(VirtualQueue, col(VirtualQueue.id) == col(Ready.queue_id))
        .where(col(VirtualQueue.parked_reason).is_not(None))
    )
    archived = connection.execute(sa.select(col(Archived.delivery_id)))
    return {*parked.scalars(), *archived.scalars()}


def _compare_with_api(api: httpx.Client, deliveries: dict[str, history.Delivery]) -> None:
    for delivery_id, delivery in deliveries.items():
        shown = api.get(f"/v1/deliveries/{delivery_id}").raise_for_status().json()
        told = [each["state"] for each in shown["transitions"]]
        recorded = [each.state for each in delivery.steps]
        if told != recorded:
            raise AssertionError(f"the API tells of {delivery_id}: {told}; its rows: {recorded}")


def _receipts(stage: Stage) -> dict[str, Any]:
    keys = stage.instance.visitor.get("/.well-known/jwks.json").raise_for_status().json()
    found = {}
    for request_id, person in stage.people.items():
        answer = stage.instance.api.get(
            f"/v1/requests/{request_id}/receipt", headers={"Accept": "application/json"}
        )
        if answer.is_success and (claims := _checked(answer.json(), keys, person)):
            found[request_id] = claims
    return found


def _checked(answer: dict[str, Any], keys: Any, person: Person) -> dict[str, Any] | None:
    """The claims, if signature and commitments hold; after forgetting no opening is left."""
    try:
        claims = verify(answer["receipt"], keys).claims
        for each in answer["openings"] or ():
            mine = [Identifier(*value) for value in person if value[0] == each["kind"]]
            if not any(
                verify(answer["receipt"], keys, each["opening"], one).is_theirs for one in mine
            ):
                return None
    except NotValid:
        return None
    return claims


def _content(directory: Path) -> bytes:
    return b"".join(each.read_bytes() for each in directory.rglob("*") if each.is_file())


def dump(engine: sa.Engine) -> bytes:
    """Every row of the main database in clear; on SQLite also what deleted rows left in the
    files.
    """
    with engine.connect() as connection:
        rows = [
            row
            for table in app.tables.MAIN.sorted_tables
            for row in connection.execute(sa.select(table))
        ]
    content = repr(rows).encode()
    if engine.url.database and engine.dialect.name == "sqlite":
        database = Path(engine.url.database)
        content += b"".join(each.read_bytes() for each in database.parent.glob(database.name + "*"))
    return content
