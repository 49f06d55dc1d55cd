"""partition the history.

On PostgreSQL ``delivery``, ``delivery_transition`` and ``call`` are partitioned by the month that
their ids begin with, so that old history is dropped and not deleted. What is there becomes the
first partition as it is, up to the end of this month; nothing is copied.
"""

import datetime as dt

from alembic import op

from app.core.ids import first_id

revision = "20261125_1540"
down_revision = "20261125_1530"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_context().dialect.name != "postgresql":
        return
    _partition("delivery", "dlv", "id", "id")
    _partition("delivery_transition", "dlv", "delivery_id", "delivery_id, seq")
    _partition("call", "call", "id", "id")
    op.execute("ALTER INDEX ix_delivery_request_id RENAME TO ix_delivery_before_request_id")
    op.create_index("ix_delivery_request_id", "delivery", ["request_id"])
    op.create_foreign_key(
        "fk_delivery_destination_id", "delivery", "destination", ["destination_id"], ["id"]
    )


def _partition(table: str, prefix: str, key: str, primary_key: str) -> None:
    before, default = f"{table}_before", f"{table}_default"
    end = first_id(prefix, _next_month(dt.datetime.now(dt.UTC)))
    for statement in (
        f"ALTER TABLE {table} RENAME TO {before}",
        f"ALTER TABLE {before} RENAME CONSTRAINT pk_{table} TO pk_{before}",
        f"CREATE TABLE {table} (LIKE {before}, "
        f"CONSTRAINT pk_{table} PRIMARY KEY ({primary_key})) PARTITION BY RANGE ({key})",
        f"CREATE TABLE {default} PARTITION OF {table} DEFAULT",
        # A clock that was ahead left ids of a time to come.
        f"WITH ahead AS (DELETE FROM {before} WHERE {key} >= '{end}' RETURNING *) "  # noqa: S608
        f"INSERT INTO {default} SELECT * FROM ahead",
        f"ALTER TABLE {table} ATTACH PARTITION {before} FOR VALUES FROM (MINVALUE) TO ('{end}')",
    ):
        op.execute(statement)


def _next_month(moment: dt.datetime) -> dt.datetime:
    first = moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (first + dt.timedelta(days=32)).replace(day=1)


def downgrade() -> None:
    raise NotImplementedError("restore the backup made before the upgrade")
