"""Checking a receipt offline, with the keys in hand and without this service."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import KeySet

from app.identity.vault import commitment
from app.receipts.canonical import NotCanonical, canonical
from app.receipts.signing import CONSENT_RECEIPT, REQUEST_RECEIPT
from connectors.contract import Identifier


class Unreadable(Exception):
    """This is not a receipt at all, or these are not keys."""


class NotValid(Exception):
    """A receipt that must not be believed; the text says why."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A valid receipt. ``is_theirs``: the opening and identifier belong to it; None when
    not asked.
    """

    claims: dict[str, Any]
    kid: str
    is_theirs: bool | None


def verify(
    token: str,
    key_set: dict[str, Any],
    opening: str | None = None,
    identifier: Identifier | None = None,
) -> Checked:
    """Check signature, type and canonical form, and whether the receipt speaks of the
    identifier. ``opening``: not needed where the receipt holds it, as those of consents do.
    """
    token = token.strip()
    if token.count(".") != 2:
        raise Unreadable("A receipt is three base64url parts joined by full stops.")
    try:
        keys = KeySet.import_key_set(key_set)  # type: ignore[arg-type]
    except (JoseError, ValueError, KeyError, TypeError) as error:
        raise Unreadable(
            "The key set cannot be read; it should be the answer of /.well-known/jwks.json."
        ) from error
    try:
        with warnings.catch_warnings():  # RFC 9864 deprecates the name EdDSA, see signing.py
            warnings.simplefilter("ignore", SecurityWarning)
            signed = jws.deserialize_compact(token, keys, algorithms=["EdDSA", "Ed25519"])
    except JoseError as error:
        raise NotValid(
            "The signature does not belong to this text under any of the keys."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise Unreadable("The receipt cannot be decoded.") from error
    header = signed.headers()
    if header.get("typ") not in {REQUEST_RECEIPT, CONSENT_RECEIPT}:
        raise NotValid("This is a signed text of another type.")
    try:
        claims = json.loads(signed.payload)
        if canonical(claims) != signed.payload:
            raise NotValid("The payload is not canonical JSON (RFC 8785).")
    except (ValueError, NotCanonical) as error:
        raise NotValid("The payload is not canonical JSON (RFC 8785).") from error
    is_theirs = None if identifier is None else _speaks_of(claims, identifier, opening)
    return Checked(claims, str(header.get("kid", "")), is_theirs)


def _speaks_of(claims: dict[str, Any], identifier: Identifier, opening: str | None) -> bool:
    for each in claims.get("subject", {}).get("commitments", []):
        secret = opening or each.get("opening")
        if secret is None:
            raise Unreadable("This receipt does not hold its openings: name yours with --opening.")
        if each.get("id_type") == identifier.kind and each.get("value") == commitment(
            secret, identifier
        ):
            return True
    return False
