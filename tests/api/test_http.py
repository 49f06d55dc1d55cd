"""The HTTP layer's bad inputs (HTTP-001 to HTTP-025), on the whole application."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from app.core.http import client_address, client_network
from app.core.settings import Settings
from app.crypto import keyring
from app.main import create_app
from tests.running import BOB, Service, plain_logs, running

OUTSIDE = "0.0.0.0"  # noqa: S104 (a setting; nothing is bound)
BODY = {"kind": "erasure", "identifiers": [{"kind": "email", "value": BOB}]}


async def send(service: Service, body: bytes, path: str = "/v1/requests", **headers: str) -> Any:
    named = {"authorization": f"Bearer {service.keys['alice']}", "content-type": "application/json"}
    named |= {name.replace("_", "-"): value for name, value in headers.items()}
    return await service.client.post(path, content=body, headers=named)


async def stored(service: Service) -> int:
    return int((await service.rows("SELECT count(*) FROM subject_request"))[0][0])


def assert_problem(answer: httpx.Response, status: int) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == status
    assert body["type"].startswith("urn:quittance:problem:")
    assert body["title"]


async def test_http_001_a_body_beyond_the_limit_is_refused_by_its_length(
    embedded: Service,
) -> None:
    for path in ("/v1/requests", "/v1/consent", "/v1/suppressions/check", "/v1/destinations"):
        assert_problem(await send(embedded, b" " * (10 << 20), path), 413)


async def test_http_001_a_body_of_unknown_length_is_refused_where_it_passes_the_limit(
    embedded: Service,
) -> None:
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        for _ in range(64):
            taken += 1 << 18
            yield b" " * (1 << 18)

    answer = await embedded.call("POST", "/v1/requests", content_type="application/json")
    answer = await embedded.client.post(
        "/v1/requests", content=endless(),
        headers={"authorization": f"Bearer {embedded.keys['alice']}",
                 "content-type": "application/json"},
    )  # fmt: skip
    assert_problem(answer, 413)


async def test_http_005_too_many_or_too_large_headers_are_refused(embedded: Service) -> None:
    many = {f"x-{number}": "1" for number in range(500)}

    assert (await embedded.client.get("/healthz", headers=many)).status_code in {400, 431}
    assert (await embedded.client.get("/healthz", headers={"x": "a" * 65536})).status_code == 400
    assert (await embedded.client.get("/healthz")).status_code == 200


@pytest.mark.parametrize(
    "content_type", ["text/plain", "text/plain; application/json", "", "application/jsonp",
                     "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"],
)  # fmt: skip
async def test_http_007_json_under_another_type_is_refused(
    embedded: Service, content_type: str
) -> None:
    answer = await send(embedded, json.dumps(BODY).encode(), content_type=content_type)

    assert_problem(answer, 415)
    assert await stored(embedded) == 0


async def test_http_009_a_byte_order_mark_changes_nothing(embedded: Service) -> None:
    answer = await send(embedded, b"\xef\xbb\xbf" + json.dumps(BODY).encode())
    assert answer.status_code == 201


HOSTILE = {
    "http_011_five_thousand_digits": b'{"kind":' + b"1" * 5000 + b"}",
    "http_011_digits_in_a_free_place": b'{"kind":"erasure","subjects":[' + b"9" * 5000 + b"]}",
    "http_013_the_same_name_twice": (
        b'{"kind":"erasure","identifiers":[{"kind":"email","value":"a@example.com",'
        b'"value":"b@example.com"}]}'
    ),
    "http_015_a_lone_surrogate": (
        b'{"kind":"erasure","identifiers":[{"kind":"user_id","value":"\\ud800"}]}'
    ),
    "a_nul": b'{"kind":"erasure","identifiers":[{"kind":"user_id","value":"a\\u0000"}]}',
    "nan": b'{"kind":"erasure","identifiers":NaN}',
    "deep_nesting": b"[" * 50_000,
    "no_json": b"kind=erasure",
}


@pytest.mark.parametrize("path", ["/v1/requests", "/v1/requests/bulk", "/v1/requests/search"])
@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
async def test_http_011_013_015_hostile_json_is_a_bad_request_everywhere(
    embedded: Service, path: str, body: bytes
) -> None:
    assert_problem(await send(embedded, body, path), 400)
    assert await stored(embedded) == 0


async def test_http_017_ten_thousand_ranges_cost_nothing(embedded: Service) -> None:
    path = "/dashboard/static/none.css"
    ranges = "bytes=" + ",".join(f"{number}-" for number in range(4000))
    await embedded.client.get(path)  # the first request of a process costs more than any other

    async def cost(**headers: str) -> float:
        began = time.process_time()
        for _ in range(5):
            answer = await embedded.client.get(path, headers=headers)
            assert answer.status_code in {200, 404, 416}
        return time.process_time() - began

    assert await cost(range=ranges) < 10 * await cost() + 0.1


async def test_http_019_a_forged_forwarding_header_does_not_change_who_is_asking(
    sqlite_url: str, sqlite_keystore_url: str, tmp_path: Path
) -> None:
    async with running(tmp_path, sqlite_url, sqlite_keystore_url, consent_per_minute=3) as service:
        answers = [
            await service.client.post(
                "/v1/consent", json={}, headers={"x-forwarded-for": f"1.2.3.{number}"}
            )
            for number in range(6)
        ]
    assert [each.status_code for each in answers][-2:] == [429, 429]


@pytest.mark.parametrize(
    ("proxies", "peer", "forwarded", "expected"),
    [
        ("", "203.0.113.9", "1.2.3.4", "203.0.113.9"),
        ("10.0.0.0/8", "203.0.113.9", "1.2.3.4", "203.0.113.9"),
        ("10.0.0.0/8", "10.0.0.1", "1.2.3.4", "1.2.3.4"),
        ("10.0.0.0/8", "10.0.0.1", "6.6.6.6, 1.2.3.4, 10.0.0.2", "1.2.3.4"),
        ("10.0.0.0/8", "10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.0/8", "10.0.0.1", "1.2.3.4:51000, 10.0.0.2:443", "1.2.3.4"),
        ("10.0.0.0/8", "10.0.0.1", "[2001:db8::1]:443", "2001:db8::1"),
        ("10.0.0.0/8", "10.0.0.1", "2001:db8::1", "2001:db8::1"),
        ("10.0.0.0/8", "10.0.0.1", "10.0.0.3", "10.0.0.1"),
    ],
)
def test_http_019_only_listed_proxies_are_believed(
    proxies: str, peer: str, forwarded: str, expected: str
) -> None:
    from fastapi import FastAPI, Request  # noqa: PLC0415 - only this test builds one by hand

    application = FastAPI()
    application.state.settings = Settings(trusted_proxies=proxies)  # type: ignore[arg-type]
    scope = {
        "type": "http", "app": application, "client": (peer, 1), "method": "GET", "path": "/",
        "headers": [(b"x-forwarded-for", forwarded.encode())] if forwarded else [],
    }  # fmt: skip
    assert client_address(Request(scope)) == expected


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::9", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("not:an:address", "not:an:address"),
        ("unknown", "unknown"),
    ],
)
def test_whoever_has_a_network_of_addresses_is_one_caller(peer: str, expected: str) -> None:
    from fastapi import FastAPI, Request  # noqa: PLC0415 - only this test builds one by hand

    application = FastAPI()
    application.state.settings = Settings()
    scope = {"type": "http", "app": application, "client": (peer, 1), "headers": []}
    assert client_network(Request(scope)) == expected


async def test_http_021_a_method_override_is_ignored(embedded: Service) -> None:
    made = await embedded.post("/v1/keys", {"name": "x", "scopes": ["ops:read"]}, 201)

    answer = await embedded.call("GET", "/v1/keys", x_http_method_override="DELETE")

    assert answer.status_code == 200
    assert all(each["revoked_at"] is None for each in answer.json()["items"])
    assert made["id"]


@pytest.mark.parametrize(
    "path",
    ["/docs", "/openapi.json", "/metrics", "/debug", "/.git/config", "/.env", "/flower", "/redoc",
     "/dev/mail", "/dev/mail.json", "/console", "/DOCS"],
)  # fmt: skip
async def test_http_025_from_outside_there_is_nothing_to_look_around_in(
    sqlite_url: str, sqlite_keystore_url: str, tmp_path: Path, path: str
) -> None:
    async with running(tmp_path, sqlite_url, sqlite_keystore_url, host=OUTSIDE) as service:
        answer = await service.client.get(path)
        assert answer.status_code in {401, 404}
        assert_problem(answer, answer.status_code)


async def test_http_025_operations_pages_open_with_the_right_key(
    sqlite_url: str, sqlite_keystore_url: str, tmp_path: Path
) -> None:
    async with running(tmp_path, sqlite_url, sqlite_keystore_url, host=OUTSIDE) as service:
        await service.add_key("olga", "ops:read")
        await service.add_key("rita", "requests:read")
        for path in ("/docs", "/openapi.json", "/metrics"):
            assert (await service.call("GET", path, who="olga")).status_code == 200
            assert (await service.call("GET", path, who="rita")).status_code in {403, 404}


@pytest.mark.parametrize(
    ("method", "path", "detail"),
    [
        ("GET", "/v1/destinations/dst_x", "There is no destination with this id."),
        ("DELETE", "/v1/destinations/dst_x", "There is no destination with this id."),
        ("DELETE", "/v1/keys/key_x", "There is no key with this id."),
        ("GET", "/v1/queues/dst_x/activity", "There is no destination with this id."),
        ("GET", "/nothing", "Check the address and the ids in it."),
    ],
)
async def test_what_is_not_there_is_named(
    embedded: Service, method: str, path: str, detail: str
) -> None:
    answer = await embedded.call(method, path)

    assert_problem(answer, 404)
    assert answer.json()["detail"] == detail


async def test_answers_carry_the_headers_that_keep_browsers_safe(embedded: Service) -> None:
    for path in ("/healthz", "/v1/requests", "/nothing"):
        headers = (await embedded.client.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["cache-control"] == "no-store"
        assert "server" not in headers


async def test_a_bug_of_ours_is_a_problem_without_detail(
    embedded: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError(f"SELECT {BOB} FROM secret_table")

    monkeypatch.setattr("app.subject_requests.routes.queries.page", broken)
    answer = await embedded.call("GET", "/v1/requests")

    assert_problem(answer, 500)
    assert "secret_table" not in answer.text
    assert BOB not in answer.text


# --- raw sockets: a real server


class Server(uvicorn.Server):
    def install_signal_handlers(self) -> None:
        """Not in a thread."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The application behind uvicorn, on a port of its own, without background work."""
    directory = tmp_path_factory.mktemp("server")
    from app.core.migrate import upgrade  # noqa: PLC0415 - only this fixture migrates by itself

    settings = Settings(data_dir=directory, broker_url="memory://", port=0)
    upgrade(settings.main_url, "main")
    upgrade(settings.keys_url, "keystore")
    keyring.create(settings.key_file)
    config = uvicorn.Config(
        create_app(settings), host="127.0.0.1", port=0, log_config=None, server_header=False
    )
    running_server = Server(config)
    thread = threading.Thread(target=running_server.run)
    with plain_logs():
        thread.start()
        end = time.monotonic() + 30
        while not running_server.started and time.monotonic() < end:
            time.sleep(0.02)
        yield running_server.servers[0].sockets[0].getsockname()[1]
        running_server.should_exit = True
        thread.join(20)


def talk(port: int, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(request)
        answer = b""
        try:
            while b"\r\n\r\n" not in answer and (part := connection.recv(65536)):
                answer += part
        except ConnectionResetError:
            pass
        return answer


def status_of(answer: bytes) -> int:
    return int(answer.split()[1]) if answer else 0


HEAD = b"POST /v1/consent HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
RAW = {
    "http_003_negative_length": HEAD + b"Content-Length: -1\r\n\r\n{}",
    "http_003_length_in_words": HEAD + b"Content-Length: two\r\n\r\n{}",
    "http_003_two_lengths": HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "http_003_length_and_chunks": (
        HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    ),
    "http_005_500_header_lines": (
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"X-A: b\r\n" * 500 + b"\r\n"
    ),
    "http_005_a_header_of_64_kib": (
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: " + b"a" * 65536 + b"\r\n\r\n"
    ),
    "http_023_a_bare_line_feed_in_a_value": (
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Request-Id: a\rSet-Cookie: x\r\n\r\n"
    ),
    "no_http_at_all": b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n",
}


@pytest.mark.parametrize("request_bytes", RAW.values(), ids=RAW.keys())
def test_http_003_005_023_malformed_requests_are_refused_and_the_next_one_is_served(
    server: int, request_bytes: bytes
) -> None:
    answer = talk(server, request_bytes)

    assert status_of(answer) in {0, 400, 413, 422, 431}
    assert b"set-cookie" not in answer.lower()
    assert status_of(talk(server, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")) == 200


def test_http_023_an_encoded_line_break_is_never_echoed(server: int) -> None:
    answer = talk(
        server,
        b"GET /v1/requests HTTP/1.1\r\nHost: x\r\nX-Request-Id: a%0d%0aSet-Cookie: x\r\n\r\n",
    )

    assert status_of(answer) == 401
    assert b"set-cookie" not in answer.lower()


def test_http_001_the_server_answers_before_a_large_body_is_sent(server: int) -> None:
    answer = talk(server, HEAD + b"Content-Length: 10485760\r\n\r\n")

    assert status_of(answer) == 413


def test_a_client_that_hangs_up_in_the_middle_harms_nobody_and_is_no_error(
    server: int, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", server)) as connection:
            connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n{")

    assert status_of(talk(server, b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")) == 200
    time.sleep(0.2)
    assert [each for each in caplog.records if each.levelname == "ERROR"] == []
