"""The whole interface between Quittance and a destination.

A connector is a class; the presence of a method is the capability. The engine owns identifier
choice, normalising, grouping, splitting, limits, retries, polling, keys, evidence and redaction; a
connector only talks to its destination and says what it saw. It never sleeps, logs, or opens a
socket or file by itself: everything comes from its ``tools``.

Two shapes: ``Connector`` gets distinct values of one kind (most vendors' APIs), ``PeopleConnector``
gets whole people with all their identifiers (databases, archives, webhooks, humans).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import IO, Any, ClassVar, Literal, Protocol
from urllib.parse import urlsplit

import httpx
from pydantic import BaseModel, ConfigDict, SecretStr


class Kind(StrEnum):
    """Kinds of identifier known everywhere; a workspace may add its own names
    (``[a-z][a-z0-9_]{0,31}``).
    """

    USER_ID = "user_id"
    EMAIL = "email"
    PHONE = "phone"
    ANONYMOUS_ID = "anonymous_id"
    DEVICE_ID = "device_id"


class Operation(StrEnum):
    """What a delivery asks of a destination; each is a method of the connector."""

    ERASE = "erase"
    SUPPRESS = "suppress"
    UNSUPPRESS = "unsuppress"


class Verdict(StrEnum):
    """The meaning of one answer. ``RETRY`` is the only one that is not an end or a wait for the
    vendor.
    """

    DONE = "done"
    ACCEPTED = "accepted"
    ABSENT = "absent"
    SKIPPED = "skipped"
    RETRY = "retry"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Residual:
    """Something the destination keeps on purpose: what, the coded reason, and until when if it is
    known.
    """

    what: str
    reason: str
    until: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a destination answered for one person (or one value).

    ``read_back``: the connector looked again afterwards and found nothing left. ``anonymised``: the
    person's record stays, without the person. ``job``: the vendor's handle to ask again with
    ``poll``.
    ``parks``: the whole destination refuses us (401, 403): stop the queue, burn no delivery.
    ``facts`` are counts or codes for the trace; never an identifier.
    """

    verdict: Verdict
    read_back: bool = False
    anonymised: bool = False
    reason: str | None = None
    retry_after: dt.timedelta | None = None
    job: str | None = None
    http_status: int | None = None
    parks: bool = False
    residuals: tuple[Residual, ...] = ()
    facts: Mapping[str, int | str] = field(default_factory=dict)


def done(
    *,
    read_back: bool = False,
    anonymised: bool = False,
    residuals: Sequence[Residual] = (),
    facts: Mapping[str, int | str] | None = None,
    http_status: int | None = None,
) -> Outcome:
    """The person is gone (or masked) here; ``read_back`` only after looking again."""
    return Outcome(
        Verdict.DONE,
        read_back=read_back,
        anonymised=anonymised,
        residuals=tuple(residuals),
        facts=facts or {},
        http_status=http_status,
    )


def accepted(
    job: str | None = None, *, after: dt.timedelta | None = None, http_status: int | None = None
) -> Outcome:
    """The destination took the task; with ``job`` it can be asked later (first after ``after``),
    without it never.
    """
    return Outcome(Verdict.ACCEPTED, job=job, retry_after=after, http_status=http_status)


def absent(
    *, facts: Mapping[str, int | str] | None = None, http_status: int | None = None
) -> Outcome:
    """The destination does not know the person."""
    return Outcome(Verdict.ABSENT, facts=facts or {}, http_status=http_status)


def skipped(reason: str) -> Outcome:
    """Nothing to do here, by rule; ``reason`` is a short code."""
    return Outcome(Verdict.SKIPPED, reason=reason)


def retry(
    reason: str,
    after: dt.timedelta | None = None,
    *,
    parks: bool = False,
    http_status: int | None = None,
) -> Outcome:
    """Try again; ``after`` is the destination's own wish, if it gave one."""
    return Outcome(
        Verdict.RETRY, reason=reason, retry_after=after, parks=parks, http_status=http_status
    )


def failed(reason: str, *, http_status: int | None = None) -> Outcome:
    """It will never work for this person as things are; ``reason`` is a short code."""
    return Outcome(Verdict.FAILED, reason=reason, http_status=http_status)


@dataclass(frozen=True, slots=True)
class Window:
    """At most ``calls`` calls in any ``seconds`` seconds, or in each calendar ``period`` (UTC).

    A destination may have several at once.
    """

    calls: int
    seconds: float = 0.0
    period: Literal["day", "month"] | None = None


@dataclass(frozen=True, slots=True)
class Identifier:
    """A normalised value of one kind."""

    kind: str
    value: str


@dataclass(frozen=True, slots=True)
class Person:
    """One person; ``id`` is the delivery's id (the idempotency key of this item), on ``lookup`` the
    request's.
    """

    id: str
    identifiers: tuple[Identifier, ...]

    def values(self, kind: str) -> tuple[str, ...]:
        return tuple(each.value for each in self.identifiers if each.kind == kind)


@dataclass(frozen=True, slots=True)
class Call:
    """The call being made: ``id`` is its idempotency key, the same on every repeat."""

    id: str
    operation: Operation
    attempt: int
    due_at: dt.datetime | None = None


class Trees(Protocol):
    """A checked directory tree; paths are relative to it, escapes are refused."""

    def files(self) -> Sequence[str]:
        """Relative paths of all regular files, sorted; links are not followed."""

    def open(self, path: str) -> AbstractContextManager[IO[bytes]]:
        """Open for reading."""

    def replace(self, path: str) -> AbstractContextManager[IO[bytes]]:
        """A new content for ``path``: written beside it, fsynced, and renamed over it on a clean
        exit.
        """

    def version(self, path: str) -> str:
        """Changes when the file does."""


class Tasks(Protocol):
    """Work for a human inside Quittance."""

    async def open(
        self, call: Call, person: Person, instructions: str, assignee: str | None
    ) -> str:
        """Open (or find, for the same delivery) a task and return its id."""

    async def state(self, task_id: str) -> Literal["open", "done", "absent", "refused"]:
        """How far the human is."""


class Tools(Protocol):
    """All that a connector may touch the world with."""

    call: Call
    http: httpx.AsyncClient
    tasks: Tasks
    secret: bytes
    """32 bytes stable for this destination: keyed hashes in masks, never shown."""

    def now(self) -> dt.datetime: ...

    def resolve(self, host: str, port: int) -> str:
        """A checked numeric address for a driver that opens its own socket (blocking); or
        ``AddressRefused``.
        """

    def path(self, path: str) -> str:
        """The real path of a local file or directory, if it lies under the allowed paths."""

    def open_tree(self, url: str) -> Trees: ...


class ConnectorError(Exception):
    """A wrong setting or a broken destination; the text is for the operator and holds no secret or
    identifier.
    """


class AddressRefused(ConnectorError):
    """The guard does not allow this address, port or path."""


class NotAuthentic(ConnectorError):
    """A callback that the destination did not sign, or not just now."""


class ConnectorSettings(BaseModel):
    """Base of every connector's settings: unknown names are refused, secrets are ``SecretStr``."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _Base:
    title: ClassVar[str]
    accepts: ClassVar[tuple[str, ...]] = ()
    """Kinds it can use, in order of preference; empty = any kind."""
    accepts_all: ClassVar[bool] = False
    """Use every accepted kind the person has, not only the first."""
    batch: ClassVar[int] = 1
    limits: ClassVar[tuple[Window, ...]] = ()
    concurrency: ClassVar[int] = 64
    timeout: ClassVar[dt.timedelta] = dt.timedelta(seconds=20)
    """Deadline around one call."""
    runs_in: ClassVar[Literal["loop", "thread", "process"]] = "loop"
    poll_every: ClassVar[dt.timedelta] = dt.timedelta(minutes=5)
    poll_schedule: ClassVar[tuple[dt.timedelta, ...]] = ()
    """Growing waits between polls of a job, the last one repeated; empty: ``poll_every``."""
    gives_up_after: ClassVar[dt.timedelta] = dt.timedelta(days=90)
    """How long a job may take; its deliveries are then ``unconfirmed``."""
    is_irreversible: ClassVar[bool] = True
    """Erasing here cannot be undone: the cooling-off time applies."""

    class Settings(ConnectorSettings):
        pass

    def __init__(self, settings: Any, tools: Tools) -> None:
        self.settings = settings
        self.tools = tools

    def host(self) -> str | None:
        """Whose server it is; None: nobody else's. Destinations of all workspaces on one host share
        a cap on calls under way.
        """
        url = getattr(self.settings, "url", None)
        text = url.get_secret_value() if isinstance(url, SecretStr) else url
        return urlsplit(text).netloc.rpartition("@")[2] or None if isinstance(text, str) else None

    def check(self) -> None:
        """Refuse settings that can be seen to be wrong (raises ``ConnectorError``); blocking, run
        once on save.
        """

    def close(self) -> None:
        """Give back what was opened."""


class Connector(_Base):
    """Gets distinct, normalised values of one kind.

    ``erase(kind, values)``, ``suppress``, ``unsuppress`` return one ``Outcome`` for all or a
    mapping from value; a value missing from the mapping counts as ``retry``. Optional:
    ``resolve(kind, values)`` (vendor ids; none = absent), ``poll(job) -> Outcome`` and
    ``callback``. Methods are coroutines where ``runs_in`` is "loop", plain functions elsewhere
    (``test`` too).

    ``callback(headers, body) -> {job: Outcome}`` reads what the vendor posted to
    ``/hooks/{destination_id}``; header names are in lower case. It is always a plain function, and
    a quick one: it waits for nothing. It raises ``NotAuthentic`` before it believes anything, and
    ``ValueError`` for a genuine body it cannot read. An end (done, absent, failed, skipped) closes
    the job; ``retry`` asks for a poll now; ``accepted`` changes nothing. Without ``poll``, jobs
    wait for their callback alone.
    """


class PeopleConnector(_Base):
    """Gets whole people: ``erase(people)`` etc. return one ``Outcome`` or a mapping from
    ``Person.id``.

    Optional: ``lookup(people) -> {Person.id: [Identifier, ...]}`` (identity source), ``poll(job) ->
    Outcome``, and ``callback`` (see ``Connector``).
    """


Lookups = Mapping[str, Sequence[Identifier]]
Outcomes = Outcome | Mapping[str, Outcome]
AnyConnector = Connector | PeopleConnector


def supports(connector: type[_Base], operation: str) -> bool:
    """Whether the connector has the method for an operation."""
    return callable(getattr(connector, operation, None))
