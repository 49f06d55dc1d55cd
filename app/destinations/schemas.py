"""What crosses HTTP about destinations."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any

from pydantic import AfterValidator, Field, StrictBool, StringConstraints

from app.core.http import Schema
from app.identity.schemas import Identifiers


def _plain_name(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise ValueError("give a name without control characters")
    return value.strip()


def _each_once(value: list[str]) -> list[str]:
    return list(dict.fromkeys(value))


Name = Annotated[str, StringConstraints(min_length=1, max_length=100), AfterValidator(_plain_name)]
Word = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
Words = Annotated[list[Word], Field(max_length=50), AfterValidator(_each_once)]
SettingsIn = Annotated[dict[str, Any], Field(max_length=100)]


class DestinationIn(Schema):
    """A new destination; empty filters mean all."""

    name: Name
    connector: Annotated[str, StringConstraints(max_length=40)]
    settings: SettingsIn = Field(default_factory=dict, repr=False)
    enabled: StrictBool = True
    purposes: Words = Field(default_factory=list)
    kinds: Words = Field(default_factory=list)
    regimes: Words = Field(default_factory=list)


class DestinationChange(Schema):
    """What is sent replaces what was; secrets left out or sent as ``{"set": true}`` stay."""

    name: Name = ""
    settings: SettingsIn = Field(default_factory=dict, repr=False)
    enabled: StrictBool = True
    purposes: Words = Field(default_factory=list)
    kinds: Words = Field(default_factory=list)
    regimes: Words = Field(default_factory=list)


class DestinationOut(Schema):
    """Secrets read back as ``{"set": true}``."""

    id: str
    name: str
    connector: str
    settings: dict[str, Any]
    enabled: bool
    purposes: list[str]
    kinds: list[str]
    regimes: list[str]
    created_at: dt.datetime
    tested_at: dt.datetime | None
    test_error: str | None


class DestinationList(Schema):
    items: list[DestinationOut]
    next_cursor: str | None


class TestOut(Schema):
    """``detail`` is for the operator and holds no secret."""

    __test__ = False

    ok: bool
    latency_ms: int
    detail: str


class ConnectorOut(Schema):
    """``secrets``: the places of secret settings, ``*`` for any index or key."""

    name: str
    title: str
    operations: list[str]
    accepts: list[str]
    settings_schema: dict[str, Any]
    secrets: list[str]


class BrokenConnector(Schema):
    name: str
    problem: str


class ConnectorList(Schema):
    """``broken``: own connectors that cannot be used, and why."""

    items: list[ConnectorOut]
    next_cursor: None = None
    broken: list[BrokenConnector]


class PreviewIn(Schema):
    """One person."""

    identifiers: Identifiers


class PreviewOut(Schema):
    """``counts``: table or file -> records of the person."""

    counts: dict[str, int]
