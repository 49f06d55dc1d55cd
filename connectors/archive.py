"""File archives of NDJSON: removes the lines that name a person, and leaves every other byte."""

from __future__ import annotations

import contextlib
import datetime as dt
import gzip
import io
import json
import string
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Annotated, Any, ClassVar, Literal

from pydantic import Field, StringConstraints

from connectors.contract import (
    AddressRefused,
    ConnectorError,
    ConnectorSettings,
    Kind,
    Outcome,
    PeopleConnector,
    Person,
    Residual,
    Trees,
    Verdict,
    failed,
    retry,
    skipped,
)

LINE_LIMIT = 16 * 1024 * 1024
"""A longer line is not read into memory; it is kept and reported as corrupt."""
EXPANDS_FREELY = 1024**3
EXPANDS_TIMES = 400
"""A gzip stream may grow to a GiB, and beyond that by this factor."""
TRIES = 3
"""How often a file that another writer keeps changing is read again in one call."""
SHOWN_FILES = 20
_ENDINGS = (".ndjson", ".jsonl", ".ndjson.gz", ".jsonl.gz")
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_NOBODY = frozenset({"", "0", "-", "null", "none", "nil", "undefined", "nan", "n/a"})
_STORES = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "r2")

DottedPath = Annotated[
    str, StringConstraints(pattern=r"^[^.]+(\.[^.]+){0,7}$", min_length=1, max_length=200)
]
KindName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Flaw = Literal["ambiguous_path", "shared_line"]


class Archive(PeopleConnector):
    """NDJSON files, plain or gzip, below one directory; see ``connectors/README.md``."""

    title = "File archive (NDJSON)"
    accepts_all = True
    batch = 500
    concurrency = 1
    timeout = dt.timedelta(hours=6)
    runs_in: ClassVar[Literal["loop", "thread", "process"]] = "thread"

    class Settings(ConnectorSettings):
        url: str = Field(description="Directory, or an fsspec URL such as s3://bucket/events")
        format: Literal["ndjson"] = "ndjson"
        match: dict[DottedPath, KindName] = Field(
            min_length=1, description="Dotted path in each line: kind of identifier"
        )

    def check(self) -> None:
        if "@" in self.settings.url.partition("://")[2].partition("/")[0]:
            raise ConnectorError("The url holds a user name or password; give them to the service")
        with _no_words():
            self._tree().files()

    def test(self) -> str:
        with _no_words():
            tree = self._tree()
            files = _archive_files(tree)
            for path in files[:1]:
                with _opened(tree, path) as stream:
                    stream.read(1)
        packed = sum(path.endswith(".gz") for path in files)
        return f"Found {len(files)} file{'' if len(files) == 1 else 's'}, {packed} of them gzip"

    def erase(self, people: Sequence[Person]) -> Outcome | Mapping[str, Outcome]:
        """Remove the people's lines; one that cannot be judged stops its people, not the others."""
        search = Search(self.settings.match, people)
        try:
            tree = self._tree()
            scans = {path: _scan(tree, path, search) for path in _archive_files(tree)}
            if not scans:
                return retry("no_files")
            blocked = _blocked(scans.values())
            going = search.without(blocked)
            removed = {
                path: _rewrite(tree, path, going)
                for path, scan in scans.items()
                if not scan.is_unreadable and scan.counts.keys() - blocked.keys()
            }
            after = _scan_again(tree, going, scans, removed)
        except AddressRefused:
            return retry("address_refused", parks=True)
        except _ChangedError:
            return retry("files_keep_changing")
        except OSError:
            return retry("storage_error")
        view = _View(removed, after, self.settings.url.partition("://")[0] in _STORES)
        return {
            person.id: failed(blocked[person.id])
            if person.id in blocked
            else _outcome(person, search, view)
            for person in people
        }

    def count(self, people: Sequence[Person]) -> dict[str, dict[str, int]]:
        """Dry run: lines per file and person."""
        search = Search(self.settings.match, people)
        found: dict[str, dict[str, int]] = {person.id: {} for person in people}
        with _no_words():
            tree = self._tree()
            for path in _archive_files(tree):
                for who, lines in _scan(tree, path, search).counts.items():
                    found[who][path] = lines
        return found

    def _tree(self) -> Trees:
        return self.tools.open_tree(self.settings.url)


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What one line says: whose it is, and for whom it cannot be judged."""

    owners: frozenset[str] = frozenset()
    flaws: Mapping[str, Flaw] = field(default_factory=dict)
    is_corrupt: bool = False
    named: frozenset[str] = frozenset()
    """People whose value stands in the bytes of a corrupt line."""

    @property
    def goes(self) -> bool:
        return bool(self.owners) and not self.flaws


class Search:
    """The people of one batch, ready to be looked for in lines."""

    def __init__(self, match: Mapping[str, str], people: Sequence[Person]) -> None:
        self.match = match
        self.people = tuple(people)
        self.kinds = frozenset(match.values())
        self._paths = [(tuple(path.split(".")), kind) for path, kind in match.items()]
        self._owners: dict[tuple[str, str], frozenset[str]] = {}
        self._needles: dict[bytes, frozenset[str]] = {}
        for person in people:
            for each in person.identifiers:
                if each.kind in self.kinds and is_usable(each.value):
                    form = comparable(each.value, each.kind)
                    _add(self._owners, (each.kind, form), person.id)
                    _add(self._needles, form.encode().lower(), person.id)

    def without(self, ids: Iterable[str]) -> Search:
        """The same search for fewer people."""
        gone = set(ids)
        return Search(self.match, [person for person in self.people if person.id not in gone])

    def judge(self, line: bytes) -> Verdicts:
        """Every line is parsed, so that a corrupt one is seen; most are then known not to match."""
        text = line.strip(b" \t\r\n").removeprefix(b"\xef\xbb\xbf")
        if not text:
            return Verdicts()
        try:
            json.loads(text.decode("utf-8"))
        except (ValueError, RecursionError):
            return self.corrupt(line)
        lower = text.lower()
        if b"\\" not in lower and not any(needle in lower for needle in self._needles):
            return Verdicts()
        document = json.loads(text.decode(), object_pairs_hook=_Members, parse_int=str)
        return self._judge(document)

    def corrupt(self, piece: bytes) -> Verdicts:
        lower = piece.lower()
        named = [ids for needle, ids in self._needles.items() if needle in lower]
        return Verdicts(is_corrupt=True, named=frozenset().union(*named))

    def is_named_in(self, path: str) -> bool:
        """Whether a file's path holds one of the values."""
        lower = path.encode("utf-8", "surrogateescape").lower()
        return any(needle in lower for needle in self._needles)

    def _judge(self, document: Any) -> Verdicts:
        owners: set[str] = set()
        flaws: dict[str, Flaw] = {}
        for steps, kind in self._paths:
            seen = [
                (reading, subject, self._owners.get((kind, form), frozenset()))
                for reading, subject, form in _values(document, steps, kind)
            ]
            for who in frozenset().union(*(ids for *_, ids in seen)):
                owners.add(who)
                mine = [(reading, subject) for reading, subject, ids in seen if who in ids]
                if {reading for reading, *_ in seen} != {reading for reading, _ in mine}:
                    flaws[who] = "ambiguous_path"
                # Another element of the same array may be another person's record.
                if {s for _, s, ids in seen if not ids} - {subject for _, subject in mine}:
                    flaws.setdefault(who, "shared_line")
        return Verdicts(frozenset(owners), flaws)


def is_usable(value: str) -> bool:
    """Whether a value can name somebody: not blank, no filler such as ``null``, real Unicode."""
    is_text = not any("\ud800" <= each <= "\udfff" for each in value)
    return is_text and value.strip().lower() not in _NOBODY


def comparable(value: str, kind: str) -> str:
    """E-mail compares without the case of the 26 letters, everything else exactly."""
    return value.translate(_LOWER) if kind == Kind.EMAIL else value


class _Members(list[tuple[str, Any]]):
    """A JSON object with every member, also those that are there twice."""


def _values(document: Any, steps: tuple[str, ...], kind: str) -> Iterator[tuple[str, str, str]]:
    """(reading, subject, comparable value) at a path.

    ``reading``: how the path was understood, ``user`` / ``email`` or the flat key ``user.email``,
    and which one of equal keys was taken.
    ``subject``: which elements of arrays of objects were passed; values of one subject go together.
    """
    todo: list[tuple[Any, tuple[str, ...], str, str]] = [(document, steps, "", "")]
    while todo:
        node, rest, reading, subject = todo.pop()
        match node:
            case _Members() if rest:
                keys = {".".join(rest[:length]): length for length in range(1, len(rest) + 1)}
                hits = [(keys[key], below) for key, below in node if key in keys]
                for nth, (length, below) in enumerate(hits):
                    before = sum(each == length for each, _ in hits[:nth])
                    step = f"{reading}/{length}#{before}"
                    todo.append((below, rest[length:], step, subject))
            case _Members():
                pass
            case list() if rest:
                todo += [(e, rest, reading, f"{subject}/{i}") for i, e in enumerate(node)]
            case list():
                todo += [(each, (), reading, subject) for each in node]
            case str() if not rest:
                yield reading, subject, comparable(node, kind)


@dataclass(slots=True)
class Scan:
    """What one reading of one file saw."""

    version: str
    counts: dict[str, int] = field(default_factory=dict)
    flaws: dict[str, Flaw] = field(default_factory=dict)
    groups: set[frozenset[str]] = field(default_factory=set)
    """People who are in one line together."""
    corrupt_lines: int = 0
    named: set[str] = field(default_factory=set)
    is_unreadable: bool = False

    def add(self, seen: Verdicts) -> None:
        for who in seen.owners:
            self.counts[who] = self.counts.get(who, 0) + 1
        if len(seen.owners) > 1:
            self.groups.add(seen.owners)
        self.flaws |= seen.flaws
        self.corrupt_lines += seen.is_corrupt
        self.named |= seen.named


@dataclass(frozen=True, slots=True)
class _View:
    """What was done and what was seen afterwards, file by file."""

    removed: Mapping[str, Mapping[str, int]]
    after: Mapping[str, Scan]
    is_object_store: bool


class _ChangedError(Exception):
    """Another writer changed the file in between."""


class _UnreadableError(Exception):
    """A gzip stream that is broken, cut off, or expands without end."""


class _NothingToDoError(Exception):
    """The lines went away by themselves; the file stays as it is."""


def _archive_files(tree: Trees) -> list[str]:
    return [path for path in tree.files() if path.lower().endswith(_ENDINGS)]


def _scan(tree: Trees, path: str, search: Search) -> Scan:
    for _ in range(TRIES):
        scan = Scan(tree.version(path))
        try:
            with _opened(tree, path) as stream:
                for _, seen in _judged(stream, search):
                    scan.add(seen)
        except _UnreadableError:
            scan = Scan(scan.version, is_unreadable=True)
        if tree.version(path) == scan.version:
            return scan
    raise _ChangedError


def _scan_again(
    tree: Trees, search: Search, before: Mapping[str, Scan], removed: Mapping[str, object]
) -> dict[str, Scan]:
    """Look again at every file that is new or not as it was; the others had no match."""
    after = {}
    for path in _archive_files(tree):
        known = before.get(path)
        is_as_it_was = known is not None and path not in removed
        if known is not None and is_as_it_was and tree.version(path) == known.version:
            after[path] = known
        else:
            after[path] = _scan(tree, path, search)
    return after


def _rewrite(tree: Trees, path: str, search: Search) -> dict[str, int]:
    """Copy all lines but the people's; the copy replaces the file only if nobody touched it."""
    for _ in range(TRIES):
        before = tree.version(path)
        removed: dict[str, int] = {}
        try:
            with _opened(tree, path) as source, tree.replace(path) as target:
                with _packed(target, path) as copy:
                    for piece, seen in _judged(source, search):
                        if not seen.goes:
                            copy.write(piece)
                        for who in seen.owners if seen.goes else ():
                            removed[who] = removed.get(who, 0) + 1
                if tree.version(path) != before:
                    raise _ChangedError
                if not removed:
                    raise _NothingToDoError
        except (_ChangedError, _UnreadableError):
            continue
        except _NothingToDoError:
            return {}
        return removed
    raise _ChangedError


def _judged(stream: IO[bytes], search: Search) -> Iterator[tuple[bytes, Verdicts]]:
    """Every byte of the stream, line by line, with what it says."""
    while piece := stream.readline(LINE_LIMIT):
        if len(piece) < LINE_LIMIT or piece.endswith(b"\n"):
            yield piece, search.judge(piece)
            continue
        yield piece, search.corrupt(piece)
        while (piece := stream.readline(LINE_LIMIT)) and not piece.endswith(b"\n"):
            yield piece, Verdicts(named=search.corrupt(piece).named)
        yield piece, Verdicts(named=search.corrupt(piece).named)


@contextlib.contextmanager
def _opened(tree: Trees, path: str) -> Iterator[IO[bytes]]:
    with tree.open(path) as raw:
        if not path.lower().endswith(".gz"):
            yield raw
            return
        with gzip.GzipFile(fileobj=raw, mode="rb") as packed:
            yield io.BufferedReader(_Unpacked(packed, raw), 1 << 18)


class _Unpacked(io.RawIOBase):
    """A gzip stream with one kind of error, and an end to its growth."""

    def __init__(self, packed: gzip.GzipFile, raw: IO[bytes]) -> None:
        super().__init__()
        self._packed, self._raw = packed, raw
        self._size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            chunk = self._packed.read1(len(buffer))
        except (EOFError, gzip.BadGzipFile, zlib.error):
            raise _UnreadableError from None
        self._size += len(chunk)
        if self._size > max(EXPANDS_FREELY, EXPANDS_TIMES * self._raw.tell()):
            raise _UnreadableError
        buffer[: len(chunk)] = chunk
        return len(chunk)


@contextlib.contextmanager
def _packed(target: IO[bytes], path: str) -> Iterator[IO[bytes]]:
    """The same lines give the same bytes: no time and no name in the gzip header."""
    if not path.lower().endswith(".gz"):
        yield target
        return
    with gzip.GzipFile("", "wb", compresslevel=6, fileobj=target, mtime=0) as packed:
        yield packed  # type: ignore[misc]


def _blocked(scans: Iterable[Scan]) -> dict[str, Flaw]:
    """People with a line that cannot be judged, and people who share a line with them."""
    blocked: dict[str, Flaw] = {}
    groups: set[frozenset[str]] = set()
    for scan in scans:
        blocked |= scan.flaws
        groups |= scan.groups
    while spread := {who for group in groups if group & blocked.keys() for who in group} - set(
        blocked
    ):
        blocked |= dict.fromkeys(spread, "shared_line")
    return blocked


def _outcome(person: Person, search: Search, view: _View) -> Outcome:
    values = [each.value for each in person.identifiers if each.kind in search.kinds]
    if not values:
        return skipped("no_usable_identifier")
    if not any(map(is_usable, values)):
        return failed("unusable_identifier")
    scans = view.after.values()
    lines = {path: n[person.id] for path, n in view.removed.items() if person.id in n}
    corrupt = sum(scan.corrupt_lines for scan in scans)
    unreadable = sum(scan.is_unreadable for scan in scans)
    facts = _facts(lines, corrupt, unreadable, search)
    flaw = next((scan.flaws[person.id] for scan in scans if person.id in scan.flaws), None)
    if flaw is not None:
        return Outcome(Verdict.FAILED, reason=flaw, facts=facts)
    if any(person.id in scan.counts for scan in scans if not scan.is_unreadable):
        return Outcome(Verdict.RETRY, reason="found_again", facts=facts)
    if unreadable:
        return Outcome(Verdict.FAILED, reason="unreadable_file", facts=facts)
    if not lines and any(person.id in scan.named for scan in scans):
        return Outcome(Verdict.FAILED, reason="corrupt_input", facts=facts)
    residuals = [Residual(f"{corrupt} unreadable lines", "unreadable_lines")] if corrupt else []
    if lines and view.is_object_store:
        residuals.append(Residual("Earlier versions, if the bucket keeps them", "object_versions"))
    return Outcome(
        Verdict.DONE if lines else Verdict.ABSENT,
        read_back=bool(lines) and not corrupt,
        residuals=tuple(residuals),
        facts=facts,
    )


def _facts(
    lines: Mapping[str, int], corrupt: int, unreadable: int, search: Search
) -> dict[str, int | str]:
    """Counts in all and per file; a file whose name holds an identifier is only numbered."""
    facts: dict[str, int | str] = {"lines": sum(lines.values()), "files": len(lines)}
    facts |= {"corrupt_lines": corrupt} if corrupt else {}
    facts |= {"unreadable_files": unreadable} if unreadable else {}
    for number, (path, count) in enumerate(list(lines.items())[:SHOWN_FILES], start=1):
        facts[f"file {number}" if search.is_named_in(path) else path] = count
    return facts


def _add(index: dict[Any, frozenset[str]], key: object, who: str) -> None:
    index[key] = index.get(key, frozenset()) | {who}


@contextlib.contextmanager
def _no_words() -> Iterator[None]:
    """An operating system's error names files, and a file's name can be an identifier."""
    try:
        yield
    except (OSError, _ChangedError, _UnreadableError):
        is_broken = True
    else:
        is_broken = False
    if is_broken:
        raise ConnectorError("The archive cannot be read; check that it exists and may be read")
