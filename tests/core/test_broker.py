"""Hints over Celery: whatever lies in the queue, the worker lives and the next hint is heard."""

from __future__ import annotations

import asyncio
import threading

from app.core.broker import EmbeddedWorker, Hints, make_celery
from app.core.settings import Settings


async def test_wrk_009_messages_that_nobody_knows_leave_the_worker_alive() -> None:
    heard: list[str] = []
    woken = threading.Event()

    def wake(name: str) -> None:
        heard.append(name)
        woken.set()

    celery = make_celery(Settings(), ["dispatch", "sweep"], wake)
    celery.conf.task_default_queue = "wrk-009"
    worker, hints = EmbeddedWorker(celery), Hints(celery)
    worker.start()
    try:
        celery.send_task("quittance.no_such_task", ignore_result=True)
        celery.send_task("quittance.dispatch", args=["an", "older", "shape"], ignore_result=True)
        celery.send_task("quittance.dispatch", kwargs={"missing": "field"}, ignore_result=True)

        hints.publish(["sweep"])

        assert await asyncio.to_thread(woken.wait, 20)
        assert heard == ["sweep"]
        assert worker.is_alive
    finally:
        hints.close()
        await worker.stop()
