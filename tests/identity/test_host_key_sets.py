"""JWT-021: key sets are fetched through the guard, kept for a while, and not at any price."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from app.core.outbound import Outbound, Policy
from app.identity.host_key_sets import FRESH, HARD_LIMIT, PAUSE, KeySets, KeysOutOfReach
from tests.destinations.receiver import Receiver, receiver
from tests.identity.hosts import Host

NOW = dt.datetime(2026, 11, 25, 12, tzinfo=dt.UTC)
OLD, NEW = Host(), Host("ES256", kid="2026-12")


@pytest.fixture
async def server() -> AsyncIterator[Receiver]:
    async with receiver() as made:
        made.says(200, OLD.jwks)
        yield made


@pytest.fixture
async def key_sets(server: Receiver) -> AsyncIterator[KeySets]:
    outbound = Outbound(Policy(extra_allowed={("127.0.0.1", server.port)}))
    yield KeySets(outbound.http)
    await outbound.close()


async def kid(key_sets: KeySets, server: Receiver, wanted: Host, at: dt.datetime) -> str | None:
    found = await key_sets.find(server.url, wanted.kid, at)
    return found["kid"] if found else None


async def test_a_key_set_is_fetched_once_and_again_when_it_is_no_longer_fresh(
    server: Receiver, key_sets: KeySets
) -> None:
    many = await asyncio.gather(*(kid(key_sets, server, OLD, NOW) for _ in range(10)))
    assert many == [OLD.kid] * 10
    await kid(key_sets, server, OLD, NOW + FRESH - PAUSE)
    assert len(server.seen) == 1

    await kid(key_sets, server, OLD, NOW + FRESH)
    assert len(server.seen) == 2


async def test_a_new_key_is_found_at_once_but_unknown_names_do_not_hammer_the_host(
    server: Receiver, key_sets: KeySets
) -> None:
    await kid(key_sets, server, OLD, NOW)
    server.says(200, {"keys": [OLD.jwk, NEW.jwk]})

    assert await kid(key_sets, server, NEW, NOW + PAUSE) == NEW.kid
    for second in range(29):
        wanted = Host(kid=f"invented {second}")
        assert (
            await kid(key_sets, server, wanted, NOW + PAUSE + second * dt.timedelta(seconds=1))
            is None
        )
    assert len(server.seen) == 2


async def large(_: web.Request) -> web.Response:
    return web.Response(body=b" " * (10 << 20), content_type="application/json")


async def larger_than_a_key_set(_: web.Request) -> web.Response:
    keys = [OLD.jwk | {"padding": "x" * 70_000}]
    return web.json_response({"keys": keys})


async def page(_: web.Request) -> web.Response:
    return web.Response(text="<html>", content_type="text/html")


async def inside(_: web.Request) -> web.Response:
    return web.Response(status=302, headers={"location": "http://127.0.0.1:1/keys"})


async def fault(_: web.Request) -> web.Response:
    return web.json_response(NEW.jwks, status=500)


async def other_keys(_: web.Request) -> web.Response:
    return web.json_response({"keys": [{"kty": "oct", "k": "AAAA", "kid": OLD.kid}]})


@pytest.mark.parametrize("answer", [large, larger_than_a_key_set, page, inside, fault, other_keys])
async def test_a_bad_answer_leaves_the_old_keys_until_the_hard_limit(
    server: Receiver, key_sets: KeySets, answer: object
) -> None:
    await kid(key_sets, server, OLD, NOW)
    server.answer = answer  # type: ignore[assignment]

    assert await kid(key_sets, server, OLD, NOW + FRESH) == OLD.kid
    assert await kid(key_sets, server, NEW, NOW + HARD_LIMIT) is None
    with pytest.raises(KeysOutOfReach) as refused:
        await kid(key_sets, server, OLD, NOW + HARD_LIMIT + PAUSE)
    assert (refused.value.status, refused.value.headers["Retry-After"]) == (503, "30")
    assert {each[1] for each in server.seen} == {"/"}, "a redirect was followed"

    server.says(200, NEW.jwks)
    assert await kid(key_sets, server, NEW, NOW + HARD_LIMIT + 2 * PAUSE) == NEW.kid


async def test_a_host_that_is_down_from_the_start_has_no_keys(
    server: Receiver, key_sets: KeySets
) -> None:
    server.says(503)
    for second in range(10):
        with pytest.raises(KeysOutOfReach):
            await kid(key_sets, server, OLD, NOW + second * dt.timedelta(seconds=1))
    assert len(server.seen) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "169.254.169.254"])
async def test_a_private_address_is_never_asked(server: Receiver, host: str) -> None:
    outbound = Outbound(Policy(ports=frozenset({443, server.port})))
    with pytest.raises(KeysOutOfReach):
        await KeySets(outbound.http).find(f"http://{host}:{server.port}/", OLD.kid, NOW)
    await outbound.close()
    assert server.seen == []
