"""Receipts of requests: signing what was settled, making an interim one on demand, handing them
out.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.core import bulk
from app.core.errors import NotFound
from app.core.failpoints import failpoint
from app.core.ids import new_id
from app.core.logging import get_logger
from app.identity import vault
from app.receipts.canonical import NotCanonical
from app.receipts.models import Receipt
from app.receipts.signing import REQUEST_RECEIPT
from app.security.models import Workspace
from app.subject_requests import queries, settle
from app.subject_requests.models import SubjectRequest
from app.subject_requests.services import Services
from app.subject_requests.states import FINAL

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Proof:
    """A signed receipt; ``openings`` are None once the person is forgotten."""

    jws: str
    openings: list[dict[str, str]] | None


async def sign_due(services: Services, now: dt.datetime) -> bool:
    """Sign up to 200 receipts; True when there were some."""
    async with services.database.writing() as session:
        rows = await session.execute(
            sa.select(col(Receipt.id), col(Receipt.claims))
            .where(col(Receipt.jws).is_(None))
            .limit(200)
            .with_for_update(skip_locked=True)
        )
        signer, due = services.signer(), []
        for row in rows:
            try:
                jws = signer.sign(row.claims, REQUEST_RECEIPT)
            except NotCanonical as error:  # a bug of ours; the others must have theirs
                log.error("receipt_not_signed", error=type(error).__name__)
                continue
            due.append({"id": row.id, "jws": jws, "signed_at": now})
        await bulk.update(session, Receipt, ("id",), due)
        if due:
            failpoint("sign.before_commit")
    if due:
        failpoint("sign.after_commit")
    return bool(due)


def _sign(services: Services, receipt: Receipt, now: dt.datetime) -> str:
    receipt.jws = services.signer().sign(receipt.claims, REQUEST_RECEIPT)
    receipt.signed_at = now
    return receipt.jws


async def receipt_of(
    services: Services, workspace_id: str, request_id: str, now: dt.datetime, *, with_openings: bool
) -> Proof:
    """The newest receipt. Fetching the final one delivers it: the forgetting clock starts."""
    async with services.database.writing() as session:
        request = await queries.get(session, workspace_id, request_id)
        receipt = await _newest(session, services, request, now)
        jws = receipt.jws or _sign(services, receipt, now)
        openings = await openings_of(session, services, request) if with_openings else None
        if receipt.is_final:
            settle.delivered(request, await session.get_one(Workspace, workspace_id), services, now)
    return Proof(jws, openings)


async def _newest(
    session: AsyncSession, services: Services, request: SubjectRequest, now: dt.datetime
) -> Receipt:
    if request.receipt_id is not None:
        return await session.get_one(Receipt, request.receipt_id)
    if request.verified_at is None or request.status in FINAL:
        raise NotFound("There is no receipt yet: the request is not verified.")
    found = (
        await session.execute(
            sa.select(Receipt)
            .where(col(Receipt.request_id) == request.id, ~col(Receipt.is_final))
            .order_by(col(Receipt.id).desc())
            .limit(1)
        )
    ).scalar_one_or_none()
    if found is None:
        facts = await settle.gather(session, [request])
        claims = settle.receipt_claims(services, request, facts, new_id("rcp"), now, is_final=False)
        found = Receipt(
            id=claims["jti"],
            workspace_id=request.workspace_id,
            request_id=request.id,
            is_final=False,
            claims=claims,
            created_at=now,
        )
        session.add(found)
    return found


async def openings_of(
    session: AsyncSession, services: Services, request: SubjectRequest
) -> list[dict[str, str]] | None:
    """What opens the commitments: one per identifier, in the order of the receipt."""
    opened = await vault.open_holder(session, services.keys, [request.id])
    return [{"kind": each.kind, "opening": each.opening} for each in opened] or None
