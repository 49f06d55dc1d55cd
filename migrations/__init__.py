"""Alembic's environment and the revisions of both databases."""
