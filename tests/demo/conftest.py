"""The demo on a fresh embedded instance: the whole application, its pumps running."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
import sqlalchemy as sa
import structlog
from fastapi import FastAPI

import app.tables
from app.compose import Runtime
from app.core.clock import utc_now
from app.core.http import Guard, install_problem_handlers
from app.core.settings import Settings
from app.crypto import keyring
from app.demo import seed, shop
from app.demo.store import Places
from app.notifications.postmen import FilePostman

BASE = "http://127.0.0.1:8321"
Found = TypeVar("Found")


@dataclass
class Demo:
    """What a test acts with; ``client`` looks at the shop's pages."""

    runtime: Runtime
    client: httpx.AsyncClient
    app: FastAPI

    @property
    def places(self) -> Places:
        return Places.of(self.runtime.settings)

    async def page(self, path: str, status: int = 200) -> str:
        answer = await self.client.get(path)
        assert answer.status_code == status, answer.text
        return answer.text

    async def rows(self, statement: str, **values: Any) -> list[Any]:
        async with self.runtime.database.reading() as session:
            return list((await session.execute(sa.text(statement), values)).all())

    async def dump(self) -> dict[str, list[Any]]:
        """Every row of the main database, by table."""
        async with self.runtime.database.reading() as session:
            return {
                each.name: sorted(map(repr, (await session.execute(sa.select(each))).all()))
                for each in app.tables.MAIN.sorted_tables
            }

    def mails(self) -> list[dict[str, Any]]:
        """Oldest first."""
        assert isinstance(self.runtime.postman, FilePostman)
        return list(reversed(self.runtime.postman.read()))

    async def eventually(self, look: Callable[[], Awaitable[Found]], seconds: float = 30) -> Found:
        """Until ``look`` finds something; the pumps are at work meanwhile."""
        for _ in range(int(seconds / 0.05)):
            if found := await look():
                return found
            await asyncio.sleep(0.05)
        raise AssertionError("it did not happen")


Start = Callable[..., Any]


@pytest.fixture
def start(sqlite_templates: dict[str, Path], tmp_path: Path) -> Callable[..., Any]:
    """``async with start() as demo``: the instance, again and again on the same data."""
    directory = tmp_path / "data"
    directory.mkdir()
    (directory / "shared").mkdir()
    shutil.copy(sqlite_templates["main"], directory / "quittance.sqlite")
    shutil.copy(sqlite_templates["keystore"], directory / "keys.sqlite")
    settings = Settings(data_dir=directory)
    keyring.create(settings.key_file)
    structlog.configure(processors=[structlog.processors.KeyValueRenderer()])

    @asynccontextmanager
    async def running(*, with_demo: bool = True) -> AsyncIterator[Demo]:
        runtime = Runtime(settings)
        application = FastAPI()
        runtime.attach(application)
        application.include_router(shop.router)
        install_problem_handlers(application, lambda request, problem: None)
        application.add_middleware(Guard, settings=settings, observe=lambda *_: None)
        await runtime.start(with_pumps=True, with_worker=False)
        try:
            if with_demo:
                await seed.ensure(runtime, utc_now(), waits=True)
            transport = httpx.ASGITransport(application)
            async with httpx.AsyncClient(transport=transport, base_url=BASE) as client:
                yield Demo(runtime, client, application)
        finally:
            await runtime.stop()

    return running


def site_key_in(page: str) -> str:
    found = re.search(r'href="/privacy/([^"]+)"', page)
    assert found
    return found[1]
