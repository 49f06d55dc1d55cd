"""end links of pages that chose nothing.

A page stores nothing before a choice, so that each page of somebody who is signed in is another
visitor: their links end soon.
"""

import sqlalchemy as sa
from alembic import op

from app.core.db import Moment

revision = "20261128_0200"
down_revision = "20261127_2100"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("visitor_link", sa.Column("idle_until", Moment, nullable=True))
    where = sa.text("idle_until IS NOT NULL")
    op.create_index(
        "ix_visitor_link_idle_until", "visitor_link", ["idle_until"],
        postgresql_where=where, sqlite_where=where,
    )  # fmt: skip


def downgrade() -> None:
    raise NotImplementedError("restore the backup made before the upgrade")
