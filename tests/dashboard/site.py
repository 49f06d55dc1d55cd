"""The dashboard on a real database, without background work, for tests and for looking at it."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from app.compose import Runtime
from app.core.http import Guard, install_problem_handlers
from app.core.settings import Settings
from app.crypto import keyring
from app.dashboard.routes import render_problem, router


def make_runtime(directory: Path, main_url: str, keys_url: str, **settings: Any) -> Runtime:
    chosen = Settings(
        data_dir=directory,
        database_url=main_url,
        keystore_url=keys_url,
        **{"login_per_minute": 1000, **settings},
    )
    if not chosen.key_file.exists():
        keyring.create(chosen.key_file)
    return Runtime(chosen)


def make_site(runtime: Runtime) -> FastAPI:
    """The dashboard's routes as composition mounts them; a route with a bug stands beside them."""
    site = FastAPI(openapi_url=None)
    runtime.attach(site)
    site.include_router(router)

    @site.get("/privacy/{site_key}")
    async def fail(site_key: str) -> dict[str, str]:
        raise RuntimeError(site_key)

    install_problem_handlers(site, render_problem)
    site.add_middleware(Guard, settings=runtime.settings, observe=lambda *_: None)
    return site


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
