"""Keyset pages: addresses of the next page, signed and bound to the workspace and the filter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlencode

from app.core.http import Cursors

SIZE = 25
Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Pager:
    """Where to go from here; ``next_href`` None: the list ends."""

    next_href: str | None
    first_href: str
    is_first: bool


@dataclass(frozen=True, slots=True)
class Position:
    """A place in one list under one filter."""

    cursors: Cursors
    path: str
    workspace_id: str
    filters: Mapping[str, str]
    cursor: str | None

    @property
    def _scope(self) -> Sequence[str]:
        return (
            self.path,
            self.workspace_id,
            *(f"{k}={v}" for k, v in sorted(self.filters.items())),
        )

    @property
    def after(self) -> str | None:
        return self.cursors.read(self._scope, self.cursor)

    @property
    def here(self) -> str:
        """The address of this very page."""
        return self._address(cursor=self.cursor)

    def narrowed(self, name: str, value: str) -> str:
        """The address of the list with one filter more."""
        return self._address(**{name: value})

    def _address(self, **more: str | None) -> str:
        asked = {**self.filters, **more}
        query = urlencode({name: value for name, value in asked.items() if value})
        return f"{self.path}?{query}" if query else self.path

    def page(self, rows: Sequence[Row], last_id: str, size: int = SIZE) -> tuple[list[Row], Pager]:
        """The rows of this page; ``rows`` has one more when there is a next page.

        ``last_id`` is the id of the last row of this page.
        """
        target = None
        if len(rows) > size:
            target = self._address(cursor=self.cursors.write(self._scope, last_id))
        return list(rows[:size]), Pager(target, self._address(), self.cursor is None)
