"""Withdrawn consent becomes an opt-out request for the destinations mapped to the purpose."""

from __future__ import annotations

import datetime as dt

import sqlalchemy as sa
from sqlmodel import col

from app.consent.models import ConsentOutbox
from app.core.failpoints import failpoint
from app.security.models import Workspace
from app.sites import regimes
from app.subject_requests import intake
from app.subject_requests.services import Services
from app.subject_requests.states import Kind as RequestKind
from connectors.contract import Identifier, Kind


async def take_withdrawals(services: Services, now: dt.datetime) -> bool:
    """Turn up to 100 outbox rows into requests; the row goes in the transaction that writes the
    request.
    """
    async with services.database.reading() as session:
        rows = list(
            (
                await session.execute(
                    sa.select(ConsentOutbox).order_by(col(ConsentOutbox.id)).limit(100)
                )
            ).scalars()
        )
        workspaces = {
            each.workspace_id: await session.get_one(Workspace, each.workspace_id) for each in rows
        }
    if not rows:
        return False
    asks = {
        row.id: intake.Ask(
            workspace=workspaces[row.workspace_id],
            kind=RequestKind.OPT_OUT,
            regime=regimes.get(row.regime),
            identifiers=[Identifier(Kind.ANONYMOUS_ID, row.visitor_id)],
            channel="consent",
            verification="visitor",
            received_at=row.created_at,
            is_verified=True,
            site_id=row.site_id,
            purposes=row.purposes,
        )
        for row in rows
    }
    keys = await intake.take_in(services, list(asks.values()), now)
    async with services.database.writing() as session:
        taken = await session.execute(
            sa.delete(ConsentOutbox)
            .where(col(ConsentOutbox.id).in_(list(asks)))
            .returning(col(ConsentOutbox.id))
        )
        mine = [asks[row_id] for (row_id,) in taken]
        await intake.write(session, services, mine, keys, now)
    failpoint("intake.after_commit")
    return True
