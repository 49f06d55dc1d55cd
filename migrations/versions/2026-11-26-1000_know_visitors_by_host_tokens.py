"""know visitors by host tokens.

A site may name whose tokens say who is signed in there; a token that was used is remembered until
it could not pass anyway.
"""

import sqlalchemy as sa
from alembic import op

from app.core.db import Id, Json, Moment

revision = "20261126_1000"
down_revision = "20261126_0900"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("site", sa.Column("host_identity", Json, nullable=True))
    op.create_table(
        "used_host_token",
        sa.Column("workspace_id", Id, nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("workspace_id", "digest", name=op.f("pk_used_host_token")),
    )
    op.create_index("ix_used_host_token_expires_at", "used_host_token", ["expires_at"])


def downgrade() -> None:
    raise NotImplementedError("restore the backup made before the upgrade")
