"""Decisions of operators and people about one request: approve, deny, extend, hold, release,
cancel, answer, waive.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.core.db import hint_after_commit
from app.core.errors import Forbidden, Invalid, NotFound
from app.crypto.keystore import HolderKey
from app.delivery import service as deliveries
from app.identity import vault
from app.security import audit
from app.security.models import Workspace
from app.sites import regimes
from app.subject_requests import settle
from app.subject_requests.models import SubjectRequest
from app.subject_requests.people import COOLING_OFF
from app.subject_requests.services import Services
from app.subject_requests.states import BEFORE_FAN_OUT, OPERATIONS, Kind, Status, WrongState, move
from app.subject_requests.timeline import note

PERSON = "person"
BULK = "bulk_needs_second_person"
MAX_ANSWER = 10 << 20


class SecondPerson(Forbidden):
    slug, title = "second-person-needed", "Who asked for many cannot approve them alone"


async def find(session: AsyncSession, workspace_id: str, request_id: str) -> SubjectRequest:
    """The request, locked for a change."""
    found = (
        await session.execute(
            sa.select(SubjectRequest)
            .where(
                col(SubjectRequest.id) == request_id,
                col(SubjectRequest.workspace_id) == workspace_id,
            )
            .with_for_update()
        )
    ).scalar_one_or_none()
    if found is None:
        raise NotFound("There is no request with this id.")
    return found


async def approve(
    session: AsyncSession, workspace_id: str, request_id: str, actor: str, now: dt.datetime
) -> SubjectRequest:
    """Let a request go on that waits for an operator's eyes."""
    request = await find(session, workspace_id, request_id)
    if request.approval_reason == BULK and request.asked_by == actor:
        raise SecondPerson("Ask a colleague to approve it, with another key or account.")
    request.status = move(request.status, "approve")
    request.approval_reason = request.hold_reason = None
    request.next_step_at = now
    _log(session, request, "approved", actor, now)
    hint_after_commit(session, "advance")
    return request


async def deny(
    session: AsyncSession,
    services: Services,
    workspace_id: str,
    request_id: str,
    actor: str,
    reason: str,
    note_text: str | None,
    now: dt.datetime,
) -> SubjectRequest:
    """Refuse, with a coded reason; the person is told, with the way to complain."""
    request = await find(session, workspace_id, request_id)
    request.status = move(request.status, "deny")
    request.denial_reason, request.denial_note = reason, note_text
    _log(session, request, "denied", actor, now, reason=reason)
    await _stop(session, services, request, "denied", now)
    return request


async def cancel(
    session: AsyncSession,
    services: Services,
    workspace_id: str,
    request_id: str,
    actor: str,
    now: dt.datetime,
) -> SubjectRequest:
    """Stop: no further calls; the receipt states what was done before."""
    request = await find(session, workspace_id, request_id)
    if actor == PERSON and request.status not in BEFORE_FAN_OUT:
        raise WrongState("The work has begun and can no longer be cancelled.")
    request.status = move(request.status, "cancel")
    _log(session, request, "cancelled", actor, now)
    await _stop(session, services, request, "cancelled", now)
    return request


async def _stop(
    session: AsyncSession,
    services: Services,
    request: SubjectRequest,
    detail: str,
    now: dt.datetime,
) -> None:
    stopped = await deliveries.stop_all(session, [request.id], detail, now, reason=detail)
    request.open_count -= len(stopped)
    if request.open_count <= 0:
        await session.flush()
        await settle.finalise(session, services, [request], now)


async def hold(
    session: AsyncSession,
    workspace_id: str,
    request_id: str,
    actor: str,
    reason: str,
    now: dt.datetime,
) -> SubjectRequest:
    """A legal hold: nothing goes out until it is released."""
    request = await find(session, workspace_id, request_id)
    request.held_status = request.status
    request.status = move(request.status, "hold")
    request.hold_reason = reason
    request.next_step_at = None
    _log(session, request, "held", actor, now, reason=reason)
    return request


async def release(
    session: AsyncSession, workspace_id: str, request_id: str, actor: str, now: dt.datetime
) -> SubjectRequest:
    request = await find(session, workspace_id, request_id)
    move(request.status, "release")
    request.status = Status(request.held_status or Status.RESOLVING)
    request.held_status, request.hold_reason = None, request.approval_reason
    request.next_step_at = now
    if request.status == Status.COOLING_OFF and request.verified_at is not None:
        request.next_step_at = max(now, request.verified_at + COOLING_OFF)
    _log(session, request, "released", actor, now)
    hint_after_commit(session, "advance")
    return request


async def extend(
    session: AsyncSession,
    workspace_id: str,
    request_id: str,
    actor: str,
    days: int,
    reason: str,
    now: dt.datetime,
) -> SubjectRequest:
    """Move the deadline once, within what the law allows; the person is told the reason."""
    request = await find(session, workspace_id, request_id)
    move(request.status, "extend")
    workspace = await session.get_one(Workspace, workspace_id)
    limit = regimes.extension_limit(
        regimes.get(request.regime), request.kind, request.received_at, workspace.timezone
    )
    until = request.due_at + dt.timedelta(days=days)
    if limit is None or until > limit:
        last = f"until {limit:%Y-%m-%d} at the latest" if limit else "not at all"
        raise Invalid(f"The law allows this request to be extended {last}.")
    if request.extended_until is not None:
        raise WrongState("The request was extended before; the law allows it once.")
    request.extended_until = until
    _log(session, request, "extended", actor, now, reason=reason, days=days)
    return request


async def answer(
    session: AsyncSession,
    services: Services,
    workspace_id: str,
    request_id: str,
    actor: str,
    text: str,
    file_name: str | None,
    content: bytes | None,
    now: dt.datetime,
) -> SubjectRequest:
    """An operator's answer to a request that is not carried out automatically; sealed until it is
    forgotten.
    """
    request = await find(session, workspace_id, request_id)
    if request.status != Status.IN_PROGRESS or Kind(request.kind) in OPERATIONS:
        raise WrongState("Only a verified request that waits for an operator can be answered.")
    if not text.strip() and not content:
        raise Invalid("Give a text or a file.")
    if content is not None and len(content) > MAX_ANSWER:
        raise Invalid(f"The file is larger than {MAX_ANSWER >> 20} MiB.")
    key = (await services.keys.load([request.id])).get(request.id)
    if key is None:
        raise WrongState("The person of this request is already forgotten.")
    rows = []
    if text.strip():
        rows.append(_answer_row(key, request, "text", text.strip(), now))
    if content is not None:
        name = (file_name or "answer").replace("/", "_").replace("\\", "_")[:120]
        rows.append(_answer_row(key, request, "file", vault.pack_file(name, content), now))
    await vault.add(session, rows)
    _log(session, request, "answered", actor, now)
    await session.flush()
    await settle.finalise(session, services, [request], now)
    return request


def _answer_row(
    key: HolderKey, request: SubjectRequest, kind: str, value: str, now: dt.datetime
) -> dict[str, Any]:
    return vault.value_row(
        key,
        workspace_id=request.workspace_id,
        holder_id=request.id,
        purpose="answer",
        kind=kind,
        value=value,
        now=now,
    )


async def waive(
    session: AsyncSession,
    services: Services,
    workspace_id: str,
    delivery_id: str,
    actor: str,
    reason: str,
    now: dt.datetime,
) -> None:
    """Give up on an archived delivery, with a reason that the receipt carries."""

    async def on_settled(inner: AsyncSession, settled: object, at: dt.datetime) -> None:
        await settle.on_settled(services, inner, settled, at)  # type: ignore[arg-type]

    delivery = await deliveries.get(session, workspace_id, delivery_id)
    await find(session, workspace_id, delivery.request_id)  # locked first, as by ``cancel``
    await deliveries.waive(session, workspace_id, delivery_id, reason, on_settled, now)
    audit.record(
        session,
        workspace_id=workspace_id,
        actor=actor,
        verb="waive",
        target=delivery_id,
        now=now,
        reason=reason,
    )


def _log(
    session: AsyncSession,
    request: SubjectRequest,
    type: str,
    actor: str,
    now: dt.datetime,
    **data: Any,
) -> None:
    note(session, request.id, type, actor, now, **data)
    audit.record(
        session,
        workspace_id=request.workspace_id,
        actor=actor,
        verb=type,
        target=request.id,
        now=now,
        **data,
    )
