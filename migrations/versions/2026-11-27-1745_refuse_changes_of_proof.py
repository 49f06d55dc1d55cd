"""refuse changes of proof.

Nothing of ours updates a consent record, or the content of a notice version; now nobody else does
by mistake either. Rows may still be deleted, when their time is over. Whoever owns the tables can
drop the triggers: ``quittance doctor`` tells.
"""

from alembic import op

revision = "20261127_1745"
down_revision = "20261127_0900"
branch_labels = None
depends_on = None

WORDS = "id, site_id, number, sha256, content, published_at, published_by"
"""Of a notice version; ``material`` and ``news`` are what the service concludes from them."""


def upgrade() -> None:
    is_postgresql = op.get_bind().dialect.name == "postgresql"
    if is_postgresql:
        op.execute(
            "CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'a row of % is proof and never changes', TG_TABLE_NAME "
            "USING ERRCODE = 'restrict_violation'; END $$"
        )
    for table, of in (("consent_record", ""), ("notice_version", f"OF {WORDS} ")):
        then = (
            "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
            if is_postgresql
            else f"BEGIN SELECT RAISE(ABORT, 'a row of {table} is proof and never changes'); END"
        )
        op.execute(f"CREATE TRIGGER {table}_stays BEFORE UPDATE {of}ON {table} {then}")


def downgrade() -> None:
    raise NotImplementedError("restore the backup made before the upgrade")
