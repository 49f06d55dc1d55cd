"""Identifiers as they cross HTTP; ``normalise_all`` then says whether they can be anybody's."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StrictStr

from app.core.http import Schema


class IdentifierIn(Schema):
    """``kind``: user_id, email, phone, anonymous_id, device_id or an own name; ``value``: text."""

    kind: Annotated[StrictStr, Field(min_length=1, max_length=32)]
    value: Annotated[StrictStr, Field(min_length=1, max_length=2048)]


Identifiers = Annotated[list[IdentifierIn], Field(min_length=1, max_length=50)]
"""Of one person."""
