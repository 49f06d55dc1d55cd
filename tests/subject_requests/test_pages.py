"""What people do without an account, through HTTP: form, confirmation, status. Hostile ones too."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import statistics
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa
import structlog
import time_machine

from app.core.clock import utc_now
from app.crypto import keyring
from app.receipts import verify
from app.subject_requests import decide, forget, pages
from app.subject_requests.people import StatusLinks
from connectors.contract import Identifier
from tests.subject_requests.people_stage import BOB, SHOP, Stage, fields_of, path_of, stage

pytestmark = pytest.mark.slow

ALICE = "usr_alice"


@pytest.fixture
async def service(
    database_url: str, keystore_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stage]:
    """Tests fill in forms faster than people."""
    monkeypatch.setattr(pages, "FORM_MIN_AGE", dt.timedelta())
    async with stage(database_url, keystore_url, tmp_path) as made:
        yield made


@pytest.fixture
async def roomy(
    sqlite_url: str, sqlite_keystore_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stage]:
    """Without limits in the way."""
    monkeypatch.setattr(pages, "FORM_MIN_AGE", dt.timedelta())
    plenty = {
        "form_per_hour": 9999,
        "mail_per_hour": 9999,
        "mail_per_day": 9999,
        "mail_total_per_hour": 9999,
    }
    async with stage(sqlite_url, sqlite_keystore_url, tmp_path, **plenty) as made:
        yield made


def html(answer: httpx.Response) -> str:
    assert answer.headers["content-type"].startswith("text/html"), answer.text
    return answer.text


# The story


async def test_a_person_is_erased_through_form_mail_and_status_page(service: Stage) -> None:
    file = await service.add_archive(BOB, "eve@example.com")

    link = await service.ask()
    page = html(await service.client.get(link))
    assert "Event archive" in page
    assert BOB in file.read_text()

    answer = await service.client.post(link)
    assert answer.status_code == 303
    status_path = answer.headers["location"]
    before = await service.status(status_path)
    assert before["status"] == "cooling_off"
    assert before["can_cancel"] is True
    await service.end_cooling_off()

    assert BOB not in file.read_text()
    assert "eve@example.com" in file.read_text()
    after = await service.status(status_path)
    assert after["http"] == 200
    assert after["status"] == "completed"
    assert after["destinations"] == [{"label": "Event archive", "state": "deleted"}]
    assert "Erased, and checked afterwards" in html(await service.client.get(status_path))
    assert [each["to"] for each in service.mails()] == [BOB] * 3


async def test_an_erasure_can_be_cancelled_while_it_cools_off(service: Stage) -> None:
    file = await service.add_archive(BOB)
    path = await service.confirmed()
    page = html(await service.client.get(path))
    assert (await service.status(path))["can_cancel"] is True

    answer = await service.client.post(f"{path}/cancel", data=fields_of(page))

    assert answer.status_code == 303
    assert (await service.status(path))["status"] == "cancelled"
    await service.settle()
    assert BOB in file.read_text()
    assert "Cancelled" in html(await service.client.get(path))


async def test_cancelling_needs_the_pages_own_token(service: Stage) -> None:
    await service.add_archive(BOB)
    path = await service.confirmed()
    _, form = await service.form()

    for token in ("", "nonsense", form["token"]):
        answer = await service.client.post(f"{path}/cancel", data={"token": token})
        assert answer.headers["location"] == path

    assert (await service.status(path))["status"] == "cooling_off"


async def test_after_the_fan_out_cancelling_is_too_late(service: Stage) -> None:
    await service.add_manual()
    path = await service.confirmed()
    token = fields_of(html(await service.client.get(path)))["token"]
    async with service.runtime.database.writing() as session:
        await session.execute(sa.text("UPDATE subject_request SET status = 'in_progress'"))

    answer = await service.client.post(f"{path}/cancel", data={"token": token})

    assert answer.status_code == 409
    assert "too late" in html(answer)


async def test_an_opt_out_takes_effect_at_once_and_says_so(service: Stage) -> None:
    assert (await service.send(kind="opt_out")).status_code == 303
    await service.settle()

    [first, receipt] = service.mails()
    assert "need not confirm" in first["text"]
    assert (await service.status(path_of(first, "/status/")))["status"] == "completed"
    assert receipt["subject"] == "Done: your request to Shop"


async def test_an_opt_out_counts_even_where_no_mail_may_go_out(service: Stage) -> None:
    """A budget for mail must not stand in the way of a right that needs no mail."""
    for _ in range(5):
        assert (await service.send(kind="opt_out")).status_code == 303
    await service.settle()

    assert await service.count("subject_request") == 5
    assert len([each for each in service.mails() if "stops using" in each["subject"]]) == 3


async def test_an_operators_answer_is_read_and_saved_on_the_status_page(service: Stage) -> None:
    path = await service.confirmed(kind="access")
    assert (await service.status(path))["status"] == "in_progress"
    request_id = (await service.status(path))["id"]
    now = utc_now()
    async with service.runtime.database.writing() as session:
        await decide.answer(
            session, service.runtime.services, service.workspace_id, request_id, ALICE,
            "Hello <b>Bob</b>", "data.html", b"<script>alert(1)</script>", now,
        )  # fmt: skip
    await service.settle()

    page = html(await service.client.get(path))
    assert "Hello &lt;b&gt;Bob&lt;/b&gt;" in page
    file = await service.client.get(f"{path}/answer")
    assert file.content == b"<script>alert(1)</script>"
    assert file.headers["content-type"] == "application/octet-stream"
    assert file.headers["content-disposition"] == "attachment; filename*=UTF-8''data.html"
    assert file.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in file.headers["content-security-policy"]


async def test_a_receipt_is_fetched_with_openings_and_verifies_offline(service: Stage) -> None:
    await service.add_archive(BOB)
    path = await service.confirmed()
    await service.end_cooling_off()

    page = html(await service.client.get(path))
    as_json = (
        await service.client.get(f"{path}/receipt", headers={"Accept": "application/json"})
    ).json()
    file = await service.client.get(f"{path}/receipt")

    keys = (await service.client.get("/.well-known/jwks.json")).json()
    opening = as_json["openings"][0]["opening"]
    checked = verify.verify(file.text, keys, opening, Identifier("email", BOB))
    assert checked.is_theirs
    assert as_json["receipt"] == file.text
    assert opening in page
    assert file.headers["content-disposition"] == "attachment; filename*=UTF-8''receipt.jws"


async def test_before_confirmation_there_is_no_receipt(service: Stage) -> None:
    link = await service.ask()
    [(request_id,)] = await service.rows("SELECT id FROM subject_request")
    path = f"/privacy/status/{service.runtime.status_links.token(request_id)}"

    answer = await service.client.get(f"{path}/receipt")

    assert answer.status_code == 404
    assert "There is no receipt yet" in html(answer)
    assert (await service.status(path))["receipt_url"] is None
    assert (await service.client.get(link)).status_code == 200


async def test_a_forgotten_request_says_so_and_names_nobody(service: Stage) -> None:
    await service.add_archive(BOB)
    path = await service.confirmed()
    await service.end_cooling_off()
    request_id = (await service.status(path))["id"]

    await forget.forget(service.runtime.services, [request_id], utc_now())

    answer = await service.client.get(path)
    assert answer.status_code == 410
    assert "Done, and forgotten" in html(answer)
    assert BOB not in answer.text
    assert "Event archive" in answer.text
    told = await service.status(path)
    assert (told["http"], told["status"]) == (410, "completed")
    receipt = await service.client.get(f"{path}/receipt", headers={"Accept": "application/json"})
    assert receipt.json()["openings"] is None


async def test_a_demo_forgets_at_once_and_an_answer_there_can_still_be_read(service: Stage) -> None:
    async with service.runtime.database.writing() as session:
        await session.execute(sa.text("UPDATE workspace SET is_demo = true"))
    erased = await service.confirmed()
    await service.settle()
    asked = await service.confirmed(kind="access")
    async with service.runtime.database.writing() as session:
        await decide.answer(
            session, service.runtime.services, service.workspace_id,
            (await service.status(asked))["id"], ALICE, "All of it", None, None, utc_now(),
        )  # fmt: skip
    await service.settle()

    assert (await service.status(erased))["http"] == 410
    assert "All of it" in html(await service.client.get(asked))


async def test_a_denial_gives_the_reason_and_the_way_to_complain(service: Stage) -> None:
    path = await service.confirmed(kind="access")
    request_id = (await service.status(path))["id"]
    await service.api(
        "POST", f"/v1/requests/{request_id}/deny", {"reason": "excessive", "note": "Fifth time <i>"}
    )
    await service.settle()

    page = html(await service.client.get(path))

    assert "repeats earlier ones too often" in page
    assert "Fifth time &lt;i&gt;" in page
    assert "data protection authority" in page


# Languages, laws, headers


@pytest.mark.parametrize(
    ("tag", "text"),
    [
        ("en", "Erase my data"),
        ("de", "Meine Daten löschen"),
        ("fr", "Effacer mes données"),
        ("ja", "日本語"),
        ("he", "עברית"),
    ],
)
async def test_the_form_speaks_the_persons_language(roomy: Stage, tag: str, text: str) -> None:
    direction = "rtl" if tag == "he" else "ltr"
    by_query, _ = await roomy.form(lang=tag)
    by_header = await roomy.client.get(
        f"/privacy/{roomy.site_key}", headers={"Accept-Language": f"{tag}-XX,xx;q=0.5"}
    )

    for page in (by_query, by_header):
        assert f'<html lang="{tag}" dir="{direction}">' in html(page)
        assert text in page.text


async def test_the_mail_and_the_pages_behind_it_keep_the_forms_language(roomy: Stage) -> None:
    page, fields = await roomy.form(lang="de")
    sent = {**fields, "kind": "erasure", "email": BOB}
    answer = await roomy.client.post(f"/privacy/{roomy.site_key}?lang=de", data=sent)
    assert answer.headers["location"].endswith("/sent?lang=de")
    await roomy.settle()

    [mail] = roomy.mails()
    assert "Bitte bestätigen" in mail["subject"]
    confirm = html(await roomy.client.get(path_of(mail, "/confirm/")))
    assert "Ihre Daten löschen?" in confirm
    in_french = await roomy.client.get(path_of(mail, "/confirm/"), params={"lang": "fr"})
    assert "Effacer vos données" in html(in_french)
    assert "Ihre Daten bei Shop" in page.text


async def test_the_region_decides_which_law_a_request_is_under(roomy: Stage) -> None:
    page, fields = await roomy.form(region="US-CA")
    assert "California" in page.text
    await roomy.client.post(
        f"/privacy/{roomy.site_key}", data={**fields, "kind": "erasure", "email": BOB}
    )

    assert await roomy.rows("SELECT regime FROM subject_request") == [("ccpa",)]


async def test_every_page_is_strict_about_what_it_loads_and_leaves_no_trace(roomy: Stage) -> None:
    link = await roomy.ask()
    status_path = (await roomy.client.post(link)).headers["location"]
    paths = [
        f"/privacy/{roomy.site_key}", f"/privacy/{roomy.site_key}/sent", link, status_path,
        "/privacy/nowhere", "/privacy/confirm/nothing", "/privacy/status/nothing",
    ]  # fmt: skip

    for path in paths:
        answer = await roomy.client.get(path)
        csp = answer.headers["content-security-policy"]
        assert "default-src 'none'" in csp, path
        assert "unsafe" not in csp
        assert "form-action 'self'" in csp
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        assert "style=" not in html(answer)
        assert "set-cookie" not in answer.headers


async def test_static_files_are_kept_for_good_under_their_version(roomy: Stage) -> None:
    kept = await roomy.client.get(pages.asset_url("privacy.css"))
    loose = await roomy.client.get("/privacy/static/privacy.css")
    missing = await roomy.client.get("/privacy/static/..%2fpages.py")

    assert "immutable" in kept.headers["cache-control"]
    assert loose.headers["cache-control"] == "no-cache"
    assert missing.status_code == 404


async def test_the_widget_runs_on_the_page_only_where_our_origin_is_the_sites(roomy: Stage) -> None:
    foreign, _ = await roomy.form()
    roomy.site_key = await roomy.add_site("https://privacy.example")
    own, _ = await roomy.form()

    assert "<script" not in foreign.text
    assert SHOP in foreign.text
    assert f"/b/{roomy.site_key}.js" in own.text
    assert "script-src 'self'" in own.headers["content-security-policy"]


async def test_the_status_page_renews_itself_only_while_machines_work(roomy: Stage) -> None:
    await roomy.add_manual()
    async with roomy.runtime.database.writing() as session:
        await session.execute(sa.text("UPDATE workspace SET is_demo = true"))
    path = await roomy.confirmed()
    refresh = '<meta http-equiv="refresh"'

    assert refresh in html(await roomy.client.get(path))
    assert refresh not in html(await roomy.client.get(path, params={"still": "1"}))
    by_hand = await roomy.confirmed(kind="access")
    assert refresh not in html(await roomy.client.get(by_hand))


# Posts that should not count


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "null"}, 303),
        ({"Origin": "https://privacy.example"}, 303),
        ({}, 303),
    ],
)
async def test_forms_of_other_sites_are_refused(
    roomy: Stage, headers: dict[str, str], code: int
) -> None:
    _, fields = await roomy.form()
    sent = {**fields, "kind": "erasure", "email": BOB}

    answer = await roomy.client.post(f"/privacy/{roomy.site_key}", data=sent, headers=headers)

    assert answer.status_code == code
    assert await roomy.count("subject_request") == (code == 303)
    if code == 303:
        await roomy.settle()
        link = path_of(roomy.mails()[0], "/confirm/")
        evil = {"Sec-Fetch-Site": "cross-site"}
        assert (await roomy.client.post(link, headers=evil)).status_code == 403


async def test_a_form_that_was_open_too_long_keeps_what_was_typed(roomy: Stage) -> None:
    with time_machine.travel(utc_now() - dt.timedelta(minutes=31)):
        _, fields = await roomy.form()
    sent = {**fields, "kind": "rectification", "email": BOB, "note": "Bob with one b"}

    answer = await roomy.client.post(f"/privacy/{roomy.site_key}", data=sent)

    assert answer.status_code == 422
    assert "open for a long time" in html(answer)
    assert "Bob with one b" in answer.text
    fresh = {**sent, **fields_of(answer.text)}
    again = await roomy.client.post(f"/privacy/{roomy.site_key}", data=fresh)
    assert again.status_code == 303


async def test_a_form_token_of_another_site_or_our_making_is_not_taken(roomy: Stage) -> None:
    _, fields = await roomy.form()
    roomy.site_key = await roomy.add_site()

    for token in (fields["token"], "", "x.y.z", fields["token"][:-2]):
        sent = {"token": token, "kind": "erasure", "email": BOB}
        answer = await roomy.client.post(f"/privacy/{roomy.site_key}", data=sent)
        assert answer.status_code == 422

    assert await roomy.count("subject_request") == 0


async def test_a_form_sent_twice_is_one_request(roomy: Stage) -> None:
    _, fields = await roomy.form()
    sent = {**fields, "kind": "erasure", "email": BOB}
    url = f"/privacy/{roomy.site_key}"

    answers = await asyncio.gather(*(roomy.client.post(url, data=sent) for _ in range(10)))
    await roomy.settle()

    assert {each.status_code for each in answers} == {303}
    assert await roomy.count("subject_request") == 1
    assert len(roomy.mails()) == 1


async def test_a_used_form_with_other_content_is_not_lost_in_silence(roomy: Stage) -> None:
    _, fields = await roomy.form()
    url = f"/privacy/{roomy.site_key}"
    await roomy.client.post(url, data={**fields, "kind": "erasure", "email": BOB})

    answer = await roomy.client.post(url, data={**fields, "kind": "access", "email": BOB})

    assert answer.status_code == 422
    assert "already sent a request" in html(answer)


async def test_a_form_without_a_choice_says_what_is_missing(roomy: Stage) -> None:
    answer = await roomy.send(kind="portability")

    assert answer.status_code == 422
    assert "Choose what should happen" in html(answer)
    assert 'aria-describedby="kind-error"' in answer.text


# deletion_form


@pytest.mark.slow
async def test_form_001_known_and_unknown_addresses_cannot_be_told_apart(roomy: Stage) -> None:
    """Same status, same bytes, and no more difference in time than between two unknown ones."""
    await roomy.confirmed()
    await roomy.settle()
    seen: dict[str, list[tuple[int, str, str]]] = {"known": [], "unknown": [], "other": []}
    times: dict[str, list[float]] = {"known": [], "unknown": [], "other": []}
    for round in range(60):
        for who in ("known", "unknown", "other"):
            email = BOB if who == "known" else f"{who}{round}@example.com"
            _, fields = await roomy.form()
            sent = {**fields, "kind": "erasure", "email": email}
            started = time.perf_counter()
            answer = await roomy.client.post(f"/privacy/{roomy.site_key}", data=sent)
            times[who].append(time.perf_counter() - started)
            shown = await roomy.client.get(answer.headers["location"])
            seen[who].append((answer.status_code, answer.headers["location"], shown.text))

    assert len({each for answers in seen.values() for each in answers}) == 1
    middle = {who: statistics.median(each) for who, each in times.items()}
    assert abs(middle["known"] - middle["unknown"]) < max(0.004, middle["unknown"] / 3)


@pytest.mark.parametrize(
    "email",
    [
        "a@example.com,b@example.com",
        "a@example.com;b@example.com",
        "A <a@example.com>",
        "a@example.com\r\nBcc: b@example.com",
        "",
        "nobody",
    ],
)
async def test_form_003_exactly_one_mailbox_can_be_named(roomy: Stage, email: str) -> None:
    answer = await roomy.send(email)
    await roomy.settle()

    assert answer.status_code == 422
    assert 'aria-invalid="true"' in html(answer)
    assert "Give one e-mail address" in answer.text
    assert await roomy.count("subject_request") == 0
    assert roomy.mails() == []


async def test_form_005_one_client_meets_its_quota(service: Stage) -> None:
    _, fields = await service.form()
    url, sent = f"/privacy/{service.site_key}", {**fields, "kind": "erasure"}
    answers = [
        await service.client.post(url, data={**sent, "email": f"a{number}@example.com"})
        for number in range(32)
    ]

    assert [each.status_code for each in answers[30:]] == [429, 429]
    assert int(answers[31].headers["retry-after"]) > 0
    assert "A little too fast" in html(answers[31])


async def test_form_005_many_clients_meet_the_budget_for_all_mail(
    sqlite_url: str, sqlite_keystore_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "FORM_MIN_AGE", dt.timedelta())
    limits = {"mail_total_per_hour": 5, "form_per_hour": 999}
    async with stage(sqlite_url, sqlite_keystore_url, tmp_path, **limits) as made:
        with structlog.testing.capture_logs() as logs:
            for number in range(8):
                assert (await made.send(f"a{number}@example.com")).status_code == 303
        await made.settle()

        assert len(made.mails()) == 5
        assert [each["reason"] for each in logs if each["event"] == "mail_withheld"] == [
            "mail_total"
        ] * 3


async def test_form_005_one_mailbox_gets_three_mails_an_hour(
    sqlite_url: str, sqlite_keystore_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "FORM_MIN_AGE", dt.timedelta())
    async with stage(sqlite_url, sqlite_keystore_url, tmp_path, form_per_hour=999) as made:
        for _ in range(6):
            assert (await made.send()).status_code == 303
        await made.settle()

        assert len(made.mails()) == 3


@pytest.mark.parametrize(
    "note", ["<a href=https://evil.example>click</a>", "{{7*7}}", "${7*7}", "{% for %}", "{site}"]
)
async def test_form_007_what_is_typed_is_never_markup_nor_template(roomy: Stage, note: str) -> None:
    link = await roomy.ask(kind="rectification", note=note)
    [mail] = roomy.mails()

    page = html(await roomy.client.get(link))

    escaped = note.replace("<", "&lt;").replace(">", "&gt;")
    assert f'<blockquote class="said">{escaped}</blockquote>' in page
    assert "evil" not in mail["html"] + mail["text"]
    assert "49" not in mail["html"].replace("#", "") or note not in mail["html"]
    assert note not in mail["text"]


async def test_form_009_a_look_alike_letter_is_another_address(roomy: Stage) -> None:
    await roomy.ask("admin@example.com")
    await roomy.ask("\u0430dmin@example.com")

    refs = await roomy.rows("SELECT subject_ref FROM personal_value WHERE purpose = 'identifier'")
    assert len({bytes(ref) for (ref,) in refs}) == 2
    assert [each["to"] for each in roomy.mails()] == ["admin@example.com", "\u0430dmin@example.com"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param("bob@bücher.example", "bob@xn--bcher-kva.example", id="form_011_idn"),
        pytest.param("Bob.B@Example.COM", "bob.b@example.com", id="form_013_case"),
    ],
)
async def test_form_011_013_one_address_has_one_form(roomy: Stage, first: str, second: str) -> None:
    """Same subject key; and the newer of two equal requests is the one that can be confirmed."""
    older = await roomy.ask(first)
    newer = await roomy.ask(second)

    refs = await roomy.rows("SELECT subject_ref FROM personal_value WHERE purpose = 'identifier'")
    assert len({bytes(ref) for (ref,) in refs}) == 1
    assert (await roomy.client.post(older)).status_code == 410
    assert (await roomy.client.post(newer)).status_code == 303


async def test_form_015_a_filled_trap_gets_the_same_answer_and_no_mail(roomy: Stage) -> None:
    honest = await roomy.send("honest@example.com")
    with structlog.testing.capture_logs() as logs:
        trapped = await roomy.send("robot@example.com", website="https://spam.example")
    await roomy.settle()

    assert (trapped.status_code, trapped.headers["location"]) == (303, honest.headers["location"])
    assert [each["to"] for each in roomy.mails()] == ["honest@example.com"]
    assert await roomy.count("subject_request") == 1
    assert [each["reason"] for each in logs if each["event"] == "form_discarded"] == ["trap"]


async def test_form_015_a_form_sent_within_a_second_is_shown_again_as_it_was(
    roomy: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "FORM_MIN_AGE", dt.timedelta(seconds=1))
    url = f"/privacy/{roomy.site_key}"
    sent = {"kind": "rectification", "email": BOB, "note": "My street is wrong."}

    with time_machine.travel(utc_now(), tick=False) as clock:
        _, fresh = await roomy.form()
        with structlog.testing.capture_logs() as logs:
            hasty = await roomy.client.post(url, data=sent | fresh)
        assert await roomy.count("subject_request") == 0
        clock.shift(dt.timedelta(seconds=1))
        again = fields_of(hasty.text)
        patient = await roomy.client.post(url, data=sent | again)

    assert hasty.status_code == 422
    page = html(hasty)
    assert "The request was not sent yet." in page
    assert "This page was only just opened. What you typed is still here" in page
    assert f'value="{BOB}"' in page
    assert "My street is wrong." in page
    assert 'value="rectification" id="kind-rectification" required aria-describedby="kind-' in page
    assert page.count(" checked>") == 1
    assert [each["reason"] for each in logs if each["event"] == "form_shown_again"] == ["too_fast"]
    assert patient.status_code == 303
    assert await roomy.count("subject_request") == 1


async def test_form_015_a_program_in_the_trap_learns_nothing_from_its_haste(
    roomy: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "FORM_MIN_AGE", dt.timedelta(days=1))

    answer = await roomy.send("robot@example.com", website="https://spam.example")

    assert answer.status_code == 303
    assert answer.headers["location"].startswith(f"/privacy/{roomy.site_key}/sent")


async def test_form_017_a_closed_intake_says_where_to_turn_and_stores_nothing(roomy: Stage) -> None:
    _, fields = await roomy.form()
    await roomy.api("PATCH", f"/v1/sites/{roomy.site_key}", {"is_intake_open": False})

    page, _ = await roomy.form()
    sent = {**fields, "kind": "erasure", "email": BOB}
    answer = await roomy.client.post(f"/privacy/{roomy.site_key}", data=sent)

    assert "privacy@shop.example" in html(page)
    assert "<form" not in page.text
    assert answer.status_code == 404
    assert await roomy.count("subject_request") == 0


async def test_form_017_an_unknown_site_is_a_page_too(roomy: Stage) -> None:
    page = await roomy.client.get("/privacy/site_unknown")
    program = await roomy.client.get(
        "/privacy/site_unknown", headers={"Accept": "application/json"}
    )

    assert page.status_code == program.status_code == 404
    assert "There is no such page" in html(page)
    assert program.json()["type"] == "urn:quittance:problem:unknown-site"


async def test_form_019_a_strangers_unverified_request_stops_nobody(service: Stage) -> None:
    await service.ask()  # eve, in bob's name
    with time_machine.travel(utc_now() + dt.timedelta(seconds=5)):
        path = await service.confirmed()  # bob himself
    with time_machine.travel(utc_now() + dt.timedelta(hours=25)):
        await service.settle()

    assert (await service.status(path))["status"] == "completed"
    statuses = await service.rows("SELECT status FROM subject_request ORDER BY received_at")
    assert statuses == [("expired",), ("completed",)]


async def test_a_correction_needs_to_say_what(roomy: Stage) -> None:
    _, fields = await roomy.form()
    url = f"/privacy/{roomy.site_key}"
    sent = {**fields, "kind": "rectification", "email": BOB}

    for note in ({}, {"note": ""}, {"note": " \n "}):
        refused = await roomy.client.post(url, data={**sent, **note})
        assert refused.status_code == 422
        assert '<a href="#note">What should be corrected?</a>' in refused.text
        assert 'aria-invalid="true" autofocus' in refused.text
        assert BOB in html(refused)
    assert await roomy.count("subject_request") == 0

    erasure = await roomy.client.post(url, data={**sent, "kind": "erasure", "note": ""})
    assert erasure.status_code == 303


async def test_form_021_files_are_refused_unread(roomy: Stage) -> None:
    _, fields = await roomy.form()
    url = f"/privacy/{roomy.site_key}"
    before = sorted(roomy.directory.rglob("*"))
    sent = {**fields, "kind": "erasure", "email": BOB}

    small = await roomy.client.post(url, data=sent, files={"file": b"x" * 1000})
    claimed = {"Content-Length": str(1 << 30), "Content-Type": "multipart/form-data; boundary=x"}
    huge = await roomy.client.post(url, headers=claimed, content=b"")
    long = await roomy.client.post(url, data={**sent, "note": "x" * 40_000})
    wordy = await roomy.client.post(url, data={**sent, "kind": "rectification", "note": "x" * 2001})

    assert small.status_code == 422
    assert "takes no files" in html(small)
    assert huge.status_code == 413
    assert long.status_code == 413
    assert wordy.status_code == 422
    assert sorted(roomy.directory.rglob("*")) == before
    assert await roomy.count("subject_request") == 0


async def test_form_023_only_the_sites_own_pages_may_frame_the_form(roomy: Stage) -> None:
    form, _ = await roomy.form()
    link = await roomy.ask()

    confirm = await roomy.client.get(link)

    assert form.headers["content-security-policy"].endswith(f"frame-ancestors {SHOP}")
    assert confirm.headers["content-security-policy"].endswith("frame-ancestors 'none'")


# magic_link


async def test_link_001_scanners_that_follow_the_link_change_nothing(service: Stage) -> None:
    link = await service.ask()
    before = await service.rows("SELECT * FROM subject_request")

    for _ in range(10):
        seen = await service.client.get(link)
        head = await service.client.head(link)
        assert (seen.status_code, head.status_code) == (200, 200)
        assert 'method="post"' in html(seen)

    assert await service.rows("SELECT * FROM subject_request") == before
    assert await service.rows("SELECT used_at FROM confirmation_link") == [(None,)]
    assert (await service.client.post(link)).status_code == 303


async def test_link_003_of_fifty_confirmations_at_once_one_wins(service: Stage) -> None:
    link = await service.ask()

    answers = await asyncio.gather(*(service.client.post(link) for _ in range(50)))
    await service.settle()

    assert sorted(each.status_code for each in answers) == [303] + [410] * 49
    events = await service.rows(
        "SELECT type FROM request_event WHERE type IN ('verified', 'planned')"
    )
    assert sorted(events) == [("planned",), ("verified",)]
    accepted = [each for each in service.mails() if "has begun" in each["subject"]]
    assert len(accepted) == 1


async def test_link_005_a_link_works_for_its_own_request_and_instance_only(
    roomy: Stage, tmp_path: Path
) -> None:
    link = await roomy.ask()
    [(request_id,)] = await roomy.rows("SELECT id FROM subject_request")
    token = link.rpartition("/")[2]
    elsewhere = StatusLinks(keyring.create(tmp_path / "other" / "master.json")).token(request_id)
    here = roomy.runtime.status_links.token(request_id)

    for path in (
        f"/privacy/status/{elsewhere}", f"/privacy/status/{token}", f"/privacy/confirm/{here}",
    ):  # fmt: skip
        answer = await roomy.client.get(path)
        assert answer.status_code == 404, path
        assert "This link does not work" in html(answer)
    assert (await roomy.client.post(f"/privacy/confirm/{here}")).status_code == 404


async def test_link_007_a_link_ends_by_the_servers_record(roomy: Stage) -> None:
    link = await roomy.ask()
    [(expires,)] = await roomy.rows("SELECT expires_at FROM confirmation_link")
    ends = dt.datetime.fromtimestamp(expires / 1e6, dt.UTC)

    with time_machine.travel(ends + dt.timedelta(seconds=1), tick=False):
        late = [await roomy.client.get(link), await roomy.client.post(link)]
    with time_machine.travel(ends - dt.timedelta(seconds=1), tick=False):
        in_time = await roomy.client.get(link)

    assert [each.status_code for each in late] == [410, 410]
    assert "has expired" in html(late[0])
    assert f'href="/privacy/{roomy.site_key}"' in late[0].text
    assert in_time.status_code == 200
    async with roomy.runtime.database.writing() as session:
        # The record decides, whatever a clock says: expired is expired two hours earlier too.
        await session.execute(sa.text("UPDATE confirmation_link SET expires_at = 0"))
    with time_machine.travel(utc_now() - dt.timedelta(hours=2)):
        assert (await roomy.client.post(link)).status_code == 410


async def test_link_009_guessing_ends_at_the_limit(roomy: Stage) -> None:
    with structlog.testing.capture_logs() as logs:
        answers = [
            await roomy.client.request(method, f"/privacy/confirm/guess{number}")
            for number in range(40)
            for method in ("GET", "POST")
        ]

    codes = [each.status_code for each in answers]
    assert codes[:60] == [404] * 60
    assert codes[60:] == [429] * 20
    assert "guess" not in json.dumps(logs, default=str)


async def test_link_011_tokens_and_addresses_are_in_no_log(
    roomy: Stage, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("DEBUG")
    caplog.set_level("WARNING", "httpx")  # the test's own browser, not the service
    with structlog.testing.capture_logs() as logs:
        link = await roomy.ask()
        status_path = (await roomy.client.post(link)).headers["location"]
        await roomy.client.post(link)
        await roomy.client.get(status_path)
        await roomy.settle()

    out, err = capfd.readouterr()
    sink = json.dumps(logs, default=str) + caplog.text + out + err
    for secret in (link.rpartition("/")[2], status_path.rpartition("/")[2], BOB):
        assert secret not in sink


async def test_link_013_the_link_works_on_another_device(roomy: Stage) -> None:
    await roomy.add_archive(BOB)
    link = await roomy.ask()
    phone = httpx.AsyncClient(
        transport=httpx.ASGITransport(roomy.app, client=("198.51.100.7", 1)),
        base_url="https://privacy.example",
        headers={"User-Agent": "Phone", "Accept-Language": "de"},
    )

    async with phone:
        page = html(await phone.get(link))
        answer = await phone.post(link)

    assert "Where it will be erased" in page
    assert "Event archive" in page
    assert "24 hours to change your mind" in page
    assert answer.status_code == 303


async def test_link_015_a_new_link_ends_the_previous_one(service: Stage) -> None:
    older = await service.ask()
    newer = await service.ask()
    other_kind = await service.ask(kind="access")

    seen, used = await service.client.get(older), await service.client.post(older)

    assert (seen.status_code, used.status_code) == (410, 410)
    assert "the newest mail" in html(seen)
    assert (await service.client.post(newer)).status_code == 303
    assert (await service.client.post(other_kind)).status_code == 303
