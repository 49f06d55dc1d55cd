"""The key store: one data key per holder (request or visitor) in a database of its own.

A dump of the main database without the key store opens nothing, and deleting a data key forgets its
holder, whatever copies of the ciphertexts exist.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import AsyncIterator, Collection, Iterable

import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlmodel import col

from app.core.db import Database, insert_or_ignore
from app.crypto.keyring import KeyRing, Unsealable
from app.crypto.models import DataKey


class HolderKey:
    """The data key of one holder."""

    __slots__ = ("_cipher",)

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, plaintext: bytes, place: str) -> bytes:
        nonce = os.urandom(12)
        return b"\x01" + nonce + self._cipher.encrypt(nonce, plaintext, place.encode())

    def unseal(self, sealed: bytes, place: str) -> bytes:
        try:
            return self._cipher.decrypt(sealed[1:13], sealed[13:], place.encode())
        except (InvalidTag, ValueError) as error:
            raise Unsealable("a personal value does not open with its holder's key") from error


class KeyStore:
    """Makes, finds and destroys data keys; every call is a transaction of its own, committed on
    return.
    """

    def __init__(self, database: Database, ring: KeyRing) -> None:
        self._database = database
        self._ring = ring

    async def create(self, holder_ids: Iterable[str], now: dt.datetime) -> dict[str, HolderKey]:
        """Commit fresh data keys; call before the transaction that needs them. Orphans are
        swept.
        """
        keys = {holder_id: os.urandom(32) for holder_id in holder_ids}
        rows = [
            {
                "holder_id": holder_id,
                "wrapped": self._ring.seal(key, _place(holder_id)),
                "created_at": now,
            }
            for holder_id, key in keys.items()
        ]
        if rows:
            async with self._database.writing() as session:
                await session.execute(sa.insert(DataKey), rows)
        return {holder_id: HolderKey(key) for holder_id, key in keys.items()}

    async def ensure(self, holder_id: str, now: dt.datetime) -> HolderKey:
        """The holder's key, made if there is none."""
        async with self._database.writing() as session:
            wrapped = self._ring.seal(os.urandom(32), _place(holder_id))
            await session.execute(
                insert_or_ignore(session, DataKey).values(
                    holder_id=holder_id, wrapped=wrapped, created_at=now
                )
            )
        return (await self.load([holder_id]))[holder_id]

    async def load(self, holder_ids: Collection[str]) -> dict[str, HolderKey]:
        """The keys that still exist; a forgotten holder is missing from the answer."""
        if not holder_ids:
            return {}
        async with self._database.reading() as session:
            rows = await session.execute(
                sa.select(col(DataKey.holder_id), col(DataKey.wrapped)).where(
                    col(DataKey.holder_id).in_(holder_ids)
                )
            )
            return {
                holder_id: HolderKey(open_wrapped(self._ring, holder_id, wrapped))
                for holder_id, wrapped in rows
            }

    async def forget(self, holder_ids: Collection[str]) -> None:
        """Destroy data keys: what they sealed is gone from here on."""
        if holder_ids:
            async with self._database.writing() as session:
                await session.execute(
                    sa.delete(DataKey).where(col(DataKey.holder_id).in_(holder_ids))
                )
            await self._database.flush_deleted()

    async def made(
        self, since: dt.datetime | None, until: dt.datetime, limit: int = 1000
    ) -> AsyncIterator[list[str]]:
        """Holders whose key was made between these moments, oldest first, some at a time."""
        made_at, holder_id = place = (col(DataKey.created_at), col(DataKey.holder_id))
        query = sa.select(*place).where(made_at < until).order_by(*place).limit(limit)
        last, seen = since or dt.datetime(1970, 1, 1, tzinfo=dt.UTC), ""
        while True:
            is_next = sa.or_(made_at > last, holder_id > seen)
            async with self._database.reading() as session:
                rows = (await session.execute(query.where(made_at >= last, is_next))).all()
            if not rows:
                return
            yield [holder_id for _, holder_id in rows]
            last, seen = rows[-1]


def open_wrapped(ring: KeyRing, holder_id: str, wrapped: bytes) -> bytes:
    """A data key as the key store keeps it; ``Unsealable`` with another key file."""
    return ring.unseal(wrapped, _place(holder_id))


def _place(holder_id: str) -> str:
    return f"data_key|{holder_id}|wrapped|1"
