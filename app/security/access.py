"""Who is calling: an API key's holder, with its workspace and scopes. Deny by default."""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fastapi import Request

from app.core.clock import utc_now
from app.core.db import Database
from app.core.errors import NotFound, Unauthorized
from app.core.settings import Settings
from app.security import api_keys
from app.security.errors import MissingScope
from app.security.limits import RateLimits


@dataclass(frozen=True, slots=True)
class Caller:
    """Who acts, in which workspace, with which scopes; ``actor`` goes into timelines and the audit
    log.
    """

    workspace_id: str
    actor: str
    scopes: frozenset[str]


def needs(scope: str) -> Callable[[Request], Awaitable[Caller]]:
    """A dependency: the caller, if its key holds the scope; 401 without a key, 403 without the
    scope.
    """

    async def caller(request: Request) -> Caller:
        found = await caller_of(request)
        if not api_keys.allows(found.scopes, scope):
            raise MissingScope(f"This needs a key with the scope `{scope}`.")
        return found

    caller.scope = scope  # type: ignore[attr-defined]  # read by the test that walks every route
    return caller


async def may_look_inside(request: Request) -> None:
    """A dependency: docs and metrics are open on loopback; elsewhere they need ``ops:read``, or do
    not exist.
    """
    settings: Settings = request.app.state.settings
    if not settings.is_loopback:
        caller = await caller_of(request)
        if not caller.scopes & {"ops:read", "all"}:
            raise NotFound


async def caller_of(request: Request) -> Caller:
    """The holder of the bearer key; the same answer for every way of being wrong."""
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not api_keys.is_well_formed(secret.strip()):
        raise Unauthorized
    database: Database = request.app.state.database
    now = utc_now()
    async with database.reading() as session:
        key = await api_keys.find(session, secret.strip(), now)
    if key is None:
        raise Unauthorized
    limits: RateLimits = request.app.state.limits
    await limits.spend("api", key.id)
    if key.last_used_at is None or now - key.last_used_at > dt.timedelta(hours=1):
        async with database.writing() as session:
            await api_keys.note_use(session, key.id, now)
    return Caller(key.workspace_id, f"key:{key.id}", frozenset(key.scopes))
