"""Tells the demo's past: plays every scene that is missing, each in its own transaction."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.compose import Runtime
from app.core.clock import utc_now
from app.core.logging import get_logger
from app.crypto.keystore import HolderKey
from app.demo import activity, consents, history, newsletter
from app.demo.consents import Past
from app.demo.find import demo_workspace, first_site
from app.demo.history import Busy, Rehearsed, Stage
from app.demo.scenes import Scene, scenes
from app.demo.store import Places
from app.destinations.models import Destination
from app.security import audit
from app.security.models import AuditEntry, Workspace
from app.sites.directory import PublishedSite, notice_of
from app.sites.models import NoticeVersion, Site
from app.subject_requests.models import SubjectRequest

log = get_logger(__name__)

TIMEZONE = "Europe/Berlin"
OPENED = dt.timedelta(days=consents.DAYS + 5)
"""How long before its first start the demo's workspace was opened."""
SECOND_NOTICE = dt.timedelta(days=15)
TOLD = "demo.told"
"""Verb of the audit entry that says that nothing is missing."""
_ATTEMPTS = 20


async def consents_of(
    session: AsyncSession, runtime: Runtime, site: Site, now: dt.datetime
) -> Past:
    """The invented consent records of the weeks before ``now``; they depend on nothing else."""
    rows = await session.execute(
        sa.select(NoticeVersion)
        .where(col(NoticeVersion.site_id) == site.id)
        .order_by(col(NoticeVersion.number))
    )
    notices = [
        (each.published_at, notice_of(each)) for each in rows.scalars() if each.published_at < now
    ]
    published = PublishedSite(
        site.id,
        site.workspace_id,
        site.site_key,
        site.name,
        frozenset(site.origins),
        site.published_version_id or "",
        True,
    )
    return consents.invent(runtime.ring, published, notices, runtime.settings.public_url, now)


@dataclass(frozen=True, slots=True)
class Script:
    """The scenes that are missing, and what destinations said to them."""

    workspace: Workspace
    site: Site
    scenes: Sequence[Scene]
    rehearsed: Rehearsed
    began: dt.datetime


async def rehearse(runtime: Runtime) -> Script | None:
    """Let destinations do what the missing scenes say was done; None: nothing is missing."""
    async with runtime.database.reading() as session:
        workspace = await demo_workspace(session)
        site = await first_site(session, workspace.id) if workspace else None
        if workspace is None or site is None or await _is_told(session, workspace.id):
            return None
        began = workspace.created_at + OPENED
        made = await consents_of(session, runtime, site, began)
        told = scenes(made.withdrawals, workspace.id, began, TIMEZONE)
        missing = await _missing(session, told)
        destinations = await _destinations(session, workspace.id)
    off = [each.id for each in destinations if not each.is_enabled]
    for each in destinations:  # as they were in those days; these rows are nobody's any more
        each.is_enabled = True
    rehearsed = await history.rehearse(runtime, destinations, off, missing)
    places = Places.of(runtime.settings)
    await asyncio.to_thread(_set_back, places, destinations, missing, rehearsed)
    return Script(workspace, site, missing, rehearsed, began)


async def tell(runtime: Runtime, script: Script) -> None:
    """Never raises: a demo without a past is better than none."""
    try:
        await _play(runtime, script)
        async with runtime.database.writing() as session:
            await activity.count(session, script.workspace.id, script.began)
            audit.record(
                session,
                workspace_id=script.workspace.id,
                actor=history.ACTOR,
                verb=TOLD,
                target=script.site.id,
                now=utc_now(),
            )
    except Exception as error:
        log.exception("demo_past_failed", error=type(error).__name__)
    else:
        log.info("demo_told", count=len(script.scenes))


async def _is_told(session: AsyncSession, workspace_id: str) -> bool:
    found = await session.execute(
        sa.select(sa.literal(1))
        .where(col(AuditEntry.workspace_id) == workspace_id, col(AuditEntry.verb) == TOLD)
        .limit(1)
    )
    return found.first() is not None


async def _missing(session: AsyncSession, told: Sequence[Scene]) -> list[Scene]:
    rows = await session.execute(
        sa.select(col(SubjectRequest.id)).where(
            col(SubjectRequest.id).in_([each.id for each in told])
        )
    )
    present = {request_id for (request_id,) in rows}
    return [each for each in told if each.id not in present]


async def _destinations(session: AsyncSession, workspace_id: str) -> list[Destination]:
    rows = await session.execute(
        sa.select(Destination).where(
            col(Destination.workspace_id) == workspace_id, col(Destination.deleted_at).is_(None)
        )
    )
    return list(rows.scalars())


def _set_back(
    places: Places, destinations: Sequence[Destination], told: Sequence[Scene], rehearsed: Rehearsed
) -> None:
    """The newsletter service was asked just now; its log says when the scenes were."""
    addresses = {str(each.settings.get("url", "")): each.id for each in destinations}
    service_id = next((addresses[each] for each in addresses if each.endswith(newsletter.PATH)), "")
    entries = [
        newsletter.entry(
            at=scene.at + dt.timedelta(minutes=5),
            type=f"quittance.{history.operation_of(scene)}",
            people=[
                (
                    [(each.kind, each.value) for each in rehearsed.identifiers(scene)],
                    outcome.verdict,
                )
            ],
        )
        for scene in told
        if (outcome := rehearsed.answers.get((service_id, scene.id))) is not None
    ]
    newsletter.set_back(places.newsletter, rehearsed.call_ids, entries)


async def _play(runtime: Runtime, script: Script) -> None:
    ids = [each.id for each in script.scenes]
    await runtime.keys.forget(ids)  # of an interrupted time before
    keys = await runtime.keys.create(ids, utc_now())
    for scene in script.scenes:
        await _play_one(runtime, script, keys, scene)
        await asyncio.sleep(0)  # real requests go first
    await runtime.keys.forget([each.id for each in script.scenes if each.is_ended])


async def _play_one(
    runtime: Runtime, script: Script, keys: Mapping[str, HolderKey], scene: Scene
) -> None:
    for _ in range(_ATTEMPTS):
        try:
            async with runtime.database.writing() as session:
                stage = Stage(
                    session,
                    runtime,
                    script.workspace,
                    script.site,
                    keys,
                    script.rehearsed,
                    script.began,
                )
                await stage.play(scene)
        except Busy:
            await asyncio.sleep(0.3)
        else:
            return
    raise Busy
