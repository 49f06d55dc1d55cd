"""The operator's own code that names a visitor's region: ``QUITTANCE_REGION_RESOLVER``."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping
from functools import lru_cache

from app.core.logging import get_logger
from app.sites.regimes import region_named

log = get_logger(__name__)

_QUIET_SECONDS = 60.0

Function = Callable[[Mapping[str, str], str], str | None]
"""Takes the request's headers (names in any case) and the client's address."""


class Resolver:
    """One function of the operator's. Whatever it raises or makes up, the region is unknown."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._function: Function | None = None
        self._quiet_until = 0.0

    def region(self, headers: Mapping[str, str], address: str) -> str | None:
        try:
            self._function = self._function or imported(self._name)
            return region_named(self._function(headers, address) or "")
        except Exception as error:
            self._tell(error)
            return None

    def _tell(self, error: Exception) -> None:
        """At most once a minute, and only the kind of error: its text may hold the address."""
        if (now := time.monotonic()) >= self._quiet_until:
            self._quiet_until = now + _QUIET_SECONDS
            log.warning("region_resolver_failed", error=type(error).__name__)


@lru_cache(maxsize=4)
def load(name: str) -> Resolver:
    return Resolver(name)


def imported(name: str) -> Function:
    """``module:function``; raises whatever the import does, AttributeError, or TypeError."""
    module, _, attribute = name.partition(":")
    function: Function = getattr(importlib.import_module(module), attribute)
    if not callable(function):
        raise TypeError(f"{name} is no function")
    return function
