"""The distributed form's clock. It knows the broker and nothing else of the service, so it starts
in a second and stays small.
"""

from __future__ import annotations

import signal
import threading

from app.core.broker import Hints, make_celery
from app.core.failpoints import failpoint
from app.core.logging import get_logger
from app.core.pump import PUMPS
from app.core.settings import Settings

log = get_logger(__name__)

SWEEP_EVERY = 5.0
MAINTAIN_EVERY = 3600.0


def run_scheduler(settings: Settings) -> None:
    """Repeat hints on a clock; several schedulers do no harm."""
    hints = Hints(make_celery(settings, PUMPS, lambda _: None))
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    log.info("scheduler_started")
    ticks = 0
    while not stop.wait(SWEEP_EVERY):
        failpoint("scheduler.before_publish")
        hints.publish(["sweep", "dispatch", "advance"])
        if ticks * SWEEP_EVERY % MAINTAIN_EVERY == 0:
            hints.publish(["maintain"])
        ticks += 1
    hints.close()
