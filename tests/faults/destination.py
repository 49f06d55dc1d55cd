"""A destination that misbehaves as told, holds people, and notes every call before it answers.

It speaks the protocol of the ``webhook`` connector. What it noted lies in the harness's own
process, which no fault touches.
"""

from __future__ import annotations

import datetime as dt
import gzip
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from email.utils import format_datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.faults.history import Hit, Person, Value

JSON = "application/json"
SOON = {"Retry-After": "1"}


class Destination:
    """``script`` says how the next calls are met, one behaviour each; then ``default`` does."""

    def __init__(self, name: str, host: str = "127.0.0.1", listener: socket.socket | None = None):
        """``listener``: a bound socket instead, from another network namespace for example."""
        self.name = name
        self.hits: list[Hit] = []
        self.script: list[Behaviour] = []
        self.default: Behaviour = obey
        self.held: set[Value] = set()
        self.removed: set[Value] = set()
        self.released = threading.Event()
        """Set: calls that hang go away."""
        self._jobs: dict[str, tuple[Hit, int]] = {}
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._address = (host, 0)
        self._listen(listener)
        self.url = "http://{}:{}/hook".format(*self._address)

    def _listen(self, listener: socket.socket | None = None) -> None:
        self._server = _Server(self._address, partial(_Handler, self), bind_and_activate=False)
        if listener is not None:
            self._server.socket.close()
            self._server.socket = listener
            self._server.server_address = listener.getsockname()
        else:
            self._server.server_bind()
        self._server.server_activate()
        self._address = self._server.server_address[:2]  # type: ignore[assignment]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Refuse connections, and cut those there are."""
        self._server.shutdown()
        self._server.server_close()
        self.released.set()
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def open_again(self) -> None:
        """On the same port as before."""
        self.released.clear()
        self._listen()

    # What a call does here

    def arrived(self, key: str, body: dict[str, Any]) -> Hit:
        people = {
            each["delivery_id"]: frozenset(
                (one["kind"], one["value"]) for one in each["identifiers"]
            )
            for each in body["people"]
        }
        return self._note(key, people)

    def _note(self, key: str, people: dict[str, Person]) -> Hit:
        hit = Hit(time.time(), self.name, key, people)
        with self._lock:
            self.hits.append(hit)
        return hit

    def hits_since(self, at: float) -> list[Hit]:
        with self._lock:
            return [hit for hit in self.hits if hit.at >= at]

    def next_behaviour(self) -> Behaviour:
        with self._lock:
            return self.script.pop(0) if self.script else self.default

    def apply(self, hit: Hit) -> dict[str, str]:
        """Remove the people; the word for each: ``done``, or ``absent`` when nobody was there."""
        with self._lock:
            words = {}
            for delivery_id, person in hit.people.items():
                words[delivery_id] = "done" if self.held & person else "absent"
                self.removed |= self.held & person
                self.held -= person
        return words

    def start_job(self, hit: Hit, polls: int) -> str:
        with self._lock:
            name = f"/job/{len(self._jobs)}"
            self._jobs[name] = hit, polls
        return name

    def poll(self, path: str, key: str) -> tuple[Hit, bool]:
        """Somebody asks about a job; is it done?"""
        with self._lock:
            job, left = self._jobs[path]
            self._jobs[path] = job, left - 1
        return self._note(key, dict(job.people)), left <= 0


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    allow_reuse_address = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that are killed cut their connections; that is no news here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, destination: Destination, *arguments: Any) -> None:
        self.destination = destination
        super().__init__(*arguments)

    def setup(self) -> None:
        super().setup()
        self.destination._connections.add(self.connection)

    def finish(self) -> None:
        self.destination._connections.discard(self.connection)
        super().finish()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if body["type"] == "quittance.ping":
            self.reply(200)
            return
        hit = self.destination.arrived(self.headers["Idempotency-Key"], body)
        self.destination.next_behaviour()(self, hit)

    def do_GET(self) -> None:
        hit, is_done = self.destination.poll(self.path, self.headers["webhook-id"])
        if not is_done:
            self.reply(200, b'{"status": "pending"}', SOON, hit, "accepted")
            return
        self.destination.apply(hit)
        self.reply(200, b'{"status": "done"}', None, hit, "done")

    def reply(
        self,
        status: int,
        content: bytes = b"",
        headers: Mapping[str, str] | None = None,
        hit: Hit | None = None,
        told: dict[str, str] | str = "",
    ) -> None:
        """Answer; ``told``: what that tells about the people of ``hit``, one word each or for all.

        It is noted before it goes out: the service never knows more than the log.
        """
        if hit is not None and told:
            hit.told = told if isinstance(told, dict) else dict.fromkeys(hit.people, told)
        self.send_response(status)
        for name, value in {"Content-Type": JSON, **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def reset(self) -> None:
        """Cut the connection with an RST, as a crashed machine behind a balancer does."""
        no_goodbye = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_goodbye)
        self.close_connection = True
        os.close(self.connection.detach())

    def log_message(self, *_: object) -> None:
        """Nothing to standard error."""


Behaviour = Callable[[_Handler, Hit], None]


def obey(to: _Handler, hit: Hit) -> None:
    """Remove the people and say so."""
    words = to.destination.apply(hit)
    to.reply(200, json.dumps({"results": words}).encode(), None, hit, words)


def slow(seconds: float) -> Behaviour:
    """Take a while, then obey."""

    def behave(to: _Handler, hit: Hit) -> None:
        time.sleep(seconds)
        obey(to, hit)

    return behave


def slow_answer(seconds: float) -> Behaviour:
    """Remove at once, and take a while to say so."""

    def behave(to: _Handler, hit: Hit) -> None:
        words = to.destination.apply(hit)
        time.sleep(seconds)
        to.reply(200, json.dumps({"results": words}).encode(), None, hit, words)

    return behave


def hang(to: _Handler, _: Hit) -> None:
    """Never say a word."""
    to.destination.released.wait(60)
    to.reset()


def reset_before(to: _Handler, _: Hit) -> None:
    """Cut the connection with nothing done."""
    to.reset()


def lost_ack(to: _Handler, hit: Hit) -> None:
    """Remove the people, then cut the connection instead of saying so."""
    to.destination.apply(hit)
    to.reset()


def status(code: int) -> Behaviour:
    """Refuse with this status."""
    return lambda to, _: to.reply(code)


def throttled(seconds: int, *, as_date: bool = False) -> Behaviour:
    """429 with Retry-After, in seconds or as a date."""

    def behave(to: _Handler, _: Hit) -> None:
        until = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)
        wish = format_datetime(until, usegmt=True) if as_date else str(seconds)
        to.reply(429, headers={"Retry-After": wish})

    return behave


def job(polls: int) -> Behaviour:
    """Take the task, and be asked ``polls`` times before it is done."""

    def behave(to: _Handler, hit: Hit) -> None:
        place = to.destination.start_job(hit, polls)
        to.reply(202, b"", SOON | {"Location": place}, hit, "accepted")

    return behave


def html(to: _Handler, _: Hit) -> None:
    """A sign-in page with status 200."""
    to.reply(200, b"<!doctype html><title>Sign in</title>", {"Content-Type": "text/html"})


def truncated(to: _Handler, _: Hit) -> None:
    """JSON that ends in the middle."""
    to.reply(200, b'{"results": {"dlv')


def huge(to: _Handler, _: Hit) -> None:
    """More than anybody should read."""
    with suppress(OSError):  # the reader may go away in the middle
        to.reply(200, b'{"results": "' + b"x" * (3 << 20) + b'"}')


def packed(to: _Handler, _: Hit) -> None:
    """Compressed though nobody asked for that; unpacked, it would say done."""
    to.reply(200, gzip.compress(b'{"deleted": 1}'), {"Content-Encoding": "gzip"})


WRONG_BODIES: tuple[Behaviour, ...] = (html, truncated, huge, packed)
