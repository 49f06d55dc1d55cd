"""The vault: personal values sealed under their holder's data key, and found by subject
reference.
"""

from __future__ import annotations

import base64
import datetime as dt
import hmac
import json
import secrets
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.core.clock import rfc3339
from app.core.db import insert_or_ignore, table_of
from app.core.ids import new_id
from app.crypto.keyring import KeyRing
from app.crypto.keystore import HolderKey, KeyStore
from app.identity.models import PersonalValue
from connectors.contract import Identifier


@dataclass(frozen=True, slots=True)
class Opened:
    """A personal value in clear. ``opening``: base64url of 32 bytes that open the identifier's
    commitment.
    """

    id: str
    holder_id: str
    purpose: str
    kind: str
    value: str
    opening: str
    origin: str
    subject_ref: bytes | None

    @property
    def identifier(self) -> Identifier:
        return Identifier(self.kind, self.value)


def identifier_row(
    ring: KeyRing,
    key: HolderKey,
    *,
    workspace_id: str,
    holder_id: str,
    identifier: Identifier,
    now: dt.datetime,
    origin: str = "given",
) -> dict[str, Any]:
    """An insertable row of ``personal_value`` for one identifier, with a fresh opening."""
    opening = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")
    row = value_row(
        key,
        workspace_id=workspace_id,
        holder_id=holder_id,
        purpose="identifier",
        kind=identifier.kind,
        value=identifier.value,
        now=now,
        origin=origin,
        opening=opening,
        subject_ref=ring.subject_ref(workspace_id, identifier.kind, identifier.value),
    )
    row["commitment"] = commitment(opening, identifier)
    return row


def commitment(opening: str, identifier: Identifier) -> str:
    """Hex HMAC-SHA-256 of ``v1|kind|value`` under the opening: who has both can show that a receipt
    is theirs.
    """
    key = base64.urlsafe_b64decode(opening + "=" * (-len(opening) % 4))
    return hmac.digest(key, f"v1|{identifier.kind}|{identifier.value}".encode(), "sha256").hex()


def value_row(
    key: HolderKey,
    *,
    workspace_id: str,
    holder_id: str,
    purpose: str,
    kind: str,
    value: str,
    now: dt.datetime,
    origin: str = "given",
    opening: str = "",
    subject_ref: bytes | None = None,
    expires_at: dt.datetime | None = None,
) -> dict[str, Any]:
    """An insertable row of ``personal_value`` for anything personal."""
    row_id = new_id("pv")
    return {
        "id": row_id,
        "workspace_id": workspace_id,
        "holder_id": holder_id,
        "purpose": purpose,
        "kind": kind,
        "subject_ref": subject_ref,
        "commitment": None,
        "origin": origin,
        "sealed": key.seal(json.dumps([value, opening]).encode(), _place(workspace_id, row_id)),
        "created_at": now,
        "expires_at": expires_at,
    }


async def add(session: AsyncSession, rows: list[dict[str, Any]]) -> None:
    if rows:
        await session.execute(sa.insert(PersonalValue), rows)


async def open_ids(
    session: AsyncSession, keys: KeyStore, ids: Collection[str]
) -> dict[str, Opened]:
    """Values by id; those whose holder was forgotten are missing."""
    if not ids:
        return {}
    return await _open(session, keys, col(PersonalValue.id).in_(ids))


async def open_holder(
    session: AsyncSession,
    keys: KeyStore,
    holder_ids: Collection[str],
    purposes: Iterable[str] = ("identifier",),
) -> list[Opened]:
    """All values of holders with one of the purposes, oldest first."""
    if not holder_ids:
        return []
    found = await _open(
        session,
        keys,
        col(PersonalValue.holder_id).in_(holder_ids)
        & col(PersonalValue.purpose).in_(tuple(purposes)),
    )
    return sorted(found.values(), key=lambda each: each.id)


async def _open(session: AsyncSession, keys: KeyStore, condition: Any) -> dict[str, Opened]:
    rows = (
        (await session.execute(sa.select(table_of(PersonalValue)).where(condition)))
        .mappings()
        .all()
    )
    holder_keys = await keys.load({row["holder_id"] for row in rows})
    opened = {}
    for row in rows:
        key = holder_keys.get(row["holder_id"])
        if key is None:
            continue
        value, opening = json.loads(
            key.unseal(row["sealed"], _place(row["workspace_id"], row["id"]))
        )
        opened[row["id"]] = Opened(
            row["id"],
            row["holder_id"],
            row["purpose"],
            row["kind"],
            value,
            opening,
            row["origin"],
            row["subject_ref"],
        )
    return opened


async def holders_of(
    session: AsyncSession, ring: KeyRing, workspace_id: str, identifiers: Iterable[Identifier]
) -> list[str]:
    """Holders that have any of the identifiers, newest first."""
    refs = [ring.subject_ref(workspace_id, each.kind, each.value) for each in identifiers]
    rows = await session.execute(
        sa.select(col(PersonalValue.holder_id))
        .where(
            col(PersonalValue.workspace_id) == workspace_id,
            col(PersonalValue.subject_ref).in_(refs),
        )
        .distinct()
        .order_by(col(PersonalValue.holder_id).desc())
        .limit(1000)
    )
    return [holder_id for (holder_id,) in rows]


async def forget(session: AsyncSession, holder_ids: Collection[str]) -> None:
    """Delete the ciphertexts; destroy the data keys first (``KeyStore.forget``)."""
    if holder_ids:
        await session.execute(
            sa.delete(PersonalValue).where(col(PersonalValue.holder_id).in_(holder_ids))
        )


def pack(row: PersonalValue) -> dict[str, Any]:
    """A sealed value for a file outside the database, still sealed; its subject reference stays
    behind, the value gives it again.
    """
    return {
        "id": row.id,
        "workspace_id": row.workspace_id,
        "holder_id": row.holder_id,
        "purpose": row.purpose,
        "kind": row.kind,
        "commitment": row.commitment,
        "origin": row.origin,
        "created_at": rfc3339(row.created_at),
        "sealed": base64.b64encode(row.sealed).decode(),
    }


async def put_back(
    session: AsyncSession,
    keys: Mapping[str, HolderKey],
    ring: KeyRing,
    packed: Iterable[dict[str, Any]],
) -> None:
    """Insert packed values that the table lacks; those of a holder without a key stay away."""
    for each in packed:
        key = keys.get(each["holder_id"])
        if key is None:
            continue
        sealed = base64.b64decode(each["sealed"])
        value, _ = json.loads(key.unseal(sealed, _place(each["workspace_id"], each["id"])))
        row = each | {
            "sealed": sealed,
            "created_at": dt.datetime.fromisoformat(each["created_at"]),
            "subject_ref": ring.subject_ref(each["workspace_id"], each["kind"], value),
        }
        await session.execute(insert_or_ignore(session, PersonalValue).values(**row))


def _place(workspace_id: str, row_id: str) -> str:
    return f"{workspace_id}|personal_value|{row_id}|sealed|1"


def pack_file(name: str, content: bytes) -> str:
    """A file as the text of a personal value."""
    return json.dumps({"name": name, "content": base64.b64encode(content).decode()})


def unpack_file(value: str) -> tuple[str, bytes]:
    packed = json.loads(value)
    return packed["name"], base64.b64decode(packed["content"])
