"""Signing in and out, invitations, and one's own account."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

import qrcode
from fastapi import Request, Response
from markupsafe import Markup
from qrcode.image.svg import SvgPathImage
from starlette.datastructures import FormData

from app.core.clock import utc_now
from app.core.db import Database
from app.core.errors import Invalid, Problem
from app.core.http import Reading, client_network
from app.core.settings import Settings
from app.crypto.keyring import KeyRing, sha256
from app.dashboard import forms
from app.dashboard.access import SignedIn, router
from app.dashboard.render import page, redirect
from app.security import accounts, audit, sessions
from app.security.limits import RateLimits
from app.security.sessions import Operator


class WrongCredentials(Invalid):
    slug, title = "wrong-credentials", "That did not match"

    def __init__(self) -> None:
        super().__init__(
            "Check e-mail, password and code. Each code works once; wait for the next if needed."
        )


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A second factor being set up; ``sealed`` carries the secret through the form."""

    qr: Markup
    readable: str
    sealed: str
    is_required: bool


def enrolment(
    ring: KeyRing, place: str, label: str, *, is_required: bool, sealed: str = ""
) -> Enrolment:
    """A fresh secret, or the one already shown when a form comes back with a mistake."""
    secret = accounts.open_enrolment(ring, sealed, place) if sealed else accounts.new_totp_secret()
    image = qrcode.make(accounts.totp_uri(secret, label), image_factory=SvgPathImage, border=2)
    return Enrolment(
        qr=Markup(image.to_string(encoding="unicode")),  # noqa: S704 - drawn here, holds no input as text
        readable=accounts.readable_secret(secret),
        sealed=sealed or accounts.seal_enrolment(ring, secret, place),
        is_required=is_required,
    )


@router.get("/sign-in")
async def sign_in_page(request: Request) -> Response:
    return _sign_in_page(request, next_path=request.query_params.get("next", ""))


@router.post("/sign-in")
async def sign_in(request: Request) -> Response:
    form = await forms.read(request)
    state = request.app.state
    email = secret_text(form, "email")
    try:
        sessions.check_form_token(
            state.ring, _form_cookie(request), secret_text(form, "form_token")
        )
        await _spend(request, email)
        now = utc_now()
        admin = await accounts.authenticate(
            state.database,
            state.ring,
            email,
            forms.secret(form, "password"),
            forms.secret(form, "code"),
            now,
        )
        if admin is None:
            raise WrongCredentials
    except Problem as problem:
        return _sign_in_page(request, secret_text(form, "next"), email, problem)
    return await _signed_in(
        request, admin.id, admin.workspace_id, local_path(secret_text(form, "next"))
    )


@router.post("/sign-out")
async def sign_out(request: Request, operator: SignedIn) -> Response:
    database: Database = request.app.state.database
    async with database.writing() as session:
        await sessions.end(session, operator.session_id)
    answer = redirect("/dashboard/sign-in", "signed-out")
    sessions.clear_cookie(answer, request.app.state.settings)
    answer.headers["Clear-Site-Data"] = '"cache"'
    return answer


@router.get("/invite/{token}")
async def invite_page(token: str, request: Request, session: Reading) -> Response:
    return await _invite_page(request, session, token)


@router.post("/invite/{token}")
async def accept_invite(token: str, request: Request) -> Response:
    state = request.app.state
    ring: KeyRing = state.ring
    form = await forms.read(request)
    sessions.check_form_token(ring, _form_cookie(request), secret_text(form, "form_token"))
    await state.limits.spend("login", client_network(request))
    code = forms.secret(form, "code")
    sealed = secret_text(form, "enrolment", 2000)
    try:
        secret = accounts.open_enrolment(ring, sealed, _place(token)) if code.strip() else None
        chosen = accounts.NewAccount(
            secret_text(form, "email"), forms.secret(form, "new_password"), secret, code
        )
        admin = await accounts.accept_invite(state.database, ring, token, chosen, utc_now())
    except accounts.InviteGone:
        raise
    except Problem as problem:
        async with state.database.reading() as session:
            return await _invite_page(
                request,
                session,
                token,
                email=secret_text(form, "email"),
                sealed=sealed,
                problem=problem,
            )
    return await _signed_in(request, admin.id, admin.workspace_id, "/dashboard", "welcome")


@router.get("/account")
async def account_page(request: Request, operator: SignedIn) -> Response:
    return _account_page(request, operator)


@router.post("/account/password")
async def change_password(request: Request, operator: SignedIn) -> Response:
    form = await forms.read(request)
    try:
        await type_password_again(request, operator, form, always=True)
        new = forms.secret(form, "new_password")
        accounts.check_password(new, operator.email)
        hashed = await accounts.hash_password(new)
    except Problem as problem:
        return _account_page(request, operator, problem)
    async with request.app.state.database.writing() as session:
        await accounts.set_password(
            session, operator.admin_id, hashed, operator.session_id, utc_now()
        )
    return redirect("/dashboard/account", "password-changed")


@router.post("/account/second-factor")
async def change_second_factor(request: Request, operator: SignedIn) -> Response:
    form = await forms.read(request)
    ring: KeyRing = request.app.state.ring
    sealed = secret_text(form, "enrolment", 2000)
    try:
        await type_password_again(request, operator, form, always=True)
        secret = accounts.open_enrolment(ring, sealed, operator.admin_id)
        async with request.app.state.database.writing() as session:
            await accounts.set_second_factor(
                session,
                ring,
                operator.admin_id,
                secret,
                forms.secret(form, "code"),
                operator.session_id,
                utc_now(),
            )
    except Problem as problem:
        return _account_page(request, operator, problem, sealed)
    return redirect("/dashboard/account", "factor-changed")


def local_path(path: str) -> str:
    """A path of the dashboard, or its first page: no way out to another site."""
    is_ours = path == "/dashboard" or path.startswith("/dashboard/")
    return (
        path
        if is_ours and "\\" not in path and path.isprintable() and "//" not in path
        else "/dashboard"
    )


def secret_text(form: FormData, name: str, limit: int = 320) -> str:
    """A short field of a form that must not say more about mistakes than it has to."""
    value = form.get(name, "")
    return value.strip()[:limit] if isinstance(value, str) and value.isprintable() else ""


async def type_password_again(
    request: Request, operator: Operator, form: FormData, *, always: bool = False
) -> None:
    """What opens a secret needs the password typed within the last ten minutes."""
    now = utc_now()
    if operator.is_fresh(now) and not always:
        return
    await _spend(request, operator.email)
    database: Database = request.app.state.database
    password = forms.secret(form, "password")
    if not await accounts.is_password_of(database, operator.admin_id, password):
        raise sessions.PasswordWrong if password else sessions.PasswordNeeded
    async with database.writing() as session:
        await sessions.refresh(session, operator.session_id, now)


async def _spend(request: Request, account: str) -> None:
    """One try of the address's budget, and one of the account's: slower for guessers, never locked
    for good.
    """
    limits: RateLimits = request.app.state.limits
    await limits.spend("login", client_network(request))
    await limits.spend("login", f"account:{sha256(account.casefold()).hex()}")


async def _signed_in(
    request: Request, admin_id: str, workspace_id: str, path: str, notice: str | None = None
) -> Response:
    now = utc_now()
    database: Database = request.app.state.database
    settings: Settings = request.app.state.settings
    old = request.cookies.get(sessions.cookie_name(settings))
    async with database.writing() as session:
        if old:
            await sessions.end(session, sha256(old))
        token = await sessions.start(session, admin_id, now)
        audit.record(
            session,
            workspace_id=workspace_id,
            actor=f"admin:{admin_id}",
            verb="sign_in",
            target=admin_id,
            now=now,
        )
    answer = redirect(path, notice)
    sessions.set_cookie(answer, settings, token)
    answer.delete_cookie(
        sessions.form_cookie_name(settings), path="/", secure=sessions.is_https(settings)
    )
    return answer


def _form_cookie(request: Request) -> str | None:
    return request.cookies.get(sessions.form_cookie_name(request.app.state.settings))


def _with_form_cookie(request: Request, template: str, **context: Any) -> Response:
    """A form for somebody who is not signed in, tied to this browser by a cookie."""
    settings: Settings = request.app.state.settings
    cookie = _form_cookie(request) or secrets.token_urlsafe(24)
    answer = page(
        request, template, form_token=sessions.form_token(request.app.state.ring, cookie), **context
    )
    answer.set_cookie(
        sessions.form_cookie_name(settings),
        cookie,
        path="/",
        secure=sessions.is_https(settings),
        httponly=True,
        samesite="strict",
    )
    return answer


def _sign_in_page(
    request: Request, next_path: str, email: str = "", problem: Problem | None = None
) -> Response:
    answer = _with_form_cookie(
        request, "sign_in.html", next=local_path(next_path), email=email, problem=problem
    )
    answer.headers.update(problem.headers if problem else {})
    return answer


def _place(token: str) -> str:
    return sha256(token).hex()


async def _invite_page(
    request: Request,
    session: Reading,
    token: str,
    email: str = "",
    sealed: str = "",
    problem: Problem | None = None,
) -> Response:
    invite, workspace = await accounts.find_invite(session, token, utc_now())
    label = invite.email or email or workspace.name
    try:
        enrol = enrolment(
            request.app.state.ring,
            _place(token),
            label,
            is_required=not workspace.is_demo,
            sealed=sealed,
        )
    except Invalid:
        enrol = enrolment(
            request.app.state.ring, _place(token), label, is_required=not workspace.is_demo
        )
    return _with_form_cookie(
        request,
        "invite.html",
        token=token,
        workspace=workspace.name,
        role=invite.role,
        email=invite.email or email,
        is_email_fixed=invite.email is not None,
        enrol=enrol,
        problem=problem,
    )


def _account_page(
    request: Request, operator: Operator, problem: Problem | None = None, sealed: str = ""
) -> Response:
    ring: KeyRing = request.app.state.ring
    try:
        enrol = enrolment(ring, operator.admin_id, operator.email, is_required=True, sealed=sealed)
    except Invalid:
        enrol = enrolment(ring, operator.admin_id, operator.email, is_required=True)
    return page(request, "account.html", enrol=enrol, problem=problem)
