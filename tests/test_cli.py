"""The command line: what it refuses, in one sentence and with exit code 1."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from app import cli
from app.crypto import keyring


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def rows(self) -> Any:
        return json.loads(self.out.splitlines()[-1])


Quittance = Callable[..., Ended]


@pytest.fixture
def data_dir(sqlite_url: str, sqlite_keystore_url: str, tmp_path: Path) -> Path:
    """An installation that was started once."""
    keyring.create(tmp_path / "keys" / "master.json")
    return tmp_path


@pytest.fixture
def quittance(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Quittance:
    """Runs a command to its end; keyword arguments are settings."""

    def run(*arguments: str, **settings: str) -> Ended:
        with monkeypatch.context() as patch:
            for name in [each for each in os.environ if each.startswith("QUITTANCE_")]:
                patch.delenv(name)
            for name, value in {"data_dir": str(data_dir), **settings}.items():
                patch.setenv(f"QUITTANCE_{name.upper()}", value)
            patch.setattr("sys.argv", ["quittance", *arguments])
            patch.setattr(cli, "configure", lambda *_, **__: None)  # the log of all tests
            capsys.readouterr()
            with pytest.raises(SystemExit) as ended:
                cli.main()
        written = capsys.readouterr()
        return Ended(int(ended.value.code or 0), written.out, written.err)

    return run


def is_one_sentence(text: str) -> bool:
    return "Traceback" not in text and len(text.strip().splitlines()) == 1


# Workspaces


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--name", "T", "--timezone", "Mars/Phobos"), "no such time zone"),
        (("--name", "T", "--timezone", "Europe"), "no such time zone"),
        (("--name", "T", "--timezone", ""), "no such time zone"),
        (("--name", ""), "Give the workspace a name"),
    ],
)
def test_a_workspace_has_a_name_and_a_zone_that_exists(
    quittance: Quittance, given: tuple[str, ...], told: str
) -> None:
    refused = quittance("workspace", "create", *given)
    assert refused.code == 1
    assert told in refused.err
    assert is_one_sentence(refused.err)
    assert quittance("workspace", "list", "--json").rows == []


def test_the_doctor_finds_a_zone_that_does_not_exist_and_says_how_to_mend_it(
    quittance: Quittance, sqlite_url: str
) -> None:
    made = quittance("workspace", "create", "--name", "T", "--json").rows
    engine = sa.create_engine(sqlite_url.replace("+aiosqlite", ""))
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE workspace SET timezone = 'Mars/Phobos'"))
    engine.dispose()
    ask = ("request", "create", "--kind", "erasure", "--identifier", "email:bob@shop.example")

    found = quittance("doctor")
    assert found.code == 1
    repair = f"quittance workspace update {made['id']} --timezone Europe/Berlin"
    assert f"FAIL  workspaces: a time zone is unknown here; give another: `{repair}`" in found.out

    mended = quittance(*repair.split()[1:], "--json")
    assert mended.rows["timezone"] == "Europe/Berlin"
    assert quittance("doctor").code == 0
    assert quittance(*ask).code == 0


def test_an_update_of_a_workspace_changes_what_it_names(quittance: Quittance) -> None:
    made = quittance("workspace", "create", "--name", "T", "--json").rows
    update = ("workspace", "update", made["id"])

    changed = quittance(*update, "--name", "Shop Ltd", "--json")
    assert changed.rows == made | {"name": "Shop Ltd"}
    for wrong in ((), ("--timezone", "Mars/Phobos"), ("--name", " ")):
        refused = quittance(*update, *wrong)
        assert refused.code == 1
        assert is_one_sentence(refused.err)
    assert quittance("workspace", "list", "--json").rows == [changed.rows]
