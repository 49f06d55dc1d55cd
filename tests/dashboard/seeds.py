"""A workspace with something on every page of the dashboard."""

from __future__ import annotations

import datetime as dt
import random
import uuid
from dataclasses import dataclass
from typing import Any

import pyotp
import sqlalchemy as sa
from sqlmodel import col

from app.compose import Runtime
from app.consent.models import ConsentRecord, ConsentView
from app.core.ids import new_id
from app.crypto.keystore import HolderKey
from app.delivery.models import Archived, Delivery, DeliveryTransition, Ready, VirtualQueue
from app.destinations import sealed
from app.destinations.models import Destination, HumanTask
from app.identity import vault
from app.identity.normalise import normalise
from app.security import accounts, api_keys, audit
from app.security.models import Admin, Role, Workspace
from app.sites import service as sites
from app.sites.config import SiteConfig
from app.sites.models import TrackerSeen
from app.subject_requests.models import RequestEvent, SubjectRequest
from app.suppression.models import Suppression

PASSWORD = "a calm evening by the lake"
BOB = "bob.subject@customer.example"
DAY = dt.timedelta(days=1)
HOSTILE = "<img src=x onerror=alert(1)>"


@dataclass(frozen=True)
class Person:
    """Somebody of the team."""

    id: str
    email: str
    totp_secret: str

    def code(self, now: dt.datetime) -> str:
        return pyotp.TOTP(self.totp_secret).at(now)


@dataclass(frozen=True)
class Seeded:
    """Ids of what was made; ``requests`` by status."""

    workspace_id: str
    owner: Person
    operator: Person
    viewer: Person
    requests: dict[str, str]
    archived_delivery_id: str
    destinations: dict[str, str]
    site_id: str
    task_id: str
    key_id: str
    consent_id: str


async def seed_workspace(runtime: Runtime, name: str, now: dt.datetime, **more: Any) -> str:
    workspace = Workspace(id=new_id("ws"), name=name, created_at=now - 90 * DAY, **more)
    async with runtime.database.writing() as session:
        session.add(workspace)
    return workspace.id


async def seed_person(
    runtime: Runtime, workspace_id: str, email: str, role: Role, now: dt.datetime
) -> Person:
    """An account with a second factor. All share one password, hashed once: hashing is slow."""
    secret = accounts.new_totp_secret()
    admin = Admin(
        id=new_id("adm"),
        workspace_id=workspace_id,
        email=email,
        role=role.value,
        password_hash=await _hashed(),
        created_at=now - 30 * DAY,
    )
    admin.totp_sealed = accounts.seal_factor(runtime.ring, admin, secret)
    async with runtime.database.writing() as session:
        session.add(admin)
        audit.record(
            session,
            workspace_id=workspace_id,
            actor=f"admin:{admin.id}",
            verb="create_account",
            target=admin.id,
            now=now - 30 * DAY,
            role=role.value,
        )
    return Person(admin.id, admin.email, secret)


_hashes: dict[str, str] = {}


async def _hashed() -> str:
    if PASSWORD not in _hashes:
        _hashes[PASSWORD] = await accounts.hash_password(PASSWORD)
    return _hashes[PASSWORD]


async def seed(runtime: Runtime, now: dt.datetime, name: str = "Aurora Outfitters") -> Seeded:
    """Everything, in the past relative to ``now``."""
    chance = random.Random(7)
    workspace_id = await seed_workspace(runtime, name, now)
    label = name.split()[0].lower()
    people = [
        await seed_person(runtime, workspace_id, f"{who}@{label}.example", role, now)
        for who, role in (
            ("alice", Role.OWNER),
            ("oscar", Role.OPERATOR),
            ("vera", Role.VIEWER),
        )
    ]
    destinations = await _destinations(runtime, workspace_id, now)
    requests, archived = await _requests(
        runtime, workspace_id, destinations, people[1], now, chance
    )
    task_id = await _tasks(runtime, workspace_id, destinations["manual"], requests, people[1], now)
    async with runtime.database.writing() as session:
        site = await sites.create_site(
            session,
            workspace_id=workspace_id,
            name="Aurora shop",
            origins=["https://shop.aurora.example"],
            config=SiteConfig(),
            actor="system",
            now=now - 40 * DAY,
        )
        version = await sites.publish_site(
            session, site, actor=f"admin:{people[0].id}", now=now - 40 * DAY
        )
        key, _ = await api_keys.create(
            session,
            workspace_id=workspace_id,
            name="Shop backend",
            scopes=["requests:write"],
            created_by=f"admin:{people[0].id}",
            grantor_scopes=["all"],
            now=now - 30 * DAY,
        )
        consent_id = await _consents(session, workspace_id, site.id, version.id, now, chance)
        _counts(session, workspace_id, site.id, version.id, now)
        _suppressions(session, workspace_id, requests, now)
        audit.record(
            session,
            workspace_id=workspace_id,
            actor=f"admin:{people[1].id}",
            verb="queue_pause",
            target=destinations["webhook"],
            now=now - DAY,
        )
    owner, operator, viewer = people
    return Seeded(
        workspace_id=workspace_id,
        owner=owner,
        operator=operator,
        viewer=viewer,
        requests=requests,
        archived_delivery_id=archived,
        destinations=destinations,
        site_id=site.id,
        task_id=task_id,
        key_id=key.id,
        consent_id=consent_id,
    )


async def _destinations(runtime: Runtime, workspace_id: str, now: dt.datetime) -> dict[str, str]:
    wanted: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
        (
            "sql",
            "Customer database",
            {"url": {"set": True}, "tables": []},
            {"is_identity_source": True},
        ),
        ("archive", "Event archive", {"url": "events", "match": {"user": "user_id"}}, {}),
        ("webhook", f"Newsletter {HOSTILE}", {"url": "https://mail.example/hook"}, {}),
        ("manual", "Paper files in the cellar", {"instructions": "Look in the folders."}, {}),
    ]
    made = {}
    async with runtime.database.writing() as session:
        for connector, name, settings, more in wanted:
            destination_id = made[connector] = new_id("dst")
            secret = sealed.Sealed({"/url": "sqlite:///x"} if connector == "sql" else {})
            session.add(
                Destination(
                    id=destination_id,
                    workspace_id=workspace_id,
                    name=name,
                    connector=connector,
                    settings=settings,
                    secrets_sealed=sealed.seal(runtime.ring, workspace_id, destination_id, secret),
                    created_at=now - 60 * DAY,
                    tested_at=now - dt.timedelta(hours=3),
                    **more,
                )
            )
            breaker = (
                {"in_a_row": 9, "until": (now + dt.timedelta(minutes=4)).timestamp()}
                if connector == "webhook"
                else {}
            )
            session.add(
                VirtualQueue(
                    id=destination_id,
                    workspace_id=workspace_id,
                    breaker=breaker,
                    parked_reason="unauthorized" if connector == "archive" else None,
                    next_due=now + dt.timedelta(minutes=4) if connector == "webhook" else None,
                )
            )
    return made


_CASES: tuple[tuple[str, str, str, float, str], ...] = (
    # status, kind, regime, due in days, channel
    ("completed", "erasure", "gdpr", 12, "form"),
    ("completed_with_exceptions", "erasure", "ccpa", 20, "api"),
    ("denied", "access", "gdpr", 9, "form"),
    ("cancelled", "erasure", "gdpr", 22, "form"),
    ("expired", "erasure", "lgpd", 14, "form"),
    ("awaiting_verification", "erasure", "gdpr", 29, "form"),
    ("on_hold", "erasure", "uk_gdpr", 17, "api"),
    ("cooling_off", "erasure", "gdpr", 30, "form"),
    ("resolving", "erasure", "gdpr", 30, "form"),
    ("awaiting_approval", "erasure", "gdpr", 2, "api"),
    ("answer", "access", "gdpr", 1.5, "form"),
    ("overdue", "erasure", "ccpa", -1.2, "api"),
    ("in_progress", "erasure", "gdpr", 21, "form"),
)


async def _requests(
    runtime: Runtime,
    workspace_id: str,
    destinations: dict[str, str],
    operator: Person,
    now: dt.datetime,
    chance: random.Random,
) -> tuple[dict[str, str], str]:
    ids = {
        case[0]: new_id("req", (now - dt.timedelta(hours=6 * (len(_CASES) - index))).timestamp())
        for index, case in enumerate(_CASES)
    }
    hold_reasons = {
        "on_hold": "Legal hold: case 14/26",
        "awaiting_approval": "too_many_identifiers",
    }
    keys = await runtime.keys.create(ids.values(), now)
    archived = ""
    async with runtime.database.writing() as session:
        for index, (case, kind, regime, due, channel) in enumerate(_CASES):
            status = {"answer": "in_progress", "overdue": "in_progress"}.get(case, case)
            received = now - dt.timedelta(hours=6 * (len(_CASES) - index))
            is_final = status in {
                "completed",
                "completed_with_exceptions",
                "denied",
                "cancelled",
                "expired",
            }
            request = SubjectRequest(
                id=ids[case],
                workspace_id=workspace_id,
                kind=kind,
                regime=regime,
                status=status,
                channel=channel,
                verification="email_link" if channel == "form" else "api_key",
                identifier_kinds=["email", "user_id"],
                received_at=received,
                due_at=now + dt.timedelta(days=due),
                has_contact=channel == "form",
                verified_at=None
                if status == "awaiting_verification"
                else received + dt.timedelta(minutes=9),
                completed_at=received + dt.timedelta(hours=2) if is_final else None,
                outcome={
                    "completed": "complete_with_residuals",
                    "completed_with_exceptions": "partial",
                }.get(status),
                hold_reason=hold_reasons.get(status),
                approval_reason="too_many_identifiers" if status == "awaiting_approval" else None,
                held_status="resolving",
                denial_reason="manifestly_unfounded" if status == "denied" else None,
                denial_note=f"=cmd {HOSTILE}" if status == "denied" else None,
                forget_at=now + 20 * DAY if status == "completed" else None,
            )
            session.add(request)
            identifiers = await _identify(runtime, session, request, keys[request.id], index, now)
            _events(session, request, operator)
            if (
                status in {"completed", "completed_with_exceptions", "in_progress"}
                and kind == "erasure"
            ):
                found = _deliveries(session, request, destinations, identifiers, case, now, chance)
                archived = found or archived
    return ids, archived


async def _identify(
    runtime: Runtime,
    session: Any,
    request: SubjectRequest,
    key: HolderKey,
    index: int,
    now: dt.datetime,
) -> list[str]:
    pairs = [
        ("email", BOB if index % 3 == 0 else f"person{index}@customer.example"),
        ("user_id", f"usr-{4711 + index}"),
    ]
    rows = [
        vault.identifier_row(
            runtime.ring,
            key,
            workspace_id=request.workspace_id,
            holder_id=request.id,
            identifier=normalise(kind, value),
            now=now,
            origin="given" if kind == "email" else "resolved",
        )
        for kind, value in pairs
    ]
    await vault.add(session, rows)
    return [row["id"] for row in rows]


def _events(session: Any, request: SubjectRequest, operator: Person) -> None:
    steps: list[tuple[str, str, dict[str, Any]]] = [
        ("received", "person", {"channel": request.channel})
    ]
    if request.verified_at:
        steps.append(("verified", "person", {"by": request.verification}))
    if request.status == "on_hold":
        steps.append(("held", f"admin:{operator.id}", {"reason": request.hold_reason}))
    if request.outcome:
        steps += [
            ("planned", "system", {"deliveries": 4}),
            ("completed", "system", {"outcome": request.outcome}),
        ]
    for index, (kind, actor, data) in enumerate(steps):
        at = request.received_at + dt.timedelta(minutes=7 * index)
        session.add(
            RequestEvent(
                id=new_id("evt", at.timestamp()),
                request_id=request.id,
                at=at,
                type=kind,
                actor=actor,
                data=data,
            )
        )


_OUTCOMES = {
    "sql": ("succeeded", "done", "verified_absent"),
    "archive": ("succeeded", "absent", "confirmed"),
    "webhook": ("awaiting_retry", None, "requested"),
    "manual": ("awaiting_confirmation", None, "acknowledged"),
}


def _deliveries(
    session: Any,
    request: SubjectRequest,
    destinations: dict[str, str],
    identifiers: list[str],
    case: str,
    now: dt.datetime,
    chance: random.Random,
) -> str:
    """One delivery per destination; returns the archived one, if there is one."""
    archived = ""
    for connector, destination_id in destinations.items():
        delivery_id = new_id("dlv")
        start = request.received_at + dt.timedelta(minutes=12)
        session.add(
            Delivery(
                id=delivery_id,
                workspace_id=request.workspace_id,
                request_id=request.id,
                destination_id=destination_id,
                operation="erase",
                identifier_ids=identifiers,
                phase=2 if connector == "sql" else 1,
                due_at=request.due_at,
                created_at=start,
                expires_at=start + 30 * DAY,
            )
        )
        state, detail, assurance = _OUTCOMES[connector]
        if case.startswith("completed") and state.startswith("awaiting"):
            state, detail, assurance = "succeeded", "done", "confirmed"
        if case == "completed_with_exceptions" and connector == "webhook":
            state, detail, assurance = "discarded", "failed", "requested"
        if case == "overdue" and connector == "webhook":
            state, detail, archived = "archived", "expired", delivery_id
            session.add(
                Archived(
                    delivery_id=delivery_id,
                    workspace_id=request.workspace_id,
                    request_id=request.id,
                    queue_id=destination_id,
                    archived_at=start + 30 * DAY,
                )
            )
        steps: list[tuple[str, str | None, dict[str, Any]]] = [("awaiting_scheduling", None, {})]
        if connector == "webhook" and state != "succeeded":
            steps += [
                ("awaiting_retry", None, {"http_status": 503, "reason": "destination_unavailable"})
            ] * 2
        steps.append(
            (state, detail, {"evidence": {"rows": 3, "tables": 2} if connector == "sql" else None})
        )
        for seq, (each, why, more) in enumerate(steps, start=1):
            session.add(
                DeliveryTransition(
                    delivery_id=delivery_id,
                    seq=seq,
                    at=start + dt.timedelta(minutes=3 * seq),
                    state=each,
                    detail=why,
                    assurance=assurance if seq == len(steps) else "requested",
                    attempt=seq - 1,
                    duration_ms=chance.randint(4, 900) if seq > 1 else None,
                    **more,
                )
            )
        if state.startswith("awaiting"):
            session.add(
                Ready(
                    queue_id=destination_id,
                    rank=2,
                    due_at=now + dt.timedelta(minutes=4),
                    placed_at=now,
                    delivery_id=delivery_id,
                    operation="erase",
                    attempt=2,
                    seq=len(steps),
                    expires_at=start + 30 * DAY,
                )
            )
    return archived


async def _tasks(
    runtime: Runtime,
    workspace_id: str,
    destination_id: str,
    requests: dict[str, str],
    operator: Person,
    now: dt.datetime,
) -> str:
    async with runtime.database.writing() as session:
        rows = await session.execute(
            sa.select(col(Delivery.id), col(Delivery.request_id)).where(
                col(Delivery.destination_id) == destination_id
            )
        )
        by_request = {request_id: delivery_id for delivery_id, request_id in rows}
        open_id = ""
        for case in ("in_progress", "overdue", "completed"):
            is_open = case != "completed"
            task = HumanTask(
                id=new_id("tsk"),
                workspace_id=workspace_id,
                destination_id=destination_id,
                delivery_id=by_request[requests[case]],
                operation="erase",
                assignee="the archive team",
                instructions="Look for the person in folders A to Z in the cellar.\nShred them.",
                due_at=now + dt.timedelta(days=21 if case == "in_progress" else -1.2),
                created_at=now - DAY,
                state="open" if is_open else "done",
                closed_by=None if is_open else f"admin:{operator.id}",
                closed_at=None if is_open else now - DAY,
                note=None if is_open else "Two folders shredded",
            )
            session.add(task)
            open_id = task.id if case == "in_progress" else open_id
    return open_id


async def _consents(
    session: Any,
    workspace_id: str,
    site_id: str,
    version_id: str,
    now: dt.datetime,
    chance: random.Random,
) -> str:
    rows: list[dict[str, Any]] = []
    for back in range(45):
        for _ in range(chance.randint(6, 26) if back % 7 not in {0, 6} else chance.randint(2, 9)):
            method = chance.choices(
                ["accept_all", "reject_all", "custom", "gpc", "withdrawal"], [46, 31, 14, 6, 3]
            )[0]
            at = now - dt.timedelta(days=back, minutes=chance.randint(0, 900))
            choices = {
                name: method == "accept_all" or (method == "custom" and name == "functional")
                for name in ("functional", "analytics", "advertising")
            }
            rows.append(
                {
                    "id": new_id("con", at.timestamp()),
                    "workspace_id": workspace_id,
                    "site_id": site_id,
                    "notice_version_id": version_id,
                    "visitor_id": str(uuid.UUID(int=chance.getrandbits(128), version=4)),
                    "event_id": str(uuid.UUID(int=chance.getrandbits(128), version=4)),
                    "choices": choices,
                    "method": method,
                    "language": chance.choice(["en", "de", "fr"]),
                    "region": "DE",
                    "regime": "gdpr",
                    "gpc": method == "gpc",
                    "is_gpc_applied": method == "gpc",
                    "page": None,
                    "fingerprint": b"x",
                    "decided_at": at,
                    "recorded_at": at,
                    "expires_at": at + 180 * DAY,
                }
            )
    await session.execute(sa.insert(ConsentRecord), rows)
    return str(rows[0]["id"])


def _counts(
    session: Any, workspace_id: str, site_id: str, version_id: str, now: dt.datetime
) -> None:
    """What the modules `report` and `counts` have told."""
    for kind, pattern, count in SEEN:
        session.add(
            TrackerSeen(
                site_id=site_id, kind=kind, pattern=pattern, workspace_id=workspace_id,
                first_seen_at=now - 3 * DAY, last_seen_at=now - DAY / 8, count=count,
            )
        )  # fmt: skip
    for language, count in (("en", 1200), ("de", 840)):
        session.add(
            ConsentView(
                site_id=site_id, day=now.date(), notice_version_id=version_id,
                language=language, regime="gdpr", workspace_id=workspace_id, count=count,
            )
        )  # fmt: skip


SEEN = (
    ("cookie", "_ga_*", 1204),
    ("host", "px.ads.linkedin.com", 311),
    ("cookie", "basket", 12),
    ("storage", "<i>x", 1),
)


def _suppressions(
    session: Any, workspace_id: str, requests: dict[str, str], now: dt.datetime
) -> None:
    for index, scope in enumerate(
        ["all", "purpose:advertising", "all", "purpose:analytics", "all"]
    ):
        session.add(
            Suppression(
                id=new_id("sup"),
                workspace_id=workspace_id,
                subject_ref=bytes([index]) * 32,
                kind="email" if index % 2 else "user_id",
                scope=scope,
                since=now - index * DAY,
                expires_at=now + 1000 * DAY,
                request_id=requests["completed"] if index == 0 else None,
            )
        )
