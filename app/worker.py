"""The distributed form's workers: processes that run the pumps."""

from __future__ import annotations

import asyncio
import socket
import threading

import uvicorn
import uvloop
from fastapi import Depends, FastAPI

from app.compose import Runtime
from app.core import ops
from app.core.http import install_problem_handlers
from app.core.logging import get_logger
from app.core.pump import spare_the_collector
from app.core.settings import Settings
from app.security.access import may_look_inside

log = get_logger(__name__)


def run_worker(settings: Settings) -> None:
    """Pumps on one event loop in a thread of their own; Celery in the main thread, to take hints
    and signals.

    Without a broker the pumps go on by looking at SQL; Celery keeps trying to reconnect.
    """
    loop = uvloop.new_event_loop()
    ready = threading.Event()
    runtime: list[Runtime] = []
    failure: list[BaseException] = []

    async def start() -> None:
        runtime.append(Runtime(settings))
        await runtime[0].start(with_pumps=True, with_worker=False)
        if settings.worker_metrics_port:
            _open_port(runtime[0])
        spare_the_collector()

    def turn() -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(start())
        except BaseException as error:
            failure.append(error)
            return
        finally:
            ready.set()
        loop.run_forever()

    thread = threading.Thread(target=turn, name="loop", daemon=True)
    thread.start()
    ready.wait()
    if failure:
        raise failure[0]
    log.info("worker_started")
    try:
        runtime[0].celery.Worker(
            pool="threads",
            concurrency=2,
            loglevel="WARNING",
            without_gossip=True,
            without_heartbeat=True,
            without_mingle=True,
            quiet=True,
        ).start()
    finally:
        asyncio.run_coroutine_threadsafe(runtime[0].stop(), loop).result(timeout=30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=5)


def health_app(runtime: Runtime) -> FastAPI:
    """Health and metrics of this process."""
    application = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    runtime.attach(application)
    application.state.checks = runtime.checks()
    application.include_router(ops.router)
    application.include_router(ops.metrics_router, dependencies=[Depends(may_look_inside)])
    install_problem_handlers(application, lambda *_: None)
    return application


def _open_port(runtime: Runtime) -> None:
    """Answered by the loop that does the work: when that hangs, so does the answer."""
    settings = runtime.settings
    server = uvicorn.Server(
        uvicorn.Config(
            health_app(runtime),
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
        )
    )
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.create_server((settings.host, settings.worker_metrics_port), family=family)
    task = asyncio.create_task(server.serve([listening]), name="metrics")

    async def close() -> None:
        server.should_exit = True
        await task

    runtime.closers.append(close)
