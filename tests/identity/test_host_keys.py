"""Which public keys are taken, and as what."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from app.identity.host_keys import MAX_KEYS, KeyRefused, read_key, read_set, usable
from tests.identity.hosts import Host

RSA, EC, ED = Host("RS256").jwk, Host("ES256").jwk, Host("EdDSA").jwk
SHORT = rsa.generate_private_key(65537, 1024)  # noqa: S505 (to be refused)
PRIVATE_RSA = json.loads(RSAAlgorithm.to_jwk(Host("RS256").private))


def without(jwk: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in jwk.items() if name not in names}


@pytest.mark.parametrize(
    ("jwk", "algorithm"),
    [
        (RSA, "RS256"),
        (RSA | {"alg": "PS256"}, "PS256"),
        (without(RSA, "alg", "use"), "RS256"),
        (EC, "ES256"),
        (without(EC, "alg"), "ES256"),
        (ED, "EdDSA"),
        (ED | {"alg": "Ed25519"}, "EdDSA"),
        (without(ED, "alg") | {"key_ops": ["verify"], "x5t": "x", "name": "bob"}, "EdDSA"),
    ],
)
def test_a_key_has_one_algorithm_and_only_its_public_numbers_stay(
    jwk: dict[str, Any], algorithm: str
) -> None:
    read = read_key(jwk)

    assert read["alg"] == algorithm
    assert set(read) <= {"kty", "kid", "alg", "n", "e", "crv", "x", "y"}
    assert read_key(read) == read


@pytest.mark.parametrize(
    "jwk",
    [
        None,
        [],
        "key",
        {},
        PRIVATE_RSA | {"kid": "1"},
        ED | {"d": "AAAA"},
        {"kty": "oct", "kid": "1", "alg": "HS256", "k": "A" * 43},
        {"kty": "oct", "kid": "1"},
        {"kty": ["RSA"], "kid": "1"},
        without(RSA, "kid"),
        RSA | {"kid": 7},
        RSA | {"kid": ""},
        RSA | {"kid": "a\nb"},
        RSA | {"kid": "k" * 129},
        RSA | {"use": "enc"},
        RSA | {"key_ops": 5},
        RSA | {"key_ops": ["sign"]},
        RSA | {"alg": "HS256"},
        RSA | {"alg": "none"},
        RSA | {"alg": "RS1"},
        RSA | {"alg": "ES256"},
        RSA | {"alg": ["RS256"]},
        RSA | {"n": 3},
        RSA | {"n": "A" * 2001},
        RSA | {"n": "****"},
        RSA | {"n": "é"},
        RSA | {"e": "AQ"},
        without(RSA, "n"),
        EC | {"crv": "P-384"},
        EC | {"crv": "secp256k1"},
        EC | {"x": EC["y"]},
        without(EC, "y"),
        ED | {"crv": "Ed448"},
        ED | {"crv": "X25519"},
        ED | {"x": "AAAA"},
        json.loads(RSAAlgorithm.to_jwk(SHORT.public_key())) | {"kid": "short"},
        json.loads(ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP521R1()).public_key()))
        | {"kid": "other curve"},
    ],
)
def test_anything_else_is_refused_without_repeating_it(jwk: Any) -> None:
    with pytest.raises(KeyRefused) as refused:
        read_key(jwk)
    assert not isinstance(jwk, dict) or str(jwk.get("n", "no n"))[:40] not in str(refused.value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from([*RSA, *EC, "keys", "key_ops"]), inner, max_size=6)
        ),
        max_leaves=12,
    )
)
def test_no_document_is_a_crash(document: Any) -> None:
    for read in (read_key, read_set, usable):
        with pytest.raises(KeyRefused):
            read(document)


def test_a_given_set_must_be_good_as_a_whole() -> None:
    assert [each["kid"] for each in read_set({"keys": [RSA, EC | {"kid": "2"}]})["keys"]] == [
        "2026-11",
        "2",
    ]
    many = [ED | {"kid": str(number)} for number in range(MAX_KEYS + 1)]
    for keys in ([], [RSA, EC], [RSA, {"kty": "oct"}], many, {"0": RSA}):
        with pytest.raises(KeyRefused):
            read_set({"keys": keys})


def test_a_published_set_may_hold_keys_for_other_uses() -> None:
    published = {"keys": [RSA | {"use": "enc", "kid": "enc"}, {"kty": "oct"}, 7, ED, EC]}

    found = usable(published)

    assert list(found) == ["2026-11"]
    assert found["2026-11"]["kty"] == "OKP", "of two keys with one name the first one counts"
    with pytest.raises(KeyRefused):
        usable({"keys": [RSA | {"use": "enc"}]})
