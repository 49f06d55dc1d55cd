"""tell material changes.

A notice version knows which earlier versions' choices still answer it, and what is new in it.
"""

import sqlalchemy as sa
from alembic import op

from app.core.db import Json

revision = "20261125_2130"
down_revision = "20261125_1600"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("notice_version", sa.Column("material", sa.String(), nullable=True))
    op.add_column("notice_version", sa.Column("news", Json, nullable=True))


def downgrade() -> None:
    raise NotImplementedError("restore the backup made before the upgrade")
