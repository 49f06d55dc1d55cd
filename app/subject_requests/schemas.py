"""What crosses HTTP for requests."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any

from pydantic import Field, StrictInt, StrictStr

from app.core.http import Schema
from app.identity.schemas import Identifiers
from app.subject_requests.states import Kind

Reason = Annotated[StrictStr, Field(min_length=1, max_length=500)]


ExternalId = Annotated[StrictStr, Field(min_length=1, max_length=255)]


class RequestIn(Schema):
    kind: Kind
    identifiers: Identifiers
    regime: StrictStr | None = None
    destinations: Annotated[list[StrictStr], Field(min_length=1, max_length=200)] | None = None
    received_at: dt.datetime | None = None
    external_id: ExternalId | None = None
    contact_email: Annotated[StrictStr, Field(min_length=3, max_length=320)] | None = None


class BulkIn(Schema):
    """Subjects are checked one by one, so that a wrong one does not stop the others."""

    kind: Kind
    regime: StrictStr | None = None
    subjects: list[Any]


class SubjectIn(Schema):
    identifiers: Identifiers
    external_id: ExternalId | None = None


class SearchIn(Schema):
    identifiers: Identifiers


class DenyIn(Schema):
    reason: Reason
    note: Annotated[StrictStr, Field(max_length=2000)] | None = None


class ExtendIn(Schema):
    days: Annotated[StrictInt, Field(ge=1, le=365)]
    reason: Reason


class HoldIn(Schema):
    reason: Reason
