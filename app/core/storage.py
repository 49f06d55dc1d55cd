"""Files by name below one place: a directory, or an fsspec URL such as ``s3://bucket/archive``.

All functions block; call them in a thread.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import fsspec
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem


def storage_problem(url: str) -> str | None:
    """Why there can be no storage at this URL: an unknown scheme, or a package that is missing."""
    try:
        fsspec.get_filesystem_class(fsspec.core.split_protocol(url)[0] or "file")
    except (ImportError, ValueError) as error:
        return str(error)
    return None


class Storage:
    """Object stores replace a file in one step and read their options from fsspec's environment;
    other remote systems need the directory to exist.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    def write(self, name: str, content: bytes) -> None:
        """Make or replace a file. Local ones are there wholly, on the disk, or not at all."""
        files, path = self._at(name)
        if isinstance(files, LocalFileSystem):
            _write_durably(Path(path), content)
        else:
            files.pipe_file(path, content)

    def read(self, name: str) -> bytes:
        files, path = self._at(name)
        content: bytes = files.cat_file(path)
        return content

    def remove(self, name: str) -> None:
        """Remove a file, if there is one."""
        files, path = self._at(name)
        with contextlib.suppress(FileNotFoundError):
            files.rm_file(path)

    def _at(self, name: str) -> tuple[Any, str]:
        files, root = url_to_fs(self._url)
        return files, f"{str(root).rstrip('/')}/{name}"


def _write_durably(path: Path, content: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.tmp")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    beside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
