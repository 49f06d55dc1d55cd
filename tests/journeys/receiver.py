"""Somebody else's webhook: a real server on loopback that records what it is sent."""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook


@dataclass(frozen=True)
class Received:
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.raw)
        return parsed


class Receiver:
    """``calls`` grows as calls come in; ``delay``: seconds before an answer."""

    def __init__(self, port: int = 0) -> None:
        self.calls: list[Received] = []
        self.delay = 0.0
        self.status = 200
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.calls.append(
                    Received({name.lower(): value for name, value in self.headers.items()}, raw)
                )
                time.sleep(receiver.delay)
                self.send_response(receiver.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def is_signed_with(self, secret: str) -> bool:
        """Checked with the standard's own library."""
        for call in self.calls:
            Webhook(secret).verify(call.raw.decode(), call.headers)
        return bool(self.calls)

    def people(self) -> set[str]:
        return {person["delivery_id"] for call in self.calls for person in call.body["people"]}

    def repeats_carry_the_same_key(self) -> bool:
        """A person who was sent twice was sent under the same call id, each time."""
        keys: dict[str, set[str]] = defaultdict(set)
        for call in self.calls:
            for person in call.body["people"]:
                keys[person["delivery_id"]].add(call.headers["idempotency-key"])
        return all(len(each) == 1 for each in keys.values())
