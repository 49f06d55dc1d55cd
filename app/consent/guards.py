"""The triggers that refuse changes of proof: a migration makes them, and the doctor looks for them.
Deletions are not refused: records go when their time is over."""

from __future__ import annotations

import sqlalchemy as sa

GUARDED = ("consent_record", "notice_version")

_ON_POSTGRESQL = sa.text(
    "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgenabled IN ('O', 'A')"
)
_ON_SQLITE = sa.text("SELECT name FROM sqlite_master WHERE type = 'trigger'")


def unguarded(connection: sa.Connection) -> list[str]:
    """Tables whose rows could be changed, because their trigger is missing or turned off."""
    is_postgresql = connection.dialect.name == "postgresql"
    found = set(connection.scalars(_ON_POSTGRESQL if is_postgresql else _ON_SQLITE))
    return [table for table in GUARDED if f"{table}_stays" not in found]
