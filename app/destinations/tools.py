"""The tools one destination's connector is given: all that it may touch the world with."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import httpx

from app.core.outbound import Outbound
from app.destinations.files import Files
from app.destinations.human_tasks import HumanTasks
from connectors.contract import Call, Trees

_CALL: ContextVar[Call] = ContextVar("call")
"""The call under way in this task or thread: calls side by side share one connector."""


@contextmanager
def making(call: Call) -> Iterator[None]:
    """Inside, ``tools.call`` is this call."""
    token = _CALL.set(call)
    try:
        yield
    finally:
        _CALL.reset(token)


class ToolBox:
    """Implements ``connectors.contract.Tools`` for one destination."""

    def __init__(
        self, *, destination_id: str, outbound: Outbound, files: Files, tasks: HumanTasks,
        secret: bytes, now: Callable[[], dt.datetime],
    ) -> None:  # fmt: skip
        self.destination_id = destination_id
        self.tasks = tasks
        self.secret = secret
        self.now = now
        self._outbound = outbound
        self._files = files

    @property
    def call(self) -> Call:
        return _CALL.get()

    @property
    def http(self) -> httpx.AsyncClient:
        return self._outbound.http

    def resolve(self, host: str, port: int) -> str:
        return self._outbound.resolve(host, port)

    def path(self, path: str) -> str:
        return self._files.path(path)

    def open_tree(self, url: str) -> Trees:
        return self._files.open_tree(url)
