"""Accounts: invitations, passwords, codes, sessions."""

from __future__ import annotations

import asyncio
import datetime as dt
import statistics
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pyotp
import pytest
import sqlalchemy as sa

from app.core.db import Database
from app.core.ids import new_id
from app.crypto import keyring
from app.crypto.keyring import KeyRing
from app.security import accounts, sessions
from app.security.models import Admin, AdminInvite, AdminSession, Role, Workspace

NOW = dt.datetime(2026, 11, 23, 10, 0, tzinfo=dt.UTC)
PASSWORD = "a calm evening by the lake"


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    return keyring.create(tmp_path / "keys" / "master.json")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    found = Database(database_url)
    yield found
    await found.close()


async def new_workspace(database: Database, *, is_demo: bool = False) -> str:
    workspace = Workspace(id=new_id("ws"), name="Aurora", is_demo=is_demo, created_at=NOW)
    async with database.writing() as session:
        session.add(workspace)
    return workspace.id


async def invite(database: Database, workspace_id: str, role: Role = Role.OWNER) -> str:
    async with database.writing() as session:
        return await accounts.create_invite(session, workspace_id, role, now=NOW)


async def alice(
    database: Database, ring: KeyRing, role: Role = Role.OWNER, email: str = "alice@aurora.example"
) -> tuple[Admin, str]:
    """An account with a second factor; its secret."""
    workspace_id = await new_workspace(database)
    token = await invite(database, workspace_id, role)
    secret = accounts.new_totp_secret()
    chosen = accounts.NewAccount(email, PASSWORD, secret, pyotp.TOTP(secret).at(NOW))
    return await accounts.accept_invite(database, ring, token, chosen, NOW), secret


@pytest.mark.parametrize(
    "password",
    [
        "short",
        "eleven char",
        "x" * 257,
        "password1234",
        "Password!2026",
        "P@ssw0rd1234",
        "qwertyuiop123",
        "123456789012",
        "correct horse battery staple",
        "abcabcabcabc",
        "1q2w3e4r5t6y",
        "aaaaaaaaaaaaa",
        "sunshinesunshine",
        "letmein123456",
        "1qaz2wsx3edc",
        "admin1234567",
        "Quittance2026!",
        "098765432109",
        "alicealice12",
        "alice@aurora.example",
    ],
)
def test_passwords_that_are_tried_first_are_refused(password: str):
    with pytest.raises(accounts.WeakPassword):
        accounts.check_password(password, "alice@aurora.example")


@pytest.mark.parametrize(
    "password",
    [
        PASSWORD,
        "nur kleine buchstaben",
        "vQ8r-tmXz0-pp",
        "".join(chr(33 + 7 * each % 90) for each in range(256)),
        "пароль из пяти слов",
        "🐘🐘🐫🐫🦒🦒🐍🐍🦊🦊🐸🐼",
    ],
)
def test_any_characters_make_a_password(password: str):
    accounts.check_password(password, "alice@aurora.example")


async def test_hashes_are_argon2id_of_at_least_the_recommended_cost():
    hashed = await accounts.hash_password(PASSWORD)
    kind, _, costs = hashed.split("$")[1:4]
    found = dict(each.split("=") for each in costs.split(","))
    assert kind == "argon2id"
    assert int(found["m"]) >= 19_456
    assert int(found["t"]) >= 2


async def test_an_invitation_works_once_and_for_a_day(database: Database, ring: KeyRing):
    workspace_id = await new_workspace(database)
    token = await invite(database, workspace_id, Role.OPERATOR)
    secret = accounts.new_totp_secret()
    chosen = accounts.NewAccount(
        "Oscar@Aurora.example", PASSWORD, secret, pyotp.TOTP(secret).at(NOW)
    )
    with pytest.raises(accounts.InviteGone):
        await accounts.accept_invite(database, ring, "guessed", chosen, NOW)
    with pytest.raises(accounts.InviteGone):
        await accounts.accept_invite(database, ring, token, chosen, NOW + dt.timedelta(hours=24))
    admin = await accounts.accept_invite(database, ring, token, chosen, NOW)
    assert (admin.email, admin.role, admin.workspace_id) == (
        "oscar@aurora.example",
        "operator",
        workspace_id,
    )
    with pytest.raises(accounts.InviteGone):
        await accounts.accept_invite(database, ring, token, chosen, NOW)
    async with database.reading() as session:
        stored = (await session.execute(sa.select(AdminInvite))).scalar_one()
    assert token.encode() not in stored.token_sha256


async def test_of_parallel_uses_of_an_invitation_one_wins(database: Database, ring: KeyRing):
    token = await invite(database, await new_workspace(database, is_demo=True))

    async def use(number: int) -> bool:
        chosen = accounts.NewAccount(f"p{number}@aurora.example", PASSWORD, None, "")
        try:
            await accounts.accept_invite(database, ring, token, chosen, NOW)
        except accounts.InviteGone:
            return False
        return True

    assert sum(await asyncio.gather(*(use(each) for each in range(8)))) == 1


async def test_auth_005_an_invitation_with_a_weak_password_is_refused(
    database: Database, ring: KeyRing
):
    token = await invite(database, await new_workspace(database))
    secret = accounts.new_totp_secret()
    weak = accounts.NewAccount(
        "a@aurora.example", "password1234", secret, pyotp.TOTP(secret).at(NOW)
    )
    with pytest.raises(accounts.WeakPassword):
        await accounts.accept_invite(database, ring, token, weak, NOW)
    async with database.reading() as session:
        await accounts.find_invite(session, token, NOW)


async def test_a_second_factor_is_needed_outside_the_demo(database: Database, ring: KeyRing):
    for is_demo in (False, True):
        token = await invite(database, await new_workspace(database, is_demo=is_demo))
        chosen = accounts.NewAccount(f"demo{is_demo}@aurora.example", PASSWORD, None, "")
        if is_demo:
            admin = await accounts.accept_invite(database, ring, token, chosen, NOW)
            assert await accounts.authenticate(database, ring, admin.email, PASSWORD, "", NOW)
        else:
            with pytest.raises(accounts.WrongCode):
                await accounts.accept_invite(database, ring, token, chosen, NOW)


async def test_an_address_has_one_account(database: Database, ring: KeyRing):
    await alice(database, ring)
    token = await invite(database, await new_workspace(database, is_demo=True))
    chosen = accounts.NewAccount("ALICE@aurora.example", PASSWORD, None, "")
    with pytest.raises(accounts.EmailTaken):
        await accounts.accept_invite(database, ring, token, chosen, NOW)


@pytest.mark.parametrize("shape", ["{}", "{} ", " {}", "split"])
async def test_auth_007_a_code_works_once_however_it_is_typed(
    database: Database, ring: KeyRing, shape: str
):
    admin, secret = await alice(database, ring)
    later = NOW + dt.timedelta(seconds=90)
    code = pyotp.TOTP(secret).at(later)
    typed = f"{code[:3]} {code[3:]}" if shape == "split" else shape.format(code)
    assert await accounts.authenticate(database, ring, admin.email, PASSWORD, typed, later)
    for again in (code, f" {code}", f"{code[:3]} {code[3:]}", f"{code}\u00a0"):
        assert (
            await accounts.authenticate(database, ring, admin.email, PASSWORD, again, later) is None
        )


async def test_auth_007_neighbouring_codes_work_once_and_never_backwards(
    database: Database, ring: KeyRing
):
    admin, secret = await alice(database, ring)
    later = NOW + dt.timedelta(minutes=10)
    totp = pyotp.TOTP(secret)
    before, now, after = (totp.at(later + dt.timedelta(seconds=shift)) for shift in (-30, 0, 30))
    far = totp.at(later + dt.timedelta(seconds=60))
    assert await accounts.authenticate(database, ring, admin.email, PASSWORD, far, later) is None
    assert await accounts.authenticate(database, ring, admin.email, PASSWORD, before, later)
    assert await accounts.authenticate(database, ring, admin.email, PASSWORD, after, later)
    assert await accounts.authenticate(database, ring, admin.email, PASSWORD, now, later) is None


async def test_of_parallel_uses_of_a_code_one_wins(database: Database, ring: KeyRing):
    admin, secret = await alice(database, ring)
    later = NOW + dt.timedelta(minutes=10)
    code = pyotp.TOTP(secret).at(later)
    found = await asyncio.gather(
        *(
            accounts.authenticate(database, ring, admin.email, PASSWORD, code, later)
            for _ in range(6)
        )
    )
    assert sum(each is not None for each in found) == 1


@pytest.mark.parametrize(
    "code", ["", "000000", "12345", "abcdef", "\uff11\uff12\uff13\uff14\uff15\uff16", "1234567"]
)
async def test_a_wrong_code_does_not_open(database: Database, ring: KeyRing, code: str):
    admin, _ = await alice(database, ring)
    assert await accounts.authenticate(database, ring, admin.email, PASSWORD, code, NOW) is None


async def test_a_code_tried_with_a_wrong_password_is_not_used_up(database: Database, ring: KeyRing):
    admin, secret = await alice(database, ring)
    later = NOW + dt.timedelta(minutes=10)
    code = pyotp.TOTP(secret).at(later)
    assert (
        await accounts.authenticate(database, ring, admin.email, "wrong wrong wrong", code, later)
        is None
    )
    assert await accounts.authenticate(database, ring, admin.email, PASSWORD, code, later)


@pytest.mark.slow
async def test_auth_003_unknown_accounts_take_as_long_as_known_ones(
    database: Database, ring: KeyRing
):
    """Medians over interleaved samples; a hash skipped would be a difference of tens of
    milliseconds.
    """
    admin, _ = await alice(database, ring)
    taken: dict[str, list[float]] = {admin.email: [], "nobody@aurora.example": []}
    for _ in range(20):
        for email, samples in taken.items():
            started = time.perf_counter()
            assert (
                await accounts.authenticate(
                    database, ring, email, "wrong wrong wrong", "123456", NOW
                )
                is None
            )
            samples.append(time.perf_counter() - started)
    known, unknown = (statistics.median(samples) for samples in taken.values())
    assert abs(known - unknown) < 0.35 * max(known, unknown)


async def test_sessions_end_when_idle_and_after_twelve_hours(database: Database, ring: KeyRing):
    admin, _ = await alice(database, ring)
    async with database.writing() as session:
        token = await sessions.start(session, admin.id, NOW)
        assert await sessions.find(session, token, NOW + dt.timedelta(minutes=29))
        assert await sessions.find(session, token, NOW + dt.timedelta(minutes=30)) is None
        moment = NOW
        while moment < NOW + dt.timedelta(hours=11, minutes=50):
            found = await sessions.find(session, token, moment)
            assert found
            await sessions.touch(session, found[0].session_id, moment)
            moment += dt.timedelta(minutes=20)
        assert await sessions.find(session, token, NOW + dt.timedelta(hours=12)) is None
        await sessions.sweep(session, NOW + dt.timedelta(hours=12))
        assert (await session.execute(sa.select(AdminSession))).first() is None


async def test_a_typed_password_is_fresh_for_ten_minutes(database: Database, ring: KeyRing):
    admin, _ = await alice(database, ring)
    async with database.writing() as session:
        token = await sessions.start(session, admin.id, NOW)
        found = await sessions.find(session, token, NOW)
        assert found
        assert found[0].is_fresh(NOW + dt.timedelta(minutes=10))
        assert not found[0].is_fresh(NOW + dt.timedelta(minutes=10, seconds=1))


async def test_changing_password_or_factor_ends_the_other_sessions(
    database: Database, ring: KeyRing
):
    admin, secret = await alice(database, ring)
    for change in ("password", "factor"):
        async with database.writing() as session:
            here, there = [await sessions.start(session, admin.id, NOW) for _ in range(2)]
            kept = keyring.sha256(here)
            if change == "password":
                await accounts.set_password(
                    session,
                    admin.id,
                    await accounts.hash_password("another calm evening"),
                    kept,
                    NOW,
                )
            else:
                code = pyotp.TOTP(secret).at(NOW)
                await accounts.set_second_factor(session, ring, admin.id, secret, code, kept, NOW)
            await session.flush()
            assert await sessions.find(session, here, NOW)
            assert await sessions.find(session, there, NOW) is None


async def test_a_disabled_account_is_out_at_once(database: Database, ring: KeyRing):
    owner, _ = await alice(database, ring)
    token = await invite(database, owner.workspace_id, Role.VIEWER)
    secret = accounts.new_totp_secret()
    chosen = accounts.NewAccount(
        "vera@aurora.example", PASSWORD, secret, pyotp.TOTP(secret).at(NOW)
    )
    vera = await accounts.accept_invite(database, ring, token, chosen, NOW)
    later = NOW + dt.timedelta(minutes=5)
    async with database.writing() as session:
        signed_in = await sessions.start(session, vera.id, NOW)
        await accounts.disable(session, owner.workspace_id, vera.id, "admin:x", NOW)
        await session.flush()
        assert await sessions.find(session, signed_in, NOW) is None
    assert (
        await accounts.authenticate(
            database, ring, vera.email, PASSWORD, pyotp.TOTP(secret).at(later), later
        )
        is None
    )


async def test_a_workspace_keeps_an_owner(database: Database, ring: KeyRing):
    owner, _ = await alice(database, ring)
    async with database.writing() as session:
        with pytest.raises(accounts.LastOwner):
            await accounts.disable(session, owner.workspace_id, owner.id, "admin:x", NOW)
        with pytest.raises(accounts.LastOwner):
            await accounts.set_role(
                session, owner.workspace_id, owner.id, Role.VIEWER, "admin:x", NOW
            )
