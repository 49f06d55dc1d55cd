"""Who did something: actors of timelines and the audit log by the names people know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.security.models import Admin, ApiKey

_FIXED = {
    "person": "the person",
    "system": "Quittance",
    "service": "Quittance",
    "cli": "the command line",
    "demo": "the demo",
}


class Names:
    """``names[actor]``: e-mail of an account, name of a key, plain words for the rest."""

    def __init__(self, known: Mapping[str, str]) -> None:
        self._known = known

    def __getitem__(self, actor: str) -> str:
        return self._known.get(actor) or _FIXED.get(actor) or actor.partition(":")[0]


async def names_of(session: AsyncSession, workspace_id: str, actors: Iterable[str]) -> Names:
    """Look up accounts and keys of this workspace only."""
    wanted = set(actors)
    admins = {each.partition(":")[2] for each in wanted if each.startswith("admin:")}
    keys = {each.partition(":")[2] for each in wanted if each.startswith("key:")}
    known: dict[str, str] = {}
    if admins:
        rows = await session.execute(
            sa.select(col(Admin.id), col(Admin.email)).where(
                col(Admin.id).in_(admins), col(Admin.workspace_id) == workspace_id
            )
        )
        known |= {f"admin:{admin_id}": email for admin_id, email in rows}
    if keys:
        rows = await session.execute(
            sa.select(col(ApiKey.id), col(ApiKey.name)).where(
                col(ApiKey.id).in_(keys), col(ApiKey.workspace_id) == workspace_id
            )
        )
        known |= {f"key:{key_id}": f"API key “{name}”" for key_id, name in rows}
    return Names(known)
