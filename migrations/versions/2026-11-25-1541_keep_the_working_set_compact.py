"""keep the working set compact.

``ready``, ``virtual_queue`` and ``open_call`` are changed all the time. On PostgreSQL their pages
keep room for the next version of a row, and autovacuum comes twenty times as often as to other
tables and does not pause.
"""

from alembic import op

revision = "20261125_1541"
down_revision = "20261125_1540"
branch_labels = None
depends_on = None

HOT = (
    "fillfactor = 70",
    "autovacuum_vacuum_scale_factor = 0.01",
    "autovacuum_vacuum_cost_delay = 0",
)


def upgrade() -> None:
    if op.get_context().dialect.name != "postgresql":
        return
    for table in ("ready", "virtual_queue", "open_call"):
        op.execute(f"ALTER TABLE {table} SET ({', '.join(HOT)})")


def downgrade() -> None:
    raise NotImplementedError("restore the backup made before the upgrade")
