"""lift what was withdrawn.

Consent given again lifts what its withdrawals suppressed: the outbox carries grants, too, and the
suppression list keeps one entry for each request that asked for it.
"""

import sqlalchemy as sa
from alembic import op

revision = "20261126_1200"
down_revision = "20261126_1000"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "consent_outbox",
        sa.Column("is_grant", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    with op.batch_alter_table("suppression") as table:
        table.add_column(sa.Column("channel", sa.String(), nullable=False, server_default=""))
        table.drop_constraint(op.f("uq_suppression_workspace_id_subject_ref_scope"))
        table.create_unique_constraint(
            op.f("uq_suppression_workspace_id_subject_ref_scope_request_id"),
            ["workspace_id", "subject_ref", "scope", "request_id"],
        )
    op.execute(
        "UPDATE suppression SET channel = request.channel FROM subject_request AS request"
        " WHERE request.id = suppression.request_id"
    )


def downgrade() -> None:
    raise NotImplementedError("restore the backup made before the upgrade")
