"""The archive: expired deliveries as NDJSON files, and the way back from there.

A line holds all that is needed to carry the delivery out, its identifiers sealed under their
holder's data key as in the database: once the person is forgotten, it opens nothing. A file gets
its name and its deliveries before it is written, so that after a crash the same file is written
again.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.core.clock import rfc3339
from app.core.db import Database, insert_or_ignore
from app.core.failpoints import failpoint
from app.core.ids import new_id
from app.core.logging import get_logger
from app.core.storage import Storage
from app.crypto.keyring import KeyRing
from app.crypto.keystore import KeyStore
from app.delivery import service
from app.delivery.models import Archived, ArchiveFile, Delivery, DeliveryTransition
from app.delivery.service import Selection
from app.delivery.states import State
from app.identity import vault
from app.identity.models import PersonalValue

log = get_logger(__name__)

LINES = 500
"""Deliveries in one file at most."""
LEASE = dt.timedelta(minutes=1)
"""How long nobody else writes a file; also the pause after the storage failed."""

Line = dict[str, Any]


class Archive:
    """Writes, reads and tidies the files; ``write_due`` is the archive pump's step."""

    def __init__(self, database: Database, keys: KeyStore, ring: KeyRing, storage: Storage) -> None:
        self._database = database
        self._keys = keys
        self._ring = ring
        self._storage = storage

    async def write_due(self, now: dt.datetime) -> bool:
        """Write one file; True when there may be another. A storage that fails is asked again after
        the lease, and holds up nothing else.
        """
        until = now + LEASE
        async with self._database.writing() as session:
            name = await _claim(session, now, until)
        if name is None:
            return False
        async with self._database.reading() as session:
            lines = await _lines(session, name)
        try:
            failpoint("archive.before_write")
            if lines:
                content = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
                await asyncio.to_thread(self._storage.write, name, content)
            failpoint("archive.after_write")
        except Exception as error:  # each kind of storage has its own ones
            log.error("archive_not_written", count=len(lines), error=type(error).__name__)
            return False
        async with self._database.writing() as session:
            await _record(session, name, until, lines, now)
        return True

    async def mend(self, which: Selection) -> None:
        """Give the main database back what it lost of archived deliveries, where a file has it and
        the person is not forgotten.
        """
        after = ""
        while lost := await self._unreplayable(which, after):
            after = lost[-1].delivery_id
            keys = await self._keys.load({each.request_id for each in lost})
            found = await self._find([each for each in lost if each.request_id in keys])
            for line in found.values():
                async with self._database.writing() as session:
                    await _take_back(session, line)
                    await vault.put_back(session, keys, self._ring, line["identifiers"])

    async def _unreplayable(self, which: Selection, after: str) -> list[Archived]:
        async with self._database.reading() as session:
            return await service.unreplayable(session, which, after)

    async def missing(self) -> tuple[int, list[str]]:
        """How many archived deliveries should have a line, and the ids of those that have none."""
        async with self._database.reading() as session:
            rows = await session.execute(
                sa.select(Archived)
                .join(ArchiveFile, col(ArchiveFile.name) == col(Archived.file))
                .where(col(ArchiveFile.write_at).is_(None))
                .order_by(col(Archived.file), col(Archived.delivery_id))
            )
            written = list(rows.scalars())
        found = await self._find(written)
        return len(written), [each.delivery_id for each in written if each.delivery_id not in found]

    async def tidy(self, now: dt.datetime) -> None:
        """Remove files none of whose deliveries is archived any more."""
        async with self._database.reading() as session:
            rows = await session.execute(
                sa.select(col(ArchiveFile.name))
                .where(
                    ~sa.exists().where(col(Archived.file) == col(ArchiveFile.name)),
                    sa.or_(col(ArchiveFile.write_at).is_(None), col(ArchiveFile.write_at) <= now),
                )
                .limit(1000)
            )
            names = list(rows.scalars())
        for name in names:
            try:
                await asyncio.to_thread(self._storage.remove, name)
            except Exception as error:
                log.error("archive_not_tidied", count=len(names), error=type(error).__name__)
                return
            async with self._database.writing() as session:
                await session.execute(sa.delete(ArchiveFile).where(col(ArchiveFile.name) == name))

    async def _find(self, rows: Sequence[Archived]) -> dict[str, Line]:
        """The rows' lines by delivery id, as far as their files can be read."""
        wanted = {(each.delivery_id, each.request_id, each.queue_id) for each in rows}
        found: dict[str, Line] = {}
        for name in sorted({each.file for each in rows if each.file is not None}):
            try:
                content = await asyncio.to_thread(self._storage.read, name)
                lines = [json.loads(each) for each in content.splitlines()]
            except Exception as error:
                log.error("archive_not_read", error=type(error).__name__)
                continue
            for line in lines:
                if (line["delivery_id"], line["request_id"], line["destination_id"]) in wanted:
                    found[line["delivery_id"]] = line
        return found


async def _claim(session: AsyncSession, now: dt.datetime, until: dt.datetime) -> str | None:
    """The name of the file to write now: one left unwritten first, filled up with what came since.
    While somebody else writes one, None: what expires meanwhile shares the next.
    """
    unwritten = (
        await session.execute(
            sa.select(ArchiveFile).where(col(ArchiveFile.write_at).is_not(None)).with_for_update()
        )
    ).scalars()
    file = min(unwritten, key=lambda each: each.name, default=None)
    if file is not None and file.write_at is not None and file.write_at > now:
        return None
    name = file.name if file is not None else f"{new_id('arc')}.ndjson"
    if not await _fill(session, name) and file is None:
        return None
    if file is None:
        session.add(ArchiveFile(name=name, write_at=until))
    else:
        file.write_at = until
    return name


async def _fill(session: AsyncSession, name: str) -> int:
    """Put archived deliveries without a file into this one, oldest first; returns how many."""
    inside = sa.select(sa.func.count()).where(col(Archived.file) == name)
    room = LINES - (await session.execute(inside)).scalar_one()
    homeless = (
        sa.select(col(Archived.delivery_id))
        .where(col(Archived.file).is_(None))
        .order_by(col(Archived.archived_at), col(Archived.delivery_id))
        .limit(room)
        .with_for_update(skip_locked=True)
    )
    ids = list((await session.execute(homeless)).scalars())
    await session.execute(
        sa.update(Archived)
        .where(col(Archived.delivery_id).in_(ids))
        .values(file=name)
        .execution_options(synchronize_session=False)
    )
    return len(ids)


async def _lines(session: AsyncSession, name: str) -> list[Line]:
    rows = (
        await session.execute(
            sa.select(Delivery, col(Archived.archived_at))
            .join(Archived, col(Archived.delivery_id) == col(Delivery.id))
            .where(col(Archived.file) == name)
            .order_by(col(Archived.archived_at), col(Delivery.id))
        )
    ).all()
    present = await service.latest(session, [delivery.id for delivery, _ in rows])
    ids = {each for delivery, _ in rows for each in delivery.identifier_ids}
    values = (
        await session.execute(sa.select(PersonalValue).where(col(PersonalValue.id).in_(ids)))
    ).scalars()
    sealed = {each.id: vault.pack(each) for each in values}
    return [
        _line(
            delivery,
            archived_at,
            present[delivery.id],
            [sealed[each] for each in delivery.identifier_ids if each in sealed],
        )
        for delivery, archived_at in rows
        if delivery.id in present
    ]


def _line(
    delivery: Delivery,
    archived_at: dt.datetime,
    present: DeliveryTransition,
    identifiers: list[dict[str, Any]],
) -> Line:
    return {
        "version": 1,
        "delivery_id": delivery.id,
        "request_id": delivery.request_id,
        "workspace_id": delivery.workspace_id,
        "destination_id": delivery.destination_id,
        "operation": delivery.operation,
        "phase": delivery.phase,
        "due_at": rfc3339(delivery.due_at),
        "created_at": rfc3339(delivery.created_at),
        "expires_at": rfc3339(delivery.expires_at),
        "archived_at": rfc3339(archived_at),
        "state": present.state,
        "seq": present.seq,
        "attempt": present.attempt,
        "assurance": present.assurance,
        "reason": present.reason,
        "identifier_ids": delivery.identifier_ids,
        "identifiers": identifiers,
    }


async def _record(
    session: AsyncSession, name: str, until: dt.datetime, lines: Sequence[Line], now: dt.datetime
) -> None:
    """The file is written, as far as we hold it still: its deliveries are archived now, but for
    those replayed or waived meanwhile.
    """
    held = await session.execute(
        sa.update(ArchiveFile)
        .where(col(ArchiveFile.name) == name, col(ArchiveFile.write_at) == until)
        .values(write_at=None)
        .returning(col(ArchiveFile.name))
        .execution_options(synchronize_session=False)
    )
    if held.first() is None:
        return
    rows = await session.execute(
        sa.select(col(Archived.delivery_id)).where(col(Archived.file) == name).with_for_update()
    )
    still = set(rows.scalars())
    steps = [
        _transition(line, line["seq"] + 1, now)
        for line in lines
        # Those from before there were files are archived already.
        if line["delivery_id"] in still and line["state"] == State.ARCHIVING
    ]
    if steps:
        await session.execute(sa.insert(DeliveryTransition), steps)


def _transition(line: Line, seq: int, at: dt.datetime) -> dict[str, Any]:
    return {
        "delivery_id": line["delivery_id"],
        "seq": seq,
        "at": at,
        "state": State.ARCHIVED,
        "detail": "expired",
        "assurance": line["assurance"],
        "attempt": line["attempt"],
        "reason": line["reason"],
    }


async def _take_back(session: AsyncSession, line: Line) -> None:
    """Insert the delivery and its place in history, where they are gone."""
    moments = {
        each: line[each] and dt.datetime.fromisoformat(line[each])
        for each in ("due_at", "created_at", "expires_at")
    }
    same = ("request_id", "workspace_id", "destination_id", "operation", "phase", "identifier_ids")
    await session.execute(
        insert_or_ignore(session, Delivery).values(
            id=line["delivery_id"], **{each: line[each] for each in same}, **moments
        )
    )
    if not await service.latest(session, [line["delivery_id"]]):
        at = dt.datetime.fromisoformat(line["archived_at"])
        await session.execute(
            sa.insert(DeliveryTransition), [_transition(line, line["seq"] + 1, at)]
        )
