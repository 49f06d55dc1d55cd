"""Directory trees that a connector may read and rewrite: a local one, and one over fsspec."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from connectors.contract import AddressRefused

STALE_SECONDS = 24 * 3600
_PREFIX, _SUFFIX = ".quittance-", ".tmp"


def is_temporary(name: str) -> bool:
    """Whether a file name is one of our half-written ones."""
    return name.startswith(_PREFIX) and name.endswith(_SUFFIX)


def safe_parts(path: str) -> list[str]:
    """The steps of a relative path; AddressRefused for anything that could leave the tree."""
    parts = path.split("/")
    if "\0" in path or "\\" in path or any(part in {"", ".", ".."} for part in parts):
        raise AddressRefused("A path leads out of the directory tree")
    return parts


class LocalTree:
    """A directory that the caller has checked; symbolic links are neither listed nor followed."""

    def __init__(self, root: str | Path) -> None:
        self._root = str(root)
        if not Path(self._root).is_dir() or Path(self._root).is_symlink():
            raise AddressRefused("The archive's directory does not exist or is a link")
        self._remove_stale()

    def files(self) -> Sequence[str]:
        return sorted(path for path in self._walk() if not is_temporary(path.rpartition("/")[2]))

    @contextlib.contextmanager
    def open(self, path: str) -> Iterator[IO[bytes]]:
        with self._directory(path) as (folder, name):
            handle = os.open(name, _READ, dir_fd=folder)
            with os.fdopen(handle, "rb") as stream:
                if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                    raise AddressRefused("A path is no regular file")
                yield stream

    @contextlib.contextmanager
    def replace(self, path: str) -> Iterator[IO[bytes]]:
        with self._directory(path) as (folder, name):
            before = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if not stat.S_ISREG(before.st_mode):
                raise AddressRefused("A path is no regular file")
            beside = f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}"
            handle = os.open(beside, _CREATE, 0o600, dir_fd=folder)
            try:
                with os.fdopen(handle, "wb") as stream:
                    yield stream
                    stream.flush()
                    _take_over(stream.fileno(), before)
                    os.fsync(stream.fileno())
                os.replace(beside, name, src_dir_fd=folder, dst_dir_fd=folder)
                os.fsync(folder)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(beside, dir_fd=folder)
                raise

    def version(self, path: str) -> str:
        with self._directory(path) as (folder, name):
            seen = os.stat(name, dir_fd=folder, follow_symlinks=False)
        return f"{seen.st_dev}-{seen.st_ino}-{seen.st_size}-{seen.st_mtime_ns}-{seen.st_ctime_ns}"

    @contextlib.contextmanager
    def _directory(self, path: str) -> Iterator[tuple[int, str]]:
        """(descriptor of the file's directory, file name), walked step by step without links."""
        *folders, name = safe_parts(path)
        current = os.open(self._root, _FOLDER)
        try:
            for folder in folders:
                below = os.open(folder, _FOLDER, dir_fd=current)
                os.close(current)
                current = below
            yield current, name
        finally:
            os.close(current)

    def _walk(self) -> Iterator[str]:
        for folder, _, names in os.walk(self._root, onerror=_refuse, followlinks=False):
            for name in names:
                whole = Path(folder, name)
                with contextlib.suppress(FileNotFoundError):
                    if stat.S_ISREG(whole.lstat().st_mode):
                        yield whole.relative_to(self._root).as_posix()

    def _remove_stale(self) -> None:
        """What a killed process left half-written; a day old: nobody is still writing it."""
        for path in self._walk():
            if is_temporary(path.rpartition("/")[2]):
                whole = Path(self._root, path)
                with contextlib.suppress(FileNotFoundError):
                    if whole.lstat().st_mtime < time.time() - STALE_SECONDS:
                        whole.unlink()


class FsspecTree:
    """A tree over an fsspec file system. Replacing is as atomic as the file system's own move."""

    def __init__(self, filesystem: Any, root: str) -> None:
        self._fs = filesystem
        self._root = str(filesystem._strip_protocol(root)).rstrip("/")

    def files(self) -> Sequence[str]:
        self._fs.invalidate_cache()
        whole = (str(path) for path in self._fs.find(self._root))
        paths = (path[len(self._root) :].lstrip("/") for path in whole)
        return sorted(p for p in paths if p and not is_temporary(p.rpartition("/")[2]))

    @contextlib.contextmanager
    def open(self, path: str) -> Iterator[IO[bytes]]:
        with self._fs.open(self._whole(path), "rb") as stream:
            yield stream

    @contextlib.contextmanager
    def replace(self, path: str) -> Iterator[IO[bytes]]:
        target = self._whole(path)
        folder, slash, _ = target.rpartition("/")
        beside = f"{folder}{slash}{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}"
        try:
            with self._fs.open(beside, "wb") as stream:
                yield stream
            self._fs.mv(beside, target)
        except BaseException:
            with contextlib.suppress(Exception):
                self._fs.rm_file(beside)
            raise
        finally:
            self._fs.invalidate_cache()

    def version(self, path: str) -> str:
        self._fs.invalidate_cache()
        seen = self._fs.info(self._whole(path))
        marks = (seen.get(name) for name in _MARKS)
        return "-".join(str(mark) for mark in marks if mark is not None)

    def _whole(self, path: str) -> str:
        return "/".join([self._root, *safe_parts(path)])


_MARKS = ("size", "ETag", "etag", "mtime", "LastModified", "last_modified", "created", "ino")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def _refuse(error: OSError) -> None:
    """A directory that cannot be read is no empty one."""
    raise error


def _take_over(handle: int, before: os.stat_result) -> None:
    """Owner and mode of the file that is replaced; another owner only where we may."""
    now = os.fstat(handle)
    if (now.st_uid, now.st_gid) != (before.st_uid, before.st_gid):
        with contextlib.suppress(PermissionError):
            os.fchown(handle, before.st_uid, before.st_gid)
    os.fchmod(handle, stat.S_IMODE(before.st_mode))
