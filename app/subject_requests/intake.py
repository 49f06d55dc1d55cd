"""Intake: an ask becomes a request with clocks, its identifiers sealed under a data key of
its own.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.core.db import hint_after_commit, table_of
from app.core.errors import Invalid
from app.core.failpoints import failpoint
from app.core.ids import new_id
from app.crypto.keystore import HolderKey
from app.destinations.models import Destination
from app.identity import vault
from app.identity.models import PersonalValue
from app.security.models import Workspace
from app.sites import regimes
from app.subject_requests.models import RequestEvent, SubjectRequest
from app.subject_requests.services import Services
from app.subject_requests.states import OPERATIONS, Kind, Status
from connectors.contract import Identifier

DEFAULT_REGIME = "gdpr"
MAX_AGE = dt.timedelta(days=90)
LEEWAY = dt.timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Ask:
    """One person's ask, checked and normalised; ``is_verified``: somebody vouches for who asks."""

    workspace: Workspace
    kind: Kind
    regime: regimes.Regime
    identifiers: Sequence[Identifier]
    channel: str
    verification: str
    received_at: dt.datetime
    is_verified: bool
    contact_email: str | None = None
    external_id: str | None = None
    site_id: str | None = None
    batch_id: str | None = None
    language: str = "en"
    purposes: Sequence[str] = ()
    destination_ids: Sequence[str] | None = None
    note: str | None = None
    asked_by: str = ""
    approval_reason: str | None = None
    """Set: an operator must approve it first, for this reason."""
    id: str = field(default_factory=lambda: new_id("req"))


def received(given: dt.datetime | None, now: dt.datetime) -> dt.datetime:
    """When the law's clock began: at most 90 days ago, never in the future."""
    if given is None:
        return now
    if given.tzinfo is None:
        raise Invalid("`received_at` needs an offset, such as 2026-11-23T10:00:00Z.")
    if given > now + LEEWAY:
        raise Invalid("`received_at` lies in the future.")
    if given < now - MAX_AGE:
        raise Invalid("`received_at` lies more than 90 days back.")
    return min(given.astimezone(dt.UTC), now)


async def check_destinations(
    session: AsyncSession, workspace_id: str, ids: Sequence[str] | None
) -> None:
    """422 when one of the named destinations does not exist here."""
    if ids is None:
        return
    rows = await session.execute(
        sa.select(col(Destination.id)).where(
            col(Destination.id).in_(ids),
            col(Destination.workspace_id) == workspace_id,
            col(Destination.deleted_at).is_(None),
        )
    )
    if len({each for (each,) in rows}) != len(set(ids)):
        raise Invalid("`destinations` names one that does not exist; see GET /v1/destinations.")


async def take_in(
    services: Services, asks: Sequence[Ask], now: dt.datetime
) -> Mapping[str, HolderKey]:
    """Make the data keys the asks need; commit them before the requests. Orphans are swept."""
    return await services.keys.create([ask.id for ask in asks], now)


async def write(
    session: AsyncSession,
    services: Services,
    asks: Sequence[Ask],
    keys: Mapping[str, HolderKey],
    now: dt.datetime,
) -> list[SubjectRequest]:
    """Insert the requests in the caller's transaction."""
    if not asks:
        return []
    requests = [_request(ask, services, now) for ask in asks]
    values = [row for ask in asks for row in _values(services, ask, keys[ask.id], now)]
    await session.execute(sa.insert(table_of(SubjectRequest)), requests)
    await session.execute(sa.insert(table_of(PersonalValue)), values)
    await session.execute(sa.insert(table_of(RequestEvent)), [_event(ask, now) for ask in asks])
    hint_after_commit(session, "advance")
    failpoint("intake.before_commit")
    return [SubjectRequest(**each) for each in requests]


def _request(ask: Ask, services: Services, now: dt.datetime) -> dict[str, Any]:
    clocks = regimes.clocks(ask.regime, ask.kind, ask.received_at, ask.workspace.timezone)
    status = first_status(ask)
    return {
        "id": ask.id,
        "workspace_id": ask.workspace.id,
        "site_id": ask.site_id,
        "batch_id": ask.batch_id,
        "kind": ask.kind,
        "regime": ask.regime.id,
        "status": status,
        "channel": ask.channel,
        "verification": ask.verification if ask.is_verified else "none",
        "language": ask.language,
        "identifier_kinds": sorted({each.kind for each in ask.identifiers}),
        "purposes": list(ask.purposes),
        "destination_ids": None if ask.destination_ids is None else list(ask.destination_ids),
        "received_at": ask.received_at,
        "acknowledge_by": clocks.acknowledge_by,
        "due_at": clocks.due_at,
        "verified_at": now if ask.is_verified else None,
        "has_contact": ask.contact_email is not None,
        "asked_by": ask.asked_by or ask.channel,
        "approval_reason": ask.approval_reason,
        "hold_reason": ask.approval_reason,
        "open_count": 0,
        "phase": 0,
        "phase_open_count": 0,
        "next_step_at": now
        if status is Status.RESOLVING
        else now + services.settings.identifier_cap,
    }


def first_status(ask: Ask) -> Status:
    if not ask.is_verified:
        return Status.AWAITING_VERIFICATION
    if ask.kind not in OPERATIONS:
        return Status.IN_PROGRESS
    return Status.AWAITING_APPROVAL if ask.approval_reason else Status.RESOLVING


def _values(services: Services, ask: Ask, key: HolderKey, now: dt.datetime) -> list[dict[str, Any]]:
    common: dict[str, Any] = {"workspace_id": ask.workspace.id, "holder_id": ask.id, "now": now}
    rows = [
        vault.identifier_row(services.ring, key, identifier=each, **common)
        for each in ask.identifiers
    ]
    extra = {"contact": ask.contact_email, "external_id": ask.external_id, "note": ask.note}
    rows += [
        vault.value_row(key, purpose=purpose, kind=purpose, value=value, **common)
        for purpose, value in extra.items()
        if value is not None
    ]
    return rows


def _event(ask: Ask, now: dt.datetime) -> dict[str, Any]:
    return {
        "id": new_id("evt"),
        "request_id": ask.id,
        "at": now,
        "type": "received",
        "actor": ask.channel,
        "data": {
            "kind": ask.kind,
            "regime": ask.regime.id,
            "verification": ask.verification if ask.is_verified else "none",
        },
    }
