"""raise alerts.

What an operator must know of has rows of its own, and is found by index: queues that are parked,
paused or held back, and open requests by their deadline.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

from app.core.db import Id, Json, Moment

revision = "20261125_1550"
down_revision = "20261125_1541"
branch_labels = None
depends_on = None

_OF_SOME_ROWS = (
    ("ix_virtual_queue_not_before", "virtual_queue", "not_before", "not_before IS NOT NULL"),
    ("ix_virtual_queue_parked", "virtual_queue", "parked_at", "parked_reason IS NOT NULL"),
    ("ix_subject_request_deadline", "subject_request", "due_at", "completed_at IS NULL"),
    ("ix_alert_tell_at", "alert", "tell_at", "tell_at IS NOT NULL"),
)


def _where(postgresql: str, sqlite: str | None = None) -> dict[str, Any]:
    return {
        "postgresql_where": sa.text(postgresql),
        "sqlite_where": sa.text(sqlite or postgresql),
    }


def upgrade() -> None:
    op.create_table(
        "alert",
        sa.Column("id", Id, nullable=False),
        sa.Column("workspace_id", Id, nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("subject_id", Id, nullable=False),
        sa.Column("raised_at", Moment(), nullable=False),
        sa.Column("resolved_at", Moment(), nullable=True),
        sa.Column("detail", Json, nullable=False),
        sa.Column("notified_at", Moment(), nullable=True),
        sa.Column("told", sa.String(), nullable=True),
        sa.Column("tell_at", Moment(), nullable=True),
        sa.Column("tell_attempt", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alert")),
    )
    op.create_index(
        "uq_alert_open", "alert", ["kind", "subject_id"], unique=True,
        **_where("resolved_at IS NULL"),
    )  # fmt: skip
    op.create_index("ix_alert_list", "alert", ["workspace_id", "id"])
    op.create_index("ix_alert_resolved", "alert", ["workspace_id", "resolved_at"])
    for name, table, column, where in _OF_SOME_ROWS:
        op.create_index(name, table, [column], **_where(where))
    op.create_index(
        "ix_virtual_queue_paused", "virtual_queue", ["id"], **_where("is_paused", "is_paused = 1")
    )


def downgrade() -> None:
    raise NotImplementedError("restore the backup made before the upgrade")
