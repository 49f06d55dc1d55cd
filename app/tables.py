"""Every table, imported once, for migrations and tests."""

from __future__ import annotations

from app.core.db import Keys, Main

MAIN = Main.metadata
KEYS = Keys.metadata

__all__ = ["KEYS", "MAIN"]
