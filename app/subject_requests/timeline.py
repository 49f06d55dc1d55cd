"""One line of a request's timeline per thing that happened to it."""

from __future__ import annotations

import datetime as dt
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from app.core.ids import new_id
from app.subject_requests.models import RequestEvent


def note(
    session: AsyncSession,
    request_id: str,
    type: str,
    actor: str,
    now: dt.datetime,
    *,
    delivery_id: str | None = None,
    **data: Any,
) -> None:
    """Add a line; ``type`` is a past participle such as ``verified``, ``data`` holds codes and
    counts.
    """
    session.add(
        RequestEvent(**event(request_id, type, actor, now, delivery_id=delivery_id, **data))
    )


def event(
    request_id: str,
    type: str,
    actor: str,
    now: dt.datetime,
    *,
    delivery_id: str | None = None,
    **data: Any,
) -> dict[str, Any]:
    """The row of a line, for those who insert many."""
    return {
        "id": new_id("evt"),
        "request_id": request_id,
        "at": now,
        "type": type,
        "actor": actor,
        "delivery_id": delivery_id,
        "data": data,
    }
