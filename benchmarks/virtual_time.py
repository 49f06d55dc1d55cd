"""Virtual time: whoever sleeps is woken at once, and the clock says that the time has passed.

An event loop that has nothing to run moves its clock to the next timer instead of waiting for it.
``datetime.now`` and the other clocks of the process follow. What would be done in a thread
(SQLite's statements) is done on the spot, and its answer comes after ``TRIP``, however long it
really took: two runs of the same program do the same in the same order.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import selectors
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar
from unittest import mock

import time_machine
from aiosqlite.core import set_exception, set_result

from app.core import sqlite

T = TypeVar("T")

TRIP = 0.0005
"""Seconds of virtual time that a statement or any other call in a thread takes."""


def run(main: Callable[[], Coroutine[Any, Any, T]], start: dt.datetime) -> T:
    """What ``main`` returns; it finds the clock at ``start`` and the loop's time at 0."""
    with (
        time_machine.travel(start, tick=False) as traveller,
        asyncio.Runner(loop_factory=lambda: VirtualLoop(traveller)) as runner,
        mock.patch("time.monotonic", runner.get_loop().time),
        mock.patch("time.perf_counter", runner.get_loop().time),
        mock.patch("app.core.db.connect", _connect),
    ):
        return runner.run(main())


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its ``time`` is seconds since it was made; the traveller's clock goes with it."""

    def __init__(self, traveller: time_machine.Traveller) -> None:
        self._traveller = traveller
        self._now = 0.0
        super().__init__(_NeverWaits(self._pass))

    def time(self) -> float:
        return self._now

    def _pass(self, seconds: float) -> None:
        self._now += seconds
        self._traveller.shift(seconds)

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        future = self.create_future()
        _do(future, lambda: func(*args))
        return future


class _NeverWaits(selectors.SelectSelector):
    def __init__(self, wait: Callable[[float], None]) -> None:
        super().__init__()
        self._wait = wait

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise RuntimeError("Nothing is left to run and no timer is set.")
        if timeout > 0:
            self._wait(timeout)
        return super().select(0)


def _connect(database: str | Path, **options: Any) -> sqlite.OneTripConnection:
    """The service's connection, without its thread."""
    connection = sqlite.connect(database, **options)
    connection._tx = _OnTheSpot()  # type: ignore[assignment]
    connection._thread = Thread(target=int)  # it is started, and ends
    return connection


class _OnTheSpot:
    """In place of the queue to a connection's thread."""

    def put_nowait(self, trip: tuple[asyncio.Future[Any], Callable[[], Any]]) -> None:
        _do(*trip)


def _do(future: asyncio.Future[Any], function: Callable[[], Any]) -> None:
    later = partial(future.get_loop().call_later, TRIP)
    try:
        later(set_result, future, function())
    except Exception as error:
        later(set_exception, future, error)
