"""Destinations: add, change, remove, list, test, and which requests they take part in.

Nothing here commits, and nothing here talks to a destination but ``test``.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.core.clock import rfc3339
from app.core.errors import Conflict, NotFound
from app.core.ids import new_id
from app.crypto.keyring import KeyRing
from app.destinations import sealed, secrets
from app.destinations.errors import ChangedMeanwhile
from app.destinations.instances import Instances
from app.destinations.models import Destination
from app.destinations.running import Busy, Runner, outcome_of
from app.destinations.schemas import DestinationChange, DestinationIn
from app.destinations.settings import Prepared
from app.security import audit
from connectors.contract import (
    AnyConnector,
    Call,
    ConnectorError,
    Identifier,
    Operation,
    Outcome,
    Person,
    Verdict,
    supports,
)

TEST_TIME = dt.timedelta(seconds=30)
_WELL = frozenset({Verdict.DONE, Verdict.ACCEPTED, Verdict.ABSENT, Verdict.SKIPPED})
_REASONS = {
    "address_refused": "The address or path may not be reached from here.",
    "timeout": "It did not answer in time.",
    "unreachable": "It cannot be reached.",
    "busy": "Earlier calls to it have not ended yet; try again later.",
    "answer_too_large": "Its answer was too large.",
    "unauthorized": "It refused the credentials.",
    "redirected": "It answered with a redirect; enter the final address.",
    "not_found": "It does not know this address.",
    "unreadable_answer": "Its answer could not be read.",
    "destination_unavailable": "It is not available now.",
    "rate_limited": "It asks to be called less often.",
}


async def get(session: AsyncSession, workspace_id: str, destination_id: str) -> Destination:
    """A destination that is not deleted."""
    found = await session.get(Destination, destination_id)
    if found is None or found.workspace_id != workspace_id or found.deleted_at is not None:
        raise NotFound("There is no destination with this id.")
    return found


async def page(
    session: AsyncSession, workspace_id: str, *, limit: int, after: str | None = None
) -> list[Destination]:
    """Destinations in the order they were made; ``after``: the last id of the page before."""
    query = (
        sa.select(Destination)
        .where(col(Destination.workspace_id) == workspace_id, col(Destination.deleted_at).is_(None))
        .order_by(col(Destination.id))
        .limit(limit)
    )
    if after is not None:
        query = query.where(col(Destination.id) > after)
    return list((await session.execute(query)).scalars())


def matches(
    destination: Destination, kind: str, regime: str, purposes: Collection[str] = ()
) -> bool:
    """Whether a request of this kind and regime concerns it; no purposes named: all of them."""
    return (
        destination.is_enabled
        and destination.deleted_at is None
        and (not destination.kinds or kind in destination.kinds)
        and (not destination.regimes or regime in destination.regimes)
        and (
            not destination.purposes or not purposes or bool({*destination.purposes} & {*purposes})
        )
    )


async def create(
    session: AsyncSession, *, workspace_id: str, actor: str, wanted: DestinationIn,
    prepared: Prepared, now: dt.datetime,
) -> Destination:  # fmt: skip
    destination = Destination(
        id=prepared.id, workspace_id=workspace_id, name=wanted.name, connector=prepared.connector,
        settings=prepared.settings, secrets_sealed=prepared.secrets_sealed,
        is_enabled=wanted.enabled, purposes=wanted.purposes, kinds=wanted.kinds,
        regimes=wanted.regimes, is_identity_source=prepared.is_identity_source, created_at=now,
    )  # fmt: skip
    session.add(destination)
    _note(session, destination, actor, "create", now, connector=destination.connector)
    await session.flush()
    return destination


async def update(
    session: AsyncSession, *, workspace_id: str, destination_id: str, actor: str,
    change: DestinationChange, prepared: Prepared | None, now: dt.datetime,
) -> Destination:  # fmt: skip
    """Change what was sent; ``prepared`` when ``settings`` are among it."""
    destination = await _locked(session, workspace_id, destination_id)
    sent = change.model_fields_set
    if prepared is not None:
        if destination.version != prepared.based_on:
            raise ChangedMeanwhile("Load the destination again, then repeat the change.")
        destination.settings = prepared.settings
        destination.secrets_sealed = prepared.secrets_sealed
        destination.is_identity_source = prepared.is_identity_source
        destination.version += 1
    for name in sent & {"name", "purposes", "kinds", "regimes"}:
        setattr(destination, name, getattr(change, name))
    if "enabled" in sent:
        destination.is_enabled = change.enabled
    _note(session, destination, actor, "update", now, changed=sorted(sent))
    await session.flush()
    return destination


async def delete(
    session: AsyncSession, *, workspace_id: str, destination_id: str, actor: str,
    ring: KeyRing, now: dt.datetime,
) -> None:  # fmt: skip
    """The row stays for its deliveries' names; its secrets go."""
    destination = await _locked(session, workspace_id, destination_id)
    destination.deleted_at = now
    destination.is_enabled = False
    destination.secrets_sealed = sealed.seal(ring, workspace_id, destination.id, sealed.Sealed())
    destination.version += 1
    _note(session, destination, actor, "delete", now)
    await session.flush()


async def note_test(
    session: AsyncSession, destination_id: str, result: TestResult, now: dt.datetime
) -> None:
    """Remember how the newest test went."""
    await session.execute(
        sa.update(Destination)
        .where(col(Destination.id) == destination_id)
        .values(tested_at=now, test_error=None if result.ok else result.detail)
    )


@dataclass(frozen=True, slots=True)
class TestResult:
    """``detail`` is for the operator and holds no secret."""

    __test__ = False

    ok: bool
    latency_ms: int
    detail: str


async def test(instances: Instances, runner: Runner, destination: Destination) -> TestResult:
    """Ask the destination for a sign of life; a failure is a result, too. No transaction open."""
    started = time.perf_counter()
    try:
        async with instances.use(destination) as connector:
            ok, detail = _reading(await _try(runner, connector))
        detail = secrets.scrub(detail, instances.secrets_of(destination).secrets)
    except ConnectorError as error:  # it cannot even be built
        ok, detail = False, str(error)
    latency = round((time.perf_counter() - started) * 1000)
    return TestResult(ok, latency, detail[:500])


class NoPreview(Conflict):
    slug, title = "no-preview", "This destination cannot be previewed"


async def preview(
    instances: Instances,
    runner: Runner,
    destination: Destination,
    identifiers: tuple[Identifier, ...],
) -> dict[str, int]:
    """What an erasure of one person would touch, counted by the connector; changes nothing."""
    call = Call(new_id("cal"), Operation.ERASE, attempt=1)
    try:
        async with instances.use(destination) as connector:
            if not supports(type(connector), "count"):
                raise NoPreview("Only connectors that can count, such as sql and archive, can.")
            people = (Person("preview", identifiers),)
            found = await runner.attempt(connector, "count", people, call=call)
    except ConnectorError as error:
        raise NoPreview(str(error)) from None
    except (TimeoutError, Busy):
        raise NoPreview("It did not answer in time; try again later.") from None
    return {name: int(count) for name, count in found.get("preview", {}).items()}


async def _try(runner: Runner, connector: AnyConnector) -> object:
    """What ``test`` (or else ``check``) answered, or the exception that it raised."""
    call = Call(new_id("cal"), Operation.ERASE, attempt=1)
    has_test = supports(type(connector), "test")
    try:
        if has_test:
            return await runner.attempt(connector, "test", call=call, deadline=TEST_TIME)
        return await runner.attempt_blocking(
            connector, connector.check, call=call, deadline=TEST_TIME
        )
    except Exception as error:  # whatever a connector raises is the answer to "does it work?"
        return error


def _reading(answer: object) -> tuple[bool, str]:
    match answer:
        case ConnectorError():
            return False, str(answer) or "The settings are wrong."
        case Exception():
            return _reading(outcome_of(answer))
        case Outcome(verdict=verdict) if verdict in _WELL:
            return True, "It answered."
        case Outcome():
            code = f" (HTTP status {answer.http_status})" if answer.http_status else ""
            reason = answer.reason or ""
            return False, _REASONS.get(reason, f"It refused: {reason or 'no reason'}.") + code
        case str() if answer:
            return True, answer
    return True, "It answered."


def view(destination: Destination, *, for_viewer: bool = False) -> dict[str, Any]:
    """The destination as JSON; a viewer sees no address either."""
    settings = secrets.without_credentials(destination.settings)
    return {
        "id": destination.id,
        "name": destination.name,
        "connector": destination.connector,
        "settings": secrets.without_addresses(settings) if for_viewer else settings,
        "enabled": destination.is_enabled,
        "purposes": destination.purposes,
        "kinds": destination.kinds,
        "regimes": destination.regimes,
        "created_at": rfc3339(destination.created_at),
        "tested_at": rfc3339(destination.tested_at),
        "test_error": None if for_viewer else destination.test_error,
    }


async def _locked(session: AsyncSession, workspace_id: str, destination_id: str) -> Destination:
    found = await session.get(Destination, destination_id, with_for_update=True)
    if found is None or found.workspace_id != workspace_id or found.deleted_at is not None:
        raise NotFound("There is no destination with this id.")
    return found


def _note(
    session: AsyncSession, destination: Destination, actor: str, verb: str, now: dt.datetime,
    **data: Any,
) -> None:  # fmt: skip
    audit.record(
        session, workspace_id=destination.workspace_id, actor=actor, verb=f"destination.{verb}",
        target=destination.id, now=now, name=destination.name, **data,
    )  # fmt: skip
