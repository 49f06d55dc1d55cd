"""Finding people's rows: one query per column for a whole batch, every row checked again here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, RowMapping, and_, func, or_, select

from connectors.contract import Identifier, Person
from connectors.sql import matching
from connectors.sql.catalogue import Described, TableName
from connectors.sql.plan import Lookup, Match, Plan, Via

CHUNK = 200
LOOKUP_CAP = 51
"""One more than the engine takes, so that it sees that there were too many."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of one person; ``found_by`` are the columns that say it is theirs."""

    key: tuple[Any, ...]
    values: Mapping[str, Any]
    found_by: tuple[str, ...]


@dataclass(slots=True)
class Hits:
    """One person's rows in one table; past the limit they are counted and not kept."""

    limit: int
    count: int = 0
    rows: dict[tuple[Any, ...], Row] = field(default_factory=dict)

    def add(self, row: Row) -> None:
        if row.key in self.rows:
            return
        self.count += 1
        if self.count <= self.limit:
            self.rows[row.key] = row

    @property
    def is_over(self) -> bool:
        return self.count > self.limit


Found = Mapping[str, Mapping[TableName, Hits]]
"""Person id -> table -> rows; every person and table is there."""


def find(connection: Connection, plan: Plan, people: Sequence[Person]) -> Found:
    """All rows of all people that the plan reaches, parents first."""
    search = _Search(connection)
    found = {p.id: {node.name: Hits(node.max_rows) for node in plan.nodes} for p in people}
    needed = _needed_columns(plan)
    for node in plan.nodes:
        columns = [node.described.table.columns[name] for name in sorted(needed[node.name])]
        for match in node.matches:
            for owner, values in search.matching(match, people, columns):
                hits = found[owner][node.name]
                hits.add(_row(node.described, values, (match.column.name,), hits.count))
        for via in node.vias:
            for owner, values in _following(search, via, found, columns):
                hits = found[owner][node.name]
                own = tuple(column.name for column, _ in via.pairs)
                hits.add(_row(node.described, values, own, hits.count))
    return found


def is_findable(connection: Connection, plan: Plan, people: Sequence[Person]) -> set[str]:
    """People of whom a row still matches; columns that stay on purpose are not asked."""
    search = _Search(connection)
    left: set[str] = set()
    for node in plan.nodes:
        for match in node.matches:
            if not (node.action == "mask" and match.stays):
                left |= {owner for owner, _ in search.matching(match, people, [])}
    return left


def look_up(
    connection: Connection, plan: Plan, people: Sequence[Person]
) -> dict[str, list[Identifier]]:
    """Other identifiers in rows that match, at most ``LOOKUP_CAP`` of a kind."""
    search = _Search(connection)
    found: dict[str, dict[Identifier, None]] = {person.id: {} for person in people}
    known = {person.id: set(person.identifiers) for person in people}
    for rule in plan.lookups:
        columns = [column for column, _ in rule.yields]
        for match in rule.matches:
            for owner, values in search.matching(match, people, columns):
                for each in _yielded(rule, values):
                    is_full = sum(e.kind == each.kind for e in found[owner]) >= LOOKUP_CAP
                    if each not in known[owner] and not is_full:
                        found[owner][each] = None
    return {owner: list(each) for owner, each in found.items()}


def with_keys(described: Described, keys: Sequence[tuple[Any, ...]]) -> ColumnElement[bool]:
    """Rows that have one of these keys."""
    return equal_to([described.table.columns[name] for name in described.key], keys)


def in_chunks(items: Iterable[Any], size: int = CHUNK) -> Iterator[list[Any]]:
    chunk: list[Any] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


class _Search:
    """A connection and the two things about its database that comparing text depends on."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.dialect = connection.dialect.name.replace("mariadb", "mysql")
        self.folds = (
            self.dialect != "postgresql" or connection.scalar(select(func.lower("I"))) == "i"
        )

    def matching(
        self, match: Match, people: Sequence[Person], columns: Sequence[Column[Any]]
    ) -> Iterator[tuple[str, RowMapping]]:
        """(person id, row) for every row whose column holds one of the person's values."""
        owners = _owners(match, people)
        wanted = list({column.name: column for column in (*columns, match.column)}.values())
        for values in in_chunks(owners):
            rule = matching.condition(
                match.column, match.kind, match.family, values, self.dialect, self.folds
            )
            for row in self.rows(wanted, rule):
                text = matching.stored(row[match.column.name], match.kind, match.column)
                for owner in owners.get(text or "", ()):
                    yield owner, row

    def rows(
        self, columns: Sequence[Column[Any]], rule: ColumnElement[bool]
    ) -> Iterator[RowMapping]:
        statement = select(*columns).where(rule).execution_options(yield_per=500)
        with self.connection.execute(statement) as result:
            yield from result.mappings()


def _owners(match: Match, people: Sequence[Person]) -> dict[str, list[str]]:
    """Comparable value -> the people who have it."""
    owners: dict[str, list[str]] = {}
    for person in people:
        for value in dict.fromkeys(person.values(match.kind)):
            text = matching.comparable(value, match.kind, match.family)
            if text is not None and person.id not in owners.setdefault(text, []):
                owners[text].append(person.id)
    return owners


def _following(
    search: _Search, via: Via, found: Found, columns: Sequence[Column[Any]]
) -> Iterator[tuple[str, RowMapping]]:
    owners: dict[tuple[str, ...], list[str]] = {}
    keys: dict[tuple[str, ...], tuple[Any, ...]] = {}
    for owner, tables in found.items():
        for row in tables[via.parent].rows.values():
            raw = tuple(row.values[theirs.name] for _, theirs in via.pairs)
            form = _forms(raw, [theirs for _, theirs in via.pairs])
            if form is not None:
                owners.setdefault(form, []).append(owner)
                keys[form] = raw
    own = [column for column, _ in via.pairs]
    for chunk in in_chunks(keys.values()):
        for values in search.rows(columns, equal_to(own, chunk)):
            reached = _forms([values[column.name] for column in own], own)
            for owner in owners.get(reached or (), ()):
                yield owner, values


def _forms(values: Iterable[Any], columns: Iterable[Column[Any]]) -> tuple[str, ...] | None:
    forms = [matching.key_form(v, c) for v, c in zip(values, columns, strict=True)]
    whole = tuple(form for form in forms if form is not None)
    return whole if len(whole) == len(forms) else None


def equal_to(
    columns: Sequence[Column[Any]], keys: Sequence[tuple[Any, ...]]
) -> ColumnElement[bool]:
    if len(columns) == 1:
        return columns[0].in_([key[0] for key in keys])
    return or_(
        *(and_(*(c == value for c, value in zip(columns, key, strict=True))) for key in keys)
    )


def _row(described: Described, values: RowMapping, found_by: tuple[str, ...], number: int) -> Row:
    """A table without a key has no name for its rows; they are only numbered."""
    key = tuple(values[name] for name in described.key) or (number,)
    return Row(key, dict(values), found_by)


def _needed_columns(plan: Plan) -> dict[TableName, set[str]]:
    needed: dict[TableName, set[str]] = {}
    for node in plan.nodes:
        names = {*node.described.key, *node.mask, *(m.column.name for m in node.matches)}
        names |= {own.name for via in node.vias for own, _ in via.pairs}
        for key in node.described.foreign_keys:
            if key.parent == node.name:
                names |= {*key.columns, *(key.parent_columns or node.described.key)}
        needed.setdefault(node.name, set()).update(names)
        for via in node.vias:
            needed.setdefault(via.parent, set()).update(theirs.name for _, theirs in via.pairs)
    return needed


def _yielded(rule: Lookup, values: RowMapping) -> Iterator[Identifier]:
    for column, kind in rule.yields:
        text = matching.stored(values[column.name], "", column)
        if text is not None and matching.is_usable(text):
            yield Identifier(kind, text)
