"""write the archive.

Deliveries that ran out of time have a row each until they are replayed or waived, and a line in a
file. Those archived before get their row here, and their line soon after.
"""

import sqlalchemy as sa
from alembic import op

from app.core.db import Id, Moment

revision = "20261125_1530"
down_revision = "20261125_1430"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "archived",
        sa.Column("delivery_id", Id, nullable=False),
        sa.Column("workspace_id", Id, nullable=False),
        sa.Column("request_id", Id, nullable=False),
        sa.Column("queue_id", Id, nullable=False),
        sa.Column("archived_at", Moment(), nullable=False),
        sa.Column("file", Id, nullable=True),
        sa.PrimaryKeyConstraint("delivery_id", name=op.f("pk_archived")),
    )
    op.create_index(
        "ix_archived_workspace", "archived", ["workspace_id", "archived_at", "delivery_id"]
    )
    op.create_index("ix_archived_file", "archived", ["file", "archived_at", "delivery_id"])
    op.create_index("ix_archived_request_id", "archived", ["request_id"])
    op.create_table(
        "archive_file",
        sa.Column("name", Id, nullable=False),
        sa.Column("write_at", Moment(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_archive_file")),
    )
    op.create_index("ix_archive_file_write_at", "archive_file", ["write_at"])
    op.execute(
        "INSERT INTO archived (delivery_id, workspace_id, request_id, queue_id, archived_at) "
        "SELECT d.id, d.workspace_id, d.request_id, d.destination_id, t.at "
        "FROM delivery_transition t JOIN delivery d ON d.id = t.delivery_id "
        "WHERE t.state = 'archived' AND NOT EXISTS (SELECT 1 FROM delivery_transition l "
        "WHERE l.delivery_id = t.delivery_id AND l.seq > t.seq)"
    )


def downgrade() -> None:
    raise NotImplementedError("restore the backup made before the upgrade")
