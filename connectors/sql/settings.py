"""What an operator says about a database: where people are, how to find them, what to do."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, SecretStr, StringConstraints, field_validator, model_validator

from connectors.contract import ConnectorSettings, Residual

KindName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Action = Literal["delete", "mask"]
Mode = Literal["null", "hash", "constant", "format", "keep"]

_UNTIL = re.compile(r"\buntil\s+(\d{4}(?:-\d{2}(?:-\d{2})?)?)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class MaskRule:
    """One column's rule; ``text`` is the constant, or the reason to keep."""

    mode: Mode
    text: str = ""

    def residual(self, what: str) -> Residual:
        """The declared rest of a ``keep`` rule."""
        return Residual(what, self.text, until(self.text))


def parse_mask(text: str) -> MaskRule:
    """Read ``null``, ``hash``, ``format``, ``constant:<text>`` or ``keep:<reason>``; ValueError."""
    head, colon, rest = text.partition(":")
    match head:
        case "null" | "hash" | "format" if not colon:
            return MaskRule(head)
        case "constant" if colon:
            return MaskRule("constant", rest)
        case "keep" if rest.strip():
            until(rest)
            return MaskRule("keep", rest.strip())
    raise ValueError('a mask is "null", "hash", "format", "constant:<text>" or "keep:<reason>"')


def until(reason: str) -> str | None:
    """The date in ``... until 2036[-12[-31]] ...``; ValueError when it is no date."""
    found = _UNTIL.search(reason)
    if found is None:
        return None
    try:
        dt.date.fromisoformat((found[1] + "-01-01")[:10])
    except ValueError:
        raise ValueError('after "until" comes a date: YYYY, YYYY-MM or YYYY-MM-DD') from None
    return found[1]


class TableRule(ConnectorSettings):
    """One table, how a person's rows are found in it, and what happens to them."""

    name: Name = Field(description="Table, or schema.table")
    match: dict[Name, KindName] = Field(
        default={}, description="Column: kind of identifier. Any one that fits finds the row"
    )
    via: dict[Name, Name] = Field(
        default={}, description="Column: Parent.column. Rows that belong to a parent row found"
    )
    action: Action
    mask: dict[Name, str] = Field(
        default={}, description="Column: null, hash, format, constant:<text> or keep:<reason>"
    )
    max_rows: int = Field(
        default=1000, ge=1, le=100_000, description="More rows of one person than this: refuse"
    )

    @field_validator("mask")
    @classmethod
    def _mask_can_be_read(cls, value: dict[str, str]) -> dict[str, str]:
        for text in value.values():
            parse_mask(text)
        return value

    @model_validator(mode="after")
    def _is_whole(self) -> TableRule:
        if bool(self.match) == bool(self.via):
            raise ValueError("a table needs either match or via (for both, list the table twice)")
        if self.action == "delete" and self.mask:
            raise ValueError("mask goes with action mask, not with delete")
        if self.action == "mask" and not self.masks_anything:
            raise ValueError("action mask needs at least one column that is not kept")
        return self

    @property
    def masks_anything(self) -> bool:
        return any(rule.mode != "keep" for rule in self.mask_rules.values())

    @property
    def mask_rules(self) -> dict[str, MaskRule]:
        return {column: parse_mask(text) for column, text in self.mask.items()}


class LookupRule(ConnectorSettings):
    """Where other identifiers of a person can be read."""

    table: Name
    match: dict[Name, KindName] = Field(min_length=1)
    yields: dict[Name, KindName] = Field(min_length=1)


class SqlSettings(ConnectorSettings):
    url: SecretStr = Field(description="postgresql://, mysql://, mariadb:// or sqlite:/// URL")
    tables: tuple[TableRule, ...] = ()
    lookup: tuple[LookupRule, ...] = ()
    identity_source: bool = Field(
        default=False, description="Ask this database first for a person's other identifiers"
    )

    @model_validator(mode="after")
    def _does_something(self) -> SqlSettings:
        if not self.tables and not self.lookup:
            raise ValueError("name at least one table or one lookup")
        if self.identity_source and not self.lookup:
            raise ValueError("an identity source needs at least one lookup")
        return self
