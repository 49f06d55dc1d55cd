"""Running the web application with uvicorn, and saying where to go once it is ready."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi import FastAPI

from app import bootstrap
from app.compose import Runtime
from app.core.clock import utc_now
from app.core.pump import spare_the_collector
from app.core.settings import Settings
from app.demo import seed
from app.main import create_app

_ALONE = (
    "QUITTANCE_BROKER_URL is memory://: this process does all background work itself, and no other "
    "one is told of it. The distributed form needs redis://... or amqp://...\n"
)


def up(settings: Settings, *, with_demo: bool, as_json: bool) -> None:
    """The embedded form: prepare, start, print the addresses, serve until stopped."""
    welcome: dict[str, Any] = {}

    async def on_start(runtime: Runtime) -> None:
        if with_demo:
            await seed.ensure(runtime, utc_now())
        welcome.update(await _welcome(runtime))

    def announce() -> None:
        if as_json:
            shown = {
                name: welcome[name] for name in ("base_url", "api_key", "admin_link", "site_key")
            }
            sys.stdout.write(json.dumps(shown) + "\n")
        else:
            sys.stdout.write(_text(welcome))
        sys.stdout.flush()

    bootstrap.make_data_dir(settings)
    with bootstrap.lock(settings.data_dir, settings.public_url):
        _check_port(settings)
        bootstrap.prepare(settings)
        _Server(settings, create_app(settings, on_start), announce).run()


def _check_port(settings: Settings) -> None:
    """Before anything is prepared: nobody else may listen there."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise bootstrap.CannotStart(
                f"{settings.host}:{settings.port} cannot be used ({error.strerror}). "
                "Choose another port with --port, or --port 0 for a free one."
            ) from None


def serve(settings: Settings) -> None:
    """The web process of the distributed form."""

    def warn() -> None:
        if settings.is_embedded:
            sys.stderr.write(_ALONE)
            sys.stderr.flush()

    with bootstrap.hold(settings):
        _check_port(settings)
        _Server(settings, create_app(settings), warn).run()


class _Server(uvicorn.Server):
    """Starts the application before it listens, and calls ``announce`` once it does. What stands
    in the application's way is raised to whoever runs the server.
    """

    def __init__(
        self, settings: Settings, application: FastAPI, announce: Callable[[], None]
    ) -> None:
        super().__init__(_config(settings, application))
        self._life = application.router.lifespan_context(application)
        self._announce = announce

    async def startup(self, sockets: Any = None) -> None:
        await self._life.__aenter__()
        try:
            await super().startup(sockets)
        except BaseException:
            await self._life.__aexit__(None, None, None)
            raise
        if self.started:
            spare_the_collector()
            self._announce()

    async def shutdown(self, sockets: Any = None) -> None:
        await super().shutdown(sockets)
        if not self.force_exit:
            await self._life.__aexit__(None, None, None)


def _config(settings: Settings, application: Any) -> uvicorn.Config:
    return uvicorn.Config(
        application,
        host=settings.host,
        port=settings.port,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=10,
        proxy_headers=False,
        h11_max_incomplete_event_size=65_536,
    )


async def _welcome(runtime: Runtime) -> dict[str, Any]:
    """A fresh key, a fresh admin link, and the addresses; makes the first workspace if there is
    none.
    """
    now = utc_now()
    async with runtime.database.writing() as session:
        workspace = await bootstrap.first_workspace(session) or await bootstrap.create_workspace(
            session, "Default", now
        )
        key = await bootstrap.fresh_key(session, workspace.id, now)
        link = await bootstrap.fresh_invite(session, runtime.settings, workspace.id, now)
        site_key = await bootstrap.first_site_key(session, workspace.id)
    return {
        "base_url": runtime.settings.public_url,
        "api_key": key,
        "admin_link": link,
        "site_key": site_key,
        "is_demo": workspace.is_demo,
    }


def _text(welcome: dict[str, Any]) -> str:
    base, site_key = welcome["base_url"], welcome["site_key"]
    lines = ["", "Quittance is ready.", ""]
    if welcome["is_demo"]:
        lines.append(f"  Demo shop      {base}/demo/")
    if site_key:
        lines.append(f"  Request form   {base}/privacy/{site_key}")
    lines += [
        f"  Dashboard      {welcome['admin_link']}   (works once)",
        f"  Mail           {base}/dev/mail",
        f"  API docs       {base}/docs",
        f"  API key        {welcome['api_key']}",
        "",
        "  Stop with Ctrl-C.",
        "",
    ]
    return "\n".join(lines) + "\n"
