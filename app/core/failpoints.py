"""Failpoints: places where a fault run makes this process die or stop.

``QUITTANCE_FAILPOINT=<name>[:<nth>][=kill|stop]``: at the nth passage (default the first) of the
named place the process gets SIGKILL (default) or SIGSTOP. Without the variable a failpoint is an
empty function. Not a setting: only ``make faults`` and its tests use it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

VARIABLE = "QUITTANCE_FAILPOINT"


def armed(text: str) -> Callable[[str], None]:
    """The function that acts on ``text``, the variable's value."""
    place, _, action = text.partition("=")
    name, _, nth = place.partition(":")
    number = signal.SIGSTOP if action == "stop" else signal.SIGKILL
    left = int(nth or 1)

    def reach(here: str) -> None:
        nonlocal left
        if here == name:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), number)

    return reach


def _pass(_here: str) -> None:
    """Nothing is armed."""


failpoint: Callable[[str], None] = armed(os.environ[VARIABLE]) if VARIABLE in os.environ else _pass
