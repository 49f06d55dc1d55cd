"""HTTP manners shared by all routes: strict JSON, size limits, problems, security headers,
sessions, cursors.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Response, params
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from itsdangerous import BadData, URLSafeSerializer
from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core import errors
from app.core.courtesy import Courtesy, NoTurn
from app.core.db import Database, is_away, is_full
from app.core.logging import get_logger
from app.core.settings import Settings

log = get_logger(__name__)


class Schema(BaseModel):
    """Base of everything that crosses HTTP: unknown names are refused. Use StrictBool and
    StrictInt: JSON has types.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class Says:
    """What is said of a value that does not fit, in place of its pattern. It costs nothing where
    the value fits: the compiled validator looks here only to refuse.
    """

    text: str

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.custom_error_schema(
            handler(source), "does_not_fit", custom_error_message=self.text
        )


# --- strict JSON ----------------------------------------------------------------------


def strict_json(body: bytes) -> Any:
    """One JSON behaviour everywhere: no duplicate names, NaN, huge numbers, lone surrogates, NULs
    or deep nesting.
    """
    try:
        text = body.decode("utf-8-sig")
        value = _STRICT.decode(text)
        if "\\ud" in text or "\\uD" in text or "\\u0000" in text:
            _check_text(value)
    except errors.BadRequest:
        raise
    except (ValueError, RecursionError):
        raise errors.BadRequest("The body is not valid JSON in UTF-8.") from None
    return value


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise errors.BadRequest("The body names a member twice.")
    return members


def _refuse(_: str) -> Any:
    raise errors.BadRequest("The body holds NaN or Infinity, which JSON does not know.")


def _finite(text: str) -> float:
    number = float(text)
    if number in {float("inf"), float("-inf")}:
        raise errors.BadRequest("The body holds a number that is too large.")
    return number


_STRICT = json.JSONDecoder(
    object_pairs_hook=_no_duplicates, parse_constant=_refuse, parse_float=_finite
)


def _check_text(value: Any) -> None:
    """Refuse lone surrogates and NUL characters in names and strings."""
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, dict):
            todo.extend(item)
            todo.extend(item.values())
        elif isinstance(item, list):
            todo.extend(item)
        elif isinstance(item, str) and (
            "\x00" in item or any("\ud800" <= each <= "\udfff" for each in item)
        ):
            raise errors.BadRequest("The body holds a lone surrogate or a NUL character.")


class StrictRequest(Request):
    """A request whose JSON body is read strictly, and only under a JSON content type."""

    async def json(self) -> Any:
        if not hasattr(self, "_strict_json"):
            self._strict_json = strict_json(await self.body())
        return self._strict_json


async def json_body(request: Request) -> Any:
    """The body, read strictly, and only under its own type: that makes browsers ask first."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise errors.WrongType("Send the body as `Content-Type: application/json`.")
    return await request.json()


class StrictRoute(APIRoute):
    """Routes with JSON bodies answer 415 to any other content type, before anything is read into a
    model.
    """

    def get_route_handler(self) -> Callable[[Request], Any]:
        handle = super().get_route_handler()
        takes_json = self.body_field is not None and not isinstance(
            self.body_field.field_info, params.Form
        )

        async def handler(request: Request) -> Response:
            strict = StrictRequest(request.scope, request.receive)
            if takes_json:
                await json_body(strict)  # here, where its problems keep their own status
            return await handle(strict)

        return handler


# --- problems -------------------------------------------------------------------------


def problem_response(problem: errors.Problem) -> JSONResponse:
    return JSONResponse(
        problem.as_dict(),
        problem.status,
        headers=problem.headers,
        media_type="application/problem+json",
    )


def _for_a_script_tag(problem: errors.Problem) -> Response:
    """Browsers drop JSON that a script tag of another origin asked for without a word on their
    console (opaque response blocking); of what is no JSON they tell address and status.
    """
    headers = {**problem.headers, "Cross-Origin-Resource-Policy": "cross-origin"}
    text = f"// {json.dumps(problem.as_dict())}\n"
    return Response(text, problem.status, headers, media_type="text/javascript")


_BY_STATUS = {
    kind.status: kind
    for kind in (
        errors.BadRequest,
        errors.Forbidden,
        errors.NotFound,
        errors.MethodNotAllowed,
        errors.TooLarge,
        errors.WrongType,
        errors.Invalid,
        errors.TooMany,
        errors.Unavailable,
    )
}


def install_problem_handlers(
    app: FastAPI, page: Callable[[Request, errors.Problem], Response | None]
) -> None:
    """Every error is a problem; ``page`` may render it as HTML where a person is looking."""

    def answer(request: Request, problem: errors.Problem) -> Response:
        is_banner = request.url.path.startswith("/b/")
        if is_banner and request.headers.get("sec-fetch-dest") == "script":
            return _for_a_script_tag(problem)
        return page(request, problem) or problem_response(problem)

    @app.exception_handler(errors.Problem)
    async def _problem(request: Request, problem: errors.Problem) -> Response:
        return answer(request, problem)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> Response:
        if any(each["type"] == "json_invalid" for each in error.errors()):
            return answer(request, errors.BadRequest("The body is not valid JSON."))
        return answer(request, wrong_members(error.errors()))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        kind = _BY_STATUS.get(error.status_code, errors.BadRequest)
        return answer(request, kind(headers=error.headers))

    @app.exception_handler(ClientDisconnect)
    async def _gone(request: Request, _: ClientDisconnect) -> Response:
        """The caller hung up in the middle of its body: nobody reads this, and it is no bug."""
        return problem_response(errors.BadRequest("The body ended too early."))

    @app.exception_handler(OperationalError)
    async def _out_of_order(request: Request, error: OperationalError) -> Response:
        if is_full(error):
            log.error(
                "no_room", route=route_template(request.scope), error=type(error.orig).__name__
            )
            return answer(request, errors.NoRoom())
        return await (_away if is_away(error) else _bug)(request, error)

    @app.exception_handler(InterfaceError)
    @app.exception_handler(NoTurn)
    @app.exception_handler(PoolTimeout)
    async def _away(request: Request, error: Exception) -> Response:
        log.error(
            "database_away",
            route=route_template(request.scope),
            error=type(error).__name__,
            exc_info=error,
        )
        return answer(request, errors.DatabaseAway())

    @app.exception_handler(Exception)
    async def _bug(request: Request, error: Exception) -> Response:
        log.error(
            "unhandled_error",
            route=route_template(request.scope),
            error=type(error).__name__,
            exc_info=error,
        )
        return answer(
            request,
            errors.Problem(
                "It was logged; nothing was changed. Try again, then tell the operator."
            ),
        )


def wrong_members(found: Sequence[Any]) -> errors.Invalid:
    """The first twenty places where pydantic found something wrong, without the input."""
    places = [{"at": _place(each["loc"]), "problem": _plain(each)} for each in found[:20]]
    return errors.Invalid("Correct the members listed in `errors`.", errors=places)


def _place(location: Sequence[Any]) -> str:
    """``body.identifiers.0.kind``: names and indexes; of the input only what looks like a name."""
    place = ".".join(
        str(part) for part in location if isinstance(part, int) or str(part).isidentifier()
    )
    return place[:200] or "body"


def _plain(error: dict[str, Any]) -> str:
    """Pydantic's message, without the input; a custom validator's message is ours and safe."""
    if error["type"] == "extra_forbidden":
        return "this member is not known here"
    return str(error["msg"]).removeprefix("Value error, ")[:200]


# --- middleware -----------------------------------------------------------------------


def route_template(scope: Scope) -> str:
    """``/v1/requests/{id}``: what logs and metrics may show instead of a path."""
    route = scope.get("route")
    return getattr(route, "path_format", None) or getattr(route, "path", None) or "unmatched"


class Guard:
    """Outermost: caps bodies and header sizes, refuses keys in the query, adds headers, logs the
    route template.
    """

    def __init__(
        self, app: ASGIApp, settings: Settings, observe: Callable[[str, str, int, float], None],
        courtesy: Courtesy | None = None,
    ) -> None:  # fmt: skip
        self._app = app
        self._limit = settings.body_limit
        is_https = settings.public_url.startswith("https:")
        self._headers = [*_HEADERS, _HTTPS_ONLY] if is_https else _HEADERS
        self._observe = observe
        self._courtesy = courtesy or Courtesy()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500
        limit = self._limit * (
            16 if scope["path"] in LARGE_BODIES or "/answer" in scope["path"] else 1
        )
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise errors.TooLarge(f"Send at most {limit} bytes.")
            return message

        async def headed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                present = {name.lower() for name, _ in message["headers"]}
                message["headers"] += [each for each in self._headers if each[0] not in present]
            await send(message)

        try:
            with self._courtesy.guest():
                if problem := self._refusal(scope, limit):
                    await problem_response(problem)(scope, receive, headed)
                else:
                    await self._app(scope, limited, headed)
        finally:
            self._observe(
                scope["method"], route_template(scope), status, time.perf_counter() - started
            )

    def _refusal(self, scope: Scope, limit: int) -> errors.Problem | None:
        if (
            sum(len(name) + len(value) for name, value in scope["headers"]) > 32_768
            or len(scope["headers"]) > 100
        ):
            return errors.BadRequest("The headers are too large.")
        for name, value in scope["headers"]:
            if name == b"content-length":
                if not value.isdigit():
                    return errors.BadRequest("Content-Length is not a number.")
                if int(value) > limit:
                    return errors.TooLarge(f"Send at most {limit} bytes.")
        if b"api_key=" in scope["query_string"] or b"access_token=" in scope["query_string"]:
            return errors.BadRequest(
                "Send the key in the Authorization header; in the address it would be "
                "logged. Revoke it now."
            )
        return None


_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; sandbox"),
    (b"cache-control", b"no-store"),
]
_HTTPS_ONLY = (b"strict-transport-security", b"max-age=31536000; includeSubDomains")


class Shortcut:
    """Between the guard and the framework: hands one route's requests straight to its endpoint,
    which takes a ``Request``. On the busiest route the framework's layers cost as much as the work.

    Problems are answered by the application's own handlers, as on every route.
    """

    def __init__(
        self, app: FastAPI, framework: ASGIApp, method: str, path: str,
        endpoint: Callable[[Request], Awaitable[Response]],
    ) -> None:  # fmt: skip
        self._app, self._framework = app, framework
        self._method, self._path = method, path
        self._endpoint = endpoint
        self._route = SimpleNamespace(path=path)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            scope["type"] != "http"
            or scope["path"] != self._path
            or scope["method"] != self._method
        ):
            await self._framework(scope, receive, send)
            return
        scope["app"], scope["route"] = self._app, self._route
        request = Request(scope, receive)
        try:
            response = await self._endpoint(request)
        except Exception as error:
            response = await self._answer(request, error)
        await response(scope, receive, send)

    async def _answer(self, request: Request, error: Exception) -> Response:
        handlers = self._app.exception_handlers
        handle: Any = next(handlers[kind] for kind in type(error).__mro__ if kind in handlers)
        response: Response = await handle(request, error)
        return response


LARGE_BODIES = frozenset({"/v1/requests/bulk"})


def client_address(request: Request) -> str:
    """The peer's address, or the nearest untrusted one in X-Forwarded-For behind listed proxies."""
    settings: Settings = request.app.state.settings
    address = request.client.host if request.client else "unknown"
    if not settings.trusted_proxies or not _is_trusted(address, settings):
        return address
    for hop in reversed(request.headers.get("x-forwarded-for", "").split(",")):
        if (named := _without_port(hop.strip())) and not _is_trusted(named, settings):
            return named[:64]
    return address


def _without_port(hop: str) -> str:
    """Some proxies write ``192.0.2.1:51000`` or ``[2001:db8::1]:443``."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop


def client_network(request: Request) -> str:
    """Whom a rate limit counts as one: an address, or of IPv6 the /64 that a single host has to
    choose from (RFC 4291, section 2.5.1).
    """
    address = client_address(request)
    try:
        parsed = ipaddress.ip_address(address) if ":" in address else None
    except ValueError:
        return address
    if not isinstance(parsed, ipaddress.IPv6Address):
        return address
    if parsed.ipv4_mapped:  # of a socket that takes both kinds
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(parsed) >> 64 << 64, 64)))


def is_from_trusted_proxy(request: Request) -> bool:
    return bool(request.client) and _is_trusted(request.client.host, request.app.state.settings)  # type: ignore[union-attr]


def _is_trusted(address: str, settings: Settings) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in settings.trusted_proxies)


# --- sessions -------------------------------------------------------------------------


async def reading_session(request: Request) -> AsyncIterator[AsyncSession]:
    database: Database = request.app.state.database
    async with database.reading() as session:
        yield session


async def writing_session(request: Request) -> AsyncIterator[AsyncSession]:
    """One request, one transaction: committed before the answer goes out, rolled back on an
    exception.
    """
    database: Database = request.app.state.database
    async with database.writing() as session:
        yield session


Reading = Annotated[AsyncSession, Depends(reading_session, scope="function")]
Writing = Annotated[AsyncSession, Depends(writing_session, scope="function")]


# --- lists ----------------------------------------------------------------------------


class Cursors:
    """Opaque, signed positions in a list, bound to the workspace and the filter they were
    made for.
    """

    def __init__(self, keys: list[bytes]) -> None:
        self._serializer = URLSafeSerializer(
            keys,
            salt="cursor",
            signer_kwargs={"digest_method": hashlib.sha256, "key_derivation": "hmac"},
        )

    def write(self, scope: Sequence[str], position: str) -> str:
        return str(self._serializer.dumps([*scope, position]))

    def read(self, scope: Sequence[str], cursor: str | None) -> str | None:
        if cursor is None:
            return None
        try:
            *bound, position = self._serializer.loads(cursor)
        except BadData:
            raise errors.Invalid("The cursor is not one of ours; start again without it.") from None
        if bound != list(scope):
            raise errors.Invalid(
                "The cursor belongs to another list or filter; start again without it."
            )
        return str(position)
