"""A host for tests: a shop's own server, with real keys; its tokens are made by PyJWT."""

from __future__ import annotations

import base64
import json
import uuid
from dataclasses import dataclass
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from app.core.clock import utc_now
from app.identity.host_tokens import TYPE

ISSUER = "https://shop.example"
AUDIENCE = "https://consent.example"
"""The public address of the service under test."""


@cache
def private_key(algorithm: str, number: int = 0) -> Any:
    """One key pair for an algorithm, or the ``number``-th other one."""
    if algorithm in {"RS256", "PS256"}:
        return rsa.generate_private_key(65537, 2048)
    return (
        ec.generate_private_key(ec.SECP256R1())
        if algorithm == "ES256"
        else ed25519.Ed25519PrivateKey.generate()
    )


@dataclass(frozen=True)
class Host:
    """Signs with one key."""

    algorithm: str = "EdDSA"
    kid: str = "2026-11"
    issuer: str = ISSUER
    audience: str = AUDIENCE
    number: int = 0

    @property
    def private(self) -> Any:
        return private_key(self.algorithm, self.number)

    @property
    def jwk(self) -> dict[str, Any]:
        """The public key, as it is published."""
        kind: Any = {"ES256": ECAlgorithm, "EdDSA": OKPAlgorithm}.get(self.algorithm, RSAAlgorithm)
        made = json.loads(kind.to_jwk(self.private.public_key()))
        made.pop("key_ops", None)
        return {**made, "kid": self.kid, "alg": self.algorithm, "use": "sig"}

    @property
    def jwks(self) -> dict[str, Any]:
        return {"keys": [self.jwk]}

    def claims(self, **changes: Any) -> dict[str, Any]:
        """What a good token says now; a change to None leaves the claim out."""
        now = int(utc_now().timestamp())
        claims = {
            "iss": self.issuer, "aud": self.audience, "sub": "u-1", "iat": now, "exp": now + 60,
            "jti": str(uuid.uuid4()),
        } | changes  # fmt: skip
        return {name: value for name, value in claims.items() if value is not None}

    def header(self, **changes: Any) -> dict[str, Any]:
        header = {"alg": self.algorithm, "kid": self.kid, "typ": TYPE} | changes
        return {name: value for name, value in header.items() if value is not None}

    def token(self, **changes: Any) -> str:
        """A token as a shop's server makes it."""
        return jwt.encode(
            self.claims(**changes), self.private, self.algorithm, {"kid": self.kid, "typ": TYPE}
        )

    def sign(self, header: Any, payload: Any, by: str | None = None) -> str:
        """Whatever header and payload (JSON text or a value), under a good signature; ``by``:
        another algorithm of the same key.
        """
        message = f"{encoded(header)}.{encoded(payload)}"
        algorithm: Any = jwt.get_algorithm_by_name(by or self.algorithm)
        return f"{message}.{base64url(algorithm.sign(message.encode(), self.private))}"


def encoded(part: Any) -> str:
    text = part if isinstance(part, str) else json.dumps(part)
    return base64url(text.encode())


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
