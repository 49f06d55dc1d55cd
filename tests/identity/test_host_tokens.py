"""Which host tokens are believed: every way of being wrong ends in the same refusal."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import json
import zlib
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwe
from joserfc.jwk import OctKey

from app.core.clock import utc_now
from app.identity import host_tokens
from app.identity.host_key_sets import KeySets
from app.identity.host_keys import read_set
from app.identity.host_tokens import LEEWAY, MAX_LIFE, TYPE, HostToken, HostTokenRefused, read
from connectors.contract import Identifier
from tests.identity.hosts import AUDIENCE, ISSUER, Host, base64url, encoded

HOST = Host()
NOW = dt.datetime(2026, 11, 25, 12, tzinfo=dt.UTC)
SECOND = int(NOW.timestamp())


def nobody_is_called(request: httpx.Request) -> httpx.Response:
    raise AssertionError(f"a call to {request.url}")


async def verify(token: str, host: Host = HOST) -> HostToken:
    """As a site that believes ``host``, whose keys were given: nothing is fetched."""
    async with httpx.AsyncClient(transport=httpx.MockTransport(nobody_is_called)) as http:
        return await host_tokens.verify(
            token,
            host_tokens.Host(ISSUER, read_set(host.jwks)),
            audience=AUDIENCE,
            key_sets=KeySets(http),
            now=utc_now(),
        )


async def reason(token: str, host: Host = HOST) -> str:
    with pytest.raises(HostTokenRefused) as refused:
        await verify(token, host)
    assert refused.value.status == 401
    assert refused.value.as_dict() == HostTokenRefused("another").as_dict(), "an oracle"
    return refused.value.reason


def claims(**changes: Any) -> dict[str, Any]:
    made = {
        "iss": ISSUER, "aud": AUDIENCE, "sub": "u-1", "iat": SECOND, "exp": SECOND + 60,
        "jti": "1",
    } | changes  # fmt: skip
    return {name: value for name, value in made.items() if value is not None}


def read_now(**changes: Any) -> HostToken:
    return read(claims(**changes), issuer=ISSUER, audience=AUDIENCE, now=NOW)


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "EdDSA"])
async def test_a_token_of_the_host_names_who_signed_in(algorithm: str) -> None:
    host = Host(algorithm)

    found = await verify(host.token(email="Bob@Shop.example", email_verified=True), host)

    assert found.identifiers == [
        Identifier("user_id", "u-1"),
        Identifier("email", "bob@shop.example"),
    ]


async def test_eddsa_may_be_called_by_its_new_name() -> None:
    token = HOST.sign(HOST.header(alg="Ed25519"), HOST.claims())

    assert (await verify(token)).user.value == "u-1"


@pytest.mark.parametrize("name", ["none", "None", "nOnE", "NONE", ""])
async def test_jwt_001_an_unsigned_token_is_refused(name: str) -> None:
    head, body = encoded(HOST.header(alg=name)), encoded(HOST.claims())

    assert await reason(f"{head}.{body}.") == "malformed"
    assert await reason(f"{head}.{body}.AA") == "signature"
    assert await reason(HOST.sign(HOST.header(alg=name), HOST.claims())) == "signature"


async def test_a_public_key_is_no_secret_to_sign_with() -> None:
    """Algorithm confusion: HS256 with the text of the RSA key everybody knows."""
    host = Host("RS256")
    public = host.private.public_key()
    for secret in (
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        json.dumps(host.jwk).encode(),
    ):
        message = f"{encoded(host.header(alg='HS256'))}.{encoded(host.claims())}"
        signature = hmac.new(secret, message.encode(), hashlib.sha256).digest()
        assert await reason(f"{message}.{base64url(signature)}", host) == "signature"


@pytest.mark.parametrize(
    ("signer", "other"),
    [("RS256", "PS256"), ("RS256", "RS512"), ("PS256", "RS256"), ("ES256", "ES384")],
)
async def test_the_key_decides_the_algorithm_not_the_token(signer: str, other: str) -> None:
    host = Host(signer)

    assert await reason(host.sign(host.header(alg=other), host.claims(), by=other), host) == (
        "signature"
    )
    for one in ("ES256", "EdDSA"):
        token = Host(one).sign(host.header(alg=one), host.claims())
        assert signer == one or await reason(token, host) == "signature"


@pytest.mark.parametrize(
    "more",
    [
        {"jwk": Host(number=9).jwk},
        {"jku": "https://evil.example/keys"},
        {"x5u": "https://evil.example/cert"},
        {"x5c": ["MIIB"]},
        {"crit": ["exp"], "exp": 1},
        {"cty": "JWT"},
    ],
)
async def test_jwt_003_a_key_that_the_token_brings_is_not_looked_at(more: dict[str, Any]) -> None:
    """Also under the good key: the header holds three names."""
    attacker = Host(number=9)

    assert await reason(attacker.sign(HOST.header(**more), HOST.claims())) == "header"
    assert await reason(HOST.sign(HOST.header(**more), HOST.claims())) == "header"


async def test_another_keys_signature_is_refused() -> None:
    assert await reason(Host(number=9).token()) == "signature"
    assert await reason(Host(kid="another", number=9).token()) == "unknown_key"
    head, body, signature = HOST.token().split(".")
    changed = encoded(HOST.claims(sub="u-2"))
    assert await reason(f"{head}.{changed}.{signature}") == "signature"
    assert await reason(f"{head}.{body}.{signature[:-4]}AAAA") == "signature"


@pytest.mark.parametrize(
    "audience",
    [
        None,
        "",
        "https://other.example",
        f"{AUDIENCE}/",
        AUDIENCE.upper(),
        [],
        [AUDIENCE, "https://other.example"],
        ["https://other.example", AUDIENCE],
        [[AUDIENCE]],
        {AUDIENCE: True},
        True,
    ],
)
def test_jwt_005_the_audience_is_this_service_alone(audience: Any) -> None:
    with pytest.raises(HostTokenRefused) as refused:
        read_now(aud=audience)
    assert refused.value.reason == "audience"


def test_an_audience_may_stand_in_a_list_of_one() -> None:
    assert read_now(aud=[AUDIENCE]).user.value == "u-1"


@pytest.mark.parametrize(
    "issuer",
    [None, "", ISSUER[:-1], f"{ISSUER}/", f"{ISSUER}.evil.example", "shop.example", [ISSUER],
     "HTTPS://shop.example", 7],
)  # fmt: skip
def test_jwt_007_the_issuer_is_exact(issuer: Any) -> None:
    with pytest.raises(HostTokenRefused) as refused:
        read_now(iss=issuer)
    assert refused.value.reason == "issuer"


@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
@pytest.mark.parametrize(
    "value",
    [str(SECOND + 60), SECOND + 60.0, SECOND + 0.5, -1, 1e308, True, None, [SECOND], {}, 10**400],
)
def test_jwt_009_times_are_whole_seconds(name: str, value: Any) -> None:
    wrong = claims() | {name: value}
    with pytest.raises(HostTokenRefused):
        read(wrong, issuer=ISSUER, audience=AUDIENCE, now=NOW)


@pytest.mark.parametrize("number", ["1e308", "1e999", "NaN", "Infinity", "9" * 5000, "-0.0"])
async def test_jwt_009_odd_numbers_in_the_text_are_no_crash(number: str) -> None:
    text = json.dumps(HOST.claims(exp="?")).replace('"?"', number)

    assert await reason(HOST.sign(HOST.header(), text)) in {"malformed", "time"}


LEEWAY_SECONDS, LIFE_SECONDS = int(LEEWAY.total_seconds()), int(MAX_LIFE.total_seconds())


@pytest.mark.parametrize(
    ("issued", "expires", "more", "outcome"),
    [
        (0, LIFE_SECONDS, {}, None),
        (0, LIFE_SECONDS + 1, {}, "life"),
        (0, 0, {}, "life"),
        (5, 1, {}, "life"),
        (-60, -LEEWAY_SECONDS + 1, {}, None),
        (-60, -LEEWAY_SECONDS, {}, "expired"),
        (LEEWAY_SECONDS, 60, {}, None),
        (LEEWAY_SECONDS + 1, 60, {}, "not_yet"),
        (0, 60, {"nbf": SECOND + LEEWAY_SECONDS}, None),
        (0, 60, {"nbf": SECOND + LEEWAY_SECONDS + 1}, "not_yet"),
    ],
)
def test_a_token_lives_for_minutes(
    issued: int, expires: int, more: dict[str, Any], outcome: str | None
) -> None:
    def attempt() -> HostToken:
        return read_now(iat=SECOND + issued, exp=SECOND + expires, **more)

    if outcome is None:
        assert attempt().expires_at == NOW + dt.timedelta(seconds=expires)
        return
    with pytest.raises(HostTokenRefused) as refused:
        attempt()
    assert refused.value.reason == outcome


@pytest.mark.parametrize("jti", [None, "", 7, "j" * 256, ["1"], True])
def test_a_token_without_a_name_cannot_be_used_once(jti: Any) -> None:
    with pytest.raises(HostTokenRefused) as refused:
        read_now(jti=jti)
    assert refused.value.reason == "jti"


@pytest.mark.parametrize("subject", [None, "", "  ", 7, ["u-1"], "u" * 513, "u\x01", "u\x7f"])
def test_a_token_says_who_signed_in(subject: Any) -> None:
    with pytest.raises(HostTokenRefused) as refused:
        read_now(sub=subject)
    assert refused.value.reason == "subject"


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"email": "bob@shop.example"},
        {"email": "bob@shop.example", "email_verified": False},
        {"email": "bob@shop.example", "email_verified": "true"},
        {"email": "bob@shop.example", "email_verified": 1},
        {"email": ["bob@shop.example"], "email_verified": True},
        {"email": "nobody", "email_verified": True},
        {"email_verified": True},
    ],
)
def test_jwt_013_only_a_verified_address_counts(more: dict[str, Any]) -> None:
    assert read_now(**more).identifiers == [Identifier("user_id", "u-1")]


async def test_jwt_015_an_encrypted_token_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compressed one would unpack to 50 MB."""
    bomb = jwe.encrypt_compact(
        {"alg": "dir", "enc": "A128GCM", "zip": "DEF", "kid": HOST.kid, "typ": TYPE},
        b"a" * 200_000,
        OctKey.generate_key(128),
    )
    monkeypatch.setattr(zlib, "decompress", lambda *_: pytest.fail("it was unpacked"))
    monkeypatch.setattr(zlib, "decompressobj", lambda *_: pytest.fail("it was unpacked"))

    assert bomb.count(".") == 4
    assert await reason(bomb) == "malformed"


async def test_jwt_017_a_payload_that_is_not_encoded_is_refused() -> None:
    header = encoded(HOST.header(b64=False, crit=["b64"]))
    payload = json.dumps(HOST.claims())
    algorithm: Any = jwt.get_algorithm_by_name("EdDSA")
    signature = base64url(algorithm.sign(f"{header}.{payload}".encode(), HOST.private))

    assert await reason(f"{header}.{payload}.{signature}") == "malformed"
    assert await reason(f"{header}..{signature}") == "malformed"
    assert await reason(HOST.sign(HOST.header(b64=False), HOST.claims())) == "header"


@pytest.mark.parametrize(
    ("typ", "outcome"),
    [
        ("at+jwt", "type"),
        ("id_token", "type"),
        ("JWT", "type"),
        (TYPE.upper(), "type"),
        (f"application/{TYPE}", "type"),
        (None, "header"),
        (7, "header"),
    ],
)
async def test_jwt_019_a_token_for_another_use_is_refused(typ: Any, outcome: str) -> None:
    assert await reason(HOST.sign(HOST.header(typ=typ), HOST.claims())) == outcome


@pytest.mark.parametrize(
    "token",
    [
        "",
        "a",
        "a.b",
        "a.b.c",
        "a.b.c.d",
        "....",
        "é.b.c",
        encoded("[]") + ".e30.AA",
        encoded("null") + ".e30.AA",
        encoded("{}") + ".e30.AA",
        encoded('{"alg": "EdDSA", "alg": "none", "kid": "1", "typ": "x"}') + ".e30.AA",
        base64url(b"\xff\xfe") + ".e30.AA",
        "A" * 8000 + ".e30.AA",
    ],
)
async def test_what_is_no_token_is_refused(token: str) -> None:
    assert await reason(token) in {"malformed", "header"}


@pytest.mark.parametrize(
    "payload", ["[]", "null", '"u-1"', "{", "", '{"sub": "u-1", "sub": "u-2"}', '"\\ud800"']
)
async def test_a_signed_text_that_is_no_claims_is_refused(payload: str) -> None:
    assert await reason(HOST.sign(HOST.header(), payload)) == "malformed"


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(claims(), _json)) | _json)
def test_no_claims_are_a_crash(found: Any) -> None:
    with pytest.raises(HostTokenRefused):
        read(found, issuer=ISSUER, audience=AUDIENCE, now=NOW)


async def test_a_site_that_names_no_host_believes_nobody() -> None:
    async with httpx.AsyncClient(transport=httpx.MockTransport(nobody_is_called)) as http:
        with pytest.raises(HostTokenRefused) as refused:
            await host_tokens.verify(
                HOST.token(), None, audience=AUDIENCE, key_sets=KeySets(http), now=utc_now()
            )
    assert refused.value.reason == "not_configured"
