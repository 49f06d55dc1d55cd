"""find stopped queues.

The sweep looks every few seconds for parked and paused queues whose destination was mended; among
many queues they are few.
"""

import sqlalchemy as sa
from alembic import op

revision = "20261125_1542"
down_revision = "20261125_1541"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_virtual_queue_stopped",
        "virtual_queue",
        ["id"],
        postgresql_where=sa.text("parked_reason IS NOT NULL OR is_paused"),
        sqlite_where=sa.text("parked_reason IS NOT NULL OR is_paused = 1"),
    )


def downgrade() -> None:
    raise NotImplementedError("restore the backup made before the upgrade")
