"""What a person does without an account: ask by form, confirm by link, look at the status, cancel.

The form's answer is the same whoever the address belongs to, and whether or not a mail went out. A
confirmation link is single-use, bound to one request, kept only as a digest, and used by POST: its
GET changes nothing.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import json
import secrets
from dataclasses import dataclass, field

import sqlalchemy as sa
from itsdangerous import BadData, URLSafeSerializer
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.core.db import hint_after_commit
from app.core.errors import Conflict, Gone, NotFound
from app.core.failpoints import failpoint
from app.core.ids import new_id
from app.core.logging import get_logger
from app.crypto.keyring import KeyRing, sha256
from app.destinations.models import Destination
from app.destinations.service import matches
from app.identity.models import PersonalValue
from app.notifications import service as notifications
from app.security.limits import RateLimits
from app.security.models import Workspace
from app.sites import regimes
from app.subject_requests import intake
from app.subject_requests.models import ConfirmationLink, SubjectRequest
from app.subject_requests.resolve import irreversible_destinations
from app.subject_requests.services import Services
from app.subject_requests.states import OPERATIONS, Kind, Status
from app.subject_requests.timeline import note
from connectors.contract import Identifier, supports

log = get_logger(__name__)

LINK_LIFETIME = dt.timedelta(hours=24)
COOLING_OFF = dt.timedelta(hours=24)

FORM_KINDS = (Kind.ERASURE, Kind.OPT_OUT, Kind.RECTIFICATION, Kind.ACCESS)
"""What the form offers: erase my data, stop using it, correct it, send me a copy."""


class FormUsed(Conflict):
    slug, title = "form-used", "This form was already sent with other content"


class LinkUnknown(NotFound):
    slug, title = "link-unknown", "This link does not work"

    def __init__(self) -> None:
        super().__init__("It is not one of ours, it is incomplete, or it ended long ago.")


class LinkEnded(Gone):
    """A link that was one of ours, with what its page needs of the request it belonged to."""

    def __init__(self, request: SubjectRequest, detail: str) -> None:
        super().__init__(detail)
        self.site_id, self.language = request.site_id, request.language


class LinkUsed(LinkEnded):
    slug, title = "link-used", "This link was already used or has been replaced"


class LinkExpired(LinkEnded):
    slug, title = "link-expired", "This link has expired"


@dataclass(frozen=True, slots=True)
class FormIn:
    """A checked form: ``email`` is normalised, ``note`` is what should be corrected.

    ``request_id`` was fixed when the form was rendered: sent twice, it is still one request.
    """

    kind: Kind
    email: Identifier
    regime: str
    language: str
    note: str | None = None
    request_id: str = field(default_factory=lambda: new_id("req"))


async def submit(
    services: Services,
    limits: RateLimits,
    workspace: Workspace,
    site_id: str,
    form: FormIn,
    now: dt.datetime,
) -> None:
    """Take a form in. Returns nothing: the answer must not depend on anything found here.

    ``FormUsed`` when this very form was sent before with other content.
    """
    ask = _ask(workspace, site_id, form, now)
    if await _is_repeat(services, ask):
        return
    takes_effect = form.kind is Kind.OPT_OUT and not ask.regime.needs_verification(form.kind)
    if not await _may_mail(services, limits, workspace.id, form.email):
        if not takes_effect:
            return
        # It needs no mail to count, so no budget for mail may stand in its way.
        ask = dataclasses.replace(ask, contact_email=None)
    try:
        await _take(services, ask, now, takes_effect=takes_effect)
        failpoint("intake.after_commit")
    except IntegrityError:
        if not await _is_repeat(services, ask):
            raise


def _ask(workspace: Workspace, site_id: str, form: FormIn, now: dt.datetime) -> intake.Ask:
    return intake.Ask(
        workspace=workspace, kind=form.kind, regime=regimes.get(form.regime),
        identifiers=[form.email], channel="form", verification="email_link", received_at=now,
        is_verified=False, contact_email=form.email.value, site_id=site_id, language=form.language,
        note=form.note, id=form.request_id,
    )  # fmt: skip


async def _is_repeat(services: Services, ask: intake.Ask) -> bool:
    """Whether the request is here already: a form sent twice."""
    email = ask.identifiers[0]
    async with services.database.reading() as session:
        request = await session.get(SubjectRequest, ask.id)
        if request is None:
            return False
        rows = await session.execute(
            sa.select(col(PersonalValue.subject_ref)).where(
                col(PersonalValue.holder_id) == ask.id, col(PersonalValue.purpose) == "identifier"
            )
        )
        refs = set(rows.scalars())
    mine = services.ring.subject_ref(ask.workspace.id, email.kind, email.value)
    if request.kind != ask.kind or mine not in refs:
        raise FormUsed("Open the form again to send another request.")
    return True


async def _take(
    services: Services, ask: intake.Ask, now: dt.datetime, *, takes_effect: bool
) -> None:
    """Write the request, and the mail it causes, in one transaction."""
    keys = {ask.id: await services.keys.ensure(ask.id, now)}
    token = secrets.token_urlsafe(32)
    context = keys[ask.id].seal(json.dumps({"token": token}).encode(), f"mail|{ask.id}|context|1")
    async with services.database.writing() as session:
        await intake.write(session, services, [ask], keys, now)
        request = await session.get_one(SubjectRequest, ask.id)
        if takes_effect:
            request.status, request.next_step_at = Status.RESOLVING, now
            hint_after_commit(session, "advance")
            if ask.contact_email is not None:
                _queue(session, ask, "opt_out_received", now)
            return
        session.add(
            ConfirmationLink(
                token_sha256=sha256(token),
                request_id=ask.id,
                created_at=now,
                expires_at=now + LINK_LIFETIME,
            )
        )
        request.next_step_at = now + LINK_LIFETIME
        _queue(session, ask, "confirm", now, context)


def _queue(
    session: AsyncSession, ask: intake.Ask, template: str, now: dt.datetime, context: bytes = b""
) -> None:
    notifications.queue(
        session, ask.workspace.id, ask.id, template, ask.language, now, context_sealed=context
    )


async def _may_mail(
    services: Services, limits: RateLimits, workspace_id: str, email: Identifier
) -> bool:
    """Few mails per mailbox (by digest), and a budget over all."""
    mailbox = services.ring.subject_ref(workspace_id, email.kind, email.value).hex()
    for budget, who in (
        ("mail_hour", mailbox),
        ("mail_day", mailbox),
        ("mail_total", workspace_id),
    ):
        if not await limits.allows(budget, who):
            log.warning("mail_withheld", reason=budget, workspace_id=workspace_id)
            return False
    return True


# The confirmation link


async def find_link(
    session: AsyncSession, token: str, now: dt.datetime, *, lock: bool = False
) -> SubjectRequest:
    """The request behind a link that can still be used; reading it changes nothing."""
    link = await session.get(ConfirmationLink, sha256(token))
    if link is None:
        raise LinkUnknown
    request = await session.get_one(SubjectRequest, link.request_id, with_for_update=lock or None)
    if link.used_at or link.revoked_at or await _is_replaced(session, request, link):
        raise LinkUsed(request, "Confirmed before: follow the status link in the next mail.")
    if link.expires_at <= now:
        raise LinkExpired(request, "Please send the form again.")
    if request.status != Status.AWAITING_VERIFICATION:
        raise LinkUsed(request, "The request does not wait for a confirmation any more.")
    return request


async def _is_replaced(
    session: AsyncSession, request: SubjectRequest, link: ConfirmationLink
) -> bool:
    """Whether the same mailbox asked for the same again since: only the newest link counts.

    Looked up here and not by the form, whose time to answer must not tell what is stored. A
    correction is never the same as another one: its text is part of it.
    """
    if request.kind == Kind.RECTIFICATION:
        return False
    mine = sa.select(col(PersonalValue.subject_ref)).where(
        col(PersonalValue.holder_id) == request.id, col(PersonalValue.purpose) == "identifier"
    )
    newer = await session.execute(
        sa.select(sa.literal(1))
        .select_from(PersonalValue)
        .join(SubjectRequest, col(SubjectRequest.id) == col(PersonalValue.holder_id))
        .join(ConfirmationLink, col(ConfirmationLink.request_id) == col(SubjectRequest.id))
        .where(
            col(PersonalValue.workspace_id) == request.workspace_id,
            col(PersonalValue.subject_ref).in_(mine),
            col(SubjectRequest.kind) == request.kind,
            col(SubjectRequest.site_id) == request.site_id,
            col(ConfirmationLink.created_at) > link.created_at,
        )
        .limit(1)
    )
    return newer.first() is not None


async def confirm(
    session: AsyncSession, services: Services, token: str, now: dt.datetime
) -> SubjectRequest:
    """Use the link: exactly one of any number of parallel calls wins."""
    request = await find_link(session, token, now, lock=True)
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
        raise LinkUsed(request, "Confirmed before: follow the status link in the next mail.")
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
    elif await has_cooling_off(session, services, request, workspace):
        request.status, request.next_step_at = Status.COOLING_OFF, now + COOLING_OFF
    else:
        request.status, request.next_step_at = Status.RESOLVING, now
        hint_after_commit(session, "advance")


async def has_cooling_off(
    session: AsyncSession, services: Services, request: SubjectRequest, workspace: Workspace
) -> bool:
    """Whether a confirmed request waits for a day first: what is erased cannot be brought back."""
    return (
        request.kind == Kind.ERASURE
        and not workspace.is_demo
        and await irreversible_destinations(session, services, workspace.id)
    )


async def places(session: AsyncSession, services: Services, request: SubjectRequest) -> list[str]:
    """The labels of the destinations that carrying out a request would reach now."""
    operation = OPERATIONS.get(Kind(request.kind))
    if operation is None:
        return []
    rows = await session.execute(
        sa.select(Destination)
        .where(col(Destination.workspace_id) == request.workspace_id)
        .order_by(col(Destination.id))
    )
    return [
        each.name
        for each in rows.scalars()
        if matches(each, request.kind, request.regime, request.purposes)
        and (connector := services.class_of(each.connector)) is not None
        and supports(connector, operation)
        and (request.destination_ids is None or each.id in request.destination_ids)
    ]


# The status link


class StatusLinks:
    """Links to a request's status page: signed, not stored."""

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
            raise LinkUnknown from None
