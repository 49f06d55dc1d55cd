"""What a person does without an account: ask by form, confirm by link, look at the status, cancel.

The form's answer is the same whoever the address belongs to, and whether or not a mail went out. A
confirmation link is single-use, bound to one request, kept only as a digest, and used by POST: its
GET changes nothing.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import secrets
from dataclasses import dataclass

import sqlalchemy as sa
from itsdangerous import BadData, URLSafeSerializer
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.core.db import hint_after_commit
from app.core.errors import Gone, NotFound
from app.crypto.keyring import KeyRing, sha256
from app.notifications import service as notifications
from app.security.limits import RateLimits
from app.security.models import Workspace
from app.sites import regimes
from app.sites.models import Site
from app.subject_requests import intake
from app.subject_requests.models import ConfirmationLink, SubjectRequest
from app.subject_requests.resolve import irreversible_destinations
from app.subject_requests.services import Services
from app.subject_requests.states import OPERATIONS, Kind, Status
from app.subject_requests.timeline import note
from connectors.contract import Identifier

LINK_LIFETIME = dt.timedelta(hours=24)
COOLING_OFF = dt.timedelta(hours=24)

FORM_KINDS = (Kind.ERASURE, Kind.OPT_OUT, Kind.RECTIFICATION, Kind.ACCESS)
"""What the form offers: erase my data, stop using it, correct it, send me a copy."""


class LinkUsed(Gone):
    slug, title = "link-used", "This link was already used or has been replaced"


@dataclass(frozen=True, slots=True)
class FormIn:
    """A checked form: ``email`` is normalised, ``note`` is what should be corrected or added."""

    kind: Kind
    email: Identifier
    regime: str
    language: str
    note: str | None = None


async def submit(
    services: Services,
    limits: RateLimits,
    workspace: Workspace,
    site: Site,
    form: FormIn,
    now: dt.datetime,
) -> None:
    """Take a form in. Returns nothing: the caller's answer must not depend on anything
    found here.
    """
    if not await _may_mail(services, limits, workspace.id, form.email):
        return
    regime = regimes.get(form.regime)
    at_once = form.kind is Kind.OPT_OUT and not regime.needs_verification(form.kind)
    ask = intake.Ask(
        workspace=workspace,
        kind=form.kind,
        regime=regime,
        identifiers=[form.email],
        channel="form",
        verification="none" if at_once else "email_link",
        received_at=now,
        is_verified=False,
        contact_email=form.email.value,
        site_id=site.id,
        language=form.language,
        note=form.note,
    )
    keys = await intake.take_in(services, [ask], now)
    token = secrets.token_urlsafe(32)
    context = keys[ask.id].seal(json.dumps({"token": token}).encode(), f"mail|{ask.id}|context|1")
    async with services.database.writing() as session:
        await intake.write(session, services, [ask], keys, now)
        request = await session.get_one(SubjectRequest, ask.id)
        if at_once:
            request.status, request.next_step_at = Status.RESOLVING, now
            hint_after_commit(session, "advance")
            notifications.queue(
                session, workspace.id, ask.id, "opt_out_received", form.language, now
            )
        else:
            session.add(
                ConfirmationLink(
                    token_sha256=sha256(token),
                    request_id=ask.id,
                    created_at=now,
                    expires_at=now + LINK_LIFETIME,
                )
            )
            request.next_step_at = now + LINK_LIFETIME
            notifications.queue(
                session, workspace.id, ask.id, "confirm", form.language, now, context
            )


async def _may_mail(
    services: Services, limits: RateLimits, workspace_id: str, email: Identifier
) -> bool:
    """Few mails per mailbox (by digest), and a budget over all."""
    mailbox = services.ring.subject_ref(workspace_id, email.kind, email.value).hex()
    return (
        await limits.allows("mail_hour", mailbox)
        and await limits.allows("mail_day", mailbox)
        and await limits.allows("mail_total", "all")
    )


async def find_link(session: AsyncSession, token: str, now: dt.datetime) -> SubjectRequest:
    """The request behind a link that can still be used; reading it changes nothing."""
    link = await session.get(ConfirmationLink, sha256(token))
    if link is None:
        raise NotFound(
            "This link is not one of ours, or it is incomplete. Copy it whole from the mail."
        )
    if link.used_at or link.revoked_at:
        raise LinkUsed(
            "If you confirmed before, all is well: follow the status link in the next mail."
        )
    if link.expires_at <= now:
        raise Gone("The link has expired. Please send the form again.")
    request = await session.get_one(SubjectRequest, link.request_id)
    if request.status != Status.AWAITING_VERIFICATION:
        raise LinkUsed("The request does not wait for a confirmation any more.")
    return request


async def confirm(
    session: AsyncSession, services: Services, token: str, now: dt.datetime
) -> SubjectRequest:
    """Use the link: exactly one of any number of parallel calls wins."""
    request = await find_link(session, token, now)
    used = await session.execute(
        sa.update(ConfirmationLink)
        .where(
            col(ConfirmationLink.token_sha256) == sha256(token),
            col(ConfirmationLink.used_at).is_(None),
            col(ConfirmationLink.revoked_at).is_(None),
            col(ConfirmationLink.expires_at) > now,
        )
        .values(used_at=now)
        .returning(col(ConfirmationLink.request_id))
    )
    if used.first() is None:
        raise LinkUsed(
            "If you confirmed before, all is well: follow the status link in the next mail."
        )
    workspace = await session.get_one(Workspace, request.workspace_id)
    request.verified_at, request.verification = now, "email_link"
    note(session, request.id, "verified", "person", now, by="email_link")
    await _go_on(session, services, request, workspace, now)
    notifications.queue(session, workspace.id, request.id, "accepted", request.language, now)
    return request


async def _go_on(
    session: AsyncSession,
    services: Services,
    request: SubjectRequest,
    workspace: Workspace,
    now: dt.datetime,
) -> None:
    """Verified: an operator's task, a day to think it over, or straight to work."""
    if Kind(request.kind) not in OPERATIONS:
        request.status, request.next_step_at = Status.IN_PROGRESS, None
    elif (
        request.kind == Kind.ERASURE
        and not workspace.is_demo
        and await irreversible_destinations(session, services, workspace.id)
    ):
        request.status, request.next_step_at = Status.COOLING_OFF, now + COOLING_OFF
    else:
        request.status, request.next_step_at = Status.RESOLVING, now
        hint_after_commit(session, "advance")


# The status link


class StatusLinks:
    """Links to a request's status page: signed, not stored; they end when the person is
    forgotten.
    """

    def __init__(self, ring: KeyRing) -> None:
        self._serializer = URLSafeSerializer(
            ring.derive("status"),
            salt="status",
            signer_kwargs={"digest_method": hashlib.sha256, "key_derivation": "hmac"},
        )

    def token(self, request_id: str) -> str:
        return str(self._serializer.dumps(request_id))

    def request_id(self, token: str) -> str:
        try:
            return str(self._serializer.loads(token))
        except BadData:
            raise NotFound(
                "This link is not one of ours, or it is incomplete. Copy it whole from the mail."
            ) from None
