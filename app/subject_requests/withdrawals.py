"""Withdrawn consent becomes an opt-out request for the destinations mapped to the purpose; consent
given again becomes a request that lifts what the withdrawal suppressed.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.consent.models import ConsentOutbox
from app.core.failpoints import failpoint
from app.security.models import Workspace
from app.sites import regimes
from app.subject_requests import intake, reversals
from app.subject_requests.services import Services
from app.subject_requests.states import Kind as RequestKind
from connectors.contract import Identifier, Kind


async def take_withdrawals(services: Services, now: dt.datetime) -> bool:
    """Turn up to 100 outbox rows into requests, in the order of the choices; the row goes in the
    transaction that writes the request, as does a grant that has nothing to lift.
    """
    async with services.database.reading() as session:
        rows = list(
            (
                await session.execute(
                    sa.select(ConsentOutbox)
                    .order_by(col(ConsentOutbox.created_at), col(ConsentOutbox.id))
                    .limit(100)
                )
            ).scalars()
        )
        workspaces = {
            each.workspace_id: await session.get_one(Workspace, each.workspace_id) for each in rows
        }
        idle = await _nothing_to_lift(session, services, rows, now)
    if not rows:
        return False
    asks = {
        row.id: intake.Ask(
            workspace=workspaces[row.workspace_id],
            kind=RequestKind.UNSUPPRESSION if row.is_grant else RequestKind.OPT_OUT,
            regime=regimes.known(row.regime),
            identifiers=[Identifier(Kind.ANONYMOUS_ID, row.visitor_id)],
            channel=reversals.CONSENT,
            verification="visitor",
            received_at=row.created_at,
            is_verified=True,
            site_id=row.site_id,
            purposes=row.purposes,
        )
        for row in rows
        if row.id not in idle
    }
    keys = await intake.take_in(services, list(asks.values()), now)
    async with services.database.writing() as session:
        taken = await session.execute(
            sa.delete(ConsentOutbox)
            .where(col(ConsentOutbox.id).in_([each.id for each in rows]))
            .returning(col(ConsentOutbox.id))
        )
        gone = set(taken.scalars())
        mine = [ask for row_id, ask in asks.items() if row_id in gone]
        await intake.write(session, services, mine, keys, now)
    failpoint("intake.after_commit")
    return True


async def _nothing_to_lift(
    session: AsyncSession, services: Services, rows: Sequence[ConsentOutbox], now: dt.datetime
) -> set[str]:
    """Rows of grants without a withdrawal before them: most people who refuse and then accept had
    never accepted before.
    """
    withdrawn: set[str] = set()
    asked: list[ConsentOutbox] = []
    for row in rows:
        if not row.is_grant:
            withdrawn.update(row.purposes)
        elif withdrawn.isdisjoint(row.purposes):  # else perhaps by the same person, just before
            asked.append(row)
    lifting = await reversals.with_something_to_lift(session, services.ring, asked, now)
    return {row.id for row in asked} - lifting
