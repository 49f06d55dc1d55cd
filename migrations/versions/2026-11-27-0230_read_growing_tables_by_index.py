"""read growing tables by index.

What is looked for all the time, or page by page, in tables that grow with every person: receipts
without a signature, entries of the suppression list, open alerts.
"""

import sqlalchemy as sa
from alembic import op

revision = "20261127_0230"
down_revision = "20261126_1345"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _index_some("ix_receipt_unsigned", "receipt", ["id"], "jws IS NULL")
    _index_some("ix_alert_open", "alert", ["workspace_id", "id"], "resolved_at IS NULL")
    op.create_index("ix_suppression_list", "suppression", ["workspace_id", "id"])
    op.create_index("ix_suppression_expires_at", "suppression", ["expires_at"])
    op.create_index("ix_suppression_request_id", "suppression", ["request_id"])


def _index_some(name: str, table: str, columns: list[str], which: str) -> None:
    where = sa.text(which)
    op.create_index(name, table, columns, postgresql_where=where, sqlite_where=where)


def downgrade() -> None:
    raise NotImplementedError("restore the backup made before the upgrade")
