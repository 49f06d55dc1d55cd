"""Rate limits: named budgets per caller, in Redis when the broker is Redis, else in this
process.
"""

from __future__ import annotations

import time
from typing import Any

from limits import RateLimitItem, RateLimitItemPerDay, RateLimitItemPerHour, RateLimitItemPerMinute
from limits.aio.storage import RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from limits.errors import StorageError

from app.core.errors import TooMany
from app.core.settings import Settings
from app.security.windows import Windows


class RateLimits:
    """``await limits.spend("form", address)`` raises 429 with Retry-After and RateLimit fields."""

    def __init__(self, settings: Settings) -> None:
        self._shared: SlidingWindowCounterRateLimiter | None = None
        if settings.broker_url.startswith(("redis://", "rediss://")):
            storage: Any = RedisStorage(
                f"async+{settings.broker_url}", implementation="redispy", wrap_exceptions=True
            )
            self._shared = SlidingWindowCounterRateLimiter(storage)
        self.budgets: dict[str, RateLimitItem] = {
            "api": RateLimitItemPerMinute(settings.api_per_minute),
            "beacon": RateLimitItemPerMinute(settings.beacon_per_minute),
            "callback": RateLimitItemPerMinute(settings.callback_per_minute),
            "consent": RateLimitItemPerMinute(settings.consent_per_minute),
            "form": RateLimitItemPerHour(settings.form_per_hour),
            "link": RateLimitItemPerMinute(60),
            "login": RateLimitItemPerMinute(settings.login_per_minute),
            "mail_hour": RateLimitItemPerHour(settings.mail_per_hour),
            "mail_day": RateLimitItemPerDay(settings.mail_per_day),
            "mail_total": RateLimitItemPerHour(settings.mail_total_per_hour),
        }
        self._own = {
            name: Windows(item.amount, item.get_expiry()) for name, item in self.budgets.items()
        }

    async def allows(self, budget: str, who: str, cost: int = 1) -> bool:
        """Spend, and say whether it was still within the budget. Without Redis it stays limited,
        per process.
        """
        if self._shared is not None:
            try:
                return bool(await self._shared.hit(self.budgets[budget], budget, who, cost=cost))
            except StorageError:
                pass
        return self._own[budget].spend(who, cost)

    async def spend(self, budget: str, who: str, cost: int = 1) -> None:
        if await self.allows(budget, who, cost):
            return
        item = self.budgets[budget]
        wait = max(1, int(await self._wait(budget, who)) + 1)
        raise TooMany(
            f"The limit is {item.amount} in {item.get_expiry()} s; try again in {wait} s.",
            headers={
                "Retry-After": str(wait),
                "RateLimit-Policy": f'"{budget}";q={item.amount};w={item.get_expiry()}',
                "RateLimit": f'"{budget}";r=0;t={wait}',
            },
        )

    async def _wait(self, budget: str, who: str) -> float:
        """Seconds until it is worth another try."""
        if self._shared is not None:
            try:
                stats = await self._shared.get_window_stats(self.budgets[budget], budget, who)
                return stats.reset_time - time.time()
            except StorageError:
                pass
        return self._own[budget].wait(who)
