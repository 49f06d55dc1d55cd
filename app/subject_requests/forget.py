"""Time passing for requests: cooling-off ends, links expire, receipts count as delivered, people
are forgotten.

Forgetting destroys the data key first, in the key store; then the ciphertexts go. The hard cap ends
all waiting.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased
from sqlmodel import col

from app.consent import links
from app.core.bulk import among
from app.core.db import hint_after_commit, table_of
from app.core.failpoints import failpoint
from app.core.logging import get_logger
from app.delivery import service as deliveries
from app.delivery.models import Archived
from app.destinations import human_tasks
from app.identity import vault
from app.identity.models import PersonalValue
from app.notifications.models import OutgoingMail
from app.security.models import Workspace
from app.subject_requests import settle
from app.subject_requests.models import RESOLVING, ConfirmationLink, SubjectRequest
from app.subject_requests.services import Services
from app.subject_requests.states import FINAL, Kind, Status
from app.subject_requests.timeline import note

log = get_logger(__name__)

BATCH = 200
LEASE = dt.timedelta(minutes=1)
LAST_CALLS = dt.timedelta(days=1)
ORPHAN_AGE = dt.timedelta(days=1)
"""Longer than any clock is wrong by mistake: a worker that is ahead leaves alone the key whose
request is just being stored. An orphan seals nothing, it can wait.
"""


async def step_due(services: Services, now: dt.datetime) -> bool:
    """Take the next step of requests whose time has come; True when there were some.

    Resolving is a step of its own, but the hard cap ends that, too.
    """
    async with services.database.writing() as session:
        due = await _take(session, services, now)
        to_forget = [each.id for each in due if await _step(session, services, each, now)]
    await forget(services, to_forget, now)
    return bool(due)


async def _take(
    session: AsyncSession, services: Services, now: dt.datetime
) -> list[SubjectRequest]:
    """Those that wait for something else than resolving, and those past the hard cap: two
    statements, for each goes by an index of its own.
    """
    next_step_at, received_at = col(SubjectRequest.next_step_at), col(SubjectRequest.received_at)
    is_past = received_at <= now - services.settings.identifier_cap
    found: dict[str, SubjectRequest] = {}
    for conditions, order in (
        ((col(SubjectRequest.status) != RESOLVING,), next_step_at),
        ((col(SubjectRequest.forgotten_at).is_(None), is_past), received_at),
    ):
        rows = await session.execute(
            sa.select(SubjectRequest)
            .where(next_step_at <= now, *conditions)
            .order_by(order)
            .limit(BATCH)
            .with_for_update(skip_locked=True)
        )
        found |= {each.id: each for each in rows.scalars()}
    return list(found.values())


async def _step(
    session: AsyncSession, services: Services, request: SubjectRequest, now: dt.datetime
) -> bool:
    """One request's step; True when the person is to be forgotten now."""
    request.next_step_at = now + LEASE  # should we die before the person is forgotten
    is_over = request.received_at + services.settings.identifier_cap <= now
    if request.forget_at is not None and request.forget_at <= now:
        return True
    if is_over and request.status in FINAL:
        request.delivered_at, request.forget_at = request.delivered_at or now, now
        return True
    if is_over and request.status != Status.AWAITING_VERIFICATION:
        return await _give_up(session, services, request, now)
    if request.status == Status.COOLING_OFF:
        request.status, request.next_step_at = Status.RESOLVING, now
        note(session, request.id, "cooled_off", "service", now)
        hint_after_commit(session, "advance")
    elif request.status == Status.AWAITING_VERIFICATION:
        request.status, request.completed_at, request.forget_at = Status.EXPIRED, now, now
        note(session, request.id, "expired", "service", now)
        return True
    elif request.status in FINAL:
        if request.delivered_at is None:
            settle.delivered(
                request, await session.get_one(Workspace, request.workspace_id), services, now
            )
        request.next_step_at = request.forget_at
        return request.forget_at is not None and request.forget_at <= now
    else:
        request.next_step_at = request.received_at + services.settings.identifier_cap
    return False


async def _give_up(
    session: AsyncSession, services: Services, request: SubjectRequest, now: dt.datetime
) -> bool:
    """The hard cap: what is still open becomes an exception, and the person is forgotten all the
    same. False while a call is under way, for a day at most: its answer belongs in the receipt.
    """
    stopped = await deliveries.stop_all(
        session, [request.id], "gave_up", now, reason="identifier_cap"
    )
    request.open_count -= len(stopped)
    note(session, request.id, "gave_up", "service", now, deliveries=len(stopped))
    await session.flush()
    cap = request.received_at + services.settings.identifier_cap
    if request.open_count > 0 and now < cap + LAST_CALLS:
        return False
    await settle.finalise(session, services, [request], now, gave_up=True)
    request.delivered_at = request.forget_at = now
    return True


async def forget(services: Services, request_ids: Sequence[str], now: dt.datetime) -> None:
    """Destroy the data keys, then what they sealed; an erased person's visitor links go too."""
    if not request_ids:
        return
    async with services.database.reading() as session:
        visitors = await _visitors_of_erased(session, request_ids)
    await services.keys.forget([*request_ids, *visitors])
    failpoint("forget.after_keys")
    async with services.database.writing() as session:
        await links.forget(session, visitors)
        await vault.forget(session, request_ids)
        known = await deliveries.of_requests(session, request_ids)
        await human_tasks.forget(session, [each.id for each in known])
        for owned, holder in (
            (OutgoingMail, OutgoingMail.holder_id),
            (ConfirmationLink, ConfirmationLink.request_id),
        ):
            await session.execute(sa.delete(owned).where(col(holder).in_(request_ids)))
        rows = await session.execute(
            sa.select(SubjectRequest).where(col(SubjectRequest.id).in_(request_ids))
        )
        for request in rows.scalars():
            request.forgotten_at, request.next_step_at = now, None
            note(session, request.id, "forgotten", "service", now)


async def _visitors_of_erased(session: AsyncSession, request_ids: Sequence[str]) -> list[str]:
    """Holders of visitor links that share an identifier with a person whose erasure is done."""
    mine, theirs = aliased(PersonalValue), aliased(PersonalValue)
    rows = await session.execute(
        sa.select(col(theirs.holder_id))
        .join(
            mine,
            (col(mine.workspace_id) == col(theirs.workspace_id))
            & (col(mine.subject_ref) == col(theirs.subject_ref)),
        )
        .join(SubjectRequest, col(SubjectRequest.id) == col(mine.holder_id))
        .where(
            col(mine.holder_id).in_(request_ids),
            col(theirs.holder_id).startswith("vis_"),
            col(SubjectRequest.kind) == Kind.ERASURE,
            col(SubjectRequest.outcome).is_not(None),
            col(SubjectRequest.status).in_([Status.COMPLETED, Status.COMPLETED_WITH_EXCEPTIONS]),
        )
        .distinct()
    )
    return [holder_id for (holder_id,) in rows]


async def sweep_orphans(
    services: Services, now: dt.datetime, last: dt.datetime | None = None
) -> int:
    """Data keys whose request never came to be (a crash between the two databases). ``last``: when
    this process looked before, so that only those made since, or shortly before, are looked at;
    None: all, for the key store may be newer than a main database that was restored.

    A key that the archive's lines need is none of them, whatever the main database has lost.
    """
    since = last and last - 2 * ORPHAN_AGE
    count = 0
    async for holders in services.keys.made(since, now - ORPHAN_AGE):
        async with services.database.reading() as session:
            known: set[str] = set()
            for holder in (table_of(PersonalValue).c.holder_id, table_of(Archived).c.request_id):
                known |= set(await session.scalars(sa.select(holder).where(among(holder, holders))))
            orphans = sorted(set(holders) - known)
        await services.keys.forget(orphans)
        count += len(orphans)
    if count:
        log.info("orphans_swept", count=count)
    return count
