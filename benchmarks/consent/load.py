"""``python -m benchmarks.consent.load``: posts choices over kept connections, and counts.

Reads one JSON line for each turn: ``{port, connections, seconds, head, body}``, where ``body``
holds ``EVENT`` and ``VISITOR`` for fresh UUIDs. Answers with one: ``{rate, p50, p99, refused}``;
the percentiles are milliseconds, ``refused`` counts what was not answered with 201.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid
from typing import Any

import uvloop

from benchmarks.engine.figures import percentile


class Connection(asyncio.Protocol):
    """One request after the other, until told to stop."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._received = b""
        self._sent_at = 0.0
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._send()

    def _send(self) -> None:
        self._received = b""
        self._sent_at = time.perf_counter()
        self._transport.write(self._turn.request())

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        if len(body) < length:
            return
        self._turn.note(head[9:12], time.perf_counter() - self._sent_at)
        if self._turn.is_over:
            self._transport.close()
        else:
            self._send()

    def connection_lost(self, _error: Exception | None) -> None:
        self._turn.leave()


class Turn:
    """What all connections of a turn share."""

    def __init__(
        self, *, port: int, connections: int, seconds: float, head: list[str], body: str
    ) -> None:
        self._port, self._connections, self._seconds = port, connections, seconds
        before, _, rest = body.partition("EVENT")
        between, _, after = rest.partition("VISITOR")
        self._parts = [each.encode() for each in (before, between, after)]
        length = sum(len(each) for each in self._parts) + 72
        lines = ["POST /v1/consent HTTP/1.1", *head, f"content-length: {length}", "", ""]
        self._head = "\r\n".join(lines).encode()
        self._seen: list[float] = []
        self._refused = 0
        self._open = connections
        self._ended = asyncio.Event()
        self.is_over = False

    def request(self) -> bytes:
        before, between, after = self._parts
        event, visitor = (str(uuid.uuid4()).encode() for _ in range(2))
        return b"".join((self._head, before, event, between, visitor, after))

    def note(self, status: bytes, seconds: float) -> None:
        self._seen.append(seconds)
        self._refused += status != b"201"

    def leave(self) -> None:
        self._open -= 1
        if not self._open:
            self._ended.set()

    async def run(self) -> dict[str, float]:
        loop = asyncio.get_running_loop()
        began = time.perf_counter()
        for _ in range(self._connections):
            await loop.create_connection(lambda: Connection(self), "127.0.0.1", self._port)
        await asyncio.sleep(self._seconds)
        took, seen = time.perf_counter() - began, self._seen[:]
        self.is_over = True
        await asyncio.wait_for(self._ended.wait(), 30)
        return {
            "rate": len(seen) / took,
            "p50": percentile(seen, 0.5) * 1000,
            "p99": percentile(seen, 0.99) * 1000,
            "refused": self._refused,
        }


def main() -> None:
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(uvloop.run(_run(json.loads(line)))), flush=True)


async def _run(wanted: dict[str, Any]) -> dict[str, float]:
    return await Turn(**wanted).run()


if __name__ == "__main__":
    main()
