"""The address at which destinations say how a job ended.

Open to everybody: what counts is the signature, which only the destination's connector can check.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request, Response

from app.core.clock import utc_now
from app.core.db import Database
from app.core.errors import Invalid, Problem, TooLarge
from app.core.http import StrictRoute, client_network
from app.core.logging import get_logger
from app.core.settings import Settings
from app.delivery import reports
from app.destinations.instances import Instances
from app.destinations.models import Destination
from app.destinations.running import checked_outcome
from app.security.limits import RateLimits
from connectors.contract import ConnectorError, NotAuthentic, Outcome

log = get_logger(__name__)

router = APIRouter(tags=["public"], route_class=StrictRoute)

MAX_BODY = 65_536
_ID = re.compile(r"dst_[0-9A-Za-z]{1,40}")


class NotSigned(Problem):
    status, slug, title = 401, "not-signed", "The signature does not fit"

    def __init__(self) -> None:
        super().__init__(
            "Sign this body with the destination's secret, with a timestamp that is at most five "
            "minutes off."
        )


@router.post("/hooks/{destination_id}", status_code=204)
async def take_callback(request: Request, destination_id: str) -> Response:
    """A destination says how its job ended, signed as its connector wants it. The same answer
    whether or not there is such a job; 401 for everything that is not signed by a destination.
    """
    limits: RateLimits = request.app.state.limits
    await limits.spend("callback", client_network(request))
    body = await request.body()
    if len(body) > MAX_BODY:
        raise TooLarge(f"Send at most {MAX_BODY} bytes.")
    told = await _heard(request, destination_id, body)
    if told:
        database: Database = request.app.state.database
        settings: Settings = request.app.state.settings
        async with database.writing() as session:
            await reports.store(session, destination_id, told, utc_now(), settings.identifier_cap)
        log.info("callback_taken", destination_id=destination_id, count=len(told))
    return Response(status_code=204)


async def _heard(request: Request, destination_id: str, body: bytes) -> Mapping[str, Outcome]:
    """What the destination's connector makes of it; until it is genuine, every answer is the
    same.
    """
    instances: Instances = request.app.state.instances
    destination = await _destination(request, destination_id)
    try:
        if destination is None or not instances.catalogue.listens(destination.connector):
            raise NotAuthentic
        async with instances.use(destination) as connector:
            return _checked(connector.callback(dict(request.headers), body))  # type: ignore[union-attr]
    except ConnectorError:
        raise NotSigned from None
    except ValueError:
        raise Invalid("The signature fits, but the body cannot be read.") from None
    except Exception as error:  # whatever it is, nothing was shown to be genuine
        log.error("callback_failed", destination_id=destination_id, error=type(error).__name__)
        raise NotSigned from None


async def _destination(request: Request, destination_id: str) -> Destination | None:
    database: Database = request.app.state.database
    if not _ID.fullmatch(destination_id):
        return None
    async with database.reading() as session:
        found = await session.get(Destination, destination_id)
    return found if found is not None and found.deleted_at is None else None


def _checked(told: Any) -> Mapping[str, Outcome]:
    """Refuse what the contract does not know (``TypeError``): nothing is closed by accident."""
    if not isinstance(told, Mapping) or not all(
        isinstance(job, str) and isinstance(each, Outcome) for job, each in told.items()
    ):
        raise TypeError("not a mapping from jobs to outcomes")
    for each in told.values():
        checked_outcome(each)
    return told
