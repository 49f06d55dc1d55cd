"""While the database is away there is still a banner: the last one that was published."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

import pytest
from sqlalchemy.engine import make_url

from app.sites import directory
from app.sites.directory import directory_of
from tests.sites.stage import SHOP, Stage, stage


class Outage(Protocol):
    """A way to a database that can be closed. ``url`` leads over it."""

    url: str

    async def begin(self) -> None: ...

    async def end(self) -> None: ...


class Moved:
    """SQLite: another thing stands where the file was."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._file = Path(str(make_url(url).database))
        self._aside = self._file.with_suffix(".aside")

    async def begin(self) -> None:
        self._file.rename(self._aside)
        self._file.mkdir()

    async def end(self) -> None:
        self._file.rmdir()
        self._aside.rename(self._file)


class Relay:
    """PostgreSQL: a relay before the server, which hangs up, or falls silent."""

    def __init__(self, url: str, *, is_silent: bool) -> None:
        self._target = make_url(url)
        self._is_silent = is_silent
        self._is_open = True
        self._ends: list[asyncio.StreamWriter] = []

    async def start(self) -> Relay:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        target = self._target.set(host="127.0.0.1", port=port, query={})
        self.url = target.render_as_string(hide_password=False)
        return self

    async def begin(self) -> None:
        self._is_open = False
        if not self._is_silent:
            self._hang_up()

    async def end(self) -> None:
        self._is_open = True
        self._hang_up()

    async def stop(self) -> None:
        self._server.close()
        self._hang_up()

    def _hang_up(self) -> None:
        for each in self._ends:
            each.transport.abort()
        self._ends.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._ends.append(writer)
        if not self._is_open and not self._is_silent:
            self._hang_up()
            return
        if folder := self._target.query.get("host"):
            there = await asyncio.open_unix_connection(f"{folder}/.s.PGSQL.{self._target.port}")
        else:
            there = await asyncio.open_connection(self._target.host, self._target.port)
        self._ends.append(there[1])
        await asyncio.gather(self._pass(reader, there[1]), self._pass(there[0], writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                if self._is_open:
                    writer.write(data)
        except OSError:
            pass
        writer.close()


@pytest.fixture(params=["sqlite", "postgresql", "postgresql silent"])
async def outage(request: pytest.FixtureRequest) -> AsyncIterator[Outage]:
    if request.param == "sqlite":
        yield Moved(request.getfixturevalue("sqlite_url"))
        return
    url = request.getfixturevalue("postgres_url")
    relay = await Relay(url, is_silent=request.param.endswith("silent")).start()
    yield relay
    await relay.stop()


@pytest.fixture
async def service(
    outage: Outage,
    sqlite_keystore_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Stage]:
    """What is known of a site is old at once, and nobody waits long."""
    monkeypatch.setattr(directory, "_FRESH_SECONDS", 0.0)
    monkeypatch.setattr(directory, "_PATIENCE_SECONDS", 1.0)
    async with stage(outage.url, sqlite_keystore_url, tmp_path) as made:
        yield made


async def test_the_last_known_banner_is_served_while_the_database_is_away(
    service: Stage, outage: Outage
) -> None:
    site_key = await service.add_site()
    paths = [f"/b/{site_key}.js?region=DE", f"/v1/sites/{site_key}/banner?region=DE"]
    before = [await service.client.get(path, headers={"Origin": SHOP}) for path in paths]
    await service.database.close()

    await outage.begin()
    during = [await service.client.get(path, headers={"Origin": SHOP}) for path in paths]
    await outage.end()
    after = [await service.client.get(path, headers={"Origin": SHOP}) for path in paths]

    assert [each.status_code for each in before] == [200, 200]
    assert [each.content for each in during] == [each.content for each in before]
    assert during[1].headers["access-control-allow-origin"] == SHOP
    assert [each.content for each in after] == [each.content for each in before]


async def test_a_site_nobody_has_asked_for_yet_is_unavailable_not_unknown(
    service: Stage, outage: Outage
) -> None:
    site_key = await service.add_site()
    directory_of(service.database).forget(site_key)
    await service.database.close()

    await outage.begin()
    answer = await service.client.get(f"/b/{site_key}.js")
    await outage.end()

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert (await service.client.get(f"/b/{site_key}.js")).status_code == 200
