"""Erasing a batch of people: one transaction, a savepoint each, looked at again afterwards."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Table, and_, delete, select, update
from sqlalchemy.exc import SQLAlchemyError

from connectors.contract import Outcome, Person, absent, done, failed, retry, skipped
from connectors.sql import masking, matching, trouble
from connectors.sql.catalogue import ForeignKey, TableName
from connectors.sql.plan import Node, Plan
from connectors.sql.search import Hits, Row, equal_to, find, in_chunks, is_findable, with_keys
from connectors.sql.trouble import Trouble

PATIENCE = 3
"""Lock or statement timeouts in one batch before the rest is put off."""
BUDGET = dt.timedelta(minutes=2)


@dataclass(slots=True)
class Change:
    """What was done for one person, to look at it again; not yet true before the commit."""

    person: Person
    outcome: Outcome
    rows: list[tuple[Node, Row, dict[str, Any]]] = field(default_factory=list)
    """(table, the row as it was, the new values; empty when it was deleted)."""


@dataclass(slots=True)
class _Try:
    """One transaction: what is settled, and who must go again without the others."""

    settled: dict[str, Outcome] = field(default_factory=dict)
    again: list[list[Person]] = field(default_factory=list)


class _Stop(Exception):
    """This person's savepoint is taken back, with this outcome."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__()
        self.outcome = outcome


class _Abort(Exception):
    """The whole transaction is lost."""

    def __init__(self, found: Trouble, person: Person | None = None) -> None:
        super().__init__()
        self.found = found
        self.person = person
        """Whose statement it was, if the others can go again without them."""


@dataclass(frozen=True, slots=True)
class Work:
    """Everything that one batch needs."""

    engine: Engine
    plan: Plan
    secret: bytes
    now: Callable[[], dt.datetime]
    pick: masking.Pick = secrets.choice

    def erase(self, people: Sequence[Person]) -> dict[str, Outcome]:
        outcomes = {person.id: outcome for person in people if (outcome := self._unfit(person))}
        groups = [[person for person in people if person.id not in outcomes]]
        ends_at = self.now() + BUDGET
        while groups:
            group = groups.pop()
            if self.now() > ends_at or _timeout_count(outcomes.values()) >= PATIENCE:
                outcomes |= {person.id: retry("not_reached") for person in group}
            elif group:
                tried = self._try(group, ends_at)
                outcomes |= tried.settled
                groups += tried.again
        return outcomes

    def _unfit(self, person: Person) -> Outcome | None:
        kinds = {match.kind for node in self.plan.nodes for match in node.matches}
        values = [each.value for each in person.identifiers if each.kind in kinds]
        if not values:
            return skipped("no_usable_identifier")
        return None if any(map(matching.is_usable, values)) else failed("unusable_identifier")

    def _try(self, people: Sequence[Person], ends_at: dt.datetime) -> _Try:
        culprit: Person | None = None
        try:
            with self.engine.connect().execution_options(writes=True) as connection:
                return self._transact(connection, people, ends_at)
        except _Abort as stop:
            found, culprit = stop.found, stop.person
        except SQLAlchemyError as error:
            found = trouble.read(error)
        if culprit is not None:
            others = [person for person in people if person is not culprit]
            return _Try({culprit.id: found.outcome()}, [others])
        return _Try({person.id: found.outcome() for person in people})

    def _transact(
        self, connection: Connection, people: Sequence[Person], ends_at: dt.datetime
    ) -> _Try:
        transaction = connection.begin()
        try:
            settled, changes = self._change_all(connection, people, ends_at)
            left = self._left(connection, changes)
            if left:
                transaction.rollback()
                return _without(left, people)
        except BaseException:
            with contextlib.suppress(SQLAlchemyError):
                transaction.rollback()
            raise
        lost: Trouble | None = None
        try:
            transaction.commit()
        except SQLAlchemyError as error:
            lost = trouble.read(error)
            connection.invalidate()
        connection.close()
        if lost is not None and lost.is_final:  # a constraint that speaks only at the commit
            return _one_by_one(people, lost)
        return _Try(settled | self._confirmed(changes, lost))

    def _confirmed(self, changes: Sequence[Change], lost: Trouble | None) -> dict[str, Outcome]:
        """Look again in a new transaction; after a commit that gave no answer this decides."""
        if not changes:
            return {}
        try:
            with self.engine.connect() as connection, connection.begin():
                left = self._left(connection, changes)
        except SQLAlchemyError:
            seen = lost.outcome() if lost else None
            return {each.person.id: seen or each.outcome for each in changes}
        still = retry(lost.reason if lost else "found_again")
        return {
            each.person.id: still
            if each.person.id in left
            else dataclasses.replace(each.outcome, read_back=True)
            for each in changes
        }

    def _change_all(
        self, connection: Connection, people: Sequence[Person], ends_at: dt.datetime
    ) -> tuple[dict[str, Outcome], list[Change]]:
        found = find(connection, self.plan, people)
        settled: dict[str, Outcome] = {}
        changes: list[Change] = []
        handled: set[tuple[TableName, tuple[Any, ...]]] = set()
        for person in people:
            hits = found[person.id]
            if not any(each.count for each in hits.values()):
                settled[person.id] = absent()
            elif any(each.is_over for each in hits.values()):
                settled[person.id] = failed("max_rows_exceeded")
            elif _timeout_count(settled.values()) >= PATIENCE or self.now() > ends_at:
                settled[person.id] = retry("not_reached")
            else:
                try:
                    change = self._change_within(connection, person, hits, handled)
                    handled |= {(node.name, row.key) for node, row, _ in change.rows}
                    changes.append(change)
                except _Stop as stop:
                    settled[person.id] = stop.outcome
        return settled, changes

    def _change_within(
        self,
        connection: Connection,
        person: Person,
        hits: Mapping[TableName, Hits],
        handled: set[tuple[TableName, tuple[Any, ...]]],
    ) -> Change:
        savepoint = connection.begin_nested()
        try:
            change = Change(person, self._outcome(hits))
            for node in self.plan.changes:
                mine = hits[node.name]
                rows = [r for r in mine.rows.values() if (node.name, r.key) not in handled]
                change.rows += self._change_rows(connection, node, rows)
            savepoint.commit()
        except _Stop:
            savepoint.rollback()
            raise
        except SQLAlchemyError as error:
            found = trouble.read(error)
        else:
            return change
        if found.scope == "batch":
            raise _Abort(found)
        try:
            savepoint.rollback()
        except SQLAlchemyError:  # SQLite gives up the whole transaction after an interrupt
            raise _Abort(found, person) from None
        raise _Stop(found.outcome())

    def _change_rows(
        self, connection: Connection, node: Node, rows: Sequence[Row]
    ) -> Iterator[tuple[Node, Row, dict[str, Any]]]:
        table = node.described.table
        if rows and not node.described.key:
            self._change_keyless(connection, node, rows)
            return
        for row in _leaves_first(node, rows) if node.action == "delete" else rows:
            rule = and_(with_keys(node.described, [row.key]), *_still_theirs(table, row))
            new = self._masked(node, row)
            if _changed(connection, node, rule, new) != 1:
                raise _Stop(retry("changed_meanwhile"))
            yield node, row, new

    def _change_keyless(self, connection: Connection, node: Node, rows: Sequence[Row]) -> None:
        """By the full match; a database that compares more loosely than we do changes too many."""
        table = node.described.table
        names = rows[0].found_by
        keys = list(dict.fromkeys(tuple(row.values[name] for name in names) for row in rows))
        total = 0
        for chunk in in_chunks(keys):
            rule = equal_to([table.columns[name] for name in names], chunk)
            total += _changed(connection, node, rule, self._masked(node, rows[0]))
        if total != len(rows):
            raise _Stop(failed("match_too_loose"))

    def _masked(self, node: Node, row: Row) -> dict[str, Any]:
        return {name: self._new_value(node, name, row) for name in node.changed_columns}

    def _new_value(self, node: Node, name: str, row: Row) -> object:
        column, rule, old = node.described.table.columns[name], node.mask[name], row.values[name]
        length = masking.text_length(column)
        match rule.mode:
            case "hash":
                return masking.hashed(old, f"{node.name}.{name}", self.secret, length)
            case "format":
                return masking.alike(old, length, self.pick)
            case "constant":
                return masking.constant(rule.text, column)
        return None

    def _left(self, connection: Connection, changes: Sequence[Change]) -> set[str]:
        """People who can still be found, or whose changed rows are as they were."""
        if not changes:
            return set()
        left = is_findable(connection, self.plan, [change.person for change in changes])
        for node in self.plan.nodes:
            rows = {
                row.key: (change.person.id, row, new)
                for change in changes
                for each, row, new in change.rows
                if each is node
            }
            table = node.described.table
            columns = [table.columns[name] for name in (*node.described.key, *node.changed_columns)]
            for keys in in_chunks(rows):
                rule = with_keys(node.described, keys)
                for found in connection.execute(select(*columns).where(rule)).mappings():
                    now = dict(found)
                    key = tuple(now[name] for name in node.described.key)
                    owner, row, new = rows.get(key, ("", None, {}))
                    if row is not None and _is_unchanged(now, row, new):
                        left.add(owner)
        return left

    def _outcome(self, hits: Mapping[TableName, Hits]) -> Outcome:
        touched = [(node, hits[node.name]) for node in self.plan.nodes if hits[node.name].count]
        residuals = {
            residual: None
            for node, mine in touched
            for column, residual in node.residuals()
            if any(row.values[column] is not None for row in mine.rows.values())
        }
        return done(
            anonymised=any(node.action == "mask" for node, _ in touched),
            residuals=list(residuals),
            facts={node.label: mine.count for node, mine in touched},
        )


def _timeout_count(outcomes: Iterable[Outcome]) -> int:
    return sum(each.reason in (trouble.LOCKED.reason, trouble.SLOW.reason) for each in outcomes)


def _without(left: set[str], people: Sequence[Person]) -> _Try:
    """Take back everything; those still found wait, the others go again."""
    settled = {person.id: retry("still_found") for person in people if person.id in left}
    return _Try(settled, [[person for person in people if person.id not in left]])


def _one_by_one(people: Sequence[Person], found: Trouble) -> _Try:
    if len(people) > 1:
        return _Try(again=[[person] for person in people])
    return _Try({people[0].id: found.outcome()})


def _changed(
    connection: Connection, node: Node, rule: ColumnElement[bool], new: Mapping[str, Any]
) -> int:
    table = node.described.table
    if node.action == "delete":
        return connection.execute(delete(table).where(rule)).rowcount
    values = {table.columns[name]: value for name, value in new.items()}
    return connection.execute(update(table).where(rule).values(values)).rowcount


def _still_theirs(table: Table, row: Row) -> Iterator[ColumnElement[bool]]:
    """The row changes only while the columns that named the person say so."""
    return (table.columns[name] == row.values[name] for name in row.found_by)


def _is_unchanged(now: Mapping[str, Any], row: Row, new: Mapping[str, Any]) -> bool:
    """A deleted row that is there, or a cell that should have changed and has not."""
    if not new:
        return True
    cells = ((row.values[name], new[name], now[name]) for name in new)
    return any(old is not None and old != wanted and old == is_ for old, wanted, is_ in cells)


def _leaves_first(node: Node, rows: Sequence[Row]) -> list[Row]:
    """Rows of a table that refers to itself: first those that no other refers to."""
    own = [key for key in node.described.foreign_keys if key.parent == node.name]
    rest = list(rows)
    ordered: list[Row] = []
    while own and rest:
        needed = {tuple(row.values[name] for name in key.columns) for key in own for row in rest}
        free = [row for row in rest if not _is_referred_to(row, own, needed, node)]
        if not free:
            break
        ordered += free
        rest = [row for row in rest if row not in free]
    return ordered + rest


def _is_referred_to(
    row: Row, own: Iterable[ForeignKey], needed: set[tuple[Any, ...]], node: Node
) -> bool:
    return any(
        tuple(row.values[name] for name in key.parent_columns or node.described.key) in needed
        for key in own
    )
