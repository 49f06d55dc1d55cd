"""Health, readiness and metrics."""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Protocol

import sqlalchemy as sa
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Histogram, generate_latest

from app.core.clock import rfc3339, utc_now
from app.core.errors import NotFound
from app.core.settings import Settings

HTTP_SECONDS = Histogram(
    "quittance_http_seconds",
    "Time to answer, by route template",
    ["method", "route"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
HTTP_ANSWERS = Counter(
    "quittance_http_answers", "Answers by route template and status", ["method", "route", "status"]
)

Check = Callable[[], Awaitable[bool]]


class Gauges(Protocol):
    """Metrics that have to be read from the database first."""

    async def text(self) -> bytes: ...


def observe(method: str, route: str, status: int, seconds: float) -> None:
    method = (
        method
        if method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
        else "other"
    )
    _seconds(method, route).observe(seconds)
    _answers(method, route, status).inc()


@lru_cache(maxsize=1024)
def _seconds(method: str, route: str) -> Histogram:
    return HTTP_SECONDS.labels(method, route)


@lru_cache(maxsize=1024)
def _answers(method: str, route: str, status: int) -> Counter:
    return HTTP_ANSWERS.labels(method, route, str(status))


router = APIRouter(tags=["operations"])
metrics_router = APIRouter(tags=["operations"])


@router.get("/healthz")
async def healthz() -> dict[str, object]:
    """The process answers."""
    return {"status": "ok", "checks": {"process": "ok"}}


@router.get("/readyz")
async def readyz(request: Request) -> JSONResponse:
    """The service can do its work: databases reachable, background work getting on."""
    checks: dict[str, Check] = request.app.state.checks
    results = {name: "ok" if await _is_ok(check) else "fail" for name, check in checks.items()}
    is_ready = all(each == "ok" for each in results.values())
    return JSONResponse(
        {"status": "ok" if is_ready else "fail", "checks": results}, 200 if is_ready else 503
    )


async def _is_ok(check: Check) -> bool:
    try:
        return await check()
    except (sa.exc.SQLAlchemyError, OSError, TimeoutError):
        return False


@router.get("/.well-known/security.txt", response_class=PlainTextResponse)
async def security_txt(request: Request) -> PlainTextResponse:
    """Where to report security problems (RFC 9116)."""
    settings: Settings = request.app.state.settings
    if not settings.security_contact:
        raise NotFound("The operator has not set QUITTANCE_SECURITY_CONTACT.")
    expires = (utc_now() + dt.timedelta(days=180)).replace(microsecond=0)
    lines = [
        f"Contact: {settings.security_contact}",
        f"Expires: {rfc3339(expires)}",
        f"Canonical: {settings.public_url}/.well-known/security.txt",
    ]
    return PlainTextResponse("\n".join(lines) + "\n")


@metrics_router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Prometheus metrics; no labels of people, sites or workspaces."""
    gauges: Gauges = request.app.state.gauges
    return Response(generate_latest() + await gauges.text(), media_type=CONTENT_TYPE_LATEST)
