"""A workspace in the middle of an incident: its mailing service has failed for two hours, another
destination refuses the credentials, a third is paused, and the rest goes on.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from app.compose import Runtime
from app.core.ids import new_id
from app.delivery.models import (
    Call,
    Delivery,
    DeliveryTransition,
    OpenCall,
    QueueActivity,
    Ready,
    VirtualQueue,
)
from app.delivery.order import rank_of
from app.delivery.stats import SLOT, slot_of
from app.destinations import sealed
from app.destinations.models import Destination
from app.security.models import Role
from app.subject_requests.models import SubjectRequest
from tests.dashboard.seeds import Person, seed_person, seed_workspace

DAY = dt.timedelta(days=1)
MINUTE = dt.timedelta(minutes=1)
OUTAGE = 128 * MINUTE
_ROUNDS = (127, 126, 122, 109, 82, 46, 11)
"""Minutes ago: when the mailing service was tried in vain."""


@dataclass(frozen=True)
class Incident:
    """Ids by what is the matter: failing, parked, paused, working, waiting, idle."""

    workspace_id: str
    operator: Person
    viewer: Person
    queues: dict[str, str]
    delivery_id: str
    """Tried seven times, and waits for the next."""
    shared_call_id: str
    finished_id: str
    """Done on its fourth attempt."""


_PLACES = {
    "working": ("sql", "Customer database"),
    "failing": ("webhook", "Mailing service"),
    "parked": ("webhook", "Product analytics"),
    "paused": ("webhook", "CRM"),
    "waiting": ("manual", "Paper files"),
    "idle": ("archive", "Event archive"),
}


async def seed_incident(runtime: Runtime, now: dt.datetime) -> Incident:
    chance = random.Random(11)
    workspace_id = await seed_workspace(runtime, "Harbour & Pine", now, timezone="Europe/Berlin")
    operator, viewer = [
        await seed_person(runtime, workspace_id, f"{who}@harbour.example", role, now)
        for who, role in (("olga", Role.OPERATOR), ("viktor", Role.VIEWER))
    ]
    queues = {each: new_id("dst") for each in _PLACES}
    writer = _Writer(workspace_id, queues, now, chance)
    writer.everything()
    async with runtime.database.writing() as session:
        for what, (connector, name) in _PLACES.items():
            session.add(_destination(runtime, workspace_id, queues[what], connector, name, now))
        await session.flush()
        session.add_all(writer.rows)
        await session.execute(sa.insert(QueueActivity), list(_activity(queues, now, chance)))
    return Incident(
        workspace_id,
        operator,
        viewer,
        queues,
        writer.traced_id,
        writer.shared_call_id,
        writer.finished_id,
    )


def _destination(
    runtime: Runtime,
    workspace_id: str,
    destination_id: str,
    connector: str,
    name: str,
    now: dt.datetime,
) -> Destination:
    settings: dict[str, dict[str, Any]] = {
        "sql": {"url": {"set": True}, "tables": []},
        "webhook": {"url": "https://mail.example/hook"},
        "manual": {"instructions": "Look in the folders."},
        "archive": {"url": "events", "match": {"user": "user_id"}},
    }
    return Destination(
        id=destination_id,
        workspace_id=workspace_id,
        name=name,
        connector=connector,
        settings=settings[connector],
        secrets_sealed=sealed.seal(runtime.ring, workspace_id, destination_id, sealed.Sealed({})),
        is_identity_source=connector == "sql",
        created_at=now - 60 * DAY,
        tested_at=now - DAY,
    )


class _Writer:
    """Collects rows: requests, their deliveries, and the state of each queue."""

    def __init__(
        self, workspace_id: str, queues: dict[str, str], now: dt.datetime, chance: random.Random
    ) -> None:
        self.rows: list[Any] = []
        self._workspace_id = workspace_id
        self._queues = queues
        self._now = now
        self._chance = chance
        self.traced_id = self.shared_call_id = self.finished_id = ""

    def everything(self) -> None:
        now = self._now
        tried = [self._delivery("failing", index, 7) for index in range(31)]
        self.traced_id = tried[0].id
        calls = self._rounds(tried)
        self.shared_call_id = calls[0].id
        for index in range(31, 38):
            fresh = self._delivery("failing", index, index - 28)
            self._wait(fresh, now - (index - 30) * 9 * MINUTE, attempt=0)
        for index, minutes in enumerate((34, 21, 12, 8, 3)):
            parked = self._delivery("parked", 40 + index, 20)
            self._wait(parked, now - minutes * MINUTE, attempt=0)
        for index in range(3):
            paused = self._delivery("paused", 50 + index, 12)
            self._wait(paused, now - 5 * MINUTE, attempt=0)
        self._wait(self._delivery("waiting", 60, 9), now + 40 * MINUTE, job="task")
        under_way = self._delivery("working", 61, 30)
        call = self._call("working", [under_way], now, 1)
        self._wait(under_way, now - MINUTE, attempt=0, call_id=call.id)
        self.rows.append(OpenCall(queue_id=call.queue_id, call_id=call.id))
        self.finished_id = self._finished()
        self._queue_rows()

    def _request(self, index: int, due_at: dt.datetime) -> str:
        request_id = new_id("req")
        received = due_at - 30 * DAY - index * 11 * MINUTE
        self.rows.append(
            SubjectRequest(
                id=request_id,
                workspace_id=self._workspace_id,
                kind="erasure",
                regime="gdpr",
                status="in_progress",
                channel="form" if index % 3 else "api",
                verification="email_link" if index % 3 else "api_key",
                identifier_kinds=["email"],
                received_at=received,
                verified_at=received + 9 * MINUTE,
                due_at=due_at,
            )
        )
        return request_id

    def _delivery(self, what: str, index: int, due_days: float) -> Delivery:
        """The only delivery of a request of its own."""
        due_at = self._now + due_days * DAY
        delivery = Delivery(
            id=new_id("dlv"),
            workspace_id=self._workspace_id,
            request_id=self._request(index, due_at),
            destination_id=self._queues[what],
            operation="erase",
            identifier_ids=[new_id("idn")],
            phase=2 if what == "working" else 1,
            due_at=due_at,
            created_at=self._now - OUTAGE - 2 * MINUTE,
            expires_at=self._now + 29 * DAY,
        )
        self.rows.append(delivery)
        self._step(delivery, 1, delivery.created_at, "awaiting_scheduling")
        return delivery

    def _step(self, delivery: Delivery, seq: int, at: dt.datetime, state: str, **more: Any) -> None:
        self.rows.append(
            DeliveryTransition(delivery_id=delivery.id, seq=seq, at=at, state=state, **more)
        )

    def _call(self, what: str, members: Sequence[Delivery], at: dt.datetime, attempt: int) -> Call:
        call = Call(
            id=new_id("call", at.timestamp()),
            queue_id=self._queues[what],
            token=7,
            operation="erase",
            delivery_ids=[each.id for each in members],
            attempt=attempt,
            created_at=at,
        )
        self.rows.append(call)
        return call

    def _rounds(self, tried: Sequence[Delivery]) -> list[Call]:
        """Every round fails; the probes of the later ones carry one person only."""
        calls = []
        for attempt, minutes in enumerate(_ROUNDS, start=1):
            at = self._now - minutes * MINUTE
            members = tried if attempt <= 3 else tried[:1]
            calls.append(self._call("failing", members, at, attempt))
            for delivery in members:
                self._fail(delivery, calls[-1], attempt, at)
        for index, delivery in enumerate(tried):
            wait = (4 if index == 0 else 6 + index) * MINUTE
            self._wait(delivery, self._now + wait, attempt=7 if index == 0 else 3)
        return calls

    def _fail(self, delivery: Delivery, call: Call, attempt: int, at: dt.datetime) -> None:
        is_timeout = attempt == 3
        took = dt.timedelta(milliseconds=30_000 if is_timeout else 180 + 23 * attempt)
        later = [each for each in _ROUNDS if self._now - each * MINUTE > at]
        retry_at = self._now - later[0] * MINUTE if later else self._now + 4 * MINUTE
        self._step(
            delivery,
            attempt + 1,
            at + took,
            "awaiting_retry",
            attempt=attempt,
            duration_ms=took // dt.timedelta(milliseconds=1),
            http_status=None if is_timeout else 503,
            reason="timeout" if is_timeout else "destination_unavailable",
            retry_at=retry_at,
            call_id=call.id,
            evidence=evidence(verdict="retry", read_back=False),
        )

    def _wait(
        self,
        delivery: Delivery,
        due_at: dt.datetime,
        attempt: int = 1,
        job: str | None = None,
        call_id: str | None = None,
    ) -> None:
        self.rows.append(
            Ready(
                delivery_id=delivery.id,
                queue_id=delivery.destination_id,
                rank=rank_of(delivery.due_at, self._now, is_started=attempt > 0),
                due_at=due_at,
                placed_at=min(due_at, self._now - 11 * MINUTE),
                operation="erase",
                attempt=attempt,
                seq=1 + attempt,
                job=job,
                expires_at=delivery.expires_at,
                call_id=call_id,
            )
        )

    def _finished(self) -> str:
        """In the customer database: busy three times, then deleted and read back."""
        delivery = self._delivery("working", 70, 25)
        at = delivery.created_at
        for attempt in range(1, 5):
            at += attempt * MINUTE
            call = self._call("working", [delivery], at, attempt)
            is_last = attempt == 4
            self._step(
                delivery,
                attempt + 1,
                at,
                "succeeded" if is_last else "awaiting_retry",
                detail="done" if is_last else None,
                assurance="verified_absent" if is_last else "requested",
                attempt=attempt,
                duration_ms=40 + attempt,
                reason=None if is_last else "busy",
                retry_at=None if is_last else at + (attempt + 1) * MINUTE,
                call_id=call.id,
                evidence=evidence(
                    verdict="done",
                    read_back=True,
                    facts={"rows": 3, "tables": 2},
                    residuals=[
                        {"what": "Invoices", "reason": "tax law", "until": "2034-12-31"},
                    ],
                )
                if is_last
                else None,
            )
        return delivery.id

    def _queue_rows(self) -> None:
        now, until = self._now, self._now + 4 * MINUTE
        errors = [
            [(now - minutes * MINUTE).timestamp(), reason, status]
            for minutes, reason, status in (
                (11, "destination_unavailable", 503),
                (46, "destination_unavailable", 503),
                (82, "destination_unavailable", 503),
                (109, "destination_unavailable", 502),
                (122, "timeout", None),
                (126, "destination_unavailable", 503),
            )
        ]
        more: dict[str, dict[str, Any]] = {
            "working": {
                "lease_owner": "wrk_2fKp8vTn",
                "leased_at": now - MINUTE,
                "lease_until": now + MINUTE,
                "next_due": now + MINUTE,
                "concurrency_limit": 12,
            },
            "failing": {
                "breaker": {
                    "until": until.timestamp(),
                    "troubled_since": (now - OUTAGE).timestamp(),
                },
                "not_before": until,
                "next_due": until,
                "leased_at": now - 11 * MINUTE,
                "last_errors": errors,
                "concurrency_limit": 1,
            },
            "parked": {
                "parked_reason": "unauthorized",
                "parked_at": now - 34 * MINUTE,
                "parked_version": 1,
                "leased_at": now - 34 * MINUTE,
                "last_errors": [[(now - 34 * MINUTE).timestamp(), "unauthorized", 401]],
            },
            "paused": {"is_paused": True},
            "waiting": {"next_due": now + 40 * MINUTE},
            "idle": {"leased_at": now - 20 * MINUTE, "concurrency_limit": 8},
        }
        self.rows += [
            VirtualQueue(id=each, workspace_id=self._workspace_id, **more[what])
            for what, each in self._queues.items()
        ]


def evidence(**seen: Any) -> dict[str, Any]:
    """In the shape that the engine writes."""
    digest = hashlib.sha256(repr(seen).encode()).hexdigest()
    return {**seen, "salt": "5a" * 16, "sha256": digest}


def _activity(
    queues: dict[str, str], now: dt.datetime, chance: random.Random
) -> Iterator[dict[str, Any]]:
    """A day per five minutes for what is busy, a week per day for the share of retries."""
    last = slot_of(now)
    for back in range(288):
        at = last - back * SLOT
        for what in ("working", "failing", "idle"):
            if what == "failing" and now - at < OUTAGE:
                counts = Counter(_outage(now, at))
            elif what == "idle" and back % 4:
                continue
            else:
                counts = _healthy(at, chance)
            yield from _rows(queues[what], at, counts)
    for days in range(2, 7):
        for what in ("working", "failing"):
            week = {1: 610, 2: 9, 3: 4, 4: 2, 6: 1, 9: 1} if what == "failing" else {1: 402, 2: 1}
            counts = Counter({f"succeeded:{attempt}": n for attempt, n in week.items()})
            yield from _rows(queues[what], last - days * DAY, counts)


def _healthy(at: dt.datetime, chance: random.Random) -> Counter[str]:
    """More by day than by night; one in forty needs a second try."""
    wave = 5 + 4 * math.sin((at.hour + at.minute / 60 - 8) * math.pi / 12)
    calls = max(1, round(wave + chance.uniform(-2, 2)))
    found: Counter[str] = Counter(calls=calls, duration_ms=calls * chance.randint(90, 240))
    found["succeeded:1"] = calls
    if not chance.randrange(9):
        found["retried"] += 1
        found["calls"] += 1
        found["succeeded:2" if chance.randrange(3) else "succeeded:4"] += 1
        found["succeeded:1"] -= 1
    return found


def _outage(now: dt.datetime, at: dt.datetime) -> dict[str, int]:
    """What was tried in vain in this slot: all of them at first, then single probes."""
    rounds = [
        index for index, minutes in enumerate(_ROUNDS) if at <= now - minutes * MINUTE < at + SLOT
    ]
    retried = sum(31 if index < 3 else 1 for index in rounds)
    return {"calls": len(rounds), "duration_ms": 400 * len(rounds), "retried": retried}


def _rows(queue_id: str, at: dt.datetime, counts: Counter[str]) -> Iterator[dict[str, Any]]:
    for event, count in counts.items():
        if count:
            yield {"queue_id": queue_id, "at": at, "event": event, "count": count}
