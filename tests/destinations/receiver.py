"""A real HTTP server on loopback, answering as the test says and remembering what it was sent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Receiver:
    """``answer`` may be exchanged while it runs."""

    answer: Answer
    port: int = 0
    seen: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    """Method, path, headers (names in lower case), body."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def says(self, status: int, json: object = None, **headers: str) -> None:
        """Answer everything with this status, JSON body and headers (``_`` stands for ``-``)."""

        async def answer(_: web.Request) -> web.Response:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            if json is None:
                return web.Response(status=status, headers=named)
            return web.json_response(json, status=status, headers=named)

        self.answer = answer


async def _no_content(_: web.Request) -> web.Response:
    return web.Response(status=204)


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver(_no_content)

    async def handle(request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        made.seen.append((request.method, request.path_qs, headers, await request.read()))
        return await made.answer(request)

    app = web.Application(client_max_size=64 << 20)
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.port = runner.addresses[0][1]
    try:
        yield made
    finally:
        await runner.cleanup()
