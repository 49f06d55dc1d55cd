"""What has served its time goes bite by bite, so that whoever writes meanwhile hardly waits."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
import sqlalchemy as sa

from app.core import bulk
from app.core.clock import utc_now
from app.core.db import table_of
from app.core.ids import new_id
from app.delivery.models import JobReport
from app.identity.models import PersonalValue, UsedHostToken
from app.notifications.models import Alert
from app.security.models import AuditEntry, IdempotencyRecord
from app.suppression.models import Suppression
from tests.running import Service

OLD = dt.timedelta(days=731)
BITE = 2


def _old(service: Service, then: dt.datetime, number: int) -> list[tuple[Any, dict[str, Any]]]:
    """One row of each table that has run out, or whose record time is over."""
    mine = {"workspace_id": service.workspaces["alice"]}

    def of(prefix: str) -> dict[str, Any]:
        return {"id": new_id(prefix, then.timestamp()), **mine}

    return [
        (AuditEntry, of("aud") | {"at": then, "actor": "a", "verb": "v", "target": "t"}),
        (
            Alert,
            of("alr")
            | {"kind": "queue_stuck", "subject_id": "x", "raised_at": then, "resolved_at": then},
        ),
        (
            Suppression,
            of("sup")
            | {"subject_ref": bytes([number]), "kind": "email", "scope": "all"}
            | {"since": then, "expires_at": then, "request_id": "req"},
        ),
        (
            IdempotencyRecord,
            mine | {"route": "r", "key": str(number), "fingerprint": b"", "created_at": then},
        ),
        (UsedHostToken, mine | {"digest": bytes([number]), "expires_at": then}),
        (
            JobReport,
            {"destination_id": "dst", "job": str(number), "at": then}
            | {"outcome": {}, "expires_at": then},
        ),
        (
            PersonalValue,
            of("pv")
            | {"holder_id": f"vis_{number}", "purpose": "identifier", "kind": "email"}
            | {"sealed": b"", "created_at": then, "expires_at": then},
        ),
    ]


async def test_no_transaction_removes_more_than_a_bite(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "BITE", BITE)
    database, then = service.runtime.database, utc_now() - OLD
    tables = {table_of(model) for model, _ in _old(service, then, 0)}
    async with database.writing() as session:
        for number in range(2 * BITE + 1):
            for model, row in _old(service, then, number):
                await session.execute(sa.insert(model).values(**row))
    deleted = [0]

    @sa.event.listens_for(database.engine.sync_engine, "after_cursor_execute")
    def count(_: Any, cursor: Any, statement: str, *__: Any) -> None:
        if statement.startswith("DELETE"):
            deleted[-1] += cursor.rowcount

    @sa.event.listens_for(database.engine.sync_engine, "commit")
    def end(_: Any) -> None:
        deleted.append(0)

    await service.maintain()

    assert max(deleted) == BITE
    async with database.reading() as session:
        left = {
            each.name: (await session.scalars(sa.select(sa.func.count()).select_from(each))).one()
            for each in tables
        }
    assert set(left.values()) == {0}, left
