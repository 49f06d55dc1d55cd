"""What receipts say, their one byte sequence, and who can check them."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import itertools
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from jwcrypto.common import JWException
from jwcrypto.jwk import JWKSet
from jwcrypto.jws import JWS

from app.identity.vault import commitment
from app.receipts.canonical import NotCanonical, canonical
from app.receipts.claims import (
    NO_IDENTIFIER,
    DeliveryFact,
    Told,
    destinations_json,
    outcome_of,
    residuals_json,
    tell,
)
from app.receipts.signing import REQUEST_RECEIPT, Signer
from app.receipts.verify import NotValid, Unreadable, verify
from connectors.contract import Identifier
from tests.running import BOB, Service

NOW = dt.datetime(2026, 3, 2, tzinfo=dt.UTC)

# --- canonical JSON (RFC 8785)

GOLDEN = [
    ({"b": 1, "a": [True, None, ""]}, b'{"a":[true,null,""],"b":1}'),
    ({"literals": [None, True, False]}, b'{"literals":[null,true,false]}'),
    ('\u20ac$\u000f\nA\'B"\\\\"/', '"\u20ac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"'.encode()),
    ("\b\t\n\f\r\u001f", b'"\\b\\t\\n\\f\\r\\u001f"'),
    ("\u007f\u0080\u2028\U0001f600", '"\u007f\u0080\u2028\U0001f600"'.encode()),
    ({"10": 0, "1": 0, "2": 0, "": 0, "A": 0, "a": 0}, b'{"":0,"1":0,"10":0,"2":0,"A":0,"a":0}'),
    ([0, -1, 2**53 - 1, -(2**53) + 1], b"[0,-1,9007199254740991,-9007199254740991]"),
    ({"a": {}, "b": []}, b'{"a":{},"b":[]}'),
]


@pytest.mark.parametrize(("value", "expected"), GOLDEN)
def test_the_canonical_form_is_that_of_rfc_8785(value: Any, expected: bytes) -> None:
    assert canonical(value) == expected


REFUSED = [1.5, float("nan"), float("inf"), 2**53, -(2**53), "\ud800", {"a": ["\udfff"]},
           {1: "a"}, {"\u00e9": 1}, b"bytes", {1, 2}, NOW]  # fmt: skip


@pytest.mark.parametrize("value", REFUSED)
def test_rcpt_011_what_json_cannot_carry_unchanged_is_refused_when_a_receipt_is_built(
    value: Any,
) -> None:
    with pytest.raises(NotCanonical):
        canonical({"field": value})


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(st.characters(max_codepoint=127)), inner, max_size=3),
)  # fmt: skip


@given(plain)
def test_reading_and_writing_again_changes_no_byte(value: Any) -> None:
    once = canonical(value)

    assert json.loads(once) == value
    assert canonical(json.loads(once)) == once


# --- words


def fact(state: str, detail: str | None = None, **more: Any) -> DeliveryFact:
    known: dict[str, Any] = {
        "ref": "ref_1", "connector": "crm", "operation": "erase", "assurance": "confirmed",
        "attempt": 1, "reason": None, "requested_at": NOW, "settled_at": NOW, "evidence": {},
    }  # fmt: skip
    return DeliveryFact(state=state, detail=detail, **(known | more))


TABLE = [
    (fact("succeeded", "done", assurance="verified_absent"), "deleted", "verified_absent",
     "complete"),
    (fact("succeeded", "done"), "deleted", "confirmed", "complete"),
    (fact("succeeded", "done", operation="suppress"), "suppressed", "confirmed", "complete"),
    (fact("succeeded", "done", operation="unsuppress"), "unsuppressed", "confirmed", "complete"),
    (fact("succeeded", "done", evidence={"anonymised": True}), "anonymised", "confirmed",
     "complete"),
    (fact("succeeded", "absent"), "not_found", "confirmed", "complete"),
    (fact("succeeded", "accepted_unconfirmable", assurance="acknowledged"), "accepted",
     "acknowledged", "residual"),
    (fact("discarded", "unconfirmed"), "accepted", "acknowledged", "exception"),
    (fact("succeeded", "skipped", assurance="none"), "not_applicable", "none", "complete"),
    (fact("succeeded", "skipped", reason=NO_IDENTIFIER), "not_applicable", "none", "exception"),
    (fact("discarded", "failed", evidence={"verdict": "failed"}), "refused", "requested",
     "exception"),
    (fact("discarded", "failed"), "failed", "requested", "exception"),
    (fact("discarded", "expired"), "failed", "requested", "exception"),
    (fact("discarded", "cancelled"), "failed", "requested", "exception"),
    (fact("discarded", "gave_up"), "failed", "requested", "exception"),
    (fact("archived", "expired"), "failed", "requested", "exception"),
    *((fact(state), "pending", "requested", "open") for state in (
        "awaiting_scheduling", "executing", "awaiting_retry", "awaiting_confirmation", "archiving",
    )),
]  # fmt: skip


@pytest.mark.parametrize(("known", "state", "assurance", "counts_as"), TABLE)
def test_a_delivery_is_told_by_the_table_of_the_design(
    known: DeliveryFact, state: str, assurance: str, counts_as: str
) -> None:
    assert tell(known) == Told(state, assurance, counts_as)


KINDS = ("complete", "residual", "exception", "open")


@pytest.mark.parametrize("counts", list(itertools.product([False, True], repeat=4)))
@pytest.mark.parametrize("has_residuals", [False, True])
def test_the_outcome_follows_from_what_deliveries_count_as(
    counts: tuple[bool, ...], has_residuals: bool
) -> None:
    told = [Told("x", "y", kind) for kind, there in zip(KINDS, counts, strict=True) if there]
    _, residual, exception, is_open = counts

    outcome = outcome_of(told, is_refused=False, has_residuals=has_residuals)

    if exception or is_open:
        assert outcome == "partial"
    elif residual or has_residuals:
        assert outcome == "complete_with_residuals"
    else:
        assert outcome == "complete"
    assert outcome_of(told, is_refused=True, has_residuals=has_residuals) == "refused"


def test_a_destination_is_shown_by_its_kind_and_each_residual_once() -> None:
    kept = {"what": "invoices", "reason": "tax records", "until": "2036"}
    known = fact("succeeded", "done", evidence={"residuals": [kept, kept], "sha256": "ab"})

    assert [(each["what"], each["basis"], each["until"]) for each in residuals_json([known])] == [
        ("invoices", "tax records", "2036")
    ]
    (entry,) = destinations_json([known])
    assert (entry["kind"], entry["operation"], entry["evidence"]) == ("crm", "delete", "ab")
    assert "name" not in entry


# --- signatures


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


PRIVATE = Ed25519PrivateKey.from_private_bytes(b"s" * 32)
SIGNER = Signer("kid-1", PRIVATE)
PUBLIC = _b64(PRIVATE.public_key().public_bytes_raw())
KEYS = {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": PUBLIC, "kid": "kid-1", "alg": "EdDSA",
                  "use": "sig"}]}  # fmt: skip
OPENING = _b64(hashlib.sha256(b"opening").digest())
SHOWN = {"id_type": "email", "value": commitment(OPENING, Identifier("email", BOB))}
CLAIMS = {"jti": "rcp_1", "iat": 1, "outcome": "complete", "subject": {"commitments": [SHOWN]}}
TOKEN = SIGNER.sign(CLAIMS, REQUEST_RECEIPT)


def by_ours(token: str) -> Any:
    return verify(token, KEYS).claims


def by_pyjwt(token: str) -> Any:
    key = jwt.PyJWKSet.from_dict(KEYS)["kid-1"]
    return jwt.decode(token, key, algorithms=["EdDSA"], options={"verify_iat": False})


def by_jwcrypto(token: str) -> Any:
    signed = JWS()
    signed.allowed_algs = ["EdDSA"]
    signed.deserialize(token)
    signed.verify(JWKSet.from_json(json.dumps(KEYS)))
    return json.loads(signed.payload)


VERIFIERS = [by_ours, by_pyjwt, by_jwcrypto]
REFUSALS = (NotValid, Unreadable, jwt.PyJWTError, JWException, ValueError)


@pytest.mark.parametrize("check", VERIFIERS)
def test_three_independent_verifiers_read_a_receipt(check: Any) -> None:
    assert check(TOKEN) == CLAIMS


@pytest.mark.parametrize("check", VERIFIERS)
@pytest.mark.parametrize("part", [0, 1, 2])
def test_rcpt_001_every_changed_bit_is_refused_by_every_verifier(check: Any, part: int) -> None:
    parts = TOKEN.split(".")
    raw = _unb64(parts[part])
    for at in range(0, len(raw), 1 if part == 2 else 5):
        changed = bytearray(raw)
        changed[at] ^= 1
        token = ".".join([*parts[:part], _b64(bytes(changed)), *parts[part + 1 :]])
        with pytest.raises(REFUSALS):
            check(token)


def test_a_receipt_signed_by_somebody_else_is_refused() -> None:
    stranger = Signer("kid-1", Ed25519PrivateKey.generate()).sign(CLAIMS, REQUEST_RECEIPT)
    for check in VERIFIERS:
        with pytest.raises(REFUSALS):
            check(stranger)


def test_a_signature_that_names_no_algorithm_is_refused() -> None:
    header = _b64(canonical({"alg": "none", "typ": REQUEST_RECEIPT}))
    with pytest.raises((NotValid, Unreadable)):
        verify(f"{header}.{_b64(canonical(CLAIMS))}.", KEYS)


def test_a_text_of_another_type_is_not_taken_for_a_receipt() -> None:
    with pytest.raises(NotValid, match="another type"):
        verify(SIGNER.sign(CLAIMS, "session+jwt"), KEYS)


def test_a_signed_text_that_is_not_canonical_is_refused() -> None:
    header = _b64(canonical({"alg": "EdDSA", "kid": "kid-1", "typ": REQUEST_RECEIPT}))
    for payload in (b'{"a": 1}', b'{"a":1,"a":1}', b'{"a":1.5}', b"not json"):
        message = f"{header}.{_b64(payload)}"
        token = f"{message}.{_b64(PRIVATE.sign(message.encode()))}"
        with pytest.raises(NotValid):
            verify(token, KEYS)


@pytest.mark.parametrize("text", ["", "a.b", "a.b.c.d", "\u00e9.\u00e9.\u00e9", "..", "%%.%%.%%"])
def test_a_text_that_is_no_receipt_is_unreadable_or_invalid(text: str) -> None:
    with pytest.raises((Unreadable, NotValid)):
        verify(text, KEYS)


@pytest.mark.parametrize("keys", [{}, {"keys": "x"}, {"keys": [{"kty": "OKP"}]}, {"keys": []}])
def test_keys_that_are_none_are_unreadable_or_prove_nothing(keys: Any) -> None:
    with pytest.raises((Unreadable, NotValid)):
        verify(TOKEN, keys)


def test_the_opening_shows_that_a_receipt_is_somebodys() -> None:
    assert verify(TOKEN, KEYS, OPENING, Identifier("email", BOB)).is_theirs is True
    assert verify(TOKEN, KEYS, OPENING, Identifier("email", "eve@x.example")).is_theirs is False
    assert verify(TOKEN, KEYS, OPENING, Identifier("user_id", BOB)).is_theirs is False
    assert verify(TOKEN, KEYS).is_theirs is None


def test_rcpt_009_guessing_addresses_finds_nothing_without_the_opening() -> None:
    """All that is public, and the pepper: still nothing to compare a guess with."""
    pepper = b"p" * 32
    hits = 0
    for number in range(20_000):
        guess = BOB if number == 19_999 else f"person{number}@customer.example"
        for key in (pepper, b"", SHOWN["value"].encode(), PUBLIC.encode()):
            hits += commitment(_b64(key), Identifier("email", guess)) == SHOWN["value"]
    assert hits == 0


async def test_a_served_receipt_is_checked_with_the_served_keys(service: Service) -> None:
    await service.destination("crm")
    made = await service.ask()
    await service.work()
    request = await service.request(made["id"])

    by_id = await service.client.get(f"/v1/receipts/{request['receipt_id']}")
    keys = await service.client.get("/.well-known/jwks.json")

    assert by_id.headers["content-type"] == "application/jose"
    checked = verify(by_id.text, keys.json())
    assert checked.claims["jti"] == request["receipt_id"]
    assert checked.claims["iss"] == "http://quittance.test"
    assert keys.headers["access-control-allow-origin"] == "*"
    assert "d" not in keys.json()["keys"][0], "the private part stays here"
    text = json.dumps(checked.claims)
    assert BOB not in text
    assert '"name": "crm"' not in text
    assert (await service.client.get("/v1/receipts/rcp_none")).status_code == 404
