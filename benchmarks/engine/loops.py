"""The fastest event loop at hand, for the programs the engine is measured against."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Coroutine
from typing import Any


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run on uvloop where it is installed: a reference must not be slower than it could be."""
    try:
        factory = importlib.import_module("uvloop").new_event_loop
    except ImportError:
        factory = asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(work)
