"""see trackers and displays.

Two counts that sites may ask for: names that no rule of a site covers, and how often its banner was
shown.
"""

import sqlalchemy as sa
from alembic import op

from app.core.db import Id, Moment

revision = "20261126_1345"
down_revision = "20261126_1200"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "tracker_seen",
        sa.Column("site_id", Id, nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("pattern", sa.String(), nullable=False),
        sa.Column("workspace_id", Id, nullable=False),
        sa.Column("first_seen_at", Moment(), nullable=False),
        sa.Column("last_seen_at", Moment(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["site_id"], ["site.id"], name=op.f("fk_tracker_seen_site_id")),
        sa.PrimaryKeyConstraint("site_id", "kind", "pattern", name=op.f("pk_tracker_seen")),
    )
    op.create_index("ix_tracker_seen_last_seen_at", "tracker_seen", ["last_seen_at"])
    op.create_table(
        "consent_view",
        sa.Column("site_id", Id, nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("notice_version_id", Id, nullable=False),
        sa.Column("language", sa.String(), nullable=False),
        sa.Column("regime", sa.String(), nullable=False),
        sa.Column("workspace_id", Id, nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["site_id"], ["site.id"], name=op.f("fk_consent_view_site_id")),
        sa.ForeignKeyConstraint(
            ["notice_version_id"],
            ["notice_version.id"],
            name=op.f("fk_consent_view_notice_version_id"),
        ),
        sa.PrimaryKeyConstraint(
            "site_id", "day", "notice_version_id", "language", "regime",
            name=op.f("pk_consent_view"),
        ),
    )  # fmt: skip
    op.create_index("ix_consent_view_workspace_id_day", "consent_view", ["workspace_id", "day"])


def downgrade() -> None:
    raise NotImplementedError("restore the backup made before the upgrade")
