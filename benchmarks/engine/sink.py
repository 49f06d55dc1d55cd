"""Scripted destinations in one process: ``python -m benchmarks.engine.sink``.

``POST /d/NAME`` is a call to a destination. ``POST /_behave`` with ``{"NAME": "latency=20"}`` tells
it how to behave from now on (``benchmarks.engine.manners``), forgets what it saw, and cuts the
calls it lets hang. ``GET /_seen`` says what reached each. Listens on 127.0.0.1 to 127.0.0.10, so
that ten destinations may be ten hosts, and prints its port.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import socket
import struct
import time
from collections import defaultdict
from typing import cast

from benchmarks.engine.loops import run
from benchmarks.engine.manners import HANGS, RESETS, Answer, Destination, Manners

HOSTS = tuple(f"127.0.0.{number}" for number in range(1, 11))
REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    413: "Content Too Large",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
_RESET = struct.pack("ii", 1, 0)


class Sink:
    """All destinations, made when first called or told how to behave."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.destinations: dict[str, Destination] = defaultdict(Destination)
        self._hanging: dict[str, set[Connection]] = defaultdict(set)

    def call(self, name: str, key: bytes, body: bytes) -> Answer:
        destination = self.destinations[name]
        people = len(json.loads(body)["people"]) if destination.manners.bulk else 1
        return destination.answer(key, people, time.monotonic(), self.chance)

    def hang(self, name: str, connection: Connection) -> None:
        self._hanging[name].add(connection)

    def behave(self, scripts: dict[str, str]) -> None:
        now = time.monotonic()
        for name, text in scripts.items():
            self.destinations[name] = Destination(Manners.parse(text), now)
            for connection in self._hanging.pop(name, ()):
                connection.reset()

    def seen(self) -> dict[str, dict[str, object]]:
        return {
            name: {
                "calls": each.calls,
                "people": each.people,
                "repeats": each.repeats,
                "answers": each.answers,
            }
            for name, each in self.destinations.items()
        }


class Connection(asyncio.Protocol):
    """One kept-alive HTTP/1.1 connection; a call that waits holds back the next on it."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._unread = b""
        self._is_waiting = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def _socket(self) -> socket.socket:
        return cast(socket.socket, self._transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        self._unread += data
        self._go_on()

    def reset(self) -> None:
        if not self._transport.is_closing():
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._transport.abort()

    def _go_on(self) -> None:
        """Answer every whole call that has arrived."""
        while not self._is_waiting and not self._transport.is_closing():
            head, separator, rest = self._unread.partition(b"\r\n\r\n")
            if not separator:
                return
            length = int(_header(head, b"content-length") or 0)
            if len(rest) < length:
                return
            self._unread = rest[length:]
            self._answer(head, rest[:length])

    def _answer(self, head: bytes, body: bytes) -> None:
        path = head.split(b" ", 2)[1].decode()
        if not path.startswith("/d/"):
            self._write(*self._told(path, body))
            return
        name = path[3:]
        answer = self._sink.call(name, _header(head, b"idempotency-key"), body)
        match answer.status:
            case status if status == HANGS:
                self._is_waiting = True
                self._sink.hang(name, self)
            case status if status == RESETS:
                self.reset()
            case _ if answer.delay:
                self._is_waiting = True
                asyncio.get_running_loop().call_later(answer.delay, self._late, answer)
            case status:
                self._write(status, b"", answer.retry_after)

    def _late(self, answer: Answer) -> None:
        self._is_waiting = False
        self._write(answer.status, b"", answer.retry_after)
        self._go_on()

    def _told(self, path: str, body: bytes) -> tuple[int, bytes]:
        if path == "/_seen":
            return 200, json.dumps(self._sink.seen()).encode()
        if path != "/_behave":
            return 404, b""
        try:
            self._sink.behave(json.loads(body))
        except ValueError as error:
            return 400, str(error).encode()
        return 200, b""

    def _write(self, status: int, body: bytes, retry_after: int | None = None) -> None:
        if self._transport.is_closing():
            return
        wish = "" if retry_after is None else f"retry-after: {retry_after}\r\n"
        head = f"HTTP/1.1 {status} {REASONS.get(status, '')}\r\n{wish}content-length: {len(body)}"
        self._transport.write(head.encode() + b"\r\n\r\n" + body)


def _header(head: bytes, name: bytes) -> bytes:
    """A header's value; empty when it is not there."""
    _, found, rest = head.lower().partition(b"\r\n" + name + b":")
    if not found:
        return b""
    start = len(head) - len(rest)
    return head[start:].partition(b"\r\n")[0].strip()


async def listen(sink: Sink, hosts: tuple[str, ...] = HOSTS) -> tuple[asyncio.Server, int]:
    """A listening server, and the one port it has on every host."""
    loop = asyncio.get_running_loop()
    with socket.socket() as probe:
        probe.bind((hosts[0], 0))
        port = int(probe.getsockname()[1])
    return await loop.create_server(lambda: Connection(sink), hosts, port, backlog=4096), port


async def serve() -> None:
    server, port = await listen(Sink(random.Random(1)))
    print(port, flush=True)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    server.close()


if __name__ == "__main__":
    run(serve())
