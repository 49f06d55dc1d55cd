"""The web application: routes of all domains, and with them the embedded worker where the settings
ask for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import Depends, FastAPI
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.types import Receive, Scope, Send

import app.consent.link_routes
import app.consent.remember
import app.consent.routes
import app.consent.shown
import app.dashboard.routes
import app.delivery.callbacks
import app.delivery.routes
import app.demo.shop
import app.destinations.routes
import app.notifications.alert_routes
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
from app.core.courtesy import Courtesy
from app.core.http import Guard, Shortcut, install_problem_handlers
from app.core.settings import Settings
from app.security.access import may_look_inside

Started = Callable[[Runtime], Awaitable[None]]


class _Application(FastAPI):
    """The framework with our layers around it: the guard, then the shortcut."""

    def surround(self, settings: Settings, courtesy: Courtesy) -> None:
        choices = Shortcut(
            self, super().__call__, "POST", "/v1/consent", app.consent.routes.post_consent
        )
        self._front = Guard(choices, settings, ops.observe, courtesy)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._front(scope, receive, send)


def create_app(settings: Settings, on_start: Started | None = None) -> FastAPI:
    """The application; ``on_start`` runs once everything is up, before the first request."""
    courtesy = Courtesy()

    @asynccontextmanager
    async def lifespan(application: FastAPI) -> AsyncIterator[None]:
        runtime = Runtime(settings, courtesy=courtesy)
        runtime.attach(application)
        application.state.checks = runtime.checks()
        try:
            await runtime.start(with_pumps=settings.is_embedded, with_worker=settings.is_embedded)
            if on_start is not None:
                await on_start(runtime)
            yield
        finally:
            await runtime.stop()

    application = _Application(
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
        app.consent.remember,
        app.consent.shown,
        app.consent.link_routes,
        app.sites.routes,
        app.suppression.routes,
        app.destinations.routes,
        app.delivery.routes,
        app.delivery.callbacks,
        app.subject_requests.routes,
        app.receipts.routes,
        app.security.routes,
        app.subject_requests.pages,
        app.notifications.routes,
        app.notifications.alert_routes,
        app.dashboard.routes,
        app.demo.shop,
    ):
        application.include_router(module.router)
    application.include_router(ops.router)
    application.include_router(ops.metrics_router, dependencies=[Depends(may_look_inside)])
    _add_front_door(application)
    _add_docs(application)
    install_problem_handlers(application, app.dashboard.routes.render_problem)
    application.surround(settings, courtesy)
    return application


def _add_front_door(application: FastAPI) -> None:
    @application.get("/", include_in_schema=False)
    async def front_door() -> RedirectResponse:
        """Nobody should see a bare 404 at the address that `quittance up` prints."""
        return RedirectResponse("/dashboard", 303)


def _add_docs(application: FastAPI) -> None:
    """The API's description, as JSON and as a page without scripts or third parties."""
    inside = [Depends(may_look_inside)]

    @application.get("/openapi.json", include_in_schema=False, dependencies=inside)
    async def openapi() -> dict[str, object]:
        return application.openapi()

    @application.get("/docs", include_in_schema=False, dependencies=inside)
    async def docs() -> HTMLResponse:
        return apidocs.page(application.openapi())
