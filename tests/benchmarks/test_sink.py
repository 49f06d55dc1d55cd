"""The scripted destinations of the benchmarks behave as they are told."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator

import httpx
import pytest

from benchmarks.engine.manners import HANGS, RESETS, Answer, Destination, Manners
from benchmarks.engine.sink import Sink, listen


def answers(manners: str, calls: int, *, every: float = 0.0, people: int = 1) -> list[Answer]:
    """What a destination says to calls that come ``every`` so many seconds."""
    destination = Destination(Manners.parse(manners), since=100.0)
    chance = random.Random(1)
    return [
        destination.answer(b"", people, 100.0 + number * every, chance) for number in range(calls)
    ]


def statuses(manners: str, calls: int, *, every: float = 0.0, people: int = 1) -> list[int]:
    return [each.status for each in answers(manners, calls, every=every, people=people)]


def test_without_a_word_it_answers_at_once() -> None:
    assert answers("", 1) == [Answer(200)]


def test_latency_delays_errors_too() -> None:
    assert answers("latency=20,errors=1,code=502", 1) == [Answer(502, delay=0.02)]


@pytest.mark.parametrize(
    ("manners", "status"), [("errors=0.2", 500), ("hang=0.2", HANGS), ("reset=0.2", RESETS)]
)
def test_a_share_is_a_share(manners: str, status: int) -> None:
    assert 150 < Counter(statuses(manners, 1000))[status] < 250


def test_a_rate_lets_a_second_s_worth_through_and_then_its_pace() -> None:
    at_once = answers("rate=10", 12)
    assert [each.status for each in at_once] == [200] * 10 + [429] * 2
    assert at_once[-1].retry_after == 1
    assert Counter(statuses("rate=10", 120, every=0.05))[200] == pytest.approx(10 + 60, abs=1)


def test_it_is_down_between_two_seconds_only() -> None:
    assert statuses("down=2-4", 6, every=1.0) == [200, 200, 503, 503, 200, 200]


def test_a_bulk_destination_refuses_more_than_its_maximum() -> None:
    assert statuses("bulk=100", 1, people=100) == [200]
    assert statuses("bulk=100", 1, people=101) == [413]


def test_repeated_keys_are_counted_and_people_only_when_applied() -> None:
    destination = Destination(Manners.parse("errors=1"))
    chance = random.Random(1)
    destination.answer(b"a", 3, 0.0, chance)
    destination.manners = Manners()
    for key in (b"a", b"b", b"b", b""):
        destination.answer(key, 3, 0.0, chance)
    assert (destination.calls, destination.people, destination.repeats) == (5, 12, 2)


@pytest.mark.parametrize("text", ["latencies=20", "bulk=many", "errors"])
def test_manners_nobody_knows_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Manners.parse(text)


# Over HTTP


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    server, port = await listen(Sink(random.Random(1)), ("127.0.0.1",))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        yield client
    server.close()
    await server.wait_closed()


async def behave(client: httpx.AsyncClient, **scripts: str) -> None:
    (await client.post("/_behave", json=scripts)).raise_for_status()


async def test_what_it_saw_is_told_until_it_is_told_to_behave_anew(
    client: httpx.AsyncClient,
) -> None:
    people: dict[str, list[object]] = {"people": [{}, {}, {}]}
    await behave(client, crm="bulk=2", shop="latency=1")
    assert (await client.post("/d/crm", json=people)).status_code == 413
    assert (await client.post("/d/shop", json=people)).status_code == 200
    assert (await client.get("/_seen")).json() == {
        "crm": {"calls": 1, "people": 0, "repeats": 0, "answers": {"413": 1}},
        "shop": {"calls": 1, "people": 1, "repeats": 0, "answers": {"200": 1}},
    }
    await behave(client, crm="")
    assert (await client.get("/_seen")).json()["crm"]["calls"] == 0


async def test_a_call_that_hangs_holds_up_no_other_and_is_cut_when_it_is_over(
    client: httpx.AsyncClient,
) -> None:
    await behave(client, sick="hang=1")
    hanging = asyncio.create_task(client.post("/d/sick"))
    for _ in range(20):
        assert (await client.post("/d/well")).status_code == 200
    assert not hanging.done()
    await behave(client, sick="")
    with pytest.raises(httpx.TransportError):
        await hanging
    assert (await client.post("/d/sick")).status_code == 200


async def test_a_reset_is_no_answer(client: httpx.AsyncClient) -> None:
    await behave(client, rude="reset=1")
    with pytest.raises(httpx.TransportError):
        await client.post("/d/rude")


async def test_a_rate_limit_says_when_to_come_again(client: httpx.AsyncClient) -> None:
    await behave(client, slow="rate=1")
    first, second = [await client.post("/d/slow") for _ in range(2)]
    assert (first.status_code, second.status_code) == (200, 429)
    assert second.headers["retry-after"] == "1"


async def test_calls_in_one_packet_are_answered_in_their_order(client: httpx.AsyncClient) -> None:
    await behave(client, late="latency=30")
    reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
    writer.write(
        b"POST /d/late HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}POST /d/nobody HTTP/1.1\r\n\r\nGET /x"
    )
    writer.write(b" HTTP/1.1\r\n\r\n")
    heads = [await reader.readuntil(b"\r\n\r\n") for _ in range(3)]
    assert [each.split()[1] for each in heads] == [b"200", b"200", b"404"]
    writer.close()
    await writer.wait_closed()


async def test_unknown_manners_are_answered_with_a_reason(client: httpx.AsyncClient) -> None:
    answer = await client.post("/_behave", json={"crm": "latencies=20"})
    assert (answer.status_code, answer.text) == (400, "no such manners: latencies")
