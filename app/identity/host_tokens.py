"""Host tokens: short JWTs by which a controller's own server says who is signed in on its site.

Everything about a token is decided here: the header holds ``alg``, ``kid`` and ``typ`` and nothing
else, the key is one the site's operator gave, and each claim has one type. Whatever is wrong, the
answer is the same; the reason stands in the log.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError, SecurityWarning
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.core.bulk import nibble
from app.core.db import Database, insert_or_ignore, table_of
from app.core.errors import BadRequest, Problem
from app.core.http import strict_json
from app.identity.host_key_sets import KeySets
from app.identity.host_keys import Jwk, load
from app.identity.models import UsedHostToken
from app.identity.normalise import InvalidIdentifier, normalise
from connectors.contract import Identifier, Kind

TYPE = "quittance-host+jwt"
MAX_LIFE = dt.timedelta(minutes=10)
"""From ``iat`` to ``exp``."""
LEEWAY = dt.timedelta(seconds=30)
"""How far a host's clock may be from ours."""
REMEMBERED = LEEWAY + dt.timedelta(minutes=5)
"""How long after its ``exp`` a used token is known: longer than it could pass, also by the clock of
another process."""
MAX_LENGTH = 8000
_COMPACT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)
_HEADER = frozenset({"alg", "kid", "typ"})
_NAMES = {"EdDSA": ["EdDSA", "Ed25519"]}  # one algorithm: RFC 9864 gave it the second name


class HostTokenRefused(Problem):
    """``reason`` is for the log: a caller must not learn how far a token came."""

    status, slug, title = 401, "host-token-refused", "The host token is not valid"

    def __init__(self, reason: str) -> None:
        super().__init__(
            "Get a fresh token from the site's own server; the service's log tells its operator "
            "what was wrong.",
            headers={"WWW-Authenticate": "Bearer"},
        )
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Host:
    """Whose tokens a site believes; the keys are given, or published at ``jwks_url``."""

    issuer: str
    jwks: Mapping[str, list[Jwk]] | None = None
    jwks_url: str | None = None


@dataclass(frozen=True, slots=True)
class HostToken:
    """What a valid token says. It may be used once: see ``use``."""

    issuer: str
    jti: str
    expires_at: dt.datetime
    user: Identifier
    email: Identifier | None

    @property
    def identifiers(self) -> list[Identifier]:
        return [self.user, *([self.email] if self.email else [])]

    @property
    def digest(self) -> bytes:
        """What is remembered of a used token; hosts may put anything into a ``jti``."""
        return hashlib.sha256(json.dumps([self.issuer, self.jti]).encode()).digest()


async def verify(
    text: str, host: Host | None, *, audience: str, key_sets: KeySets, now: dt.datetime
) -> HostToken:
    """The token's word, if it is the host's and meant for ``audience``; ``HostTokenRefused``, or
    ``KeysOutOfReach`` when that cannot be told.
    """
    header = _header(text)
    if host is None:
        raise HostTokenRefused("not_configured")
    key = await _key(host, header["kid"], key_sets, now)
    if key is None:
        raise HostTokenRefused("unknown_key")
    return read(_claims(text, key), issuer=host.issuer, audience=audience, now=now)


def _header(text: str) -> dict[str, str]:
    """Anything but a plain signed token of our type ends here, before a key is looked for."""
    if len(text) > MAX_LENGTH or not _COMPACT.fullmatch(text):
        raise HostTokenRefused("malformed")
    head = text.partition(".")[0]
    try:
        header = strict_json(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    except (ValueError, BadRequest):
        raise HostTokenRefused("malformed") from None
    if not isinstance(header, dict) or header.keys() != _HEADER:
        raise HostTokenRefused("header")
    if not all(isinstance(each, str) for each in header.values()):
        raise HostTokenRefused("header")
    if header["typ"] != TYPE:
        raise HostTokenRefused("type")
    return header


async def _key(host: Host, kid: str, key_sets: KeySets, now: dt.datetime) -> Jwk | None:
    if host.jwks_url is not None:
        return await key_sets.find(host.jwks_url, kid, now)
    keys = host.jwks["keys"] if host.jwks else []
    return next((each for each in keys if each["kid"] == kid), None)


def _claims(text: str, key: Jwk) -> Any:
    try:
        with warnings.catch_warnings():  # about the name EdDSA, which most hosts' libraries use
            warnings.simplefilter("ignore", SecurityWarning)
            signed = jws.deserialize_compact(
                text, load(key), algorithms=_NAMES.get(key["alg"], [key["alg"]])
            )
        return strict_json(signed.payload)
    except (JoseError, ValueError):
        raise HostTokenRefused("signature") from None
    except BadRequest:
        raise HostTokenRefused("malformed") from None


def read(claims: Any, *, issuer: str, audience: str, now: dt.datetime) -> HostToken:
    """The claims of a token whose signature is good, checked; ``HostTokenRefused``."""
    if not isinstance(claims, dict):
        raise HostTokenRefused("malformed")
    if claims.get("iss") != issuer:
        raise HostTokenRefused("issuer")
    if claims.get("aud") not in (audience, [audience]):
        raise HostTokenRefused("audience")
    expires = _check_times(claims, int(now.timestamp()))
    jti = claims.get("jti")
    if not isinstance(jti, str) or not 1 <= len(jti) <= 255:
        raise HostTokenRefused("jti")
    return HostToken(
        issuer,
        jti,
        dt.datetime.fromtimestamp(expires, dt.UTC),
        user=_user(claims.get("sub")),
        email=_email(claims),
    )


def _check_times(claims: Mapping[str, Any], now: int) -> int:
    """Returns ``exp``, a whole second near now."""
    leeway = int(LEEWAY.total_seconds())
    issued, expires = _seconds(claims.get("iat")), _seconds(claims.get("exp"))
    if not 0 < expires - issued <= MAX_LIFE.total_seconds():
        raise HostTokenRefused("life")
    if expires <= now - leeway:
        raise HostTokenRefused("expired")
    if max(issued, _seconds(claims.get("nbf", issued))) > now + leeway:
        raise HostTokenRefused("not_yet")
    return expires


def _seconds(value: Any) -> int:
    """Whole seconds since 1970; JSON's ``true`` and ``1.5`` and ``"1"`` are none."""
    if type(value) is not int or value < 0:
        raise HostTokenRefused("time")
    return value


def _user(subject: Any) -> Identifier:
    if not isinstance(subject, str):
        raise HostTokenRefused("subject")
    try:
        return normalise(Kind.USER_ID, subject)
    except InvalidIdentifier:
        raise HostTokenRefused("subject") from None


def _email(claims: Mapping[str, Any]) -> Identifier | None:
    """Only an address that the host itself has verified; one we cannot read adds nothing."""
    address = claims.get("email")
    if claims.get("email_verified") is not True or not isinstance(address, str):
        return None
    try:
        return normalise(Kind.EMAIL, address)
    except InvalidIdentifier:
        return None


async def is_used(session: AsyncSession, workspace_id: str, token: HostToken) -> bool:
    """A look before anything is prepared for the token; ``use`` decides."""
    return await session.get(UsedHostToken, (workspace_id, token.digest)) is not None


async def use(session: AsyncSession, workspace_id: str, token: HostToken) -> None:
    """Use the token up in the transaction of what it allows; ``HostTokenRefused`` the second time.

    Of two transactions with one token the second waits for the first one to end.
    """
    row = {
        "workspace_id": workspace_id,
        "digest": token.digest,
        "expires_at": token.expires_at + REMEMBERED,
    }
    inserted = await session.execute(
        insert_or_ignore(session, UsedHostToken).values(**row).returning(col(UsedHostToken.digest))
    )
    if inserted.first() is None:
        raise HostTokenRefused("used")


async def sweep(database: Database, now: dt.datetime) -> None:
    await nibble(database, table_of(UsedHostToken), lambda row: row.expires_at < now)
