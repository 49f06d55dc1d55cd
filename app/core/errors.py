"""What a caller can cause, as RFC 9457 problems.

Problem
├── BadRequest 400 · Unauthorized 401 · Forbidden 403 · NotFound 404 · MethodNotAllowed 405
├── Conflict 409 · Gone 410 · TooLarge 413 · WrongType 415 · Invalid 422 · TooMany 429
└── Unavailable 503
    └── DatabaseAway · NoRoom

Domains subclass these near what they guard. Anything else that rises is a bug: logged, answered 500
without detail.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar


class Problem(Exception):
    """Rendered as ``application/problem+json``; ``detail`` says what to do next and never repeats
    input.
    """

    status: ClassVar[int] = 500
    slug: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "Something went wrong here"

    def __init__(
        self,
        detail: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        errors: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(detail or self.title)
        self.detail = detail
        self.headers = dict(headers or {})
        self.errors = errors

    def as_dict(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "type": f"urn:quittance:problem:{self.slug}",
            "title": self.title,
            "status": self.status,
        }
        if self.detail:
            body["detail"] = self.detail
        if self.errors:
            body["errors"] = list(self.errors)
        return body


class BadRequest(Problem):
    status, slug, title = 400, "bad-request", "The request cannot be read"


class Unauthorized(Problem):
    status, slug, title = 401, "unauthorized", "A valid API key is needed"

    def __init__(self) -> None:
        super().__init__(
            "Send `Authorization: Bearer qt_...` with a key that is neither revoked nor expired.",
            headers={"WWW-Authenticate": "Bearer"},
        )


class Forbidden(Problem):
    status, slug, title = 403, "forbidden", "This is not allowed"


class NotFound(Problem):
    status, slug, title = 404, "not-found", "There is nothing here"

    def __init__(
        self,
        detail: str = "Check the address and the ids in it.",
        *,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail, headers=headers)


class MethodNotAllowed(Problem):
    status, slug, title = 405, "method-not-allowed", "This address does not take that method"


class Conflict(Problem):
    status, slug, title = 409, "conflict", "This does not fit the present state"


class Gone(Problem):
    status, slug, title = 410, "gone", "This is no longer here"


class TooLarge(Problem):
    status, slug, title = 413, "too-large", "The body is too large"


class WrongType(Problem):
    status, slug, title = 415, "unsupported-media-type", "This type of body is not taken here"


class Invalid(Problem):
    status, slug, title = 422, "invalid", "The request is not valid"


class TooMany(Problem):
    status, slug, title = 429, "too-many-requests", "Too many requests"


class Unavailable(Problem):
    status, slug, title = 503, "unavailable", "Not possible at this moment"


class DatabaseAway(Unavailable):
    slug, title = "database-away", "The database does not answer"

    def __init__(self) -> None:
        super().__init__(
            "Send it again in a moment. An answer that was lost may have been stored: with an "
            "Idempotency-Key nothing is done twice.",
            headers={"Retry-After": "5"},
        )


class NoRoom(Unavailable):
    slug, title = "no-room", "There is no room left to store this"

    def __init__(self) -> None:
        super().__init__(
            "Nothing was changed. Send it again later: the operator has to make room for the "
            "database first.",
            headers={"Retry-After": "30"},
        )
