"""The guard: where a socket may go, and what the HTTP client does with answers."""

from __future__ import annotations

import asyncio
import gzip
import ipaddress
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any

import httpx
import pytest
import yarl
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from app.core.outbound import (
    UNDECODED,
    AnswerTooLarge,
    Outbound,
    Policy,
    check_url,
    is_allowed_address,
    resolve,
)
from connectors.contract import AddressRefused
from tests.destinations.receiver import Receiver, receiver

LOOPBACK = ip_network("127.0.0.0/8")


def answers(*addresses: str):
    """A stand-in for ``getaddrinfo`` which gives these addresses for any name."""
    asked: list[str] = []

    def lookup(host: str, port: int, **_: object) -> list[object]:
        asked.append(host)
        return [
            (
                socket.AF_INET6 if ":" in each else socket.AF_INET,
                socket.SOCK_STREAM,
                6,
                "",
                (each, port),
            )
            for each in addresses
        ]

    lookup.asked = asked  # type: ignore[attr-defined]
    return lookup


REFUSED = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",  # noqa: S104 - nothing is bound
    "10.0.0.5",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "100.100.100.200",
    "169.254.169.254",
    "198.18.0.1",
    "192.0.0.192",
    "192.0.2.1",
    "203.0.113.9",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "192.88.99.1",
    "168.63.129.16",
    "::",
    "::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "ff0e::1",
    "100::1",
    "2001:db8::1",
    "3fff::1",
    "5f00::1",
    "2001:10::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::7f00:1",
    "::10.0.0.1",
    "2002:7f00:1::",
    "2002:a00:1::",
    "2002:a9fe:a9fe::1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::a00:1",
    "2001:0:7f00:1::",
    "2001:0:808:808:0:0:80ff:fffe",
    "::ffff:0:127.0.0.1",
    "127.1",
    "0177.0.0.1",
    "2130706433",
    "0x7f000001",
    "\uff11\uff12\uff17.0.0.1",
    "localhost",
]
ALLOWED = [
    "8.8.8.8",
    "1.1.1.1",
    "2606:4700::1111",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
    "2002:808:808::1",
]


@pytest.mark.parametrize("address", REFUSED)
def test_cnx_001_inside_addresses_are_refused_in_every_disguise(address: str):
    assert not is_allowed_address(address, 443, Policy())


@pytest.mark.parametrize("address", ALLOWED)
def test_public_addresses_are_allowed_on_listed_ports_only(address: str):
    assert is_allowed_address(address, 443, Policy())
    assert not is_allowed_address(address, 22, Policy())
    assert not is_allowed_address(address, 443, Policy(), is_plain=True)


def test_an_allowed_private_network_opens_every_port_inside_and_nothing_else():
    policy = Policy((ip_network("10.1.0.0/16"), ip_network("fd12::/32")))
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "fd12::1"):
        assert is_allowed_address(address, 5432, policy)
        assert is_allowed_address(address, 80, policy, is_plain=True)
    for address in ("10.2.0.1", "127.0.0.1", "fd13::1", "169.254.169.254"):
        assert not is_allowed_address(address, 443, policy)
    assert not is_allowed_address("224.0.0.1", 443, Policy((ip_network("0.0.0.0/0"),)))


def test_the_demo_reaches_only_its_own_receiver():
    policy = Policy(extra_allowed={("127.0.0.1", 4001)})
    assert is_allowed_address("127.0.0.1", 4001, policy, is_plain=True)
    assert not is_allowed_address("127.0.0.1", 4002, policy)
    assert not is_allowed_address("127.0.0.2", 4001, policy)


@given(st.integers(0, 2**32 - 1).map(IPv4Address))
def test_a_disguised_address_is_judged_as_what_it_is(address: IPv4Address):
    number = int(address)
    plain = is_allowed_address(address, 443, Policy())
    disguises = {
        "mapped": IPv6Address(0xFFFF << 32 | number),
        "6to4": IPv6Address(0x2002 << 112 | number << 80 | 1),
        "nat64": IPv6Address(0x64_FF9B << 96 | number),
    }
    for name, disguise in disguises.items():
        assert is_allowed_address(disguise, 443, Policy()) is plain, name


@given(st.ip_addresses())
def test_what_is_allowed_is_global(address: ipaddress.IPv4Address | ipaddress.IPv6Address):
    if is_allowed_address(address, 443, Policy()):
        assert address.is_global or getattr(address, "ipv4_mapped", None)
        assert not address.is_multicast


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/",
        "http://[fd00:ec2::254]/",
        "http://100.64.0.1/",
        "https://169.254.169.254/",
        "https://[::ffff:127.0.0.1]/",
        "https://[::]/",
        "https://0.0.0.0/",
        "https://localhost/",
        "https://a.localhost/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://127.1/",
        "https://0177.0.0.1/",
        "https://127.0.0.1./",
        "https://\uff11\uff12\uff17.0.0.1/",
        "https://[::1%25lo]/",
        "https://user:pass@shop.example/",
        "https://shop.example/#here",
        "https://shop.example/\r\nHost: inside",
        "https://a.example\\@b.example/",
        "https:/\\shop.example/",
        "https://shop.example:22/",
        "https://shop.example:25/",
        "https://shop.example:6379/",
        "https://shop.example:5432/",
        "https://shop.example:0443000/",
        "https:shop.example",
        " https://shop.example/",
        "https://shop.example/a b",
        "https://bücher.example/",
        "http://shop.example/",
        "ftp://shop.example/",
        "file:///etc/passwd",
        "gopher://shop.example/",
        "//shop.example/",
        "https://",
        "https://shop.example/" + "a" * 2000,
    ],
)
def test_cnx_009_and_011_an_address_that_can_never_be_called_is_refused_at_save(url: str):
    with pytest.raises(AddressRefused) as refused:
        check_url(url, Policy(), answers("8.8.8.8"))
    assert "shop.example" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://shop.example",
        "https://shop.example/hook?x=1@2",
        "https://shop.example:443/%C3%A9",
        "HTTPS://Shop.Example/",
        "https://8.8.8.8/",
        "https://[2606:4700::1111]/x",
    ],
)
def test_public_https_is_taken_at_save_without_a_lookup(url: str):
    lookup = answers("127.0.0.1")
    check_url(url, Policy(), lookup)
    assert lookup.asked == []


def test_plain_http_is_for_private_networks_only():
    policy = Policy((ip_network("10.0.0.0/8"),))
    check_url("http://10.0.0.1:8080/x", policy)
    check_url("http://crm.internal:8080/x", policy, answers("10.0.0.1"))
    for found in (answers("8.8.8.8"), answers("10.0.0.1", "8.8.8.8")):
        with pytest.raises(AddressRefused):
            check_url("http://crm.internal:443/x", policy, found)


@given(st.text(st.characters(codec="ascii"), max_size=12), st.text(max_size=6))
def test_cnx_009_every_parser_sees_the_same_host_in_what_is_taken(middle: str, end: str):
    url = f"https://shop{middle}.example{end}"
    try:
        check_url(url, Policy(), answers("8.8.8.8"))
    except AddressRefused:
        return
    assert (httpx.URL(url).host, httpx.URL(url).port or 443) == (
        yarl.URL(url).host,
        yarl.URL(url).port,
    )


def test_cnx_005_all_answers_of_a_name_must_pass_for_drivers():
    assert resolve("db.example", 443, Policy(), answers("8.8.8.8")) == "8.8.8.8"
    with pytest.raises(AddressRefused):
        resolve("db.example", 443, Policy(), answers("8.8.8.8", "10.0.0.1"))
    with pytest.raises(AddressRefused):
        resolve("127.0.0.1", 443, Policy())


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
    return port


@pytest.fixture
async def server() -> AsyncIterator[Receiver]:
    async with receiver() as made:
        yield made


@pytest.fixture
async def outbound(server: Receiver) -> AsyncIterator[Outbound]:
    made = Outbound(Policy(extra_allowed={("127.0.0.1", server.port)}))
    yield made
    await made.close()


async def test_cnx_003_the_address_connected_to_is_checked_not_the_name(server: Receiver):
    closed = Outbound(Policy(ports=frozenset({443, server.port})), lookup=answers("127.0.0.1"))
    for host in (
        "127.0.0.1",
        "inside.example",
        "[::ffff:127.0.0.1]",
        "[::]",
        "0.0.0.0",  # noqa: S104 - nothing is bound
        "localhost",
    ):
        with pytest.raises(AddressRefused):
            await closed.http.get(f"http://{host}:{server.port}/")
    for host in ("2130706433", "0x7f000001", "127.1"):
        with pytest.raises((AddressRefused, httpx.TransportError)):
            await closed.http.get(f"http://{host}:{server.port}/")
    await closed.close()
    assert server.seen == []


async def test_cnx_005_one_private_answer_refuses_the_name(server: Receiver):
    policy = Policy(extra_allowed={("127.0.0.1", server.port)})
    mixed = Outbound(policy, lookup=answers("127.0.0.1", "10.0.0.1"))
    with pytest.raises(AddressRefused):
        await mixed.http.get(f"http://both.example:{server.port}/")
    await mixed.close()
    assert server.seen == []


async def test_a_name_is_looked_up_once_so_that_it_cannot_change_between_check_and_call(
    server: Receiver,
):
    lookup = answers("127.0.0.1")
    policy = Policy(extra_allowed={("127.0.0.1", server.port)})
    rebound = Outbound(policy, lookup=lookup)
    await rebound.http.get(f"http://rebind.example:{server.port}/")
    await rebound.close()
    assert lookup.asked == ["rebind.example"]


async def test_cnx_007_and_dst_009_redirects_are_not_followed(server: Receiver, outbound: Outbound):
    for status in (301, 302, 303, 307, 308):
        server.says(status, location="http://127.0.0.1:1/")
        assert (await outbound.http.post(server.url)).status_code == status
    assert len(server.seen) == 5


async def test_calls_carry_no_trace_of_environment_or_earlier_calls(
    server: Receiver, outbound: Outbound, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    server.says(200, set_cookie="a=b")
    await outbound.http.get(server.url)
    await outbound.http.get(server.url)
    for _, _, headers, _ in server.seen:
        assert "cookie" not in headers
        assert "authorization" not in headers
        assert headers["accept-encoding"] == "identity"
        assert headers["user-agent"].startswith("Quittance/")


async def test_the_path_arrives_as_it_was_written(server: Receiver, outbound: Outbound):
    await outbound.http.get(f"{server.url}/a%2Fb%20c?x=%2B+%20&y=%C3%A9;z")
    assert server.seen[0][1] == "/a%2Fb%20c?x=%2B+%20&y=%C3%A9;z"
    with pytest.raises(httpx.InvalidURL):
        await outbound.http.delete(f"{server.url}/users/%2E%2e")
    assert len(server.seen) == 1


async def test_dst_001_a_packed_answer_is_not_unpacked(server: Receiver, outbound: Outbound):
    bomb = gzip.compress(bytes(64 << 20))

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip"})

    server.answer = answer
    response = await outbound.http.get(server.url)
    assert response.content == bomb
    assert response.headers[UNDECODED] == "gzip"


async def test_dst_001_reading_stops_at_the_limit(server: Receiver, outbound: Outbound):
    sent = 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(1000):
            await response.write(bytes(1 << 16))
            sent += 1 << 16
        return response

    server.answer = answer
    with pytest.raises(AnswerTooLarge):
        await outbound.http.get(server.url)
    assert sent < 32 << 20


async def test_dst_003_an_announced_giant_is_refused_at_once(server: Receiver, outbound: Outbound):
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(10 << 30)})
        await response.prepare(request)
        await asyncio.sleep(0.2)
        return response

    server.answer = answer
    async with asyncio.timeout(5):
        with pytest.raises(AnswerTooLarge):
            await outbound.http.get(server.url)


async def test_cnx_013_a_header_cannot_hold_a_line_end(server: Receiver, outbound: Outbound):
    with pytest.raises(ValueError, match=r"(?i)header"):
        await outbound.http.get(server.url, headers={"X-Key": "a\r\nHost: inside"})
    assert server.seen == []


async def test_a_closed_port_is_no_timeout():
    outbound = Outbound(Policy((LOOPBACK,)))
    with pytest.raises(httpx.ConnectError):
        await outbound.http.get(f"http://127.0.0.1:{unused_port()}/")
    await outbound.close()


async def test_a_silent_server_is_a_timeout(server: Receiver, outbound: Outbound):
    async def answer(_: web.Request) -> web.Response:
        await asyncio.sleep(30)
        return web.Response()

    server.answer = answer
    with pytest.raises(httpx.ReadTimeout):
        await outbound.http.get(server.url, timeout=httpx.Timeout(5, read=0.05))


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@asynccontextmanager
async def raw_server(*packets: bytes) -> AsyncIterator[tuple[str, Outbound, list[bytes]]]:
    """Answers every connection's only request with these packets, and ends it; its address, a way
    to it, and the heads of the requests that it saw.
    """
    seen: list[bytes] = []
    answering: set[asyncio.Task[Any]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        answering.add(task)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            seen.append(await reader.readuntil(b"\r\n\r\n"))
            for each in packets:
                writer.write(each)
                await writer.drain()
                await asyncio.sleep(0.02)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    outbound = Outbound(Policy((LOOPBACK,)))
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}", outbound, seen
    finally:
        await outbound.close()
        listening.close()
        if answering:
            await asyncio.wait(answering, timeout=5)


@pytest.mark.parametrize(
    "packets",
    [
        [],
        [b"nonsense\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"],
        [CHUNKED + b"zz\r\n"],
        [CHUNKED + b"2\r\nok\r\n", b"zz\r\n"],
        [CHUNKED, b"2\r\nok\r\n"],
    ],
)
async def test_an_answer_that_breaks_off_is_an_error_of_the_transport(packets: list[bytes]):
    async with raw_server(*packets) as (url, outbound, _), asyncio.timeout(5):
        with pytest.raises(httpx.TransportError):
            await outbound.http.get(url, timeout=httpx.Timeout(5, read=0.5))


async def test_a_call_is_not_sent_again_when_a_kept_connection_is_dead():
    async with raw_server(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as (url, outbound, seen):
        for calls in range(1, 6):
            with suppress(httpx.TransportError):
                await outbound.http.delete(url)
            assert len(seen) <= calls


async def test_the_address_is_sent_as_it_was_quoted():
    async with raw_server(b"HTTP/1.1 204 No Content\r\n\r\n") as (url, outbound, seen):
        await outbound.http.get(f"{url}/?u=https%3A%2F%2Fx&y=%41%27%C3%28")
    assert seen[0].startswith(b"GET /?u=https%3A%2F%2Fx&y=%41%27%C3%28 HTTP/1.1")


async def test_a_request_made_by_hand_gets_the_clients_timeouts(
    server: Receiver, outbound: Outbound
):
    assert (await outbound.http.send(httpx.Request("GET", server.url))).status_code == 204
    partly = httpx.Request("GET", server.url, extensions={"timeout": {"read": 5}})
    assert (await outbound.http.send(partly)).status_code == 204


async def test_an_upload_in_pieces_and_answers_without_a_body_are_taken(
    server: Receiver, outbound: Outbound
):
    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    server.says(200, content_length="77")
    assert (await outbound.http.head(server.url)).content == b""
    server.says(204)
    assert (await outbound.http.put(server.url, content=pieces())).status_code == 204
    assert server.seen[-1][3] == b"onetwo"


async def test_user_names_and_other_schemes_are_refused(outbound: Outbound):
    for url in ("http://a:b@127.0.0.1/", "ftp://127.0.0.1/"):
        with pytest.raises((AddressRefused, httpx.UnsupportedProtocol)):
            await outbound.http.get(url)
