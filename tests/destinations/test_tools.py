"""Tools and instances: files that may be touched, connectors kept and closed."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from app.core.settings import Settings
from app.destinations.files import Files
from app.destinations.instances import CannotBuild
from connectors.contract import AddressRefused, ConnectorError, done
from tests.destinations.conftest import Scene, Vault


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A data directory as it is in use, and a file outside."""
    made = Settings(data_dir=tmp_path / "data")
    for path in ("data/shared/events", "data/keys", "data/sharedness", "outside"):
        (tmp_path / path).mkdir(parents=True)
    for path in ("data/quittance.sqlite", "data/keys.sqlite", "data/keys/master.json", "outside/x"):
        (tmp_path / path).write_text("x")
    return made


def test_files_below_the_shared_directory_may_be_used(settings: Settings):
    shared = settings.shared_paths[0]
    files = Files.of(settings)
    assert files.path(str(shared / "shop.sqlite")) == os.path.realpath(shared / "shop.sqlite")
    assert files.path("shop.sqlite") == os.path.realpath(shared / "shop.sqlite")
    assert files.open_tree(str(shared / "events")).files() == []
    assert files.open_tree(f"file://{shared}/events").files() == []


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../quittance.sqlite",
        "../keys/master.json",
        "../sharedness",
        "..",
        "/",
        "",
        "a\0b",
        "link",
        "link/x",
        "hard",
    ],
)
def test_nothing_else_may_be_used(settings: Settings, tmp_path: Path, path: str):
    shared = settings.shared_paths[0]
    (shared / "link").symlink_to(tmp_path / "outside")
    (shared / "hard").hardlink_to(settings.data_dir / "keys.sqlite")
    files = Files.of(settings)
    for use in (files.path, files.open_tree):
        with pytest.raises(AddressRefused) as refused:
            use(path)
        assert str(tmp_path) not in str(refused.value)


@pytest.mark.parametrize("allowed", ["data", ".", "data/keys"])
def test_the_services_own_files_stay_closed_however_wide_the_allowed_paths(
    settings: Settings, tmp_path: Path, allowed: str
):
    wide = settings.model_copy(update={"allowed_paths": (tmp_path / allowed,)})
    files = Files.of(wide)
    for own in ("data/quittance.sqlite", "data/quittance.sqlite-wal", "data/keys.sqlite",
                "data/keys/master.json", "data", "."):  # fmt: skip
        with pytest.raises(AddressRefused):
            files.path(str(tmp_path / own))
    if allowed == ".":
        assert files.path(str(tmp_path / "outside")) == os.path.realpath(tmp_path / "outside")


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/x",
        "memory://x",
        "http://127.0.0.1/x",
        "github://a:b@c/",
        "memory::file:///etc",
        "simplecache::file:///etc",
        "file://host/etc",
        "file:///etc",
        "FILE:///etc",
    ],
)
def test_only_listed_kinds_of_storage_are_opened(settings: Settings, url: str):
    with pytest.raises(AddressRefused):
        Files.of(settings).open_tree(url)


def test_a_listed_scheme_is_opened(settings: Settings):
    tree = Files.of(settings, schemes=["memory"]).open_tree("memory://quittance-test")
    assert list(tree.files()) == []


async def test_an_instance_is_kept_per_version_and_closed_when_nobody_uses_it(scene: Scene):
    made = (await scene.add("vault", {"mood": "a"})).json()
    path = f"/destinations/{made['id']}"
    first = await scene.row(made["id"])
    before = Vault.closed
    async with scene.instances.use(first) as one:
        async with scene.instances.use(first) as same:
            assert one is same
        await scene.call("PATCH", path, {"settings": {"mood": "b"}})
        before = Vault.closed  # the check's own instance was closed, too
        second = await scene.row(made["id"])
        async with scene.instances.use(second) as other:
            assert (one.settings.mood, other.settings.mood) == ("a", "b")
        assert Vault.closed == before
    assert Vault.closed == before + 1


async def test_the_least_recently_used_instances_are_closed(scene: Scene):
    scene.instances._size = 2
    rows = []
    for _ in range(4):
        rows.append(await scene.row((await scene.add("vault", {})).json()["id"]))
    before = Vault.closed
    for row in rows:
        async with scene.instances.use(row):
            pass
    assert Vault.closed == before + 2


async def test_many_destinations_at_once_are_used_and_closed_once_each(scene: Scene):
    """As a worker does: it asks for the hosts of all that it claimed, and then calls them."""
    scene.instances._size = 2
    rows = [await scene.row((await scene.add("vault", {})).json()["id"]) for _ in range(6)]
    before, opened = Vault.closed, Vault.opened
    for row in rows:
        scene.instances.host_of(row)

    async def use(row: Any) -> None:
        async with scene.instances.use(row) as connector:
            assert isinstance(connector, Vault)
            assert await connector.test() == done()
            await asyncio.sleep(0.01 * rows.index(row))  # others are closed meanwhile

    await asyncio.gather(*map(use, rows))
    await scene.instances.close()
    assert Vault.closed == before + Vault.opened - opened
    assert not scene.instances._kept


async def test_the_mask_key_is_the_destinations_own_and_stays(scene: Scene):
    rows = [await scene.row((await scene.add("vault", {})).json()["id"]) for _ in range(2)]
    keys = []
    for row in rows:
        async with scene.instances.use(row) as connector:
            keys.append(connector.tools.secret)
    assert len(set(keys)) == 2
    assert {len(each) for each in keys} == {32}


async def test_a_destination_that_cannot_be_built_says_why_without_secrets(scene: Scene):
    row = await scene.row((await scene.add("vault", {"token": "canary-secret"})).json()["id"])
    broken = {
        "connector": "gone",
        "settings": {"colour": "canary-secret"},
        "secrets_sealed": b"\x01\x02m1" + bytes(40),
    }
    for member, value in broken.items():
        copy = row.model_copy(update={member: value, "version": row.version + 1})
        with pytest.raises(CannotBuild) as refused:
            async with scene.instances.use(copy):
                pass
        assert "canary" not in str(refused.value)
        assert isinstance(refused.value, ConnectorError)


async def test_secrets_sealed_for_one_destination_do_not_open_for_another(scene: Scene):
    one, two = [
        await scene.row((await scene.add("vault", {"token": f"t{i}"})).json()["id"])
        for i in range(2)
    ]
    moved = two.model_copy(update={"secrets_sealed": one.secrets_sealed, "version": 9})
    with pytest.raises(CannotBuild):
        async with scene.instances.use(moved):
            pass
