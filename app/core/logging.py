"""Structured logs: an event name and known fields; anything else is dropped, so that no identifier
can slip in.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any, TextIO, cast

import structlog

FIELDS = frozenset(
    [
        "event",
        "level",
        "timestamp",
        "logger",
        "exception",
        "exc_info",
        "workspace_id",
        "request_id",
        "destination_id",
        "delivery_id",
        "call_id",
        "queue_id",
        "receipt_id",
        "site_id",
        "batch_id",
        "key_id",
        "admin_id",
        "mail_id",
        "task",
        "pump",
        "verdict",
        "state",
        "detail",
        "attempt",
        "status",
        "method",
        "route",
        "duration_ms",
        "count",
        "url_kind",
        "connector",
        "error",
        "reason",
        "token_number",
        "lease_seconds",
        "depth",
        "version",
        "host",
        "origin",
        "port",
        "kind",
        "action",
    ]
)


def drop_unknown(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Keep listed fields; long text is cut and control characters are escaped."""
    return {key: _clean(value) for key, value in event.items() if key in FIELDS}


def _clean(value: Any) -> Any:
    if not isinstance(value, str) or "\n  File" in value:
        return value
    return (
        value[:500].encode("unicode_escape").decode("ascii")
        if not value.isprintable()
        else value[:500]
    )


class _Lossy:
    """A stream whose disk may be full or whose reader may be gone: then lines are lost, and nobody
    fails who only wanted to say something.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


def configure(level: str, *, json: bool) -> None:
    """Route structlog and the standard library's loggers to standard error, once per process."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, drop_unknown, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", _Lossy(sys.stderr))),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(
        level=level, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s", force=True
    )
    for noisy in (
        "httpx",
        "httpcore",
        "aiohttp",
        "celery",
        "kombu",
        "sqlalchemy",
        "alembic",
        "asyncio",
    ):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("uvicorn.access").disabled = True


def get_logger(name: str) -> Any:
    return structlog.get_logger(name)
