"""API keys: ``qt_`` + 40 base-62 characters + 6 of CRC-32, so that scanners can tell a real one
offline.

Secret-scanning pattern: ``qt_[0-9A-Za-z]{46}``. Only the SHA-256 is stored; the secret has 238
bits.
"""

from __future__ import annotations

import datetime as dt
import secrets
import zlib
from collections.abc import Iterable

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.core.errors import Invalid, NotFound
from app.core.ids import base62, new_id
from app.crypto.keyring import sha256
from app.security.errors import MissingScope
from app.security.models import ApiKey

SCOPES = frozenset(
    {
        "requests:read",
        "requests:write",
        "destinations:read",
        "destinations:write",
        "consents:read",
        "suppressions:read",
        "sites:read",
        "sites:write",
        "keys:write",
        "ops:read",
        "all",
    }
)


def new_secret() -> str:
    body = base62(secrets.randbits(238), 40)
    return f"qt_{body}{_checksum(body)}"


def is_well_formed(secret: str) -> bool:
    return len(secret) == 49 and secret.startswith("qt_") and _checksum(secret[3:43]) == secret[43:]


def _checksum(body: str) -> str:
    return base62(zlib.crc32(body.encode()), 6)


def allows(granted: Iterable[str], wanted: str) -> bool:
    granted = set(granted)
    return (
        "all" in granted
        or wanted in granted
        or (wanted.endswith(":read") and f"{wanted[:-5]}:write" in granted)
    )


async def create(
    session: AsyncSession,
    *,
    workspace_id: str,
    name: str,
    scopes: Iterable[str],
    created_by: str,
    grantor_scopes: Iterable[str],
    now: dt.datetime,
    expires_at: dt.datetime | None = None,
) -> tuple[ApiKey, str]:
    """A new key and its secret, which is shown once. Nobody grants a scope that they do
    not hold.
    """
    scopes = sorted(set(scopes))
    if not scopes or not SCOPES.issuperset(scopes):
        raise Invalid(f"Scopes are: {', '.join(sorted(SCOPES))}.")
    if not name.strip() or len(name) > 100:
        raise Invalid("Give the key a name of at most 100 characters.")
    if expires_at is not None and expires_at.tzinfo is None:
        raise Invalid("`expires_at` needs an offset, such as 2026-11-23T10:00:00Z.")
    if expires_at is not None and expires_at <= now:
        raise Invalid("`expires_at` must lie in the future.")
    if missing := [scope for scope in scopes if not allows(grantor_scopes, scope)]:
        raise MissingScope(
            f"A key can only grant what its creator holds; missing: {', '.join(missing)}."
        )
    secret = new_secret()
    key = ApiKey(
        id=new_id("key"),
        workspace_id=workspace_id,
        name=name.strip(),
        hint=secret[:7],
        secret_sha256=sha256(secret),
        scopes=scopes,
        created_by=created_by,
        created_at=now,
        expires_at=expires_at,
    )
    session.add(key)
    await session.flush()
    return key, secret


async def find(session: AsyncSession, secret: str, now: dt.datetime) -> ApiKey | None:
    """The live key with this secret."""
    key = (
        await session.execute(sa.select(ApiKey).where(col(ApiKey.secret_sha256) == sha256(secret)))
    ).scalar_one_or_none()
    if (
        key is None
        or key.revoked_at is not None
        or (key.expires_at is not None and key.expires_at <= now)
    ):
        return None
    return key


async def note_use(session: AsyncSession, key_id: str, now: dt.datetime) -> None:
    """Remember the hour of the last use."""
    await session.execute(
        sa.update(ApiKey)
        .where(col(ApiKey.id) == key_id)
        .values(last_used_at=now.replace(minute=0, second=0, microsecond=0))
    )


async def revoke(session: AsyncSession, workspace_id: str, key_id: str, now: dt.datetime) -> ApiKey:
    key = await session.get(ApiKey, key_id)
    if key is None or key.workspace_id != workspace_id:
        raise NotFound("There is no key with this id.")
    key.revoked_at = key.revoked_at or now
    await session.flush()
    return key
