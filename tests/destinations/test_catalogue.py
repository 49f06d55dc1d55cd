"""Finding connectors: built in, own files, installed packages; broken ones are told, not fatal."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import pytest

from app.destinations.catalogue import GROUP, Catalogue, NoConnector
from connectors.webhook import Webhook

GOOD = """
from connectors.contract import Connector, ConnectorSettings, Kind, done
from pydantic import SecretStr

class Crm(Connector):
    title = "Our CRM"
    accepts = (Kind.EMAIL,)

    class Settings(ConnectorSettings):
        token: SecretStr

    async def erase(self, kind, values):
        return done()
"""


def own(directory: Path, **files: str) -> Catalogue:
    for name, text in files.items():
        (directory / f"{name}.py").write_text(text)
    return Catalogue(directory)


def test_an_own_file_is_a_connector(tmp_path: Path):
    catalogue = own(tmp_path, crm=GOOD)
    assert "quittance_own_connectors.crm" not in sys.modules
    found = {each["name"]: each for each in catalogue.describe()}["crm"]
    assert (found["title"], found["operations"], found["accepts"], found["secrets"]) == (
        "Our CRM", ["erase"], ["email"], ["token"],
    )  # fmt: skip
    assert catalogue.find("crm") is catalogue.find("crm")
    assert catalogue.broken == {}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("class A(:", "SyntaxError in line 1"),
        ("import nowhere_at_all", "ModuleNotFoundError"),
        ("raise RuntimeError('canary-secret')", "RuntimeError"),
        ("raise SystemExit", "SystemExit"),
        ("x = 1", "exactly one class"),
        (GOOD + "\nclass Other(Crm):\n    pass\n", "exactly one class"),
        (GOOD.replace("title =", "name ="), "title"),
        (GOOD.replace("erase", "wipe"), "at least one"),
        (GOOD.replace("async def", "def"), "must be a coroutine"),
        (GOOD + "\n    async def callback(self, headers, body):\n        pass\n", "plain function"),
        (GOOD.replace("class Settings(ConnectorSettings)", "class Settings"), "Settings"),
    ],
)
def test_a_broken_own_connector_is_reported_and_the_others_work(
    tmp_path: Path, text: str, problem: str
):
    catalogue = own(tmp_path, crm=text, fine=GOOD)
    assert "fine" in [each["name"] for each in catalogue.describe()]
    assert problem in catalogue.broken["crm"]
    assert "canary" not in catalogue.broken["crm"]
    with pytest.raises(NoConnector):
        catalogue.find("crm")


def test_an_own_file_cannot_take_the_place_of_a_built_in_one(tmp_path: Path):
    catalogue = own(tmp_path, webhook=GOOD, contract=GOOD)
    assert catalogue.find("webhook") is Webhook
    assert "has this name" in catalogue.broken["webhook"]


def test_odd_names_and_private_files_are_left_alone(tmp_path: Path):
    catalogue = own(tmp_path, **{"_helper": GOOD, "My-CRM": GOOD})
    assert set(catalogue.broken) == {"My-CRM"}
    assert "_helper" not in catalogue.names()


def test_an_installed_package_is_found_by_its_entry_point(monkeypatch: pytest.MonkeyPatch):
    point = metadata.EntryPoint("parcel", "connectors.webhook:Webhook", GROUP)
    monkeypatch.setattr(metadata, "entry_points", lambda group: [point] if group == GROUP else [])
    assert Catalogue().find("parcel") is Webhook


@pytest.mark.parametrize("name", ["os", "contract", "trees", "..webhook", "", "sql.address"])
def test_cnx_019_a_name_never_imports_anything_else(name: str):
    with pytest.raises(NoConnector):
        Catalogue().find(name)


def test_a_missing_directory_is_an_empty_one(tmp_path: Path):
    assert Catalogue(tmp_path / "none").broken == {}
