"""Accounts of the dashboard: one-time invitations, passwords (argon2id) and the second factor
(TOTP).

Hashing takes tens of milliseconds and memory, so it runs in a thread, two at a time, and never
inside a transaction.
"""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import hmac
import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import pyotp
import sqlalchemy as sa
from email_validator import EmailNotValidError, validate_email
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.core.db import Database
from app.core.errors import Conflict, Invalid, NotFound
from app.core.ids import new_id
from app.crypto.keyring import KeyRing, Unsealable, sha256
from app.security import audit
from app.security.common_passwords import is_common
from app.security.models import Admin, AdminInvite, AdminSession, Role, Workspace

INVITE_LASTS = dt.timedelta(hours=24)
PASSWORD_MIN, PASSWORD_MAX = 12, 256
TOTP_STEP = 30

# At least m=19 MiB, t=2, p=1 (OWASP Password Storage Cheat Sheet); one lane, because two hash at
# once at most.
_HASHER = PasswordHash((Argon2Hasher(time_cost=2, memory_cost=32_768, parallelism=1),))
_threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="passwords")


class WeakPassword(Invalid):
    slug, title = "weak-password", "This password is too easy to guess"


class WrongCode(Invalid):
    slug, title = "wrong-code", "The code does not match"


class EmailTaken(Conflict):
    slug, title = "email-taken", "This e-mail address cannot be used"


class InviteGone(NotFound):
    slug, title = "invite-gone", "This link is used up or has expired"

    def __init__(self) -> None:
        super().__init__("Ask an owner of the workspace for a new one.")


class LastOwner(Conflict):
    slug, title = "last-owner", "A workspace needs an owner"


def check_password(password: str, email: str = "") -> None:
    """Refuse what is short, overlong or tried first by attackers; any characters, no composition
    rules.
    """
    if len(password) < PASSWORD_MIN:
        raise WeakPassword(
            f"Use at least {PASSWORD_MIN} characters; a short sentence is a good password."
        )
    if len(password) > PASSWORD_MAX:
        raise WeakPassword(f"Use at most {PASSWORD_MAX} characters.")
    if is_common(password) or _is_the_email(password, email):
        raise WeakPassword(
            "This is among the first passwords that are tried. A sentence of your own is better."
        )


def _is_the_email(password: str, email: str) -> bool:
    """Whether nothing but digits and marks is left beside the address or its local part."""
    left = password.casefold()
    for part in (email.casefold(), email.partition("@")[0].casefold()):
        left = left.replace(part, "") if len(part) > 3 else left
    return left != password.casefold() and not any(each.isalpha() for each in left)


async def hash_password(password: str) -> str:
    return await asyncio.get_running_loop().run_in_executor(_threads, _HASHER.hash, password)


async def _verify(password: str, stored: str | None) -> tuple[bool, str | None]:
    """None: nobody's password; looking at it takes as long."""

    def look() -> tuple[bool, str | None]:
        # Made by whoever comes first: the time it takes must not tell who is known.
        nobodys = _nobodys_hash()
        return _HASHER.verify_and_update(password[: PASSWORD_MAX + 1], stored or nobodys)

    return await asyncio.get_running_loop().run_in_executor(_threads, look)


@cache
def _nobodys_hash() -> str:
    return _HASHER.hash(secrets.token_urlsafe(16))


def new_totp_secret() -> str:
    return pyotp.random_base32()


def totp_uri(secret: str, email: str) -> str:
    """What authenticator apps read from the QR code."""
    return pyotp.TOTP(secret).provisioning_uri(name=email or "dashboard", issuer_name="Quittance")


def readable_secret(secret: str) -> str:
    """The secret in groups of four, for typing."""
    return " ".join(secret[start : start + 4] for start in range(0, len(secret), 4))


def matching_step(secret: str, code: str, now: dt.datetime) -> int | None:
    """The time step whose code this is: the present one or a neighbour (clocks differ); spaces do
    not count.
    """
    code = "".join(code.split())
    if len(code) != 6 or not (code.isascii() and code.isdigit()):
        return None
    totp, present = pyotp.TOTP(secret), int(now.timestamp()) // TOTP_STEP
    matches = [
        step
        for step in (present - 1, present, present + 1)
        if hmac.compare_digest(totp.generate_otp(step), code)
    ]
    return matches[-1] if matches else None


def seal_enrolment(ring: KeyRing, secret: str, place: str) -> str:
    """A secret being set up travels through the form sealed, so that showing the form stores
    nothing.
    """
    return base64.urlsafe_b64encode(ring.seal(secret.encode(), f"enrolment|{place}")).decode()


def open_enrolment(ring: KeyRing, sealed: str, place: str) -> str:
    try:
        return ring.unseal(base64.urlsafe_b64decode(sealed.encode()), f"enrolment|{place}").decode()
    except (ValueError, Unsealable):
        raise Invalid("The form is damaged; open its page again.") from None


def seal_factor(ring: KeyRing, admin: Admin, secret: str) -> bytes:
    """What is stored of a second factor; it opens for this account only."""
    return ring.seal(secret.encode(), _totp_place(admin.id, admin.workspace_id))


def _totp_place(admin_id: str, workspace_id: str) -> str:
    return f"{workspace_id}|admin|{admin_id}|totp_sealed|1"


async def create_invite(
    session: AsyncSession,
    workspace_id: str,
    role: Role,
    *,
    now: dt.datetime,
    actor: str = "system",
    email: str | None = None,
) -> str:
    """A token that sets up one account: ``{public_url}/dashboard/invite/{token}``, once, within 24
    hours.
    """
    token = secrets.token_urlsafe(32)
    invite = AdminInvite(
        id=new_id("inv"),
        workspace_id=workspace_id,
        token_sha256=sha256(token),
        role=role.value,
        email=normalise_email(email) if email else None,
        created_at=now,
        expires_at=now + INVITE_LASTS,
    )
    session.add(invite)
    audit.record(
        session,
        workspace_id=workspace_id,
        actor=actor,
        verb="create_invite",
        target=invite.id,
        now=now,
        role=role.value,
    )
    return token


async def find_invite(
    session: AsyncSession, token: str, now: dt.datetime
) -> tuple[AdminInvite, Workspace]:
    """The live invitation and its workspace; unknown, used and expired ones answer alike."""
    found = (
        await session.execute(
            sa.select(AdminInvite, Workspace)
            .join(Workspace, col(Workspace.id) == col(AdminInvite.workspace_id))
            .where(
                col(AdminInvite.token_sha256) == sha256(token),
                col(AdminInvite.used_at).is_(None),
                col(AdminInvite.expires_at) > now,
            )
        )
    ).one_or_none()
    if found is None:
        raise InviteGone
    return found[0], found[1]


@dataclass(frozen=True, slots=True)
class NewAccount:
    """What an invited person chose. ``totp_secret`` None: no second factor, which only a demo
    workspace takes.
    """

    email: str
    password: str
    totp_secret: str | None
    code: str


async def accept_invite(
    database: Database, ring: KeyRing, token: str, chosen: NewAccount, now: dt.datetime
) -> Admin:
    """Make the account and use up the invitation, in one step; of two parallel uses one wins."""
    async with database.reading() as session:
        invite, workspace = await find_invite(session, token, now)
    email = normalise_email(invite.email or chosen.email)
    check_password(chosen.password, email)
    step = 0
    if chosen.totp_secret is None:
        if not workspace.is_demo:
            raise WrongCode(
                "Add Quittance to your authenticator app and type the six digits it shows."
            )
    else:
        found = matching_step(chosen.totp_secret, chosen.code, now)
        if found is None:
            raise WrongCode(
                "Type the six digits your authenticator app shows now; check the clock "
                "of the device."
            )
        step = found
    hashed = await hash_password(chosen.password)
    async with database.writing() as session:
        used = await session.execute(
            sa.update(AdminInvite)
            .where(
                col(AdminInvite.id) == invite.id,
                col(AdminInvite.used_at).is_(None),
                col(AdminInvite.expires_at) > now,
            )
            .values(used_at=now)
            .returning(col(AdminInvite.id))
        )
        if used.scalar_one_or_none() is None:
            raise InviteGone
        if await _by_email(session, email) is not None:
            raise EmailTaken("Use another address, or sign in with the account that has it.")
        admin = Admin(
            id=new_id("adm"),
            workspace_id=invite.workspace_id,
            email=email,
            role=invite.role,
            password_hash=hashed,
            totp_last_step=step,
            created_at=now,
        )
        if chosen.totp_secret is not None:
            admin.totp_sealed = seal_factor(ring, admin, chosen.totp_secret)
        session.add(admin)
        await session.flush()
        audit.record(
            session,
            workspace_id=admin.workspace_id,
            actor=f"admin:{admin.id}",
            verb="create_account",
            target=admin.id,
            now=now,
            role=admin.role,
            second_factor=admin.totp_sealed is not None,
        )
        return admin


async def authenticate(
    database: Database, ring: KeyRing, email: str, password: str, code: str, now: dt.datetime
) -> Admin | None:
    """The account, if e-mail, password and (where one is set up) a fresh code are all right.

    An unknown or disabled account costs the same work as a known one, and every failure looks the
    same.
    """
    async with database.reading() as session:
        admin = await _by_email(session, email.strip().casefold()[:320])
    is_right, rehashed = await _verify(password, admin.password_hash if admin else None)
    secret = _totp_secret(ring, admin) if admin else None
    step = matching_step(secret or _DUMMY_TOTP, code, now)
    if admin is None or not is_right or admin.disabled_at is not None:
        return None
    if secret is not None and step is None:
        return None
    async with database.writing() as session:
        if secret is not None and not await _use_step(session, admin.id, step or 0):
            return None
        if rehashed:
            await session.execute(
                sa.update(Admin).where(col(Admin.id) == admin.id).values(password_hash=rehashed)
            )
    return admin


_DUMMY_TOTP = new_totp_secret()


async def is_password_of(database: Database, admin_id: str, password: str) -> bool:
    async with database.reading() as session:
        admin = await session.get(Admin, admin_id)
    is_right, _ = await _verify(password, admin.password_hash if admin else None)
    return is_right and admin is not None and admin.disabled_at is None


async def _use_step(session: AsyncSession, admin_id: str, step: int) -> bool:
    """Each code once: compare and set, so that of two parallel uses one wins."""
    used = await session.execute(
        sa.update(Admin)
        .where(col(Admin.id) == admin_id, col(Admin.totp_last_step) < step)
        .values(totp_last_step=step)
        .returning(col(Admin.id))
    )
    return used.scalar_one_or_none() is not None


def _totp_secret(ring: KeyRing, admin: Admin) -> str | None:
    if admin.totp_sealed is None:
        return None
    return ring.unseal(admin.totp_sealed, _totp_place(admin.id, admin.workspace_id)).decode()


async def _by_email(session: AsyncSession, email: str) -> Admin | None:
    return (
        await session.execute(sa.select(Admin).where(col(Admin.email) == email))
    ).scalar_one_or_none()


async def set_password(
    session: AsyncSession, admin_id: str, hashed: str, keep_session: bytes, now: dt.datetime
) -> None:
    """Store a new hash; every other session of the account ends."""
    admin = await _get(session, admin_id)
    admin.password_hash = hashed
    await _end_sessions(session, admin_id, but=keep_session)
    audit.record(
        session,
        workspace_id=admin.workspace_id,
        actor=f"admin:{admin_id}",
        verb="change_password",
        target=admin_id,
        now=now,
    )


async def set_second_factor(
    session: AsyncSession,
    ring: KeyRing,
    admin_id: str,
    secret: str,
    code: str,
    keep_session: bytes,
    now: dt.datetime,
) -> None:
    """Replace the second factor after a code proves that the app has it; other sessions end."""
    step = matching_step(secret, code, now)
    if step is None:
        raise WrongCode(
            "Type the six digits your authenticator app shows now; check the clock of the device."
        )
    admin = await _get(session, admin_id)
    admin.totp_sealed = seal_factor(ring, admin, secret)
    admin.totp_last_step = step
    await _end_sessions(session, admin_id, but=keep_session)
    audit.record(
        session,
        workspace_id=admin.workspace_id,
        actor=f"admin:{admin_id}",
        verb="change_second_factor",
        target=admin_id,
        now=now,
    )


async def set_role(
    session: AsyncSession,
    workspace_id: str,
    admin_id: str,
    role: Role,
    actor: str,
    now: dt.datetime,
) -> Admin:
    """Another role, from the next request on."""
    admin = await _of_workspace(session, workspace_id, admin_id)
    if role is not Role.OWNER:
        await _keep_an_owner(session, admin)
    admin.role = role.value
    audit.record(
        session,
        workspace_id=workspace_id,
        actor=actor,
        verb="change_role",
        target=admin_id,
        now=now,
        role=role.value,
    )
    return admin


async def disable(
    session: AsyncSession, workspace_id: str, admin_id: str, actor: str, now: dt.datetime
) -> Admin:
    """End an account and all its sessions at once."""
    admin = await _of_workspace(session, workspace_id, admin_id)
    await _keep_an_owner(session, admin)
    admin.disabled_at = admin.disabled_at or now
    await _end_sessions(session, admin_id)
    audit.record(
        session,
        workspace_id=workspace_id,
        actor=actor,
        verb="disable_account",
        target=admin_id,
        now=now,
    )
    return admin


async def _keep_an_owner(session: AsyncSession, admin: Admin) -> None:
    """Refuse what would leave the workspace without an owner. Owners are locked, so that two cannot
    step down at once.
    """
    owners = await session.execute(
        sa.select(col(Admin.id))
        .where(
            col(Admin.workspace_id) == admin.workspace_id,
            col(Admin.role) == Role.OWNER.value,
            col(Admin.disabled_at).is_(None),
        )
        .with_for_update()
    )
    if {owner for (owner,) in owners} == {admin.id}:
        raise LastOwner("Invite or promote another owner first.")


async def _get(session: AsyncSession, admin_id: str) -> Admin:
    admin = await session.get(Admin, admin_id)
    if admin is None:
        raise NotFound("There is no account with this id.")
    return admin


async def _of_workspace(session: AsyncSession, workspace_id: str, admin_id: str) -> Admin:
    admin = await _get(session, admin_id)
    if admin.workspace_id != workspace_id:
        raise NotFound("There is no account with this id.")
    return admin


async def _end_sessions(session: AsyncSession, admin_id: str, but: bytes = b"") -> None:
    await session.execute(
        sa.delete(AdminSession).where(
            col(AdminSession.admin_id) == admin_id, col(AdminSession.token_sha256) != but
        )
    )


def normalise_email(email: str) -> str:
    """Lower case; one bare address."""
    try:
        return validate_email(email.strip(), check_deliverability=False).normalized.casefold()
    except EmailNotValidError:
        raise Invalid("Give one e-mail address, such as name@example.com.") from None
