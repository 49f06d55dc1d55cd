"""The archive connector and the trees it works on."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, cast

import fsspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from connectors import archive
from connectors.archive import Archive
from connectors.contract import AddressRefused, ConnectorError, Identifier, Outcome, Person, Verdict
from connectors.trees import FsspecTree, LocalTree

BOB = "bob@example.com"
MATCH = {"user.email": "email", "user.id": "user_id"}


class FakeTools:
    """Opens local directories, and memory:// through fsspec."""

    def __init__(self, tree: Any = None) -> None:
        self.tree = tree

    def open_tree(self, url: str) -> Any:
        if self.tree is not None:
            return self.tree
        if "://" in url:
            return FsspecTree(fsspec.filesystem(url.partition("://")[0]), url)
        return LocalTree(url)


class Meddler:
    """A tree in which somebody else writes between our reading and our replacing."""

    def __init__(self, tree: LocalTree, meddle: Callable[[], None], times: int) -> None:
        self._tree, self._meddle, self._left = tree, meddle, times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tree, name)

    @contextlib.contextmanager
    def replace(self, path: str) -> Iterator[IO[bytes]]:
        with self._tree.replace(path) as stream:
            if self._left:
                self._left -= 1
                self._meddle()
            yield stream


def person(name: str, **identifiers: str) -> Person:
    return Person(name, tuple(Identifier(kind, value) for kind, value in identifiers.items()))


def connector(url: object, match: Mapping[str, str] = MATCH, tree: Any = None) -> Archive:
    return Archive(Archive.Settings(url=str(url), match=dict(match)), cast(Any, FakeTools(tree)))


def erase(made: Archive, *people: Person) -> dict[str, Outcome]:
    answer = made.erase(people)
    return {each.id: answer for each in people} if isinstance(answer, Outcome) else dict(answer)


def event(email: object, **more: object) -> bytes:
    return json.dumps({"user": {"email": email, **more}, "at": 1.50}).encode() + b"\n"


def state(root: Path) -> dict[str, tuple[bytes, int, int]]:
    """Bytes, inode and time of every file."""
    return {
        str(path.relative_to(root)): (
            path.read_bytes(),
            path.stat().st_ino,
            path.stat().st_mtime_ns,
        )
        for path in root.rglob("*")
        if path.is_file()
    }


def test_only_files_with_a_match_are_written_and_kept_lines_keep_their_bytes(
    tmp_path: Path,
) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    kept = b'{"user" :{"email":"eve@example.com"}, "n": 1.0e5}\r\n'
    last = b'{"user":{"email":"\\u00e9ve@example.com"}}'
    mine = event(BOB)
    (tmp_path / "a.ndjson").write_bytes(kept + mine + b"\n" + mine + last)
    (tmp_path / "deep" / "b.jsonl").write_bytes(kept + last)
    (tmp_path / "deep" / "er" / "c.jsonl.gz").write_bytes(
        gzip.compress(kept) + gzip.compress(mine + last)
    )
    (tmp_path / "d.txt").write_bytes(mine)
    (tmp_path / "a.ndjson").chmod(0o640)
    before = state(tmp_path)
    made = connector(tmp_path)
    people = (person("a", email=BOB), person("b", email="nobody@example.com"))
    assert made.count(people) == {"a": {"a.ndjson": 2, "deep/er/c.jsonl.gz": 1}, "b": {}}
    assert state(tmp_path) == before

    found = erase(made, *people)

    assert found["a"].read_back
    assert found["a"].facts == {"lines": 3, "files": 2, "a.ndjson": 2, "deep/er/c.jsonl.gz": 1}
    assert (found["b"].verdict, found["b"].residuals) == (Verdict.ABSENT, ())
    after = state(tmp_path)
    assert after["a.ndjson"][0] == kept + b"\n" + last
    assert gzip.decompress(after["deep/er/c.jsonl.gz"][0]) == kept + last
    for untouched in ("deep/b.jsonl", "d.txt"):
        assert after[untouched] == before[untouched]
    assert after.keys() == before.keys()
    assert (tmp_path / "a.ndjson").stat().st_mode & 0o777 == 0o640
    assert erase(made, *people)["a"].verdict is Verdict.ABSENT
    assert state(tmp_path) == after


def test_a_rewritten_gzip_has_the_same_bytes_for_the_same_lines(tmp_path: Path) -> None:
    written: list[bytes] = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        path = tmp_path / name / f"{name}.ndjson.gz"
        path.write_bytes(gzip.compress(event(BOB) + event("eve@example.com"), mtime=len(written)))
        erase(connector(tmp_path / name), person("a", email=BOB))
        written.append(path.read_bytes())
    assert written[0] == written[1]
    assert written[0][3:8] == bytes(5), "neither a name nor a time"


@pytest.mark.parametrize(
    ("line", "goes"),
    [
        ({"user": {"email": "BOB@Example.com"}}, True),
        ({"user": {"email": "bob@example.com "}}, False),
        ({"user": {"email": "b\u00f3b@example.com"}}, False),
        ({"user": {"email": None}}, False),
        ({"user": {"id": 42}}, True),
        ({"user": {"id": "42"}}, True),
        ({"user": {"id": 42.0}}, False),
        ({"user": {"id": True}}, False),
        ({"user": {"id": "042"}}, False),
        ({"user.id": 42}, True),
        ({"user": [{"id": 42}]}, True),
        ({"user": {"id": [41, 42]}}, True),
        ({"user": {"id": {"x": 42}}}, False),
        ({"USER": {"ID": 42}}, False),
        ({"other": {"id": 42}}, False),
        ({"id": 42}, False),
        ([{"user": {"id": 42}}], True),
        ({"user": {"ID": 42, "id": 43}}, False),
    ],
)
def test_a_line_matches_by_its_full_path_and_exact_value(
    tmp_path: Path, line: object, goes: bool
) -> None:
    (tmp_path / "a.ndjson").write_text(json.dumps(line) + "\n")
    found = erase(connector(tmp_path), person("a", email=BOB, user_id="42"))["a"]
    assert found.verdict is (Verdict.DONE if goes else Verdict.ABSENT)
    assert (tmp_path / "a.ndjson").stat().st_size == 0 or not goes


def test_a_byte_order_mark_hides_nobody(tmp_path: Path) -> None:
    (tmp_path / "a.ndjson").write_bytes(b"\xef\xbb\xbf" + event(BOB) + event("eve@x.org"))
    assert erase(connector(tmp_path), person("a", email=BOB))["a"].read_back
    assert (tmp_path / "a.ndjson").read_bytes() == event("eve@x.org")


def test_an_escaped_value_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.ndjson").write_bytes(b'{"\\u0075ser":{"email":"bob\\u0040example.com"}}\n')
    assert erase(connector(tmp_path), person("a", email=BOB))["a"].read_back


@pytest.mark.parametrize(
    "line",
    [
        b'{"user":{"email":"bob@example.com"},"user.email":"eve@example.com"}\n',
        b'{"user.email":"bob@example.com","user":{"email":"eve@example.com"}}\n',
        b'{"user":{"email":"bob@example.com","email":"eve@example.com"}}\n',
        b'{"user":{"email":"eve@example.com"},"user":{"email":"bob@example.com"}}\n',
    ],
)
def test_par_005_a_path_that_reads_two_ways_is_refused(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "a.ndjson").write_bytes(event(BOB) + line + event("carol@example.com"))
    before = state(tmp_path)
    found = erase(connector(tmp_path), person("a", email=BOB))["a"]
    assert (found.verdict, found.reason) == (Verdict.FAILED, "ambiguous_path")
    assert state(tmp_path) == before


def test_par_005_two_readings_with_the_same_person_are_clear(tmp_path: Path) -> None:
    line = {"user": {"email": BOB}, "user.email": BOB.upper()}
    (tmp_path / "a.ndjson").write_text(json.dumps(line))
    assert erase(connector(tmp_path), person("a", email=BOB))["a"].read_back


def test_par_005_a_refused_person_does_not_stop_the_others(tmp_path: Path) -> None:
    unclear = {"user": {"email": BOB}, "user.email": "dave@example.com"}
    (tmp_path / "a.ndjson").write_bytes(json.dumps(unclear).encode() + b"\n" + event("eve@x.org"))
    found = erase(connector(tmp_path), person("a", email=BOB), person("b", email="eve@x.org"))
    assert (found["a"].reason, found["b"].read_back) == ("ambiguous_path", True)


def test_a_line_shared_with_another_person_is_left_and_said(tmp_path: Path) -> None:
    (tmp_path / "a.ndjson").write_text(
        '{"users":[{"email":"bob@example.com"},{"email":"e@x.org"}]}'
    )
    before = state(tmp_path)
    made = connector(tmp_path, {"users.email": "email"})
    found = erase(made, person("a", email=BOB))["a"]
    assert (found.verdict, found.reason) == (Verdict.FAILED, "shared_line")
    assert state(tmp_path) == before
    both = erase(made, person("a", email=BOB), person("b", email="e@x.org"))
    assert all(each.read_back for each in both.values())
    assert (tmp_path / "a.ndjson").read_bytes() == b""


def test_who_shares_a_line_with_a_refused_person_is_refused_before_anything_changes(
    tmp_path: Path,
) -> None:
    lines = [
        {"users": [{"email": BOB}, {"email": "eve@x.org"}]},
        {"users": {"email": "eve@x.org"}},
        {"users": {"email": BOB}, "users.email": "carol@x.org"},
    ]
    (tmp_path / "a.ndjson").write_text("".join(json.dumps(each) + "\n" for each in lines))
    before = state(tmp_path)
    made = connector(tmp_path, {"users.email": "email"})
    found = erase(made, person("a", email=BOB), person("b", email="eve@x.org"))
    assert (found["a"].reason, found["b"].reason) == ("ambiguous_path", "shared_line")
    assert state(tmp_path) == before


@pytest.mark.parametrize(
    "corrupt",
    [b'{"user": {"email": "x\n', b'{"user": "\xff"}\n', b"[" * 100_000 + b"\n", b'{"a": 1} x\n'],
    ids=["cut", "not utf-8", "deep", "trailing"],
)
def test_a_corrupt_line_is_kept_and_declared(tmp_path: Path, corrupt: bytes) -> None:
    (tmp_path / "a.ndjson").write_bytes(event(BOB) + corrupt + event("eve@x.org"))
    found = erase(connector(tmp_path), person("a", email=BOB), person("b", email="c@x.org"))
    assert (found["a"].verdict, found["a"].read_back) == (Verdict.DONE, False)
    assert found["a"].facts["corrupt_lines"] == 1
    assert [each.reason for each in found["a"].residuals] == ["unreadable_lines"]
    assert found["b"].verdict is Verdict.ABSENT
    assert found["b"].residuals == found["a"].residuals
    assert (tmp_path / "a.ndjson").read_bytes() == corrupt + event("eve@x.org")


def test_a_corrupt_line_that_names_the_person_is_no_absence(tmp_path: Path) -> None:
    (tmp_path / "a.ndjson").write_bytes(b'{"user": {"email": "Bob@example.com"\n')
    found = erase(connector(tmp_path), person("a", email=BOB))["a"]
    assert (found.verdict, found.reason) == (Verdict.FAILED, "corrupt_input")


def test_a_line_beyond_the_cap_is_corrupt_and_copied_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "LINE_LIMIT", 100)
    long = event(BOB, note="x" * 1000)
    exact = event("e@x.org", note="")
    exact = event("e@x.org", note="y" * (100 - len(exact)))
    assert len(exact) == 100
    (tmp_path / "a.ndjson").write_bytes(event(BOB) + long + exact + event("eve@x.org"))
    found = erase(connector(tmp_path), person("a", email=BOB))["a"]
    assert (found.facts["lines"], found.facts["corrupt_lines"]) == (1, 1)
    assert (tmp_path / "a.ndjson").read_bytes() == long + exact + event("eve@x.org")


@pytest.mark.parametrize("damage", ["cut", "garbage behind", "no gzip", "flipped"])
def test_a_broken_gzip_is_left_alone_and_fails(tmp_path: Path, damage: str) -> None:
    whole = gzip.compress(
        event(BOB) * 50 + b"".join(event(secrets.token_hex(9)) for _ in range(99))
    )
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    broken = {
        "cut": whole[:-9],
        "garbage behind": whole + b"garbage",
        "no gzip": event(BOB),
        "flipped": bytes(flipped),
    }[damage]
    (tmp_path / "a.ndjson.gz").write_bytes(broken)
    (tmp_path / "b.ndjson").write_bytes(event(BOB) + event("eve@x.org"))
    found = erase(connector(tmp_path), person("a", email=BOB), person("b", email="c@x.org"))
    for each in found.values():
        assert (each.verdict, each.reason) == (Verdict.FAILED, "unreadable_file")
    assert found["a"].facts == {"lines": 1, "files": 1, "unreadable_files": 1, "b.ndjson": 1}
    assert (tmp_path / "a.ndjson.gz").read_bytes() == broken
    assert (tmp_path / "b.ndjson").read_bytes() == event("eve@x.org")


def test_par_003_a_stream_that_expands_without_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "EXPANDS_FREELY", 1_000_000)
    monkeypatch.setattr(archive, "EXPANDS_TIMES", 100)
    (tmp_path / "a.ndjson.gz").write_bytes(gzip.compress(b"x" * 20_000_000, 9))
    found = erase(connector(tmp_path), person("a", email=BOB))["a"]
    assert found.reason == "unreadable_file"


def test_par_007_a_change_in_between_is_read_again_and_no_line_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    path.write_bytes(event(BOB) + event("eve@x.org"))

    def append() -> None:
        with path.open("ab") as stream:
            stream.write(event("new@x.org"))

    tree = Meddler(LocalTree(tmp_path), append, times=1)
    found = erase(connector(tmp_path, tree=tree), person("a", email=BOB))["a"]
    assert found.read_back
    assert path.read_bytes() == event("eve@x.org") + event("new@x.org")
    path.write_bytes(event(BOB) + event("eve@x.org"))
    tree = Meddler(LocalTree(tmp_path), append, times=99)
    found = erase(connector(tmp_path, tree=tree), person("a", email=BOB))["a"]
    assert (found.verdict, found.reason) == (Verdict.RETRY, "files_keep_changing")
    assert path.read_bytes().startswith(event(BOB) + event("eve@x.org") + event("new@x.org"))
    assert [each.name for each in tmp_path.iterdir()] == ["a.ndjson"]


def test_par_007_an_unclear_line_that_comes_in_between_stays_and_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    path.write_bytes(event(BOB))
    unclear = b'{"user":{"email":"bob@example.com"},"user.email":"eve@x.org"}\n'

    def append() -> None:
        with path.open("ab") as stream:
            stream.write(unclear)

    tree = Meddler(LocalTree(tmp_path), append, times=1)
    found = erase(connector(tmp_path, tree=tree), person("a", email=BOB))["a"]
    assert (found.verdict, found.reason) == (Verdict.FAILED, "ambiguous_path")
    assert path.read_bytes() == unclear


def test_a_line_written_behind_our_back_is_seen_when_reading_back(tmp_path: Path) -> None:
    (tmp_path / "a.ndjson").write_bytes(event(BOB))

    def write_late() -> None:
        (tmp_path / "z.ndjson").write_bytes(event(BOB))

    tree = Meddler(LocalTree(tmp_path), write_late, times=1)
    found = erase(connector(tmp_path, tree=tree), person("a", email=BOB))["a"]
    assert (found.verdict, found.reason) == (Verdict.RETRY, "found_again")


def test_par_009_an_object_store_may_keep_earlier_versions() -> None:
    store = fsspec.filesystem("memory")
    root = f"/{secrets.token_hex(4)}"
    store.pipe(f"{root}/a.ndjson", event(BOB))
    tree = FsspecTree(store, root)
    found = erase(connector("s3://bucket/x", tree=tree), person("a", email=BOB))["a"]
    assert [each.reason for each in found.residuals] == ["object_versions"]


def test_the_same_works_over_fsspec() -> None:
    store = fsspec.filesystem("memory")
    root = f"/{secrets.token_hex(4)}"
    kept = b'{"user":{"email":"eve@x.org"}}'
    store.pipe(f"{root}/d/a.ndjson", event(BOB) + kept)
    store.pipe(f"{root}/b.ndjson.gz", gzip.compress(event(BOB) + kept))
    store.pipe(f"{root}/.quittance-x.tmp", event(BOB))
    found = erase(connector(f"memory:/{root}"), person("a", email=BOB))["a"]
    assert (found.facts["lines"], found.read_back) == (2, True)
    assert store.cat(f"{root}/d/a.ndjson") == kept
    assert gzip.decompress(store.cat(f"{root}/b.ndjson.gz")) == kept
    assert sorted(store.find(root)) == [
        f"{root}/.quittance-x.tmp",
        f"{root}/b.ndjson.gz",
        f"{root}/d/a.ndjson",
    ]


def test_people_without_a_usable_identifier_are_not_called_absent(tmp_path: Path) -> None:
    (tmp_path / "a.ndjson").write_bytes(event("null") + event(""))
    found = erase(
        connector(tmp_path), person("a", phone="+49170"), person("b", email="null", user_id=" ")
    )
    assert (found["a"].verdict, found["a"].reason) == (Verdict.SKIPPED, "no_usable_identifier")
    assert (found["b"].verdict, found["b"].reason) == (Verdict.FAILED, "unusable_identifier")
    assert (tmp_path / "a.ndjson").read_bytes() == event("null") + event("")


def test_an_empty_archive_proves_nothing(tmp_path: Path) -> None:
    found = erase(connector(tmp_path), person("a", email=BOB))["a"]
    assert (found.verdict, found.reason) == (Verdict.RETRY, "no_files")


def test_an_identifier_in_a_file_name_is_not_repeated(tmp_path: Path) -> None:
    (tmp_path / f"{BOB}.ndjson").write_bytes(event(BOB))
    found = erase(connector(tmp_path), person("a", email=BOB))["a"]
    assert found.facts == {"lines": 1, "files": 1, "file 1": 1}


def test_check_and_test_speak_without_file_names(tmp_path: Path) -> None:
    (tmp_path / "a.ndjson.gz").write_bytes(gzip.compress(event(BOB)))
    (tmp_path / "b.jsonl").write_bytes(event(BOB))
    made = connector(tmp_path)
    made.check()
    assert made.test() == "Found 2 files, 1 of them gzip"
    with pytest.raises(ConnectorError):
        connector(tmp_path / "gone").check()
    with pytest.raises(ConnectorError, match="password"):
        connector("s3://key:hunter2@bucket/x").check()


@pytest.mark.parametrize("path", ["", ".", "a.", ".a", "a..b", ".".join("abcdefghi")])
def test_a_path_that_is_none_is_refused(path: str) -> None:
    with pytest.raises(ValidationError):
        Archive.Settings(url="x", match={path: "email"})
    with pytest.raises(ValidationError):
        Archive.Settings(url="x", match={})


# Trees -------------------------------------------------------------------------------------------


def test_a_tree_neither_lists_nor_follows_links(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    outside.mkdir()
    root.mkdir()
    (outside / "a.ndjson").write_bytes(event(BOB))
    (root / "link.ndjson").symlink_to(outside / "a.ndjson")
    (root / "dir").symlink_to(outside)
    os.mkfifo(root / "pipe.ndjson")
    tree = LocalTree(root)
    assert tree.files() == []
    for path in ("link.ndjson", "dir/a.ndjson"):
        with pytest.raises(OSError, match=r"link|director"), tree.open(path):
            pass
        with pytest.raises((OSError, AddressRefused)), tree.replace(path):
            pass
    with pytest.raises(AddressRefused), tree.open("pipe.ndjson"):
        pass
    with pytest.raises(AddressRefused):
        LocalTree(root / "dir")
    assert (outside / "a.ndjson").read_bytes() == event(BOB)


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "", "a//b", ".", "a\0b"])
def test_a_path_out_of_the_tree_is_refused(tmp_path: Path, path: str) -> None:
    store = FsspecTree(fsspec.filesystem("memory"), "/root")
    for tree in (LocalTree(tmp_path), store):
        with pytest.raises(AddressRefused), tree.open(path):
            pass
        with pytest.raises(AddressRefused), tree.replace(path):
            pass


def test_an_interrupted_replace_leaves_the_old_content_and_no_rest(tmp_path: Path) -> None:
    (tmp_path / "a.ndjson").write_bytes(b"old")
    tree = LocalTree(tmp_path)
    with contextlib.suppress(RuntimeError), tree.replace("a.ndjson") as stream:
        stream.write(b"half")
        raise RuntimeError
    assert [each.name for each in tmp_path.iterdir()] == ["a.ndjson"]
    assert (tmp_path / "a.ndjson").read_bytes() == b"old"


def test_what_a_killed_process_left_is_ignored_and_removed_after_a_day(tmp_path: Path) -> None:
    young, old = tmp_path / ".quittance-1.tmp", tmp_path / ".quittance-2.tmp"
    for path in (young, old):
        path.write_bytes(event(BOB))
    yesterday = time.time() - 25 * 3600
    os.utime(old, (yesterday, yesterday))
    assert LocalTree(tmp_path).files() == []
    assert young.exists()
    assert not old.exists()


# Any lines ---------------------------------------------------------------------------------------

VALUES = st.sampled_from(["bob@example.com", "BOB@EXAMPLE.COM", "eve@x.org", "", "bob", 42, None])
RECORDS = st.one_of(
    st.fixed_dictionaries({"user": st.fixed_dictionaries({"email": VALUES, "id": VALUES})}),
    st.recursive(
        st.none() | st.booleans() | st.text(max_size=5) | st.integers(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["user", "email", "x"]), inner, max_size=3)
        ),
        max_leaves=5,
    ),
)
SPACES = st.sampled_from([(", ", ": "), (",", ":"), (" ,\t", "  : ")])
LINES = st.one_of(
    st.builds(
        lambda record, spaces, ascii_only: json.dumps(
            record, separators=spaces, ensure_ascii=ascii_only
        ).encode("utf-8", "surrogatepass"),
        RECORDS,
        SPACES,
        st.booleans(),
    ),
    st.binary(max_size=12).map(lambda raw: raw.replace(b"\n", b"")),
)


def is_bobs(line: bytes) -> bool:
    """An independent reading: only plain nested records, as the strategy makes them."""
    try:
        record = json.loads(line.decode())
    except (ValueError, RecursionError):
        return False
    users = [each.get("user") for each in _dicts(record)]
    return any(_is_bobs(each.get("email")) for user in users for each in _dicts(user))


def _dicts(node: object) -> list[dict[str, Any]]:
    if isinstance(node, list):
        return [found for each in node for found in _dicts(each)]
    return [node] if isinstance(node, dict) else []


def _is_bobs(value: object) -> bool:
    if isinstance(value, list):
        return any(_is_bobs(each) for each in value)
    return isinstance(value, str) and value in ("bob@example.com", "BOB@EXAMPLE.COM")


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    lines=st.lists(st.tuples(LINES, st.sampled_from([b"\n", b"\r\n"])), max_size=12),
    tail=st.booleans(),
    packed=st.booleans(),
)
def test_kept_lines_are_the_same_bytes_whatever_the_lines_are(
    tmp_path: Path, lines: list[tuple[bytes, bytes]], tail: bool, packed: bool
) -> None:
    root = tmp_path / secrets.token_hex(4)
    root.mkdir()
    whole = [line + end for line, end in lines]
    if whole and tail:
        whole[-1] = lines[-1][0]
    path = root / ("a.ndjson.gz" if packed else "a.ndjson")
    path.write_bytes(gzip.compress(b"".join(whole)) if packed else b"".join(whole))
    before = path.read_bytes()

    found = erase(connector(root, {"user.email": "email"}), person("a", email=BOB))["a"]

    raw = path.read_bytes()
    after = gzip.decompress(raw) if packed else raw
    if found.reason == "shared_line":
        assert raw == before
        return
    assert after == b"".join(line for line in whole if not is_bobs(line))
    if not any(map(is_bobs, whole)):
        assert raw == before
