"""go back to a version.

A notice version keeps the configuration it was made of, so that a draft can begin with it again.
"""

import sqlalchemy as sa
from alembic import op

from app.core.db import Json

revision = "20261127_2100"
down_revision = "20261127_1745"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("notice_version", sa.Column("config", Json, nullable=True))


def downgrade() -> None:
    raise NotImplementedError("restore the backup made before the upgrade")
