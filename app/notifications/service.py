"""Mail as an outbox: queued in the transaction that causes it, composed and sent afterwards,
retried for two days.

A mail's recipient and text are never in the queue in clear: composition asks for them when it
sends.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid, parseaddr
from typing import Protocol

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.core.db import Database, hint_after_commit
from app.core.failpoints import failpoint
from app.core.ids import new_id
from app.core.logging import get_logger
from app.notifications.models import OutgoingMail

log = get_logger(__name__)

LEASE = dt.timedelta(minutes=2)
MAX_ATTEMPTS = 12
BACKOFF = dt.timedelta(seconds=30)
BACKOFF_CAP = dt.timedelta(hours=6)


@dataclass(frozen=True, slots=True)
class Letter:
    """A composed mail. ``attachment``: file name and text."""

    to: str
    subject: str
    text: str
    html: str
    links: tuple[str, ...] = ()
    attachment: tuple[str, str] | None = None


class Postman(Protocol):
    """Hands a mail over; raises on failure, ``Undeliverable`` when trying again is of no use."""

    async def deliver(self, mail_id: str, letter: Letter, at: dt.datetime) -> None: ...


class Undeliverable(Exception):
    """The server refused this mail for good."""


Compose = Callable[[OutgoingMail], Awaitable[Letter | None]]
"""The letter, or None when there is nobody to write to any more."""
OnSent = Callable[[OutgoingMail, dt.datetime], Awaitable[None]]


def queue(
    session: AsyncSession,
    workspace_id: str,
    holder_id: str,
    template: str,
    language: str,
    now: dt.datetime,
    context_sealed: bytes = b"",
) -> str:
    """Let a mail go out once this transaction is committed; returns its id."""
    mail_id = new_id("mail")
    session.add(
        OutgoingMail(
            id=mail_id,
            workspace_id=workspace_id,
            holder_id=holder_id,
            template=template,
            language=language,
            context_sealed=context_sealed,
            due_at=now,
            created_at=now,
        )
    )
    hint_after_commit(session, "mail")
    return mail_id


async def send_due(
    database: Database, postman: Postman, compose: Compose, on_sent: OnSent, now: dt.datetime
) -> bool:
    """Send the mail that is due longest; True when there was one."""
    async with database.writing() as session:
        mails = await _take(session, now)
    for mail in mails:
        await _send(database, postman, compose, on_sent, mail, now)
    return bool(mails)


async def _take(session: AsyncSession, now: dt.datetime) -> list[OutgoingMail]:
    rows = await session.execute(
        sa.select(OutgoingMail)
        .where(col(OutgoingMail.due_at) <= now)
        .order_by(col(OutgoingMail.due_at))
        .limit(1)  # a lease each: one slow server must not let the others' run out
        .with_for_update(skip_locked=True)
    )
    mails = list(rows.scalars())
    for mail in mails:
        mail.due_at = now + LEASE
        mail.attempt += 1
    return mails


async def _send(
    database: Database,
    postman: Postman,
    compose: Compose,
    on_sent: OnSent,
    mail: OutgoingMail,
    now: dt.datetime,
) -> None:
    values: dict[str, object]
    try:
        letter = await compose(mail)
        if letter is None:
            values = {"due_at": None, "failed_reason": "no_recipient"}
        else:
            await postman.deliver(mail.id, letter, now)
            failpoint("mail.after_send")
            values = {"due_at": None, "sent_at": now, "failed_reason": None, "context_sealed": b""}
    except (
        Exception
    ) as error:  # whatever the mail server or the network does, the mail is tried again
        is_final = isinstance(error, Undeliverable) or mail.attempt >= MAX_ATTEMPTS
        pause = min(BACKOFF_CAP, BACKOFF * 2 ** (mail.attempt - 1))
        values = {
            "due_at": None if is_final else now + pause,
            "failed_reason": type(error).__name__,
        }
        log.warning(
            "mail_failed", mail_id=mail.id, attempt=mail.attempt, error=type(error).__name__
        )
    async with database.writing() as session:
        await session.execute(
            sa.update(OutgoingMail)
            .where(col(OutgoingMail.id) == mail.id)
            .values(**values)
            .execution_options(synchronize_session=False)
        )
    if "sent_at" in values:
        await on_sent(mail, now)


def message_of(letter: Letter, sender: str, at: dt.datetime, list_id: str) -> EmailMessage:
    """A multipart mail with one recipient; header injection is impossible by the policy of
    ``EmailMessage``.
    """
    message = EmailMessage()
    message["From"] = sender
    message["To"] = letter.to
    message["Subject"] = letter.subject
    message["Date"] = format_datetime(at)
    message["Message-ID"] = make_msgid(
        domain=parseaddr(sender)[1].rpartition("@")[2] or "localhost"
    )
    message["Auto-Submitted"] = "auto-generated"
    message["List-Id"] = f"<{list_id}>"
    message.set_content(letter.text)
    message.add_alternative(letter.html, subtype="html")
    if letter.attachment:
        name, text = letter.attachment
        message.add_attachment(text, filename=name)
    return message
