"""Receipts of consent records: what a visitor can keep, made when it is first asked for.

A receipt never holds the visitor id. It holds a commitment to it, HMAC-SHA-256 under 32 random
bytes that stand beside it: with receipt and visitor id (it is in the browser's cookie) anybody can
check that the two belong together. From the receipt alone the random id cannot be found, and two
receipts of one visitor cannot be told to be of one.
"""

from __future__ import annotations

import base64
import datetime as dt
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.consent import queries
from app.consent.audit_trail import SCHEMA_VERSION, Told, iso_27560
from app.consent.models import ConsentReceipt, ConsentRecord
from app.core.clock import utc_now
from app.core.db import Database, insert_or_ignore, table_of
from app.identity.vault import commitment
from app.sites.genuine import genuine
from app.sites.models import NoticeVersion, Site
from connectors.contract import Identifier, Kind

VERSION = 1


@dataclass(frozen=True, slots=True)
class Kept:
    """A signed receipt, and whose pages may read it."""

    jws: str
    origins: frozenset[str]


class ConsentReceipts:
    """Finds receipts by consent id; whoever knows the id may have it. ``sign`` makes a compact JWS
    of claims."""

    def __init__(
        self, database: Database, issuer: str, sign: Callable[[dict[str, Any]], str]
    ) -> None:
        self._database = database
        self._issuer = issuer
        self._sign = sign

    async def find(self, consent_id: str) -> Kept | None:
        """The receipt; signed now if this is the first time, and the same bytes ever after. Also
        when the site is gone: proof stays."""
        async with self._database.reading() as session:
            if kept := await _kept(session, consent_id):
                return kept
            found = await session.execute(
                sa.select(ConsentRecord, NoticeVersion, Site)
                .join(NoticeVersion, col(NoticeVersion.id) == col(ConsentRecord.notice_version_id))
                .join(Site, col(Site.id) == col(ConsentRecord.site_id))
                .where(col(ConsentRecord.id) == consent_id)
            )
            row = found.one_or_none()
            if row is None:
                return None
            record, version, site = row
            before = await queries.previous(session, [record])
        told = Told(record, genuine(version), site.site_key, site.name, before.get(record.id))
        now = utc_now()
        claims = claims_of(told, issuer=self._issuer, now=now)
        made = {
            "consent_id": record.id,
            "workspace_id": record.workspace_id,
            "jws": self._sign(claims),
            "signed_at": now,
        }
        async with self._database.writing() as session:  # another process may have been faster
            await session.execute(insert_or_ignore(session, table_of(ConsentReceipt)), [made])
            return await _kept(session, consent_id)


async def _kept(session: AsyncSession, consent_id: str) -> Kept | None:
    found = await session.execute(
        sa.select(col(ConsentReceipt.jws), col(Site.origins))
        .join(ConsentRecord, col(ConsentRecord.id) == col(ConsentReceipt.consent_id))
        .join(Site, col(Site.id) == col(ConsentRecord.site_id))
        .where(col(ConsentReceipt.consent_id) == consent_id)
    )
    row = found.one_or_none()
    return Kept(row[0], frozenset(row[1])) if row else None


def claims_of(told: Told, *, issuer: str, now: dt.datetime) -> dict[str, Any]:
    """ISO/IEC TS 27560's receipt: a receipt id and the record, beside what every JWT names.

    The choice before it is not named: two receipts of one visitor are not to be told to be of one.
    """
    record = told.record
    opening = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")
    principal = commitment(opening, Identifier(Kind.ANONYMOUS_ID, record.visitor_id))
    return {
        "iss": issuer,
        "jti": record.id,
        "iat": int(now.timestamp()),
        "ver": VERSION,
        "schema_version": SCHEMA_VERSION,
        "receipt_id": record.id,
        "record": iso_27560(told, principal),
        "subject": {
            "commitments": [
                {
                    "id_type": Kind.ANONYMOUS_ID.value,
                    "alg": "HMAC-SHA256-v1",
                    "value": principal,
                    "opening": opening,
                }
            ]
        },
    }
