"""count the links of a user_id.

A ``user_id`` with too many of them is no person: whether it is must be found without reading them
all, nor the requests that name it.
"""

from alembic import op

revision = "20261127_0910"
down_revision = "20261127_0900"
branch_labels = None
depends_on = None


def upgrade() -> None:
    columns = ["workspace_id", "subject_ref", "holder_id"]
    op.create_index("ix_personal_value_person", "personal_value", columns)
    op.drop_index("ix_personal_value_subject", "personal_value")


def downgrade() -> None:
    raise NotImplementedError("restore the backup made before the upgrade")
