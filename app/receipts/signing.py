"""Signing keys and signatures: Ed25519 JWS over canonical JSON, keys published as a JWK set (RFC
7517, 7638, 8037).
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
from typing import Any

import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.core.db import Database
from app.crypto.keyring import KeyRing
from app.crypto.models import SigningKey
from app.receipts.canonical import canonical

REQUEST_RECEIPT = "request-receipt+jwt"
CONSENT_RECEIPT = "consent-receipt+jwt"


class Signer:
    """Signs with the newest key that is not retired; makes the first one."""

    def __init__(self, kid: str, private: Ed25519PrivateKey) -> None:
        self.kid = kid
        self._private = private

    def sign(self, claims: dict[str, Any], typ: str) -> str:
        """Compact JWS. ``alg`` is EdDSA: RFC 9864 prefers ``Ed25519``, which common verifiers do
        not read yet.
        """
        header = canonical({"alg": "EdDSA", "kid": self.kid, "typ": typ})
        message = f"{_base64url(header)}.{_base64url(canonical(claims))}"
        return f"{message}.{_base64url(self._private.sign(message.encode()))}"


async def load_signer(database: Database, ring: KeyRing, now: dt.datetime) -> Signer:
    """The current signer; makes a key when there is none."""
    async with database.writing() as session:
        found = (
            (
                await session.execute(
                    sa.select(SigningKey)
                    .where(col(SigningKey.retired_at).is_(None))
                    .order_by(col(SigningKey.created_at).desc())
                )
            )
            .scalars()
            .first()
        )
        if found is None:
            found = _new_key(ring, now)
            session.add(found)
    private = Ed25519PrivateKey.from_private_bytes(
        ring.unseal(found.private_sealed, _place(found.kid))
    )
    return Signer(found.kid, private)


async def jwks(session: AsyncSession) -> dict[str, Any]:
    """All public keys, retired ones too: old receipts stay checkable."""
    rows = await session.execute(sa.select(SigningKey).order_by(col(SigningKey.created_at)))
    return {
        "keys": [
            key.public_jwk | {"kid": key.kid, "alg": "EdDSA", "use": "sig"}
            for key in rows.scalars()
        ]
    }


def _new_key(ring: KeyRing, now: dt.datetime) -> SigningKey:
    private = Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    jwk = {"crv": "Ed25519", "kty": "OKP", "x": _base64url(public)}
    kid = _base64url(
        hashlib.sha256(json.dumps(jwk, sort_keys=True, separators=(",", ":")).encode()).digest()
    )
    raw = private.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    return SigningKey(
        kid=kid, public_jwk=jwk, private_sealed=ring.seal(raw, _place(kid)), created_at=now
    )


def _place(kid: str) -> str:
    return f"signing_key|{kid}|private|1"


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
