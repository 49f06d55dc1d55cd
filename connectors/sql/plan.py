"""From settings and catalogue to a checked plan: what is reached from where, and in which order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

from sqlalchemy import Column

from connectors.contract import ConnectorError, Kind, Residual
from connectors.sql import masking
from connectors.sql.catalogue import Catalogue, Described, ForeignKey, TableName, near, quoted
from connectors.sql.matching import Family, family
from connectors.sql.settings import Action, LookupRule, MaskRule, SqlSettings, TableRule


@dataclass(frozen=True, slots=True)
class Match:
    """Rows whose ``column`` holds an identifier of ``kind``."""

    column: Column[Any]
    kind: str
    family: Family
    stays: bool
    """The column is not masked: the row is found by it afterwards too."""


@dataclass(frozen=True, slots=True)
class Via:
    """Rows that belong to a row of ``parent``."""

    pairs: tuple[tuple[Column[Any], Column[Any]], ...]
    """(own column, parent's column)."""
    parent: TableName


@dataclass(frozen=True, slots=True)
class Node:
    """One table of the plan; ``label`` is its name as configured."""

    label: str
    described: Described
    matches: tuple[Match, ...]
    vias: tuple[Via, ...]
    action: Action
    mask: Mapping[str, MaskRule]
    max_rows: int

    @property
    def name(self) -> TableName:
        return self.described.name

    @property
    def changed_columns(self) -> tuple[str, ...]:
        return tuple(name for name, rule in self.mask.items() if rule.mode != "keep")

    def residuals(self) -> Iterator[tuple[str, Residual]]:
        """(column, what is kept in it) for ``keep`` rules and for match columns left alone."""
        for column, rule in self.mask.items():
            if rule.mode == "keep":
                yield column, rule.residual(f"{self.label}.{column}")
        for match in self.matches:
            if self.action == "mask" and match.column.name not in self.mask:
                what = f"{self.label}.{match.column.name}"
                yield match.column.name, Residual(what, "match_column_kept")


@dataclass(frozen=True, slots=True)
class Lookup:
    matches: tuple[Match, ...]
    yields: tuple[tuple[Column[Any], str], ...]
    described: Described


@dataclass(frozen=True, slots=True)
class Plan:
    """``nodes``: parents first. ``changes``: masks, then deletes, children before parents."""

    nodes: tuple[Node, ...]
    changes: tuple[Node, ...]
    lookups: tuple[Lookup, ...]

    @property
    def is_masking(self) -> bool:
        return any(node.action == "mask" for node in self.nodes)


def make_plan(settings: SqlSettings, catalogue: Catalogue) -> Plan:
    """Check every name, type and rule; ConnectorError says which and what to do."""
    nodes = _nodes(settings.tables, catalogue)
    for node in nodes.values():
        _check_node(node)
    return Plan(
        nodes=_reach_order(nodes),
        changes=_change_order(nodes),
        lookups=tuple(_lookup(rule, catalogue) for rule in settings.lookup),
    )


def check_references(plan: Plan, foreign_keys: Iterable[ForeignKey]) -> None:
    """Refuse a delete that another table would block, or whose cascade would take masked rows."""
    nodes = {node.name: node for node in plan.nodes}
    by_parent: dict[TableName, list[ForeignKey]] = {}
    for key in foreign_keys:
        by_parent.setdefault(key.parent, []).append(key)
    todo = [node.name for node in plan.nodes if node.action == "delete"]
    seen = set(todo)
    while todo:
        for key in by_parent.get(todo.pop(), []):
            child = nodes.get(key.child)
            if key.child == key.parent:
                continue
            _check_child(key, child)
            if child is None and key.on_delete == "CASCADE" and key.child not in seen:
                seen.add(key.child)
                todo.append(key.child)


def _check_child(key: ForeignKey, child: Node | None) -> None:
    columns = ", ".join(key.columns)
    if child is None and key.blocks:
        raise ConnectorError(
            f'Rows of "{key.child}" refer to "{key.parent}" ({columns}) and would block the delete;'
            f' add "{key.child}" to tables with via {{"{key.columns[0]}":'
            f' "{key.parent}.{(key.parent_columns or ("?",))[0]}"}}, or mask "{key.parent}"'
        )
    if child is None or child.action == "delete" or key.on_delete == "SET NULL":
        return
    if not any(child.mask.get(c, MaskRule("keep")).mode == "null" for c in key.columns):
        raise ConnectorError(
            f'"{key.child}" is masked but refers to "{key.parent}" ({columns}), which is deleted;'
            f' mask "{key.columns[0]}" with null, or mask "{key.parent}" too'
        )


def _nodes(rules: Sequence[TableRule], catalogue: Catalogue) -> dict[TableName, Node]:
    tables = {rule.name: catalogue.table(rule.name) for rule in rules}
    nodes: dict[TableName, Node] = {}
    for rule in rules:
        described = tables[rule.name]
        mask = rule.mask_rules
        for column in mask:
            described.column(column)
        node = Node(
            label=rule.name,
            described=described,
            matches=tuple(_matches(rule.match, described, mask, catalogue.dialect)),
            vias=(_via(rule, described, tables),) if rule.via else (),
            action=rule.action,
            mask=mask,
            max_rows=rule.max_rows,
        )
        before = nodes.get(described.name)
        nodes[described.name] = node if before is None else _merged(before, node)
    return nodes


def _merged(one: Node, two: Node) -> Node:
    """The same table listed twice: rows found by either way, one action."""
    if (one.action, one.mask) != (two.action, two.mask):
        raise ConnectorError(f'"{one.label}" is listed twice with different actions or masks')
    return Node(
        one.label,
        one.described,
        (*one.matches, *two.matches),
        (*one.vias, *two.vias),
        one.action,
        one.mask,
        min(one.max_rows, two.max_rows),
    )


def _matches(
    match: Mapping[str, str],
    described: Described,
    mask: Mapping[str, MaskRule] | None,
    dialect: str,
) -> Iterator[Match]:
    for name, kind in match.items():
        column = described.column(name)
        place = f'"{described.name}.{name}"'
        how = family(column, dialect)
        if how is None:
            raise ConnectorError(f"{place} has a type that cannot hold an identifier")
        if how is not Family.TEXT and kind in (Kind.EMAIL, Kind.PHONE):
            raise ConnectorError(f"{place} is no text column and cannot hold the kind {kind}")
        rule = (mask or {}).get(name)
        yield Match(column, kind, how, stays=mask is not None and (not rule or rule.mode == "keep"))


def _via(rule: TableRule, described: Described, tables: Mapping[str, Described]) -> Via:
    pairs = []
    parents = set()
    for own, target in rule.via.items():
        parent, column = _parent_column(rule, target, tables)
        parents.add(parent.name)
        pairs.append((described.column(own), parent.column(column)))
    if len(parents) > 1:
        raise ConnectorError(
            f'The via of "{rule.name}" names several parents; list the table once for each'
        )
    parent = next(each for each in tables.values() if each.name in parents)
    if parent.name == described.name:
        raise ConnectorError(f'The via of "{rule.name}" names the table itself')
    _check_via_reaches_one(rule, described, parent, [(a.name, b.name) for a, b in pairs])
    return Via(tuple(pairs), parent.name)


def _parent_column(
    rule: TableRule, target: str, tables: Mapping[str, Described]
) -> tuple[Described, str]:
    for name, parent in tables.items():
        if target.startswith(f"{name}.") and target[len(name) + 1 :] in parent.table.columns:
            return parent, target[len(name) + 1 :]
    for name, parent in tables.items():
        if target.startswith(f"{name}."):
            parent.column(target[len(name) + 1 :])
    known = [f"{name}.{c.name}" for name, each in tables.items() for c in each.table.columns]
    raise ConnectorError(
        f'The via of "{rule.name}" leads to {quoted(target)}, which is no column of a table'
        f" listed under tables{near(target, known)}"
    )


def _check_via_reaches_one(
    rule: TableRule, described: Described, parent: Described, pairs: Sequence[tuple[str, str]]
) -> None:
    """A via must lead to one parent row: by a foreign key, or to a unique column of the parent."""
    own, theirs = {a for a, _ in pairs}, {b for _, b in pairs}
    by_key = any(
        key.parent == parent.name
        and set(zip(key.columns, key.parent_columns or parent.key, strict=False)) == set(pairs)
        for key in described.foreign_keys
    )
    is_unique = set(parent.key) == theirs or frozenset(theirs) in parent.uniques
    if len(theirs) < len(own) or not (by_key or is_unique):
        raise ConnectorError(
            f'The via of "{rule.name}" must follow one foreign key, or lead to the key of'
            f' "{parent.name}"; as it is, it could reach rows of other people'
        )


def _check_node(node: Node) -> None:
    if not node.described.is_transactional:
        raise ConnectorError(
            f'"{node.label}" has a storage engine without transactions; convert it to InnoDB'
        )
    if not node.described.key and len(node.matches) + len(node.vias) > 1:
        raise ConnectorError(
            f'"{node.label}" has no primary key, so it can be found in one way only; add a key'
        )
    for name, rule in node.mask.items():
        _check_mask(node, node.described.column(name), rule)
    if node.action == "mask" and not node.vias and all(match.stays for match in node.matches):
        raise ConnectorError(
            f'The mask of "{node.label}" leaves every match column as it is, so the person would'
            " still be found; mask a match column, or delete the rows"
        )


def _check_mask(node: Node, column: Column[Any], rule: MaskRule) -> None:
    place = f'"{node.label}.{column.name}"'
    if rule.mode == "keep":
        return
    described = node.described
    if column.name in described.key:
        raise ConnectorError(f"{place} is part of the table's key and cannot be masked")
    if column.computed is not None:
        raise ConnectorError(f"{place} is computed by the database and cannot be masked")
    refers = any(column.name in key.columns for key in described.foreign_keys)
    if refers and rule.mode != "null":
        raise ConnectorError(f"{place} refers to another table; it can only be null or kept")
    is_unique = any(column.name in group for group in described.uniques)
    if problem := _MASK_CHECKS[rule.mode](node, column, rule, is_unique):
        raise ConnectorError(f"{place}: {problem}")


def _null_problem(_: Node, column: Column[Any], __: MaskRule, ___: bool) -> str | None:
    return None if column.nullable else "the column is NOT NULL and cannot be masked with null"


def _hash_problem(node: Node, column: Column[Any], _: MaskRule, is_unique: bool) -> str | None:
    length = masking.text_length(column)
    shortest = masking.SHORTEST_UNIQUE_HASH if is_unique else masking.SHORTEST_HASH
    if not masking.is_text(column):
        return "hash needs a text column"
    if length is not None and length < shortest:
        return f"hash needs a column of at least {shortest} characters"
    return _keyless_problem(node)


def _format_problem(node: Node, column: Column[Any], _: MaskRule, __: bool) -> str | None:
    length = masking.text_length(column)
    if not masking.is_text(column):
        return "format needs a text column"
    is_address = any(m.column.name == column.name and m.kind == Kind.EMAIL for m in node.matches)
    if is_address and length is not None and length < masking.SHORTEST_ADDRESS:
        return f"format of an e-mail needs at least {masking.SHORTEST_ADDRESS} characters"
    return _keyless_problem(node)


def _constant_problem(_: Node, column: Column[Any], rule: MaskRule, is_unique: bool) -> str | None:
    if is_unique:
        return "the column is unique, so two people cannot have the same constant; use hash"
    try:
        masking.constant(rule.text, column)
    except ValueError as why:
        return str(why)
    return None


def _keyless_problem(node: Node) -> str | None:
    if node.described.key:
        return None
    return "the table has no primary key, so only null and constant are possible; add a key"


_MASK_CHECKS = {
    "null": _null_problem,
    "hash": _hash_problem,
    "format": _format_problem,
    "constant": _constant_problem,
}


def _reach_order(nodes: Mapping[TableName, Node]) -> tuple[Node, ...]:
    graph = {name: [via.parent for via in node.vias] for name, node in nodes.items()}
    return _sorted(graph, nodes, "The via rules lead in a circle: ")


def _change_order(nodes: Mapping[TableName, Node]) -> tuple[Node, ...]:
    masked = [node for node in nodes.values() if node.action == "mask"]
    deleted = {name: node for name, node in nodes.items() if node.action == "delete"}
    graph: dict[TableName, list[TableName]] = {name: [] for name in deleted}
    for name, node in deleted.items():
        parents = [key.parent for key in node.described.foreign_keys]
        for parent in {*parents, *(via.parent for via in node.vias)} - {name}:
            if parent in deleted:
                graph[parent].append(name)
    order = _sorted(graph, deleted, "These tables refer to each other, so none can be first: ")
    return (*masked, *order)


def _sorted(
    graph: Mapping[TableName, Iterable[TableName]], nodes: Mapping[TableName, Node], words: str
) -> tuple[Node, ...]:
    try:
        return tuple(nodes[name] for name in TopologicalSorter(graph).static_order())
    except CycleError as cycle:
        names = ", ".join(dict.fromkeys(str(name) for name in cycle.args[1]))
        raise ConnectorError(words + names) from None


def _lookup(rule: LookupRule, catalogue: Catalogue) -> Lookup:
    described = catalogue.table(rule.table)
    yields = []
    for name, kind in rule.yields.items():
        column = described.column(name)
        if family(column, catalogue.dialect) is None:
            raise ConnectorError(f'"{rule.table}.{name}" has a type that cannot hold an identifier')
        yields.append((column, kind))
    matches = tuple(_matches(rule.match, described, None, catalogue.dialect))
    return Lookup(matches, tuple(yields), described)
