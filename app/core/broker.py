"""Celery as the carrier of hints: a task's body only wakes a pump of its process.

Messages carry a name and nothing else. They are published after commit, coalesced, and dropped when
the broker is away: every pump also looks by itself. No result backend, no ETA, no chords, early
acknowledgement (a lost hint is found by SQL within a second; a late one would be redelivered).
"""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from celery import Celery
from celery.exceptions import SecurityWarning
from prometheus_client import Counter

from app.core.failpoints import failpoint
from app.core.logging import get_logger
from app.core.settings import Settings

log = get_logger(__name__)

HINTS_DROPPED = Counter(
    "quittance_hints_dropped", "Hints that the broker did not take; polling makes up for them"
)

Wake = Callable[[str], None]


def make_celery(settings: Settings, pump_names: Iterable[str], wake: Wake) -> Celery:
    """A Celery app of this process alone, with one task per pump; ``wake`` is thread-safe."""
    broker = "memory://localhost/" if settings.is_embedded else settings.broker_url
    app = Celery("quittance", broker=broker, backend=None, set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        task_ignore_result=True,
        task_acks_late=False,
        task_default_queue="quittance",
        task_default_delivery_mode="transient",
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_redirect_stdouts=False,
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={"polling_interval": 0.01}
        if settings.is_embedded
        else {"socket_timeout": 5, "socket_connect_timeout": 1}
        if settings.broker_url.startswith("redis")
        else {},
    )
    for name in pump_names:
        app.task(_body(name, wake), name=f"quittance.{name}", shared=False)
    return app


def _body(name: str, wake: Wake) -> Callable[..., None]:
    def task(shard: int = 0) -> None:
        wake(name)

    return task


SPACING = 0.1
"""Seconds between publications: what is hinted meanwhile goes out once."""


class Hints:
    """Publishes hints without making anybody wait: at most one of each kind is under way."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._pending: set[str] = set()
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="hints")
        self._is_closed = threading.Event()

    def publish(self, names: Iterable[str]) -> None:
        fresh = set(names)
        with self._lock:
            is_first = bool(fresh) and not self._pending
            self._pending |= fresh
        if is_first:
            self._thread.submit(self._send_pending)

    def _send_pending(self) -> None:
        with self._lock:
            names, self._pending = self._pending, set()
        for name in sorted(names):
            self._send(name)
        self._is_closed.wait(SPACING)

    def _send(self, name: str) -> None:
        failpoint("hint.before_publish")
        try:
            self._app.send_task(
                f"quittance.{name}", retry=False, ignore_result=True, argsrepr="()", kwargsrepr="{}"
            )
        except Exception as error:  # the broker is away: the pumps find the work by themselves
            HINTS_DROPPED.inc()
            log.warning("hint_dropped", pump=name, error=type(error).__name__)

    def close(self) -> None:
        self._is_closed.set()
        self._thread.shutdown(wait=False, cancel_futures=True)


class EmbeddedWorker:
    """A Celery worker in a thread of this process, on the in-memory broker."""

    def __init__(self, app: Celery) -> None:
        # Celery warns root of workers that unpickle; this one reads names in JSON.
        warnings.filterwarnings("ignore", category=SecurityWarning)
        self._worker: Any = app.Worker(
            pool="threads",
            concurrency=2,
            loglevel="ERROR",
            without_heartbeat=True,
            without_gossip=True,
            without_mingle=True,
            quiet=True,
        )
        self._thread = threading.Thread(target=self._worker.start, daemon=True, name="celery")

    def start(self) -> None:
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    async def stop(self) -> None:
        await asyncio.to_thread(self._worker.stop)
        await asyncio.to_thread(self._thread.join, 5)
