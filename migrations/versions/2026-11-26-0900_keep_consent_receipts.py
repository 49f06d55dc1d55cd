"""keep consent receipts.

The receipt of a consent record is signed when it is first asked for; later it is the same bytes.
"""

import sqlalchemy as sa
from alembic import op

from app.core.db import Id, Moment

revision = "20261126_0900"
down_revision = "20261125_2130"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "consent_receipt",
        sa.Column("consent_id", Id, nullable=False),
        sa.Column("workspace_id", Id, nullable=False),
        sa.Column("jws", sa.String(), nullable=False),
        sa.Column("signed_at", Moment, nullable=False),
        sa.ForeignKeyConstraint(
            ["consent_id"],
            ["consent_record.id"],
            name=op.f("fk_consent_receipt_consent_id_consent_record"),
        ),
        sa.PrimaryKeyConstraint("consent_id", name=op.f("pk_consent_receipt")),
    )


def downgrade() -> None:
    raise NotImplementedError("restore the backup made before the upgrade")
