"""Sealing for one place, subject references through pepper rotation, the key file."""

from __future__ import annotations

import hmac
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.clock import utc_now
from app.crypto import keyring
from app.crypto.keyring import KeyFileError, KeyRing, Unsealable
from app.crypto.keystore import HolderKey
from app.identity import vault
from connectors.contract import Identifier
from tests.running import BOB, CAROL, Service

KEY, OLD, PEPPER, NEXT = (bytes([each]) * 32 for each in range(1, 5))
RING = KeyRing({"m1": KEY}, "m1", [PEPPER])


@given(st.binary(max_size=200), st.text(max_size=30))
def test_what_is_sealed_for_a_place_opens_there(plain: bytes, place: str) -> None:
    assert RING.unseal(RING.seal(plain, place), place) == plain
    assert HolderKey(KEY).unseal(HolderKey(KEY).seal(plain, place), place) == plain


def test_elsewhere_or_with_another_key_it_does_not_open() -> None:
    sealed = RING.seal(b"secret", "ws_1|destination|dst_1|secrets")

    with pytest.raises(Unsealable):
        RING.unseal(sealed, "ws_1|destination|dst_2|secrets")
    with pytest.raises(Unsealable):
        KeyRing({"m1": OLD}, "m1", [PEPPER]).unseal(sealed, "ws_1|destination|dst_1|secrets")
    with pytest.raises(Unsealable):
        KeyRing({"m2": KEY}, "m2", [PEPPER]).unseal(sealed, "ws_1|destination|dst_1|secrets")


@given(st.data())
def test_one_changed_byte_is_noticed(data: Any) -> None:
    for box in (RING, HolderKey(KEY)):
        sealed = bytearray(box.seal(b"secret", "place"))
        at = data.draw(st.integers(1 if box is not RING else 0, len(sealed) - 1))
        sealed[at] ^= data.draw(st.integers(1, 255))
        with pytest.raises(Unsealable):
            box.unseal(bytes(sealed), "place")


@pytest.mark.parametrize("sealed", [b"", b"\x01", b"\x02\x02m1", b"\x01\x02m1", b"\x01\xffm1"])
def test_a_stump_is_unsealable(sealed: bytes) -> None:
    for box in (RING, HolderKey(KEY)):
        with pytest.raises(Unsealable):
            box.unseal(sealed, "place")


def test_two_seals_of_the_same_text_differ() -> None:
    assert RING.seal(b"same", "place") != RING.seal(b"same", "place")


def test_after_rotation_old_ciphertexts_open_and_new_ones_name_the_new_key() -> None:
    old = RING.seal(b"secret", "place")
    rotated = KeyRing({"m1": KEY, "m2": OLD}, "m2", [PEPPER])

    assert rotated.unseal(old, "place") == b"secret"
    assert keyring.master_id(rotated.seal(b"secret", "place")) == "m2"
    assert rotated.derive("cursor")[-1] == KeyRing({"m2": OLD}, "m2", [PEPPER]).derive("cursor")[0]
    assert RING.derive("cursor")[0] in rotated.derive("cursor")


def test_keys_for_different_uses_have_nothing_in_common() -> None:
    assert RING.derive("cursor") != RING.derive("status")


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(workspace=words, kind=st.from_regex(r"[a-z_]{1,8}", fullmatch=True), value=words)
def test_a_new_pepper_re_keys_stored_references_without_knowing_anybody(
    workspace: str, kind: str, value: str
) -> None:
    before = RING.subject_ref(workspace, kind, value)
    rotated = KeyRing({"m1": KEY}, "m1", [PEPPER, NEXT])

    in_place = hmac.digest(hmac.digest(NEXT, workspace.encode(), "sha256"), before, "sha256")

    assert rotated.subject_ref(workspace, kind, value) == in_place


def test_a_reference_is_apart_for_every_workspace_and_kind() -> None:
    refs = {
        RING.subject_ref(workspace, kind, value)
        for workspace in ("ws_1", "ws_2")
        for kind in ("email", "user_id")
        for value in (BOB, CAROL)
    }
    assert len(refs) == 8


def test_the_key_file_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "master.json"

    first, second = keyring.create(path), keyring.create(path)

    assert first.subject_ref("w", "email", BOB) == second.subject_ref("w", "email", BOB)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["master.json"]


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "{}", '{"master": {"current": "m1", "keys": {}}, "peppers": []}',
        '{"master": {"current": "m2", "keys": {"m1": "AAAA"}}, "peppers": ["AAAA"]}',
        json.dumps({"master": {"current": "m1", "keys": {"m1": "c2hvcnQ="}}, "peppers": ["eA=="]}),
    ],
)  # fmt: skip
def test_a_broken_key_file_says_which_file_and_shows_no_key(tmp_path: Path, content: str) -> None:
    path = tmp_path / "master.json"
    path.write_text(content)

    with pytest.raises(KeyFileError, match=r"master\.json") as raised:
        keyring.load(path)

    assert "c2hvcnQ" not in str(raised.value)


def test_a_missing_key_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="backup"):
        keyring.load(tmp_path / "master.json")


# --- the vault, on real databases


async def test_values_swapped_between_rows_do_not_open(service: Service) -> None:
    """Somebody who can write to the database must not be able to point an erasure at another."""
    made = await service.ask(BOB, CAROL)
    rows = await service.rows("SELECT id, sealed FROM personal_value ORDER BY id")
    (first, one), (second, other) = rows
    await service.run("UPDATE personal_value SET sealed = :s WHERE id = :id", s=other, id=first)
    await service.run("UPDATE personal_value SET sealed = :s WHERE id = :id", s=one, id=second)

    async with service.runtime.database.reading() as session:
        with pytest.raises(Unsealable):
            await vault.open_holder(session, service.runtime.keys, [made["id"]])


async def test_a_data_key_moved_to_another_holder_does_not_open(service: Service) -> None:
    await service.runtime.keys.create(["req_1", "req_2"], utc_now())
    async with service.runtime.key_database.writing() as session:
        connection = await session.connection()
        await connection.exec_driver_sql(
            "UPDATE data_key SET wrapped = (SELECT wrapped FROM data_key WHERE holder_id = 'req_1')"
            " WHERE holder_id = 'req_2'"
        )

    with pytest.raises(Unsealable):
        await service.runtime.keys.load(["req_2"])


async def test_a_forgotten_holder_is_missing_and_others_stay(service: Service) -> None:
    keys = service.runtime.keys
    await keys.create(["req_1", "req_2"], utc_now())

    await keys.forget(["req_1"])

    assert set(await keys.load(["req_1", "req_2"])) == {"req_2"}


async def test_a_holders_key_is_made_once(service: Service) -> None:
    keys = service.runtime.keys

    sealed = (await keys.ensure("vis_1", utc_now())).seal(b"u-17", "place")

    assert (await keys.ensure("vis_1", utc_now())).unseal(sealed, "place") == b"u-17"


async def test_no_row_of_the_vault_shows_what_it_holds(service: Service) -> None:
    await service.ask(BOB, external_id="ticket-4711", contact_email=CAROL)
    rows = await service.rows("SELECT * FROM personal_value")

    assert len(rows) == 3
    assert not any(word in str(rows) for word in (BOB, CAROL, "ticket-4711"))


def test_a_commitment_is_opened_by_its_own_opening_only() -> None:
    row = vault.identifier_row(
        RING, HolderKey(KEY), workspace_id="ws_1", holder_id="req_1",
        identifier=Identifier("email", BOB), now=utc_now(),
    )  # fmt: skip
    value, opening = json.loads(
        HolderKey(KEY).unseal(row["sealed"], f"ws_1|personal_value|{row['id']}|sealed|1")
    )

    assert value == BOB
    assert vault.commitment(opening, Identifier("email", BOB)) == row["commitment"]
    assert vault.commitment(opening, Identifier("email", CAROL)) != row["commitment"]
    assert vault.commitment(opening, Identifier("user_id", BOB)) != row["commitment"]
    assert vault.commitment("A" * 43, Identifier("email", BOB)) != row["commitment"]
