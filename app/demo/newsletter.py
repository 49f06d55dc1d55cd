"""The demo's newsletter service: a program apart that checks our webhooks and answers.

It shares nothing with the sender but the signing secret: the check of the Standard Webhooks
signature (1.0.0) is written here a second time, on purpose. It keeps what it got with addresses
masked, because a service that unsubscribes somebody has no reason to keep them in its log.
"""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import hashlib
import hmac
import json
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from app.core.clock import utc_now
from app.core.ids import new_id

PATH = "/hooks/quittance"
CLOSED_PATH = "/hooks/loyalty"
"""The address of a contract that ended: it answers 410."""
TOLERANCE = dt.timedelta(minutes=5)
KEPT = 200

_SCHEMA = """
CREATE TABLE IF NOT EXISTS subscribers (email TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS do_not_mail (digest TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS received (
  id INTEGER PRIMARY KEY, at TEXT NOT NULL, webhook_id TEXT, type TEXT,
  signature TEXT NOT NULL, people TEXT NOT NULL,
  status INTEGER NOT NULL);
"""


_INSERT = (
    "INSERT INTO received (at, webhook_id, type, signature, people, status)"
    " VALUES (:at, :webhook_id, :type, :signature, :people, :status)"
)


class Refused(Exception):
    """A call that is not believed; the text says why."""


@dataclass(frozen=True, slots=True)
class Received:
    """One call as the demo's page shows it; ``people`` are (identifiers masked, answer)."""

    at: dt.datetime
    webhook_id: str
    type: str
    is_signed: bool
    signature: str
    people: list[tuple[str, str]]
    status: int


# The subscribers and the log. Blocking and quick; called in a thread.


def make(path: Path, emails: Iterable[str]) -> None:
    """A fresh list of subscribers."""
    with closing(_open(path)) as database, database:
        database.executemany("INSERT INTO subscribers VALUES (?)", [(each,) for each in emails])


def subscriber_count(path: Path) -> int:
    with closing(_open(path)) as database:
        return int(database.execute("SELECT count(*) FROM subscribers").fetchone()[0])


def is_subscribed(path: Path, email: str) -> bool:
    with closing(_open(path)) as database:
        return (
            database.execute("SELECT 1 FROM subscribers WHERE email = ?", (email,)).fetchone()
            is not None
        )


def received(path: Path) -> list[Received]:
    """What came in, newest first."""
    with closing(_open(path)) as database:
        rows = database.execute(
            "SELECT * FROM received ORDER BY at DESC LIMIT ?", (KEPT,)
        ).fetchall()
    return [
        Received(
            at=dt.datetime.fromisoformat(row["at"]),
            webhook_id=row["webhook_id"] or "",
            type=row["type"] or "",
            is_signed=row["signature"] == "valid",
            signature=row["signature"],
            people=[(who, answer) for who, answer in json.loads(row["people"])],
            status=row["status"],
        )
        for row in rows
    ]


def _open(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=5)
    database.row_factory = sqlite3.Row
    database.execute("PRAGMA synchronous=OFF")  # a toy of the demo: nothing depends on it
    database.execute("PRAGMA secure_delete=ON")
    database.executescript(_SCHEMA)
    return database


def _log(path: Path, entry: Mapping[str, Any]) -> None:
    with closing(_open(path)) as database, database:
        database.execute(_INSERT, entry)
        database.execute(
            "DELETE FROM received WHERE id <= (SELECT max(id) FROM received) - ?", (KEPT,)
        )


def entry(
    *, at: dt.datetime, type: str, people: list[tuple[list[tuple[str, str]], str]]
) -> dict[str, Any]:
    """A line of the log for a signed call; ``people`` are (identifiers, answer)."""
    shown = [(_masked(identifiers), answer) for identifiers, answer in people]
    return {
        "at": at.isoformat(),
        "webhook_id": new_id("call", at.timestamp()),
        "type": type,
        "signature": "valid",
        "people": json.dumps(shown),
        "status": 200,
    }


def set_back(path: Path, call_ids: Iterable[str], entries: Iterable[Mapping[str, Any]]) -> None:
    """Let the log show ``entries`` in place of what came in under these calls."""
    with closing(_open(path)) as database, database:
        database.executemany(
            "DELETE FROM received WHERE webhook_id = ?", [(each,) for each in call_ids]
        )
        database.executemany(_INSERT, entries)


def _handle(path: Path, operation: str, people: list[dict[str, Any]]) -> dict[str, str]:
    """Do what is asked, person by person: delivery id -> done or absent."""
    answers = {}
    with closing(_open(path)) as database, database:
        for person in people:
            emails = [each["value"] for each in person["identifiers"] if each["kind"] == "email"]
            answers[person["delivery_id"]] = (
                "done" if _act(database, operation, emails) else "absent"
            )
    return answers


def _act(database: sqlite3.Connection, operation: str, emails: list[str]) -> bool:
    digests = [(hashlib.sha256(each.encode()).hexdigest(),) for each in emails]
    if operation == "suppress":
        database.executemany("INSERT OR IGNORE INTO do_not_mail VALUES (?)", digests)
        return bool(emails)
    if operation == "unsuppress":
        changed = [
            database.execute("DELETE FROM do_not_mail WHERE digest = ?", each).rowcount
            for each in digests
        ]
    else:
        changed = [
            database.execute("DELETE FROM subscribers WHERE email = ?", (each,)).rowcount
            for each in emails
        ]
    return any(changed)


# Believing a call.


def check_signature(secret: str, headers: Mapping[str, str], body: bytes, now: dt.datetime) -> None:
    """``Refused`` unless a v1 signature over ``id.timestamp.body`` fits and the call is fresh."""
    webhook_id, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    signatures = headers.get("webhook-signature", "")
    if not webhook_id or not stamp or not signatures:
        raise Refused("missing")
    if not stamp.isdecimal() or abs(now.timestamp() - int(stamp)) > TOLERANCE.total_seconds():
        raise Refused("stale")
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = b".".join((webhook_id.encode(), stamp.encode(), body))
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest())
    given = [part.partition(",")[2] for part in signatures.split(" ") if part.startswith("v1,")]
    if not any(hmac.compare_digest(each.encode(), expected) for each in given):
        raise Refused("wrong")


def mask(kind: str, value: str) -> str:
    """``h…@example.com``, ``u-1…``: enough to recognise, too little to keep."""
    if kind == "email":
        local, _, domain = value.partition("@")
        return f"{local[:1]}…@{domain}"
    return f"{kind} {value[:3]}…"


def _masked(identifiers: Iterable[tuple[str, str]]) -> str:
    shown = [mask(kind, value) for kind, value in identifiers]
    return ", ".join(shown[:3]) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "")


# The server.


class Newsletter:
    """``start`` listens on a loopback port; ``mark`` tells a later process that it is this one."""

    def __init__(self, path: Path, secret: str, mark: str) -> None:
        self.port = 0
        self._path = path
        self._secret = secret
        self._mark = mark
        self._runner: web.AppRunner | None = None

    async def start(self, port: int) -> int:
        """Listen on ``port`` (0: any free one); OSError when it is taken."""
        application = web.Application(client_max_size=4 << 20)
        application.router.add_post(PATH, self._post)
        application.router.add_route("*", CLOSED_PATH, _gone)
        application.router.add_get("/", self._about)
        runner = web.AppRunner(
            application, access_log=None, shutdown_timeout=0.2, handle_signals=False
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", port).start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        self.port = int(runner.addresses[0][1])
        return self.port

    async def stop(self) -> None:
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    async def _about(self, _: web.Request) -> web.Response:
        return web.json_response({"service": "newsletter", "mark": self._mark})

    async def _post(self, request: web.Request) -> web.Response:
        body = await request.read()
        entry: dict[str, Any] = {
            "at": utc_now().isoformat(),
            "webhook_id": request.headers.get("webhook-id"),
            "type": None,
            "signature": "valid",
            "people": "[]",
            "status": 200,
        }
        try:
            check_signature(self._secret, request.headers, body, utc_now())
            answer = await self._answer(json.loads(body), entry)
        except Refused as refusal:
            entry |= {"signature": str(refusal), "status": 401}
            answer = {"error": f"signature {refusal}"}
        except (ValueError, KeyError, TypeError):
            entry["status"] = 400
            answer = {"error": "unreadable"}
        await asyncio.to_thread(_log, self._path, entry)
        return web.json_response(answer, status=entry["status"])

    async def _answer(self, message: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
        entry["type"] = str(message["type"])
        operation = entry["type"].removeprefix("quittance.")
        people = message.get("people", [])
        if operation not in {"erase", "suppress", "unsuppress"}:
            return {"ok": True}
        answers = await asyncio.to_thread(_handle, self._path, operation, people)
        entry["people"] = json.dumps(
            [
                (
                    _masked((i["kind"], i["value"]) for i in each["identifiers"]),
                    answers[each["delivery_id"]],
                )
                for each in people
            ]
        )
        return {"results": answers}


async def _gone(_: web.Request) -> web.Response:
    return web.json_response({"detail": "This contract has ended."}, status=410)
