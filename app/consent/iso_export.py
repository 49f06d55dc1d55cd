"""Consent records by the names of ISO/IEC TS 27560, many at a time."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.consent import queries
from app.consent.audit_trail import Told, for_auditor
from app.core.db import Database
from app.sites.directory import Notice
from app.sites.genuine import genuine
from app.sites.models import NoticeVersion, Site


async def notices(database: Database, wanted: queries.Filter) -> dict[str, Notice]:
    """What records may name, by id, with no more of each than ``iso_27560`` reads. One that was
    altered raises ``NoticeAltered``: here, for a file that has begun cannot be taken back.
    """
    found = {}
    async with database.reading() as session:
        sites = sa.select(col(Site.id)).where(*_sites(wanted))
        ids = await session.execute(
            sa.select(col(NoticeVersion.id)).where(col(NoticeVersion.site_id).in_(sites))
        )
        for version_id in ids.scalars().all():
            version = await session.get_one(NoticeVersion, version_id)
            found[version_id] = _slim(genuine(version))
            session.expunge(version)
    return found


def _slim(notice: Notice) -> Notice:
    content = notice.content
    kept = {name: content[name] for name in ("controller", "policy_url", "regimes")}
    said = {
        tag: {"purposes": each["purposes"]} for tag, each in notice.content["languages"].items()
    }
    return replace(notice, content=kept | {"languages": said}, news={})


async def iso_records(
    database: Database, wanted: queries.Filter, notices: Mapping[str, Notice], kept: dt.timedelta
) -> AsyncIterator[dict[str, Any]]:
    """All matching records, newest first. ``kept``: how long records stay."""
    async with database.reading() as session:
        names = await _names(session, wanted)
        destinations = await queries.destinations(session, wanted.workspace_id)
        for each in destinations:
            session.expunge(each)
        async for page in queries.pages(session, wanted):
            before = await queries.previous(session, [record for record, _ in page])
            for record, site_key in page:
                notice = notices.get(record.notice_version_id)
                if notice is None:  # published since the file was begun
                    version = await session.get_one(NoticeVersion, record.notice_version_id)
                    notice = genuine(version)
                told = Told(record, notice, site_key, names[record.site_id], before.get(record.id))
                yield for_auditor(told, destinations, kept)


async def _names(session: AsyncSession, wanted: queries.Filter) -> dict[str, str]:
    rows = await session.execute(sa.select(col(Site.id), col(Site.name)).where(*_sites(wanted)))
    return dict(rows.all())


def _sites(wanted: queries.Filter) -> list[Any]:
    found: list[Any] = [col(Site.workspace_id) == wanted.workspace_id]
    return found + ([col(Site.id) == wanted.site_id] if wanted.site_id else [])
