"""Mails to people: what they say, to whom, and in which language."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from app.core.clock import utc_now
from app.notifications.models import OutgoingMail
from app.notifications.service import Letter, message_of
from app.receipts import verify
from app.subject_requests import mails, words
from app.subject_requests.models import SubjectRequest
from app.subject_requests.people import COOLING_OFF
from app.subject_requests.states import FINAL
from connectors.contract import Identifier
from tests.subject_requests.people_stage import BASE, BOB, Stage, stage

pytestmark = pytest.mark.slow

TEXTS = Path(words.__file__).parent / "texts"
LANGUAGES = words.LANGUAGES


@pytest.fixture
async def service(
    sqlite_url: str, sqlite_keystore_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stage]:
    monkeypatch.setattr("app.subject_requests.pages.FORM_MIN_AGE", dt.timedelta())
    async with stage(sqlite_url, sqlite_keystore_url, tmp_path) as made:
        yield made


async def last_mail(service: Stage) -> OutgoingMail:
    async with service.runtime.database.reading() as session:
        newest = sa.select(OutgoingMail).order_by(sa.desc("id")).limit(1)
        return (await session.execute(newest)).scalar_one()


async def letter_of(service: Stage, language: str = "en", template: str = "") -> Letter | None:
    """The newest mail's letter once more, or another template for the same request."""
    queued = await last_mail(service)
    mail = OutgoingMail(
        **{**queued.model_dump(), "language": language, "template": template or queued.template}
    )
    return await mails.compose(service.runtime.services, service.runtime.status_links, mail)


async def request_of(service: Stage) -> SubjectRequest:
    async with service.runtime.database.reading() as session:
        return (await session.execute(sa.select(SubjectRequest))).scalar_one()


def load(tag: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((TEXTS / f"{tag}.json").read_text(encoding="utf-8"))
    return content


@pytest.mark.parametrize("tag", LANGUAGES)
def test_every_language_says_everything_with_the_same_blanks(tag: str) -> None:
    ours, english = load(tag), load("en")

    assert ours["texts"].keys() == english["texts"].keys()
    for key, text in ours["texts"].items():
        blanks = sorted(set(re.findall(r"{\w+}", text)))
        assert blanks == sorted(set(re.findall(r"{\w+}", english["texts"][key]))), key
        assert text.strip() == text
        assert "<" not in text
    assert len(ours["months"]) == 12


@pytest.mark.parametrize("tag", LANGUAGES[1:])
def test_translations_are_translations(tag: str) -> None:
    ours, english = load(tag)["texts"], load("en")["texts"]

    same = {key for key in ours if ours[key] == english[key] and len(english[key]) > 12}

    assert not same


@pytest.mark.parametrize(
    ("tag", "date"),
    [
        ("en", "2 March 2026"),
        ("de", "2. März 2026"),
        ("fr", "2 mars 2026"),
        ("es", "2 de marzo de 2026"),
        ("de-AT", "2. März 2026"),
        ("xx", "2 March 2026"),
    ],
)
def test_dates_are_written_out_in_the_workspaces_zone(tag: str, date: str) -> None:
    last_second = dt.datetime(2026, 3, 3, 4, 59, 59, tzinfo=dt.UTC)

    assert words.words_of(tag).date(last_second, "America/New_York") == date


@pytest.mark.parametrize("language", LANGUAGES)
async def test_the_confirmation_says_the_same_in_both_parts(service: Stage, language: str) -> None:
    await service.send()

    letter = await letter_of(service, language)

    assert letter is not None
    assert letter.to == BOB
    [link] = letter.links
    assert link.startswith(f"{BASE}/privacy/confirm/")
    for part in (letter.text, letter.html):
        assert link in part
        assert words.words_of(language)("mail.confirm.button") in part
    plain = re.sub(r"[ \n]+", " ", letter.text)
    for sentence in ("mail.confirm.not_you", "mail.confirm.erasure"):
        assert words.words_of(language)(sentence, site="Shop") in plain


@pytest.mark.parametrize("language", LANGUAGES)
async def test_no_subject_line_and_no_body_names_anybody(service: Stage, language: str) -> None:
    await service.add_archive(BOB)
    await service.confirmed()
    await service.end_cooling_off()

    for template in ("accepted", "opt_out_received", "receipt"):
        letter = await letter_of(service, language, template)
        assert letter is not None
        told = letter.subject + letter.text + letter.html
        assert not re.search(r"\bbob\b", told, re.IGNORECASE)  # a link's token may hold anything
        assert "Shop" in letter.subject
        assert letter.links[0].startswith(f"{BASE}/privacy/status/")
        assert "http" not in re.sub(re.escape(BASE), "", letter.html)  # nothing remote


async def test_accepted_says_how_long_there_is_to_change_ones_mind(service: Stage) -> None:
    await service.add_archive(BOB)
    await service.confirmed()

    letter = await letter_of(service)

    assert letter is not None
    assert f"{COOLING_OFF.total_seconds() / 3600:.0f} hours" in letter.text
    assert "“Erase my data”" in letter.text


async def test_the_receipt_is_attached_and_its_openings_verify(service: Stage) -> None:
    await service.add_archive(BOB)
    await service.confirmed()
    await service.end_cooling_off()

    letter = await letter_of(service)

    assert letter is not None
    assert letter.attachment is not None
    name, jws = letter.attachment
    opening = re.search(r"email: (\S{43})", letter.text)
    assert name == "receipt.jws"
    assert opening is not None
    keys = (await service.client.get("/.well-known/jwks.json")).json()
    assert verify.verify(jws, keys, opening[1], Identifier("email", BOB)).is_theirs
    assert (
        f"quittance receipt verify receipt.jws --jwks {BASE}/.well-known/jwks.json" in letter.text
    )
    assert "erased wherever it was found" in letter.text


async def test_an_unsigned_receipt_is_signed_before_it_is_sent(service: Stage) -> None:
    await service.add_archive(BOB)
    await service.confirmed()
    await service.end_cooling_off()
    async with service.runtime.database.writing() as session:
        await session.execute(sa.text("UPDATE receipt SET jws = NULL"))

    letter = await letter_of(service)

    assert letter is not None
    assert letter.attachment is not None
    assert letter.attachment[1].count(".") == 2


@pytest.mark.parametrize(
    ("status", "outcome", "said"),
    [
        ("completed", "complete", "Done: your request"),
        ("completed", "complete_with_residuals", "keep something on purpose"),
        ("completed_with_exceptions", "partial", "not every place could be settled"),
        ("denied", "refused", "A law orders the data to be kept."),
        ("denied", "refused", "articles 12(4), 77 and 79"),
        ("cancelled", "partial", "nothing more is done"),
    ],
)
async def test_the_receipts_mail_says_how_it_ended(
    service: Stage, status: str, outcome: str, said: str
) -> None:
    await service.add_archive(BOB)
    await service.confirmed()
    await service.end_cooling_off()
    async with service.runtime.database.writing() as session:
        ending = {"status": status, "outcome": outcome, "denial_reason": "legal_obligation"}
        await session.execute(sa.update(SubjectRequest).values(**ending))

    letter = await letter_of(service)

    assert letter is not None
    assert said in " ".join([letter.subject, *letter.text.split()])


def test_every_end_that_has_a_receipt_has_a_mail() -> None:
    assert {each for each in FINAL if each != "expired"} == set(mails._ENDINGS)


async def test_a_name_with_markup_and_line_breaks_stays_a_name(service: Stage) -> None:
    await service.send()
    async with service.runtime.database.writing() as session:
        hostile = "Shop\r\nBcc: eve@example.com <b>{{7*7}}</b>{site}"
        await session.execute(sa.text("UPDATE site SET name = :name"), {"name": hostile})

    letter = await letter_of(service)

    assert letter is not None
    assert "\n" not in letter.subject
    assert "<b>" not in letter.html
    assert "{{7*7}}" in letter.html
    message = message_of(letter, "privacy@shop.example", utc_now(), "privacy.shop.example")
    assert message["To"] == BOB
    assert message["Bcc"] is None


async def test_nobody_is_written_to_any_more_once_forgotten_or_confirmed(service: Stage) -> None:
    await service.confirmed()
    assert await letter_of(service, template="confirm") is None

    request = await request_of(service)
    await service.runtime.keys.forget([request.id])

    assert await letter_of(service, template="accepted") is None


async def test_the_receipts_mail_starts_the_forgetting_clock(service: Stage) -> None:
    await service.add_archive(BOB)
    await service.confirmed()
    await service.end_cooling_off()

    request = await request_of(service)

    assert request.delivered_at is not None
    assert request.forget_at == request.delivered_at + dt.timedelta(days=30)


async def test_other_mails_do_not_start_the_clock(service: Stage) -> None:
    await service.add_archive(BOB)
    await service.confirmed()
    await service.end_cooling_off()
    async with service.runtime.database.writing() as session:
        await session.execute(sa.update(SubjectRequest).values(delivered_at=None))
    mail = await last_mail(service)

    for template in ("confirm", "accepted", "opt_out_received"):
        other = OutgoingMail(**{**mail.model_dump(), "template": template})
        await mails.on_sent(service.runtime.services, other, utc_now())
    assert (await request_of(service)).delivered_at is None

    await mails.on_sent(service.runtime.services, mail, utc_now())
    assert (await request_of(service)).delivered_at is not None


# /dev/mail


async def test_the_embedded_forms_mail_can_be_read_on_this_machine(service: Stage) -> None:
    await service.ask()
    local = {"Host": "127.0.0.1:8321"}

    listed = (await service.client.get("/dev/mail.json", headers=local)).json()["items"]
    page = await service.client.get("/dev/mail", headers=local)
    one = await service.client.get(f"/dev/mail/{listed[0]['id']}", headers=local)
    inner = await service.client.get(f"/dev/mail/{listed[0]['id']}/html", headers=local)

    assert set(listed[0]) >= {"id", "to", "subject", "text", "html", "links", "at"}
    assert listed[0]["to"] == BOB
    assert listed[0]["subject"] in page.text
    assert f'<a href="{listed[0]["links"][0]}"' in one.text
    assert 'sandbox="allow-popups' in one.text
    assert "sandbox" in inner.headers["content-security-policy"]
    assert (await service.client.get("/dev/mail/mail_x", headers=local)).status_code == 404


@pytest.mark.parametrize("path", ["/dev/mail", "/dev/mail.json", "/dev/mail/mail_1"])
async def test_under_a_public_name_there_is_no_mail_to_read(service: Stage, path: str) -> None:
    await service.ask()

    for host in ("privacy.example", "rebound.evil.example:8321", "127.0.0.1.evil.example"):
        answer = await service.client.get(path, headers={"Host": host})
        assert answer.status_code == 404


async def test_on_a_public_bind_or_with_smtp_there_is_no_mail_to_read(service: Stage) -> None:
    local, state = {"Host": "localhost"}, service.app.state
    assert (await service.client.get("/dev/mail.json", headers=local)).status_code == 200

    outbox, state.outbox = state.outbox, None
    assert (await service.client.get("/dev/mail.json", headers=local)).status_code == 404
    state.outbox = outbox
    state.settings = state.settings.model_copy(update={"host": "0.0.0.0"})  # noqa: S104
    state.settings.__dict__.pop("is_loopback", None)
    assert (await service.client.get("/dev/mail.json", headers=local)).status_code == 404
