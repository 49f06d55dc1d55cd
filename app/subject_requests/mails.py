"""Mails to people: confirm, accepted, opt-out received, receipt. Text and HTML say the same, from
the same blocks.

Nothing a stranger typed is in a mail, and no identifier in a subject line. Texts are ours, with
fixed substitution.
"""

from __future__ import annotations

import datetime as dt
import json
import textwrap
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo

import jinja2
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.core.clock import utc_now
from app.identity import vault
from app.notifications.models import OutgoingMail
from app.notifications.service import Letter
from app.receipts.models import Receipt
from app.security.models import Workspace
from app.sites.models import Site
from app.subject_requests import proof, settle
from app.subject_requests.models import ConfirmationLink, SubjectRequest
from app.subject_requests.people import COOLING_OFF, StatusLinks
from app.subject_requests.services import Services
from app.subject_requests.states import OPERATIONS, Kind, Status
from app.subject_requests.words import Words, words_of

_WIDTH = 72


@dataclass(frozen=True, slots=True)
class Block:
    """One piece of a mail."""

    kind: Literal["paragraph", "heading", "button", "code"]
    text: str
    href: str = ""


@dataclass(frozen=True, slots=True)
class Matter:
    """What a mail is about: all that composing needs, read together."""

    request: SubjectRequest
    workspace: Workspace
    site: str
    status_url: str
    words: Words

    def date(self, moment: dt.datetime) -> str:
        return self.words.date(moment, self.workspace.timezone)

    def about_kind(self, prefix: str) -> str:
        """The text for the request's kind: ``mail.confirm.erasure``, or the general one."""
        manual = () if Kind(self.request.kind) in OPERATIONS else (f"{prefix}.manual",)
        return self.words.first(
            f"{prefix}.{self.request.kind}", *manual, f"{prefix}.other", site=self.site
        )


async def compose(services: Services, links: StatusLinks, mail: OutgoingMail) -> Letter | None:
    """The letter, or None when there is nobody to write to, or nothing left to say."""
    if mail.template == "receipt":
        await _sign(services, mail.holder_id)
    async with services.database.reading() as session:
        request = await session.get(SubjectRequest, mail.holder_id)
        contact = await vault.open_holder(session, services.keys, [mail.holder_id], ("contact",))
        if request is None or not contact:
            return None
        matter = await _matter(session, services, links, request, mail.language)
        letter = await _write(session, services, matter, mail)
    if letter is None:
        return None
    return _finish(matter, letter, contact[-1].value)


async def on_sent(services: Services, mail: OutgoingMail, now: dt.datetime) -> None:
    """The receipt's mail delivers it, and starts the forgetting clock; an answer still waits to be
    fetched.
    """
    if mail.template != "receipt":
        return
    async with services.database.writing() as session:
        request = await session.get(SubjectRequest, mail.holder_id, with_for_update=True)
        if request is None:
            return
        workspace = await session.get_one(Workspace, request.workspace_id)
        if not (workspace.is_demo and await _has_answer(session, services, request.id)):
            settle.delivered(request, workspace, services, now)


@dataclass(frozen=True, slots=True)
class Draft:
    """A mail before it has a recipient."""

    subject: str
    blocks: Sequence[Block]
    attachment: tuple[str, str] | None = None


async def _write(
    session: AsyncSession, services: Services, matter: Matter, mail: OutgoingMail
) -> Draft | None:
    match mail.template:
        case "confirm":
            return await _confirm(session, services, matter, mail)
        case "accepted":
            return _accepted(matter)
        case "opt_out_received":
            return _opt_out_received(matter)
        case "receipt":
            return await _receipt(session, services, matter)
    raise ValueError(f"no mail is called {mail.template}")


async def _confirm(
    session: AsyncSession, services: Services, matter: Matter, mail: OutgoingMail
) -> Draft | None:
    """None once the request waits no more: a link that cannot be used is not sent."""
    key = (await services.keys.load([mail.holder_id])).get(mail.holder_id)
    if key is None or matter.request.status != Status.AWAITING_VERIFICATION:
        return None
    opened = key.unseal(mail.context_sealed, f"mail|{mail.holder_id}|context|1")
    token = json.loads(opened)["token"]
    rows = await session.execute(
        sa.select(col(ConfirmationLink.expires_at)).where(
            col(ConfirmationLink.request_id) == mail.holder_id
        )
    )
    until = rows.scalars().one()
    words, zone = matter.words, matter.workspace.timezone
    return Draft(
        words("mail.confirm.subject", site=matter.site),
        [
            Block("paragraph", matter.about_kind("mail.confirm")),
            Block(
                "button",
                words("mail.confirm.button"),
                f"{services.settings.public_url}/privacy/confirm/{token}",
            ),
            Block(
                "paragraph",
                words(
                    "mail.confirm.link",
                    time=f"{until.astimezone(ZoneInfo(zone)):%H:%M}",
                    date=matter.date(until),
                    zone=zone,
                ),
            ),
            Block("paragraph", words("mail.confirm.not_you")),
        ],
    )


def _accepted(matter: Matter) -> Draft:
    words, request = matter.words, matter.request
    due = request.extended_until or request.due_at
    blocks = [Block("paragraph", words("mail.accepted.text", what=matter.about_kind("kind")))]
    if request.status == Status.COOLING_OFF:
        hours = int(COOLING_OFF.total_seconds() // 3600)
        blocks.append(Block("paragraph", words("mail.accepted.cooling_off", hours=hours)))
    blocks.append(Block("paragraph", words("mail.accepted.due", date=matter.date(due))))
    blocks.append(Block("button", words("mail.status"), matter.status_url))
    return Draft(words("mail.accepted.subject", site=matter.site), blocks)


def _opt_out_received(matter: Matter) -> Draft:
    words = matter.words
    contact = _one_line(matter.workspace.contact) or matter.site
    return Draft(
        words("mail.opt_out.subject", site=matter.site),
        [
            Block("paragraph", words("mail.opt_out.text")),
            Block("button", words("mail.status"), matter.status_url),
            Block("paragraph", words("mail.opt_out.not_you", contact=contact)),
        ],
    )


# The receipt


_ENDINGS = {
    Status.COMPLETED: "completed",
    Status.COMPLETED_WITH_EXCEPTIONS: "exceptions",
    Status.DENIED: "denied",
    Status.CANCELLED: "cancelled",
}


async def _receipt(session: AsyncSession, services: Services, matter: Matter) -> Draft | None:
    request, words = matter.request, matter.words
    ending = _ENDINGS.get(Status(request.status))
    if ending is None or request.receipt_id is None:
        return None
    receipt = await session.get_one(Receipt, request.receipt_id)
    if receipt.jws is None:
        raise RuntimeError("the receipt is not signed yet")  # the mail is tried again
    openings = await proof.openings_of(session, services, request)
    blocks = [
        *_ending(matter, ending),
        Block("button", words("mail.receipt.button"), matter.status_url),
        *_what_stays(services, matter, receipt),
        Block("heading", words("mail.receipt.check")),
        Block("paragraph", words("mail.receipt.check.text")),
        Block("code", verify_command(services.settings.public_url)),
    ]
    if openings:
        lines = [f"{each['kind']}: {each['opening']}" for each in openings]
        blocks.append(Block("heading", words("mail.receipt.openings")))
        blocks.append(Block("code", "\n".join(lines)))
    subject = words(f"mail.receipt.{ending}.subject", site=matter.site)
    return Draft(subject, blocks, ("receipt.jws", receipt.jws))


def _ending(matter: Matter, ending: str) -> list[Block]:
    words, request = matter.words, matter.request
    if ending == "completed" and request.outcome == "complete_with_residuals":
        return [Block("paragraph", words("mail.receipt.completed.residuals"))]
    if ending == "completed":
        return [Block("paragraph", matter.about_kind("mail.receipt.completed"))]
    blocks = [Block("paragraph", words(f"mail.receipt.{ending}.text", site=matter.site))]
    if ending == "denied":
        reason = words("mail.receipt.reason", reason=denial(words, request))
        blocks.append(Block("paragraph", reason))
        if request.denial_note:
            blocks.append(Block("paragraph", request.denial_note))
        blocks.append(Block("paragraph", complaint(words, request.regime)))
    return blocks


def _what_stays(services: Services, matter: Matter, receipt: Receipt) -> list[Block]:
    words = matter.words
    names = {"suppression_entry": "fingerprint", "request_record": "record"}
    kept = [
        words(f"mail.receipt.own.{names[each['what']]}")
        for each in receipt.claims.get("own_records", [])
        if each["what"] in names
    ]
    days = settle.grace(services, matter.workspace).days
    forget = words("mail.receipt.forget", days=days) if days else words("mail.receipt.forget.now")
    stays = [words("mail.receipt.own", records="; ".join(kept))] if kept else []
    return [Block("paragraph", " ".join([*stays, forget]))]


def denial(words: Words, request: SubjectRequest) -> str:
    """The reason in words; one that is not a code of ours is shown as the operator wrote it."""
    code = request.denial_reason or ""
    return words.texts.get(f"denial.{code}", code)


def complaint(words: Words, regime: str) -> str:
    return words.first(f"complain.{regime}", "complain.other")


def verify_command(public_url: str, file: str = "receipt.jws") -> str:
    """How anybody checks a receipt of this instance."""
    return f"quittance receipt verify {file} --jwks {public_url}/.well-known/jwks.json"


async def _sign(services: Services, request_id: str) -> None:
    """Have the final receipt signed, also when the task for that did not run yet."""
    while True:
        async with services.database.reading() as session:
            rows = await session.execute(
                sa.select(sa.literal(1))
                .where(
                    col(Receipt.request_id) == request_id,
                    col(Receipt.is_final),
                    col(Receipt.jws).is_(None),
                )
                .limit(1)
            )
            if rows.first() is None:
                return
        if not await proof.sign_due(services, utc_now()):
            return  # another process holds it; the mail is tried again


async def _has_answer(session: AsyncSession, services: Services, request_id: str) -> bool:
    return bool(await vault.open_holder(session, services.keys, [request_id], ("answer",)))


# What all mails share


async def _matter(
    session: AsyncSession,
    services: Services,
    links: StatusLinks,
    request: SubjectRequest,
    language: str,
) -> Matter:
    workspace = await session.get_one(Workspace, request.workspace_id)
    site = await session.get(Site, request.site_id) if request.site_id else None
    return Matter(
        request=request,
        workspace=workspace,
        site=_one_line(site.name if site else workspace.name),
        status_url=f"{services.settings.public_url}/privacy/status/{links.token(request.id)}",
        words=words_of(language),
    )


def _finish(matter: Matter, draft: Draft, recipient: str) -> Letter:
    blocks = [Block("paragraph", matter.words("mail.hello")), *draft.blocks]
    foot = matter.words("mail.foot", site=matter.site)
    html = _template().render(
        lang=matter.words.tag,
        direction=matter.words.direction,
        subject=draft.subject,
        site=matter.site,
        blocks=blocks,
        foot=foot,
    )
    return Letter(
        to=recipient,
        subject=draft.subject,
        text=_as_text(blocks, foot),
        html=html,
        links=tuple(each.href for each in blocks if each.href),
        attachment=draft.attachment,
    )


def _columns(text: str) -> int:
    """How wide it is in a terminal, where Chinese and Japanese characters take two columns."""
    return sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text)


def _as_text(blocks: Sequence[Block], foot: str) -> str:
    parts = []
    for block in blocks:
        match block.kind:
            case "button":
                parts.append(f"{block.text}:\n{block.href}")
            case "code":
                parts.append(textwrap.indent(block.text, "    "))
            case "heading":
                parts.append(f"{block.text}\n{'-' * _columns(block.text)}")
            case _:
                parts.append(textwrap.fill(block.text, _WIDTH, break_long_words=False))
    return "\n\n".join([*parts, "-- \n" + textwrap.fill(foot, _WIDTH)]) + "\n"


def _one_line(text: str) -> str:
    """For subjects: no line break, whatever an operator's name holds."""
    return " ".join(text.split())


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template("mail.html")
