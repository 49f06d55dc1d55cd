"""find a newest choice by index.

Of each device of a person the newest explicit choice and the newest signal count, whatever else was
recorded there.
"""

import sqlalchemy as sa
from alembic import op

revision = "20261127_0900"
down_revision = "20261127_0330"
branch_labels = None
depends_on = None

BY_CHOICE = "('accept_all', 'api', 'custom', 'reject_all', 'withdrawal')"


def upgrade() -> None:
    _index_some("choice", f"method IN {BY_CHOICE}")
    _index_some("signal", f"is_gpc_applied AND method NOT IN {BY_CHOICE}")


def _index_some(kind: str, which: str) -> None:
    columns, where = ["site_id", "visitor_id", "decided_at"], sa.text(which)
    name = f"ix_consent_record_{kind}"
    op.create_index(name, "consent_record", columns, postgresql_where=where, sqlite_where=where)


def downgrade() -> None:
    raise NotImplementedError("restore the backup made before the upgrade")
