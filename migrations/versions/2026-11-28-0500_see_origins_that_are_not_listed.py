"""see origins that are not listed.

Pages that use a site's banner from elsewhere are shown to its operator: the newest few, in the
site's row, so that nobody from outside can fill a table.
"""

import sqlalchemy as sa
from alembic import op

from app.core.db import Json

revision = "20261128_0500"
down_revision = "20261128_0200"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("site", sa.Column("unlisted_origins", Json, nullable=True))


def downgrade() -> None:
    raise NotImplementedError("restore the backup made before the upgrade")
