"""The page about backups, pasted into a shell beside a running service and after it."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from tests.docs.markdown import BASH, blocks
from tests.journeys.instance import Embedded


def command(mark: str) -> str:
    (block,) = [each for each in blocks("sh") if each.mark == f"tested: {mark}"]
    return block.text


def paste(text: str, where: Path, data_dir: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"]}
    if data_dir:
        environment["QUITTANCE_DATA_DIR"] = str(data_dir)
    return subprocess.run(
        [BASH, "-euo", "pipefail", "-c", text],
        cwd=where, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("is_named", [True, False], ids=["directory named", "default directory"])
def test_a_copy_made_while_the_service_runs_brings_everything_back(
    tmp_path: Path, is_named: bool
) -> None:
    data = tmp_path / "var" / "data"
    named = data if is_named else None
    instance = Embedded(data, {})

    def add_site(name: str) -> None:
        answer = instance.api.post("/v1/sites", json={"name": name, "origins": []})
        answer.raise_for_status()

    try:
        instance.start()
        add_site("Before")
        copied = paste(command("copy"), tmp_path, named)
        assert copied.returncode == 0, copied.stderr
        add_site("Afterwards")
        instance.stop()

        restored = paste(command("restore"), tmp_path, named)
        assert restored.returncode == 0, restored.stderr
        instance.quittance("migrate")
        instance.quittance("doctor")
        sites = instance.quittance("site", "list")
    finally:
        instance.kill()
        instance.disconnect()

    assert "Before" in sites.stdout
    assert "Afterwards" not in sites.stdout
    for name in ("main-backup.sqlite", "keys-backup.sqlite"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    for name in ("quittance.sqlite", "keys.sqlite"):
        assert stat.S_IMODE((data / name).stat().st_mode) == 0o600


def test_a_database_that_is_not_there_is_an_error_and_no_copy(tmp_path: Path) -> None:
    copied = paste(command("copy"), tmp_path)

    assert copied.returncode != 0
    assert "unable to open database file" in copied.stderr
    assert list(tmp_path.iterdir()) == []
