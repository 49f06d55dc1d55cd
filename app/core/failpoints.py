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
FAILPOINTS = (
    "intake.before_commit",
    "intake.after_commit",
    "plan.before_commit",
    "plan.after_commit",
    "claim.before_commit",
    "claim.after_commit",
    "call.before_send",
    "call.after_answer",
    "finish.before_commit",
    "finish.after_commit",
    "sweep.before_commit",
    "archive.before_write",
    "archive.after_write",
    "sign.before_commit",
    "sign.after_commit",
    "mail.after_send",
    "forget.after_keys",
    "scheduler.before_publish",
    "hint.before_publish",
)
"""Every place there is, in the order in which a request passes them."""


def armed(text: str) -> Callable[[str], None]:
    """The function that acts on ``text``, the variable's value."""
    place, _, action = text.partition("=")
    name, _, nth = place.partition(":")
    if name not in FAILPOINTS:
        raise ValueError(f"{VARIABLE}: there is no failpoint {name!r}")
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
