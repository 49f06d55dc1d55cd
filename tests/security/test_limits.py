"""Limits in Redis fall back on the process's own where Redis is away."""

from __future__ import annotations

from typing import Any

import pytest
from limits.errors import StorageError

from app.core.errors import TooMany
from app.core.settings import Settings
from app.security.limits import RateLimits


class Away:
    """Redis, gone."""

    async def hit(self, *_: Any, **__: Any) -> bool:
        raise StorageError(OSError("connection refused"))

    async def get_window_stats(self, *_: Any) -> Any:
        raise StorageError(OSError("connection refused"))


async def test_without_redis_everybody_stays_limited() -> None:
    limits = RateLimits(Settings(consent_per_minute=3))
    limits._shared = Away()  # type: ignore[assignment]
    for _ in range(3):
        await limits.spend("consent", "192.0.2.1")
    with pytest.raises(TooMany) as refused:
        await limits.spend("consent", "192.0.2.1")
    assert 1 <= int(refused.value.headers["Retry-After"]) <= 91
    await limits.spend("consent", "192.0.2.2")
