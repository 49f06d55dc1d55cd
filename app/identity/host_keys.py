"""Hosts' keys: the public keys of the servers that sign host tokens, read strictly.

A key has one algorithm, and the key decides it, not the token. There are no shared secrets (HS256):
what is kept here, in the database and in its dumps, can check tokens but never make one.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import Key, import_key

Jwk = dict[str, str]
"""A public key that was read here: kind, name (``kid``), algorithm and numbers, nothing else."""

MAX_KEYS = 20
RSA_BITS = range(2048, 8193)
_MAX_TEXT = 2000
_NUMBERS = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
_ALGORITHMS = {
    "RSA": {None: "RS256", "RS256": "RS256", "PS256": "PS256"},
    "EC": {None: "ES256", "ES256": "ES256"},
    "OKP": {None: "EdDSA", "EdDSA": "EdDSA", "Ed25519": "EdDSA"},
}
"""By kind of key: what its ``alg`` may say, and what we call it."""
_CURVES = {"RSA": None, "EC": "P-256", "OKP": "Ed25519"}
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


class KeyRefused(ValueError):
    """A key or a key set that will not be used; the text says what to do and repeats nothing."""


def read_key(jwk: Any) -> Jwk:
    """The public key in ``jwk``; ``KeyRefused``."""
    if not isinstance(jwk, Mapping):
        raise KeyRefused("Each key is a JSON object (RFC 7517).")
    if jwk.keys() & _PRIVATE:
        raise KeyRefused(
            "A key holds private parts or is a shared secret. Give public keys only; make a new "
            "pair, for this one has left its home."
        )
    kind, kid = jwk.get("kty"), jwk.get("kid")
    if not isinstance(kind, str) or kind not in _NUMBERS:
        raise KeyRefused("A key is `RSA`, `EC` (P-256) or `OKP` (Ed25519).")
    if not isinstance(kid, str) or not 1 <= len(kid) <= 128 or not kid.isprintable():
        raise KeyRefused("Each key has a `kid` of 1 to 128 printable characters.")
    operations = jwk.get("key_ops", ["verify"])
    if jwk.get("use", "sig") != "sig" or operations != ["verify"]:
        raise KeyRefused("A key is not for signatures (`use`, `key_ops`).")
    try:
        algorithm = _ALGORITHMS[kind][jwk.get("alg")]
    except (KeyError, TypeError):
        raise KeyRefused("`alg` is RS256, PS256, ES256 or EdDSA, as fits the key.") from None
    found: Jwk = {"kty": kind, "kid": kid, "alg": algorithm}
    for name in _NUMBERS[kind]:
        number = jwk.get(name)
        if not isinstance(number, str) or len(number) > _MAX_TEXT:
            raise KeyRefused(f"A key of this kind has {' and '.join(_NUMBERS[kind])} as text.")
        found[name] = number
    _check(found)
    return found


def _check(jwk: Jwk) -> None:
    if jwk.get("crv") != _CURVES[jwk["kty"]]:
        raise KeyRefused("The curve is P-256 for `EC` and Ed25519 for `OKP`.")
    try:
        with warnings.catch_warnings():  # short keys are refused below
            warnings.simplefilter("ignore", SecurityWarning)
            raw = load(jwk).raw_value
    except (JoseError, ValueError, TypeError, OverflowError):
        raise KeyRefused("A key's numbers do not make a public key.") from None
    if isinstance(raw, RSAPublicKey) and raw.key_size not in RSA_BITS:
        raise KeyRefused(f"An RSA key has {RSA_BITS[0]} to {RSA_BITS[-1]} bits.")


def load(jwk: Jwk) -> Key:
    """Without its ``alg``, which may go by a second name in a token's header."""
    return import_key({name: value for name, value in jwk.items() if name != "alg"})


def read_set(document: Any) -> dict[str, list[Jwk]]:
    """A key set that an operator gives: every key must be good. ``KeyRefused``."""
    keys = [read_key(each) for each in _keys(document)]
    if not 1 <= len(keys) <= MAX_KEYS or len({each["kid"] for each in keys}) != len(keys):
        raise KeyRefused(f"A key set has 1 to {MAX_KEYS} keys, each with a `kid` of its own.")
    return {"keys": keys}


def usable(document: Any) -> dict[str, Jwk]:
    """The good keys of a key set that a host publishes, by ``kid``; others are passed over, for it
    may hold keys for other uses. ``KeyRefused`` when none is left.
    """
    found: dict[str, Jwk] = {}
    for each in _keys(document):
        try:
            key = read_key(each)
        except KeyRefused:
            continue
        found.setdefault(key["kid"], key)
    if not found:
        raise KeyRefused("The key set holds no key that can be used.")
    return found


def _keys(document: Any) -> list[Any]:
    keys = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(keys, list):
        raise KeyRefused('A key set is `{"keys": [...]}` (RFC 7517).')
    return keys
