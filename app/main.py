"""The web application: routes of all domains, and with them the embedded worker where the settings
ask for it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version

import sqlalchemy as sa
from fastapi import Depends, FastAPI, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from sqlmodel import col

import app.consent.routes
import app.dashboard.routes
import app.delivery.routes
import app.demo.shop
import app.destinations.routes
import app.notifications.routes
import app.receipts.routes
import app.security.routes
import app.sites.routes
import app.subject_requests.pages
import app.subject_requests.routes
import app.suppression.routes
from app import apidocs
from app.compose import Runtime
from app.core import ops
from app.core.clock import utc_now
from app.core.db import Database
from app.core.errors import NotFound
from app.core.http import Guard, install_problem_handlers
from app.core.settings import Settings
from app.delivery.models import VirtualQueue
from app.security.access import caller_of

Started = Callable[[Runtime], Awaitable[None]]


def create_app(settings: Settings, on_start: Started | None = None) -> FastAPI:
    """The application; ``on_start`` runs once everything is up, before the first request."""

    @asynccontextmanager
    async def lifespan(application: FastAPI) -> AsyncIterator[None]:
        runtime = Runtime(settings)
        runtime.attach(application)
        application.state.checks = _checks(runtime)
        await runtime.start(with_pumps=settings.is_embedded, with_worker=settings.is_embedded)
        try:
            if on_start is not None:
                await on_start(runtime)
            yield
        finally:
            await runtime.stop()

    application = FastAPI(
        title="Quittance",
        version=version("quittance"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        description=(
            "Consent that is proof, erasure that reaches every destination, receipts "
            "anyone can check."
        ),
    )
    for module in (
        app.consent.routes,
        app.sites.routes,
        app.suppression.routes,
        app.destinations.routes,
        app.delivery.routes,
        app.subject_requests.routes,
        app.receipts.routes,
        app.security.routes,
        app.subject_requests.pages,
        app.notifications.routes,
        app.dashboard.routes,
        app.demo.shop,
    ):
        application.include_router(module.router)
    application.include_router(ops.router)
    application.include_router(ops.metrics_router, dependencies=[Depends(_may_look_inside)])
    _add_front_door(application)
    _add_docs(application)
    install_problem_handlers(application, app.dashboard.routes.render_problem)
    application.add_middleware(Guard, settings=settings, observe=ops.observe)
    return application


async def _may_look_inside(request: Request) -> None:
    """Docs and metrics are open on loopback; elsewhere they need ``ops:read``, or do not exist."""
    settings: Settings = request.app.state.settings
    if not settings.is_loopback:
        caller = await caller_of(request)
        if not caller.scopes & {"ops:read", "all"}:
            raise NotFound


def _add_front_door(application: FastAPI) -> None:
    @application.get("/", include_in_schema=False)
    async def front_door() -> RedirectResponse:
        """Nobody should see a bare 404 at the address that `quittance up` prints."""
        return RedirectResponse("/dashboard", 303)


def _add_docs(application: FastAPI) -> None:
    """The API's description, as JSON and as a page without scripts or third parties."""
    inside = [Depends(_may_look_inside)]

    @application.get("/openapi.json", include_in_schema=False, dependencies=inside)
    async def openapi() -> dict[str, object]:
        return application.openapi()

    @application.get("/docs", include_in_schema=False, dependencies=inside)
    async def docs() -> HTMLResponse:
        return apidocs.page(application.openapi())


def _checks(runtime: Runtime) -> dict[str, ops.Check]:
    async def reach(database: Database) -> bool:
        async with database.reading() as session:
            await session.execute(sa.select(sa.literal(1)))
        return True

    async def dispatcher() -> bool:
        """Work that is due is being looked at: Celery workers can stall in silence, the database
        cannot.
        """
        async with runtime.database.reading() as session:
            stalled = await session.execute(
                sa.select(sa.literal(1))
                .where(
                    ~col(VirtualQueue.is_paused),
                    col(VirtualQueue.parked_reason).is_(None),
                    ~col(VirtualQueue.is_paused),
                    col(VirtualQueue.parked_reason).is_(None),
                    col(VirtualQueue.next_due)
                    < utc_now() - ops.STALL - dt.timedelta(seconds=runtime.settings.lease_seconds),
                )
                .limit(1)
            )
            return stalled.first() is None

    async def pumps() -> bool:
        return all(pump.failures < 3 for pump in runtime.pumps)

    return {
        "database": lambda: reach(runtime.database),
        "keystore": lambda: reach(runtime.key_database),
        "dispatcher": dispatcher,
        "pumps": pumps,
    }
