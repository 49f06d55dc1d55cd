"""keep job reports.

Vendors may say by a signed callback how a job ended. Deliveries that wait for a job are found by
it, and expire no more: the job has its own time to give up.
"""

import sqlalchemy as sa
from alembic import op

from app.core.db import Id, Json, Moment

revision = "20261125_1600"
down_revision = "20261125_1550"
branch_labels = None
depends_on = None


def _index(name: str, columns: list[str], where: str) -> None:
    only = sa.text(where)
    op.create_index(name, "ready", columns, postgresql_where=only, sqlite_where=only)


def upgrade() -> None:
    op.create_table(
        "job_report",
        sa.Column("destination_id", Id, nullable=False),
        sa.Column("job", sa.String(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.Column("outcome", Json, nullable=False),
        sa.Column("expires_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("destination_id", "job", name=op.f("pk_job_report")),
    )
    op.create_index("ix_job_report_expires_at", "job_report", ["destination_id", "expires_at"])
    op.create_index("ix_job_report_at", "job_report", ["at"])
    op.drop_index("ix_ready_expires_at", "ready")
    _index("ix_ready_expires_at", ["expires_at"], "job IS NULL")
    _index("ix_ready_job", ["queue_id", "job"], "length(job) <= 600")


def downgrade() -> None:
    raise NotImplementedError("restore the backup made before the upgrade")
