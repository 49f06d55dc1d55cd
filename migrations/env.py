"""Runs revisions on one connection, for the main database or the key store (``app.core.migrate``
decides which).
"""

from typing import Any, Literal

from alembic import context

from app.core.db import Id, Json, Moment
from app.core.migrate import without_partitions


def render_item(kind: str, item: Any, _: Any) -> str | Literal[False]:
    """Our own column types by name, so that a revision reads like the models."""
    if kind != "type":
        return False
    for name, known in (("Id", Id), ("Json", Json)):
        if item is known:
            return name
    if isinstance(item, Moment):
        return "Moment()"
    return "sa.String()" if type(item).__name__ == "AutoString" else False


connection = context.config.attributes["connection"]
metadata = context.config.attributes["metadata"]

if connection.dialect.name == "postgresql":
    # Never wait behind a long transaction while holding up everybody behind us.
    connection.exec_driver_sql("SET lock_timeout = '4s'")
    connection.exec_driver_sql("SET statement_timeout = '60s'")

context.configure(
    connection=connection,
    target_metadata=metadata,
    render_as_batch=connection.dialect.name == "sqlite",
    compare_type=False,
    render_item=render_item,
    include_name=without_partitions(connection),
)
with context.begin_transaction():
    context.run_migrations()
