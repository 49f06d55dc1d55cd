"""Runs a connector's method where it wants to run, with a deadline; a failure is an outcome."""

from __future__ import annotations

import asyncio
import contextvars
import datetime as dt
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import httpx

from app.core.logging import get_logger
from app.core.outbound import AnswerTooLarge
from app.destinations.tools import making
from connectors.contract import (
    AddressRefused,
    AnyConnector,
    Call,
    ConnectorError,
    Lookups,
    Outcome,
    Outcomes,
    retry,
)

log = get_logger(__name__)

_ANSWERS_WITH_OUTCOMES = frozenset({"erase", "suppress", "unsuppress", "poll"})


class Busy(Exception):
    """All threads of the destination are still held by earlier calls."""


class Runner:
    """``threads``: blocking calls at once; ``per_destination``: how many of them one may hold.

    A blocking call that passes its deadline goes on in its thread, and holds its place until it
    ends: a hanging destination runs out of its own places, not of the others'.
    """

    def __init__(self, threads: int = 64, per_destination: int = 4) -> None:
        self._pool = ThreadPoolExecutor(threads, "connector")
        self._per_destination = per_destination
        self._places: dict[str, asyncio.Semaphore] = {}

    async def run(
        self, connector: AnyConnector, method: str, *args: Any, call: Call,
        deadline: dt.timedelta | None = None,
    ) -> Outcomes | Lookups:  # fmt: skip
        """What ``method`` answered, or the ``Outcome`` that its failure means; raises nothing.

        ``erase``, ``suppress``, ``unsuppress``: ``Outcomes``; ``poll``: an ``Outcome``; ``lookup``
        and ``resolve``: their mapping, or an ``Outcome`` when it went wrong.
        """
        try:
            answer = await self.attempt(connector, method, *args, call=call, deadline=deadline)
            return checked(method, answer)
        except Exception as error:
            outcome = outcome_of(error)
            if outcome.reason == "connector_error":
                log.error(
                    "connector_failed", destination_id=_place_of(connector), method=method,
                    connector=type(connector).__name__, error=type(error).__name__,
                )  # fmt: skip
            return outcome

    async def attempt(
        self, connector: AnyConnector, method: str, *args: Any, call: Call,
        deadline: dt.timedelta | None = None,
    ) -> Any:  # fmt: skip
        """The bare answer; raises whatever the connector raises, ``TimeoutError`` or ``Busy``."""
        function = partial(getattr(connector, method), *args)
        if connector.runs_in != "loop":
            return await self.attempt_blocking(connector, function, call=call, deadline=deadline)
        with making(call):
            async with asyncio.timeout((deadline or connector.timeout).total_seconds()):
                return await function()

    async def attempt_blocking(
        self, connector: AnyConnector, function: Callable[[], Any], *, call: Call,
        deadline: dt.timedelta | None = None,
    ) -> Any:  # fmt: skip
        """The same for a plain function of the connector."""
        with making(call):
            seconds = (deadline or connector.timeout).total_seconds()
            return await self._in_thread(connector, function, seconds)

    def close(self) -> None:
        """Start nothing more; what runs is left to end by itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _in_thread(
        self, connector: AnyConnector, function: Callable[[], Any], seconds: float
    ) -> Any:
        places = self._places.setdefault(
            _place_of(connector),
            asyncio.Semaphore(max(1, min(self._per_destination, connector.concurrency))),
        )
        started: Future[Any] | None = None
        try:
            async with asyncio.timeout(seconds):
                await places.acquire()
                try:
                    started = self._pool.submit(contextvars.copy_context().run, function)
                except BaseException:
                    places.release()
                    raise
                loop = asyncio.get_running_loop()
                started.add_done_callback(partial(_give_back, loop, places))
                return await asyncio.wrap_future(started)
        except TimeoutError:
            if started is None or started.cancelled():
                raise Busy from None
            raise


def _give_back(loop: asyncio.AbstractEventLoop, places: asyncio.Semaphore, _: Future[Any]) -> None:
    with suppress(RuntimeError):  # the loop is gone, and the places with it
        loop.call_soon_threadsafe(places.release)


def _place_of(connector: AnyConnector) -> str:
    return str(getattr(connector.tools, "destination_id", id(connector)))


def outcome_of(error: Exception) -> Outcome:
    """What an exception means for the delivery; what was sent may have been applied: a retry."""
    match error:
        case AddressRefused():
            return retry("address_refused", parks=True)
        case ConnectorError():
            return retry("misconfigured", parks=True)
        case Busy():
            return retry("busy")
        case AnswerTooLarge():
            return retry("answer_too_large")
        case httpx.TimeoutException() | TimeoutError():
            return retry("timeout")
        case httpx.TransportError() | OSError():
            return retry("unreachable")
    return retry("connector_error")


def checked(method: str, answer: Any) -> Outcomes | Lookups:
    """Refuse what the contract does not know (``TypeError``): nothing is done by accident; and what
    no database can keep (``ValueError``): it would stop everybody's answers from being recorded.
    """
    if isinstance(answer, Outcome):
        return checked_outcome(answer)
    if method == "poll" or not isinstance(answer, Mapping):
        raise TypeError("not an outcome")
    if method != "lookup" and not all(isinstance(each, Outcome) for each in answer.values()):
        raise TypeError("not a mapping of outcomes")
    for each in answer.values():
        if isinstance(each, Outcome):
            checked_outcome(each)
    return answer


def checked_outcome(outcome: Outcome) -> Outcome:
    """See ``checked``."""
    texts = (
        outcome.reason,
        outcome.job,
        *(text for each in outcome.residuals for text in (each.what, each.reason, each.until)),
    )
    if not all(each is None or _can_be_kept(each) for each in texts):
        raise ValueError("not a text that can be kept")
    for name, value in outcome.facts.items():
        if not _can_be_kept(name) or not (_can_be_kept(value) or _is_whole(value, _MAX_SAFE)):
            raise ValueError("not a fact that can be kept")
    if outcome.http_status is not None and not _is_whole(outcome.http_status, 999):
        raise ValueError("not an HTTP status")
    if outcome.retry_after is not None and not isinstance(outcome.retry_after, dt.timedelta):
        raise TypeError("not a time to wait")
    return outcome


_MAX_SAFE = 2**53 - 1
"""The largest whole number that every reader of JSON takes for what it is."""


def _is_whole(value: object, most: int) -> bool:
    return isinstance(value, int) and abs(value) <= most


def _can_be_kept(text: object) -> bool:
    """A text without NUL and halves of surrogate pairs."""
    if not isinstance(text, str) or "\0" in text:
        return False
    return text.isascii() or not any("\ud800" <= each <= "\udfff" for each in text)
