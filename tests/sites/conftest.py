"""The stage, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.sites.stage import Stage, stage


@pytest.fixture
async def service(database_url: str, keystore_url: str, tmp_path: Path) -> AsyncIterator[Stage]:
    async with stage(database_url, keystore_url, tmp_path) as made:
        yield made
