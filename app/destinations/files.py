"""Which local files a destination may touch: shared directories, never the service's own."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

import fsspec
from sqlalchemy import make_url

from app.core.settings import Settings
from connectors.contract import AddressRefused, Trees
from connectors.trees import FsspecTree, LocalTree

_SQLITE_FILES = ("", "-wal", "-shm", "-journal")


class Files:
    """``shared`` may be used, but nothing of ``own`` in it; ``schemes``: more fsspec systems."""

    def __init__(
        self, shared: Iterable[Path], own: Iterable[Path], schemes: Iterable[str] = ()
    ) -> None:
        self._shared = [_real(each) for each in shared]
        self._own = [_real(each) for each in own]
        self._schemes = frozenset(schemes)

    @classmethod
    def of(cls, settings: Settings, schemes: Iterable[str] = ()) -> Files:
        return cls(settings.shared_paths, own_files(settings), schemes)

    def path(self, path: str) -> str:
        """The real path; a relative one starts in the first shared directory. ``AddressRefused``"""
        if not path or "\0" in path or not self._shared:
            raise AddressRefused("Name a file or directory.")
        real = _real(self._shared[0] / path)
        homes = [each for each in self._shared if real.is_relative_to(each)]
        if not homes:
            raise AddressRefused("The path lies outside QUITTANCE_ALLOWED_PATHS.")
        if any(_touches(real, own, homes) for own in self._own):
            raise AddressRefused("The path leads to the service's own data.")
        return str(real)

    def open_tree(self, url: str) -> Trees:
        """A directory by path or ``file://`` URL, or a listed fsspec scheme."""
        scheme, separator, _ = url.partition("://")
        if not separator:
            return LocalTree(self.path(url))
        if scheme == "file":
            parts = urlsplit(url)
            if parts.netloc or parts.query or parts.fragment:
                raise AddressRefused("Write a local directory as file:///path.")
            return LocalTree(self.path(unquote(parts.path)))
        if scheme in self._schemes:
            return FsspecTree(fsspec.filesystem(scheme), url)
        raise AddressRefused("This kind of storage is not allowed.")


def own_files(settings: Settings) -> list[Path]:
    """The data directory, the databases wherever they are, and the key file."""
    own = [settings.data_dir, settings.key_file]
    for url in (settings.main_url, settings.keys_url):
        database = make_url(url).database if url.startswith("sqlite") else None
        if database:
            own += [Path(database + ending) for ending in _SQLITE_FILES]
    return own


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _touches(real: Path, own: Path, homes: list[Path]) -> bool:
    """Whether ``real`` is, holds, or lies in ``own``; a shared directory in there is not ours."""
    if own.is_relative_to(real):
        return True
    if real.is_relative_to(own):
        return not any(home != own and home.is_relative_to(own) for home in homes)
    try:
        return real.samefile(own)  # a hard link
    except OSError:
        return False
