"""What parts of the widget tell in passing: small JSON bodies from a site's own pages, about nobody
in particular, answered with 204."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from fastapi import Request, Response
from pydantic import ValidationError

from app.core import errors
from app.core.http import Schema, client_network, json_body
from app.security.limits import RateLimits
from app.sites import cors
from app.sites.directory import PublishedSite, directory_of
from app.sites.errors import OriginNotListed, PartIsOff

Body = TypeVar("Body", bound=Schema)
_MAX_BODY = 16_384


async def take(
    request: Request,
    site_key: str,
    module: str,
    schema: type[Body],
    store: Callable[[PublishedSite, Body], Awaitable[None]],
) -> Response:
    """204 once ``store`` is done with the body. ``module``: the part that the published site must
    have turned on."""
    site, notice = await directory_of(request.app.state.database).published(site_key)
    headers = cors.headers(site, request)
    try:
        limits: RateLimits = request.app.state.limits
        await limits.spend("beacon", client_network(request))
        if not cors.allows(site, request.headers.get("origin")):
            raise OriginNotListed
        if module not in notice.content.get("modules", ()):
            raise PartIsOff(module)
        await store(site, await _read(request, schema))
    except errors.Problem as problem:
        problem.headers |= headers
        raise
    return Response(status_code=204, headers=headers)


async def preflight(request: Request, site_key: str) -> Response:
    site = await directory_of(request.app.state.database).site(site_key)
    return await cors.preflight(request, ["POST"], site)


async def _read(request: Request, schema: type[Body]) -> Body:
    if len(await request.body()) > _MAX_BODY:
        raise errors.TooLarge(f"Send at most {_MAX_BODY} bytes.")
    raw = await json_body(request)
    try:
        return schema.model_validate(raw)
    except ValidationError:
        members = ", ".join(f"`{name}`" for name in schema.model_fields)
        raise errors.Invalid(f"Send an object of {members}, and nothing else.") from None


def described(schema: type[Schema]) -> dict[str, Any]:
    """``openapi_extra`` of a route whose body is read here."""
    content = {"application/json": {"schema": schema.model_json_schema()}}
    return {"requestBody": {"required": True, "content": content}}
