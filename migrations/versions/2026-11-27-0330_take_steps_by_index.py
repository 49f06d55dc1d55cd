"""take steps by index.

What looks for its next work finds it beside however many others: requests that wait for something
else than resolving, people who are not forgotten yet, links that have run out.
"""

import sqlalchemy as sa
from alembic import op

revision = "20261127_0330"
down_revision = "20261127_0230"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("ix_subject_request_next", "subject_request")
    for name, table, column, which in (
        ("ix_subject_request_resolving", "subject_request", "next_step_at", "status = 'resolving'"),
        (
            "ix_subject_request_next",
            "subject_request",
            "next_step_at",
            "next_step_at IS NOT NULL AND status <> 'resolving'",
        ),
        ("ix_subject_request_known", "subject_request", "received_at", "forgotten_at IS NULL"),
        ("ix_personal_value_expires_at", "personal_value", "expires_at", "expires_at IS NOT NULL"),
    ):
        where = sa.text(which)
        op.create_index(name, table, [column], postgresql_where=where, sqlite_where=where)


def downgrade() -> None:
    raise NotImplementedError("restore the backup made before the upgrade")
