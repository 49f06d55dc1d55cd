"""A small disk of its own for one installation, to be filled up (Linux, as root)."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType

SIZE = 32 << 20
PIECE = bytes(4096)


class Disk:
    """A tmpfs at ``path``, which need not exist. Full, whatever has to grow there fails."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def __enter__(self) -> Disk:
        self.path.mkdir(parents=True, exist_ok=True)
        _run("mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=0700", "quittance-test", self.path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:  # fmt: skip
        _run("umount", "--lazy", self.path)  # whoever still has a file open there keeps nothing up

    def fill(self) -> None:
        """Take all room there is; again, what was given back meanwhile."""
        with self._ballast.open("ab", buffering=0) as ballast:
            try:
                while True:
                    ballast.write(PIECE)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def free(self) -> None:
        self._ballast.unlink(missing_ok=True)


def why_not() -> str | None:
    """Why nothing can be mounted here; None if it can."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "needs root"
    try:
        with TemporaryDirectory() as directory, Disk(Path(directory) / "disk"):
            return None
    except (OSError, subprocess.CalledProcessError) as error:
        return f"the kernel or `mount` refuses ({error})"


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True)
