"""Signed-in browsers: server-side sessions, their cookie, and the checks that a POST comes from our
own page.
"""

from __future__ import annotations

import datetime as dt
import hmac
import secrets
from dataclasses import dataclass
from urllib.parse import urlsplit

import sqlalchemy as sa
from fastapi import Request, Response
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.core.errors import Forbidden
from app.core.settings import Settings
from app.crypto.keyring import KeyRing, sha256
from app.security.models import Admin, AdminSession, Role, Workspace

IDLE = dt.timedelta(minutes=30)
ABSOLUTE = dt.timedelta(hours=12)
FRESH = dt.timedelta(minutes=10)
"""How long a typed password opens what needs it again: keys and secrets."""
TOUCH = dt.timedelta(minutes=1)
"""Grain of ``seen_at``: reading pages within it changes nothing in the database."""

_RANK = {Role.VIEWER: 0, Role.OPERATOR: 1, Role.OWNER: 2}
_SCOPES = {
    Role.OWNER: frozenset({"all"}),
    Role.OPERATOR: frozenset(
        {
            "requests:write",
            "destinations:write",
            "sites:write",
            "consents:read",
            "suppressions:read",
            "ops:read",
        }
    ),
    Role.VIEWER: frozenset(
        {"requests:read", "destinations:read", "sites:read", "consents:read", "suppressions:read"}
    ),
}


class NotSignedIn(Forbidden):
    slug, title = "not-signed-in", "Sign in first"


class PasswordNeeded(Forbidden):
    slug, title = "password-needed", "Your password is needed once more"

    def __init__(self) -> None:
        super().__init__("Type your present password; this step opens or changes a secret.")


class PasswordWrong(Forbidden):
    slug, title = "password-wrong", "That is not your present password"

    def __init__(self) -> None:
        super().__init__("Nothing was changed; type the one you sign in with.")


class ForeignForm(Forbidden):
    slug, title = "foreign-form", "This form did not come from here"

    def __init__(self) -> None:
        super().__init__("Open the page again and repeat the step; nothing was changed.")


@dataclass(frozen=True, slots=True)
class Operator:
    """Who is signed in; ``actor`` goes into timelines and the audit log."""

    admin_id: str
    email: str
    role: Role
    workspace: Workspace
    csrf: str
    session_id: bytes
    authenticated_at: dt.datetime
    has_second_factor: bool

    @property
    def workspace_id(self) -> str:
        return self.workspace.id

    @property
    def actor(self) -> str:
        return f"admin:{self.admin_id}"

    @property
    def scopes(self) -> frozenset[str]:
        """What this role could do with an API key, and so may grant to one."""
        return _SCOPES[self.role]

    def may(self, role: Role) -> bool:
        return _RANK[self.role] >= _RANK[role]

    def is_fresh(self, now: dt.datetime) -> bool:
        """Whether the password was typed within the last ten minutes."""
        return now - self.authenticated_at <= FRESH


async def start(session: AsyncSession, admin_id: str, now: dt.datetime) -> str:
    """A new session; its id is fresh, whatever cookie was sent; only its digest is kept."""
    token = secrets.token_urlsafe(32)
    session.add(
        AdminSession(
            token_sha256=sha256(token),
            admin_id=admin_id,
            csrf=secrets.token_urlsafe(24),
            created_at=now,
            seen_at=now,
            authenticated_at=now,
        )
    )
    await session.flush()
    return token


async def find(
    session: AsyncSession, token: str, now: dt.datetime
) -> tuple[Operator, dt.datetime] | None:
    """The signed-in person and when they were seen, if the session lives and the account is
    enabled.
    """
    found = (
        await session.execute(
            sa.select(AdminSession, Admin, Workspace)
            .join(Admin, col(Admin.id) == col(AdminSession.admin_id))
            .join(Workspace, col(Workspace.id) == col(Admin.workspace_id))
            .where(
                col(AdminSession.token_sha256) == sha256(token),
                col(AdminSession.seen_at) > now - IDLE,
                col(AdminSession.created_at) > now - ABSOLUTE,
                col(Admin.disabled_at).is_(None),
            )
        )
    ).one_or_none()
    if found is None:
        return None
    kept, admin, workspace = found
    operator = Operator(
        admin_id=admin.id,
        email=admin.email,
        role=Role(admin.role),
        workspace=workspace,
        csrf=kept.csrf,
        session_id=kept.token_sha256,
        authenticated_at=kept.authenticated_at,
        has_second_factor=admin.totp_sealed is not None,
    )
    return operator, kept.seen_at


async def touch(session: AsyncSession, session_id: bytes, now: dt.datetime) -> None:
    await _set(session, session_id, seen_at=now)


async def refresh(session: AsyncSession, session_id: bytes, now: dt.datetime) -> None:
    """The password was typed again."""
    await _set(session, session_id, authenticated_at=now)


async def end(session: AsyncSession, session_id: bytes) -> None:
    await session.execute(
        sa.delete(AdminSession).where(col(AdminSession.token_sha256) == session_id)
    )


async def sweep(session: AsyncSession, now: dt.datetime) -> None:
    """Delete dead sessions."""
    is_dead = (col(AdminSession.seen_at) <= now - IDLE) | (
        col(AdminSession.created_at) <= now - ABSOLUTE
    )
    await session.execute(sa.delete(AdminSession).where(is_dead))


async def _set(session: AsyncSession, session_id: bytes, **values: dt.datetime) -> None:
    await session.execute(
        sa.update(AdminSession).where(col(AdminSession.token_sha256) == session_id).values(**values)
    )


def is_https(settings: Settings) -> bool:
    return settings.public_url.startswith("https:")


def cookie_name(settings: Settings) -> str:
    """``__Host-`` pins the cookie to this host; browsers take it over https only, so plain loopback
    goes without.
    """
    return "__Host-quittance" if is_https(settings) else "quittance"


def form_cookie_name(settings: Settings) -> str:
    return f"{cookie_name(settings)}-form"


def set_cookie(response: Response, settings: Settings, token: str) -> None:
    response.set_cookie(
        cookie_name(settings),
        token,
        path="/",
        secure=is_https(settings),
        httponly=True,
        samesite="strict",
    )


def clear_cookie(response: Response, settings: Settings) -> None:
    response.delete_cookie(
        cookie_name(settings), path="/", secure=is_https(settings), httponly=True, samesite="strict"
    )


def check_same_origin(request: Request) -> None:
    """Refuse a POST of another site: ``Sec-Fetch-Site`` and ``Origin`` must both be ours, and one
    must be there.
    """
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if site is not None and site not in {"same-origin", "none"}:
        raise ForeignForm
    if origin is None or origin == "null":
        # A browser that hides the origin still says where the form was; no other site can forge
        # that.
        if site is None:
            raise ForeignForm
    elif origin not in _own_origins(request):
        raise ForeignForm


def _own_origins(request: Request) -> set[str]:
    settings: Settings = request.app.state.settings
    public = urlsplit(settings.public_url)
    own = {f"{public.scheme}://{public.netloc}"}
    if not is_https(settings):
        own.add(f"http://{request.headers.get('host', '')}")
    return own


def check_csrf(operator: Operator, token: str) -> None:
    """The synchroniser token bound to the session."""
    if not hmac.compare_digest(operator.csrf.encode(), token.encode()):
        raise ForeignForm


def form_token(ring: KeyRing, cookie: str) -> str:
    """What a form without a session carries: it matches the browser's form cookie, which other
    sites cannot read.
    """
    return ring.digest("dashboard-form", cookie.encode()).hex()


def check_form_token(ring: KeyRing, cookie: str | None, token: str) -> None:
    if not cookie or not hmac.compare_digest(form_token(ring, cookie).encode(), token.encode()):
        raise ForeignForm
