"""order queues by need.

A delivery has one place (its id is the key), ordered by who is started, then by the day of the
legal deadline. Queues remember what holds them back, what may hurry, and their newest errors.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

from app.core.db import Id, Json, Moment

revision = "20261125_1430"
down_revision = "20261123_2000"
branch_labels = None
depends_on = None

KEPT = "delivery_id, queue_id, operation, attempt, seq, job, job_since, expires_at, call_id"
_OLD_KEPT = ", ".join(f"ready.{name}" for name in KEPT.split(", "))


def _new_in_queues() -> list[sa.Column[Any]]:
    return [
        sa.Column("not_before", Moment(), nullable=True),
        sa.Column("eager_before", Moment(), nullable=True),
        sa.Column("is_boosted", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("leased_at", Moment(), nullable=True),
        sa.Column("budget", Json, nullable=False, server_default="{}"),
        sa.Column("last_errors", Json, nullable=False, server_default="[]"),
        sa.Column("parked_at", Moment(), nullable=True),
    ]


def upgrade() -> None:
    op.rename_table("ready", "ready_before")
    op.create_table(
        "ready",
        sa.Column("delivery_id", Id, nullable=False),
        sa.Column("queue_id", Id, nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("due_at", Moment(), nullable=False),
        sa.Column("placed_at", Moment(), nullable=False),
        sa.Column("operation", sa.String(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("job", sa.String(), nullable=True),
        sa.Column("job_since", Moment(), nullable=True),
        sa.Column("expires_at", Moment(), nullable=False),
        sa.Column("call_id", Id, nullable=True),
        sa.PrimaryKeyConstraint("delivery_id", name="pk_ready_delivery"),
    )
    day = (
        "extract(epoch FROM d.due_at) / 86400"
        if op.get_context().dialect.name == "postgresql"
        else "d.due_at / 86400000000"
    )
    op.execute(
        f"INSERT INTO ready ({KEPT}, rank, due_at, placed_at) "  # noqa: S608 (our own names)
        f"SELECT {_OLD_KEPT.replace('ready.', 'r.')}, "
        f"CASE WHEN r.rank < 3 THEN r.rank WHEN d.due_at IS NULL THEN 100000 "
        f"ELSE CAST({day} AS integer) END, r.due_at, d.created_at "
        "FROM ready_before r JOIN delivery d ON d.id = r.delivery_id"
    )
    op.drop_table("ready_before")
    op.create_index("ix_ready_order", "ready", ["queue_id", "rank", "due_at", "delivery_id"])
    op.create_index("ix_ready_expires_at", "ready", ["expires_at"])
    for column in _new_in_queues():
        op.add_column("virtual_queue", column)
    op.execute("UPDATE virtual_queue SET breaker = '{}', windows = '{}'")  # counted in another way
    op.create_index(
        "ix_virtual_queue_lease_until",
        "virtual_queue",
        ["lease_until"],
        postgresql_where=sa.text("lease_until IS NOT NULL"),
        sqlite_where=sa.text("lease_until IS NOT NULL"),
    )
    with op.batch_alter_table("delivery") as batch:
        batch.drop_column("rank")
    op.create_table(
        "queue_activity",
        sa.Column("queue_id", Id, nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.Column("event", sa.String(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("queue_id", "at", "event", name=op.f("pk_queue_activity")),
    )
    op.create_index("ix_queue_activity_at", "queue_activity", ["at"])


def downgrade() -> None:
    raise NotImplementedError("restore the backup made before the upgrade")
