"""Static files: those present at start, by exact name."""

from __future__ import annotations

from fastapi import Request, Response

from app.core.errors import NotFound
from app.dashboard.access import router
from app.dashboard.render import assets


@router.get("/static/{name:path}")
async def static_file(name: str, request: Request) -> Response:
    found = assets().get(name)
    if found is None:
        raise NotFound
    is_versioned = request.query_params.get("v") == found.version
    headers = {
        "Cache-Control": "public, max-age=31536000, immutable" if is_versioned else "no-cache",
        "ETag": f'"{found.version}"',
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
        "Cross-Origin-Resource-Policy": "cross-origin",  # the preview frame has no origin
    }
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(found.content, media_type=found.media_type, headers=headers)
