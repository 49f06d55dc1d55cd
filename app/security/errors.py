"""What a caller can get wrong about access."""

from __future__ import annotations

from app.core.errors import Conflict, Forbidden, Invalid


class MissingScope(Forbidden):
    slug, title = "missing-scope", "This key may not do that"


class KeyReused(Invalid):
    slug, title = "idempotency-key-reused", "This Idempotency-Key was used for another body"


class StillInProgress(Conflict):
    slug, title = (
        "idempotency-in-progress",
        "The first request with this Idempotency-Key is still in progress",
    )
