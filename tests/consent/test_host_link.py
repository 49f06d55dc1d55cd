"""A page tells who is signed in: by the host's token, once, for one visitor and nobody else."""

from __future__ import annotations

import asyncio
import datetime as dt
import uuid
from typing import Any

import pytest
import sqlalchemy as sa
import structlog.testing
from sqlmodel import col

from app.core.clock import utc_now
from app.core.outbound import Outbound, Policy
from app.core.settings import Settings
from app.crypto.models import DataKey
from app.identity import host_tokens
from app.identity.host_key_sets import KeySets
from app.identity.host_tokens import LEEWAY, REMEMBERED
from app.security.limits import RateLimits
from tests.consent.conftest import Shop, open_shop
from tests.consent.people import Browser, believe
from tests.destinations.receiver import receiver
from tests.identity.hosts import Host
from tests.sites.stage import SHOP

HOST = Host()
BLOG = "https://blog.example"


@pytest.fixture
async def shop(shop: Shop) -> Shop:
    """The shop, with a host that is believed."""
    assert (await believe(shop, HOST)).status_code == 200
    return shop


async def left_behind(shop: Shop) -> list[Any]:
    """What linking writes: in either database."""
    rows = await shop.service.rows(
        "select id from visitor_link union all select id from personal_value "
        "union all select workspace_id from used_host_token"
    )
    async with shop.service.key_store._database.reading() as session:
        keys = await session.execute(sa.select(col(DataKey.holder_id)))
        return [*rows, *keys.scalars()]


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "EdDSA"])
async def test_a_page_links_its_visitor_to_who_is_signed_in(shop: Shop, algorithm: str) -> None:
    host = Host(algorithm)
    await believe(shop, host)
    browser = Browser(shop)

    first = await browser.sign_in(host.token(email="bob@shop.example", email_verified=True))
    again = await browser.sign_in(host.token())

    assert first.status_code == 201, first.text
    assert first.json() == {"identifier_kinds": ["email", "user_id"], "added": 2, "state": None}
    assert again.json()["added"] == 0
    assert first.headers["access-control-allow-origin"] == SHOP
    assert "access-control-allow-credentials" not in first.headers


async def test_a_server_may_send_the_token_too(shop: Shop) -> None:
    assert (await Browser(shop).sign_in(HOST.token(), origin=None)).status_code == 201


async def test_browsers_may_ask_first(shop: Shop) -> None:
    asked = {
        "Origin": SHOP,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type",
    }
    answer = await shop.service.client.options("/v1/visitors/link", headers=asked)
    stranger = await shop.service.client.options(
        "/v1/visitors/link", headers=asked | {"Origin": "https://evil.example"}
    )

    assert answer.headers["access-control-allow-headers"] == "Authorization, Content-Type"
    assert answer.headers["access-control-allow-origin"] == SHOP
    assert "access-control-allow-origin" not in stranger.headers


BAD = {
    "JWT-001 unsigned": lambda: HOST.sign(HOST.header(alg="none"), HOST.claims()),
    "JWT-003 own key": lambda: Host(number=9).sign(
        HOST.header(jwk=Host(number=9).jwk), HOST.claims()
    ),
    "JWT-005 audience": lambda: HOST.token(aud="https://other.example"),
    "JWT-005 no audience": lambda: HOST.token(aud=None),
    "JWT-005 two audiences": lambda: HOST.token(aud=[HOST.audience, "https://other.example"]),
    "JWT-007 issuer": lambda: HOST.token(iss=HOST.issuer[:-1]),
    "JWT-009 text": lambda: HOST.sign(HOST.header(), HOST.claims(exp="soon")),
    "JWT-009 huge": lambda: HOST.sign(HOST.header(), HOST.claims(exp=1e308)),
    "JWT-009 negative": lambda: HOST.sign(HOST.header(), HOST.claims(exp=-1)),
    "JWT-015 five parts": lambda: "a.b.c.d.e",
    "JWT-017 b64": lambda: HOST.sign(HOST.header(b64=False, crit=["b64"]), HOST.claims()),
    "JWT-019 type": lambda: HOST.sign(HOST.header(typ="at+jwt"), HOST.claims()),
    "another's signature": lambda: Host(number=9).token(),
    "another's name": lambda: Host(kid="other", number=9).token(),
    "expired": lambda: HOST.token(iat=1, exp=2),
    "nobody": lambda: HOST.token(sub=None),
    "no token": lambda: "nonsense",
}


@pytest.mark.parametrize("case", BAD)
async def test_every_bad_token_gets_the_same_refusal_and_leaves_nothing(
    shop: Shop, case: str
) -> None:
    with structlog.testing.capture_logs() as logs:
        answer = await Browser(shop).sign_in(BAD[case]())

    assert answer.status_code == 401
    assert answer.json() == host_tokens.HostTokenRefused("").as_dict()
    assert answer.headers["access-control-allow-origin"] == SHOP
    assert answer.headers["www-authenticate"] == "Bearer"
    assert await left_behind(shop) == []
    (line,) = [each for each in logs if each["event"] == "host_token_refused"]
    assert set(line) == {"event", "log_level", "site_id", "reason"}


async def test_a_site_without_a_host_refuses_alike(service: Any) -> None:
    answer = await Browser(await open_shop(service)).sign_in(HOST.token())

    assert answer.status_code == 401
    assert answer.json() == host_tokens.HostTokenRefused("").as_dict()


async def test_jwt_011_a_token_is_used_once_and_remembered_for_longer_than_it_could_pass(
    shop: Shop,
) -> None:
    expires = utc_now() + dt.timedelta(seconds=60)
    token = HOST.token(exp=int(expires.timestamp()))
    assert (await Browser(shop).sign_in(token)).status_code == 201
    before = await left_behind(shop)

    await host_tokens.sweep(shop.service.database, expires + LEEWAY)
    assert (await Browser(shop).sign_in(token)).status_code == 401
    assert await left_behind(shop) == before
    await host_tokens.sweep(shop.service.database, expires + REMEMBERED + dt.timedelta(seconds=1))
    assert await shop.service.rows("select 1 from used_host_token") == []


async def test_of_many_uses_of_one_token_at_once_one_counts(shop: Shop) -> None:
    token = HOST.token()
    answers = await asyncio.gather(*(Browser(shop).sign_in(token) for _ in range(8)))

    assert sorted(each.status_code for each in answers) == [201, *[401] * 7]
    assert len(await shop.service.rows("select 1 from visitor_link")) == 1


async def test_two_hosts_may_give_their_tokens_the_same_name(shop: Shop) -> None:
    other = Host("ES256", issuer="https://other.example")
    assert (await Browser(shop).sign_in(HOST.token(jti="1"))).status_code == 201
    await believe(shop, other)

    assert (await Browser(shop).sign_in(other.token(jti="1"))).status_code == 201
    assert (await Browser(shop).sign_in(other.token(jti="1"))).status_code == 401


async def test_the_body_may_not_say_more_than_the_token(shop: Shop) -> None:
    mallory = [{"kind": "user_id", "value": "u-2"}]
    answer = await Browser(shop).sign_in(HOST.token(), identifiers=mallory)

    assert answer.status_code == 422
    assert answer.headers["access-control-allow-origin"] == SHOP
    assert await left_behind(shop) == []


async def test_a_key_must_say_who_it_is(shop: Shop) -> None:
    body = {"site_key": shop.site_key, "visitor_id": str(uuid.uuid4())}
    answer = await shop.service.client.post(
        "/v1/visitors/link", json=body, headers=shop.service.auth()
    )

    assert answer.status_code == 422


async def test_a_page_of_another_origin_is_refused(shop: Shop) -> None:
    for origin in ("https://evil.example", "null", f"{SHOP}:8443"):
        answer = await Browser(shop).sign_in(HOST.token(), origin=origin)
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers
    assert await left_behind(shop) == []


async def test_a_token_counts_on_the_sites_that_believe_its_host(shop: Shop) -> None:
    """Also where another workspace has set the same public keys: that gains it nothing."""
    blog = await open_shop(shop.service, BLOG)
    evil = await open_shop(shop.service, SHOP, key="eve")
    await believe(evil, HOST, key="eve")
    token = HOST.token()

    assert (await Browser(blog).sign_in(token, origin=BLOG)).status_code == 401
    assert (await Browser(evil).sign_in(token)).status_code == 201
    assert (await Browser(shop).sign_in(token)).status_code == 201


async def test_an_unknown_site_is_said_readably(shop: Shop) -> None:
    answer = await Browser(shop).sign_in(HOST.token(), site_key="nowhere")

    assert answer.status_code == 404
    assert answer.headers["access-control-allow-origin"] == "*"


async def test_linking_is_limited_as_choosing_is(shop: Shop) -> None:
    shop.service.app.state.limits = RateLimits(Settings(consent_per_minute=2))
    answers = [await Browser(shop).sign_in("nonsense") for _ in range(3)]

    assert [each.status_code for each in answers] == [401, 401, 429]
    assert answers[2].headers["access-control-allow-origin"] == "*"


async def test_on_a_shared_device_the_second_person_gets_a_visitor_id_of_their_own(
    shop: Shop,
) -> None:
    shared = Browser(shop)
    bob, carol = HOST.token(sub="bob"), HOST.token(sub="carol")
    assert (await shared.sign_in(bob)).status_code == 201

    refused = await shared.sign_in(carol)
    assert refused.status_code == 409
    assert refused.json()["type"] == "urn:quittance:problem:visitor-of-another"
    assert refused.headers["access-control-allow-origin"] == SHOP
    assert (await Browser(shop).sign_in(carol)).status_code == 201, "the token was not used up"


@pytest.mark.parametrize("is_known", [False, True])
async def test_two_people_signing_in_with_one_visitor_at_once_do_not_become_one(
    shop: Shop, *, is_known: bool
) -> None:
    """Also where the visitor is linked already, by address alone."""
    shared = Browser(shop)
    if is_known:
        body = {
            "site_key": shop.site_key, "visitor_id": shared.visitor_id,
            "identifiers": [{"kind": "email", "value": "family@shop.example"}],
        }  # fmt: skip
        await shop.service.client.post("/v1/visitors/link", json=body, headers=shop.service.auth())
    answers = await asyncio.gather(
        *(shared.sign_in(HOST.token(sub=f"u-{number}")) for number in range(4))
    )

    assert sorted(each.status_code for each in answers) == [201, 409, 409, 409]


async def test_no_idempotency_key_revives_a_token(shop: Shop) -> None:
    token = HOST.token()
    browser = Browser(shop)
    body = {"site_key": shop.site_key, "visitor_id": browser.visitor_id}
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": "1"}
    answers = [
        await shop.service.client.post("/v1/visitors/link", json=body, headers=headers)
        for _ in range(2)
    ]

    assert [each.status_code for each in answers] == [201, 401]


# --- the site's setting


async def test_a_hosts_keys_are_kept_bare_and_act_at_once(shop: Shop) -> None:
    site = f"/v1/sites/{shop.site_key}"
    read = (await shop.service.client.get(site, headers=shop.service.auth())).json()
    assert read["host_identity"] == {
        "issuer": HOST.issuer,
        "jwks": {"keys": [{key: HOST.jwk[key] for key in ("kty", "kid", "alg", "crv", "x")}]},
    }
    assert read["has_unpublished_changes"] is False

    off = await shop.service.client.patch(
        site, json={"host_identity": None}, headers=shop.service.auth()
    )
    assert off.json()["host_identity"] is None
    assert (await Browser(shop).sign_in(HOST.token())).status_code == 401
    verbs = await shop.service.rows("select verb from audit_entry where verb like '%identity'")
    assert len(verbs) == 2


async def test_other_changes_leave_the_host_alone(shop: Shop) -> None:
    site = f"/v1/sites/{shop.site_key}"
    await shop.service.client.patch(site, json={"name": "Store"}, headers=shop.service.auth())

    assert (await Browser(shop).sign_in(HOST.token())).status_code == 201


@pytest.mark.parametrize(
    "identity",
    [
        {},
        {"issuer": "", "jwks": HOST.jwks},
        {"issuer": HOST.issuer},
        {"issuer": HOST.issuer, "jwks": HOST.jwks, "jwks_url": "https://shop.example/keys"},
        {"issuer": HOST.issuer, "jwks": {"keys": []}},
        {"issuer": HOST.issuer, "jwks": {"keys": [HOST.jwk | {"d": "AAAA"}]}},
        {"issuer": HOST.issuer, "jwks": {"keys": [{"kty": "oct", "kid": "1", "k": "A" * 43}]}},
        {"issuer": HOST.issuer, "jwks_url": "http://shop.example/keys"},
        {"issuer": HOST.issuer, "jwks_url": "https://127.0.0.1/keys"},
        {"issuer": HOST.issuer, "jwks_url": "https://169.254.169.254/keys"},
        {"issuer": HOST.issuer, "jwks_url": "https://bob:hunter2@shop.example/keys"},
        {"issuer": HOST.issuer, "jwks_url": "file:///etc/passwd"},
        {"issuer": HOST.issuer, "jwks": HOST.jwks, "secret": "hunter2"},
    ],
)
async def test_a_host_that_could_not_be_believed_is_refused(
    shop: Shop, identity: dict[str, Any]
) -> None:
    site = f"/v1/sites/{shop.site_key}"
    before = (await shop.service.client.get(site, headers=shop.service.auth())).json()
    answer = await shop.service.client.patch(
        site, json={"host_identity": identity}, headers=shop.service.auth()
    )

    assert answer.status_code == 422, answer.text
    assert "hunter2" not in answer.text
    after = (await shop.service.client.get(site, headers=shop.service.auth())).json()
    assert after["host_identity"] == before["host_identity"]


async def test_jwt_021_keys_come_from_the_hosts_address_and_only_from_there(shop: Shop) -> None:
    async with receiver() as server:
        server.says(200, HOST.jwks)
        outbound = Outbound(Policy(extra_allowed={("127.0.0.1", server.port)}))
        shop.service.app.state.outbound = outbound
        shop.service.app.state.key_sets = KeySets(outbound.http)
        named = await believe(shop, HOST, jwks_url=f"{server.url}/keys")
        assert named.status_code == 200, named.text

        jku = {"jku": f"{server.url}/evil"}
        refused = await Browser(shop).sign_in(HOST.sign(HOST.header(**jku), HOST.claims()))
        assert (refused.status_code, server.seen) == (401, [])
        assert (await Browser(shop).sign_in(HOST.token())).status_code == 201
        unknown = await Browser(shop).sign_in(Host(kid="unknown").token())
        assert unknown.json() == refused.json()

        shop.service.app.state.key_sets = KeySets(outbound.http)
        server.says(302, location="http://127.0.0.1:1/")
        down = await Browser(shop).sign_in(HOST.token())
        assert (down.status_code, down.headers["retry-after"]) == (503, "30")
        assert down.headers["access-control-allow-origin"] == SHOP
        assert {each[1] for each in server.seen} == {"/keys"}
        await outbound.close()
