"""API keys and the people of a workspace."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.dashboard.present import Badge
from app.dashboard.views.choices import Option
from app.dashboard.views.people import names_of
from app.security.models import Admin, AdminInvite, ApiKey, Role
from app.security.sessions import Operator

_HOUR = dt.timedelta(hours=1)
SCOPES = {
    "requests:read": "See requests, timelines, receipts",
    "requests:write": "File requests and decide on them",
    "destinations:read": "See destinations and queues",
    "destinations:write": "Change destinations, run queues",
    "consents:read": "Read consent records",
    "suppressions:read": "Check the suppression list",
    "sites:read": "See sites",
    "sites:write": "Change and publish sites",
    "keys:write": "Make and revoke keys",
    "ops:read": "Metrics and API docs",
    "all": "Everything",
}
ROLES = {
    "owner": "Owner: everything, keys and team included",
    "operator": "Operator: requests and setup",
    "viewer": "Viewer: reads, without secrets or identifiers",
}


@dataclass(frozen=True, slots=True)
class KeyRow:
    id: str
    name: str
    hint: str
    scopes: list[str]
    state: Badge
    is_live: bool
    created_at: dt.datetime
    created_by: str
    last_used_at: dt.datetime | None
    is_used_lately: bool
    """The moment is kept as the hour it lies in."""
    expires_at: dt.datetime | None


@dataclass(frozen=True, slots=True)
class Member:
    id: str
    email: str
    roles: list[Option]
    role: str
    state: Badge
    is_me: bool
    is_enabled: bool
    created_at: dt.datetime


@dataclass(frozen=True, slots=True)
class Invite:
    role: str
    email: str
    expires_at: dt.datetime


@dataclass(frozen=True, slots=True)
class Team:
    members: list[Member]
    invites: list[Invite]


async def keys(session: AsyncSession, operator: Operator, now: dt.datetime) -> list[KeyRow]:
    """Live keys first, newest first."""
    rows = (
        (
            await session.execute(
                sa.select(ApiKey)
                .where(col(ApiKey.workspace_id) == operator.workspace_id)
                .order_by(col(ApiKey.revoked_at).is_not(None), col(ApiKey.id).desc())
                .limit(200)
            )
        )
        .scalars()
        .all()
    )
    names = await names_of(session, operator.workspace_id, {each.created_by for each in rows})
    return [_key(each, names[each.created_by], now) for each in rows]


def _key(key: ApiKey, created_by: str, now: dt.datetime) -> KeyRow:
    state = Badge("Live", "good")
    if key.revoked_at is not None:
        state = Badge("Revoked", "neutral")
    elif key.expires_at is not None and key.expires_at <= now:
        state = Badge("Expired", "neutral")
    return KeyRow(
        id=key.id,
        name=key.name,
        hint=f"{key.hint}…",
        scopes=list(key.scopes),
        state=state,
        is_live=state.tone == "good",
        created_at=key.created_at,
        created_by=created_by,
        last_used_at=key.last_used_at,
        is_used_lately=key.last_used_at is not None and now - key.last_used_at < _HOUR,
        expires_at=key.expires_at,
    )


async def team(session: AsyncSession, operator: Operator, now: dt.datetime) -> Team:
    admins = await session.execute(
        sa.select(Admin)
        .where(col(Admin.workspace_id) == operator.workspace_id)
        .order_by(col(Admin.disabled_at).is_not(None), col(Admin.email))
    )
    invites = await session.execute(
        sa.select(AdminInvite)
        .where(
            col(AdminInvite.workspace_id) == operator.workspace_id,
            col(AdminInvite.used_at).is_(None),
            col(AdminInvite.expires_at) > now,
        )
        .order_by(col(AdminInvite.expires_at))
    )
    return Team(
        members=[_member(each, operator) for each in admins.scalars()],
        invites=[
            Invite(each.role, each.email or "", each.expires_at) for each in invites.scalars()
        ],
    )


def _member(admin: Admin, operator: Operator) -> Member:
    state = Badge("Active", "good") if admin.totp_sealed else Badge("No second factor", "warn")
    if admin.disabled_at is not None:
        state = Badge("Disabled", "neutral")
    return Member(
        id=admin.id,
        email=admin.email,
        roles=[
            Option(role.value, role.value.capitalize(), role.value == admin.role) for role in Role
        ],
        role=admin.role.capitalize(),
        state=state,
        is_me=admin.id == operator.admin_id,
        is_enabled=admin.disabled_at is None,
        created_at=admin.created_at,
    )
