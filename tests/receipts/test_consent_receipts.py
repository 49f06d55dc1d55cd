"""The receipt of a consent record: made once, checked by anybody, naming nobody."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import html
import json
import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from app import checking
from app.core.clock import rfc3339, utc_now
from app.core.settings import Settings
from app.receipts.verify import NotValid, verify
from app.sites.directory import directory_of
from app.subject_requests.words import words_of
from connectors.contract import Identifier
from tests.running import Service

SHOP = "https://shop.example"


@dataclass
class Scene:
    """A choice that was recorded on a published site."""

    service: Service
    site_key: str
    body: dict[str, Any]
    chosen: dict[str, Any]

    @property
    def id(self) -> str:
        return str(self.chosen["consent_id"])

    async def fetch(self, **headers: str) -> httpx.Response:
        return await self.service.call("GET", f"/v1/receipts/{self.id}", who=None, **headers)

    async def keys(self) -> dict[str, Any]:
        found: dict[str, Any] = (await self.service.client.get("/.well-known/jwks.json")).json()
        return found


async def scene(service: Service, *origins: str, **changes: Any) -> Scene:
    listed = list(origins) or [SHOP]
    site = await service.post("/v1/sites", {"name": "Aurora", "origins": listed}, 201)
    version = await service.post(f"/v1/sites/{site['site_key']}/publish")
    body = {
        "event_id": str(uuid.uuid4()), "site_key": site["site_key"],
        "visitor_id": str(uuid.uuid4()), "notice_version": version["notice_version"],
        "choices": {"functional": True, "analytics": True, "advertising": False},
        "method": "custom", "language": "de", "region": "US-CA", "gpc": True,
        "decided_at": rfc3339(utc_now()), "page": f"{listed[0]}/kontakt",
    } | changes  # fmt: skip
    answer = await service.call("POST", "/v1/consent", body, None, origin=listed[0])
    assert answer.status_code == 201, answer.text
    return Scene(service, site["site_key"], body, answer.json())


async def test_a_visitor_gets_a_signed_receipt_of_what_was_chosen(service: Service) -> None:
    made = await scene(service)

    answer = await made.fetch()

    assert answer.headers["content-type"] == "application/jose"
    claims = verify(answer.text, await made.keys()).claims
    record = await service.get(f"/v1/consents/{made.id}")
    assert claims["iss"] == "http://quittance.test"
    assert claims["jti"] == claims["receipt_id"] == claims["record"]["record_id"] == made.id
    told = claims["record"]
    purposes = told["pii_processing"]["purposes"]
    assert {each["purpose_type"]: each["event_state"] for each in purposes} == {
        "functional": "not_objected", "analytics": "not_objected", "advertising": "refused",
    }  # fmt: skip
    assert [each["purpose"] for each in purposes] == [
        each["purpose"] for each in record["iso_27560"]["pii_processing"]["purposes"]
    ]
    assert told["pii_processing"]["language"] == "de"
    assert told["pii_processing"]["jurisdiction"] == record["regime"] == "ccpa"
    assert told["party_identification"][0]["party_name"] == "Aurora"
    assert told["event"]["event_time"] == record["decided_at"]
    assert told["event"]["validity_duration"] == record["expires_at"]
    assert told["event"]["event_state"] == "mixed"
    assert told["extension"] == {
        "site_name": "Aurora", "mode": "opt_out",
        "notice_version": made.body["notice_version"],
        "version_hash": record["notice"]["version_hash"],
        "choice_source": "custom", "gpc": True, "gpc_applied": False, "region": "US-CA",
        "recorded_at": record["recorded_at"],
    }  # fmt: skip


async def test_it_is_the_same_bytes_ever_after(service: Service) -> None:
    made = await scene(service)
    first, *others = await asyncio.gather(*(made.fetch() for _ in range(8)))
    service.later(days=3)
    others.append(await made.fetch())
    assert first.status_code == 200
    assert {each.content for each in others} == {first.content}
    assert await service.rows("SELECT count(*) FROM consent_receipt") == [(1,)]


async def test_recording_a_choice_signs_nothing(embedded: Service) -> None:
    await scene(embedded)
    assert await embedded.rows("SELECT count(*) FROM consent_receipt") == [(0,)]


async def test_it_names_nobody_but_the_visitor_can_show_that_it_is_theirs(
    embedded: Service,
) -> None:
    made, other = await scene(embedded), await scene(embedded)
    token, keys = (await made.fetch()).text, await made.keys()
    text = json.dumps(verify(token, keys).claims)
    for private in (made.body["visitor_id"], made.body["event_id"], "kontakt"):
        assert private not in text

    def is_theirs(visitor_id: str) -> bool | None:
        return verify(token, keys, identifier=Identifier("anonymous_id", visitor_id)).is_theirs

    assert is_theirs(made.body["visitor_id"]) is True
    assert is_theirs(other.body["visitor_id"]) is False
    again = await scene(embedded, visitor_id=made.body["visitor_id"])
    shown = [
        verify((await each.fetch()).text, keys).claims["record"]["pii_principal_id"]
        for each in (made, again)
    ]
    assert shown[0] != shown[1], "two receipts of one visitor cannot be told to be of one"


async def test_as_json_it_stands_beside_its_claims(embedded: Service) -> None:
    made = await scene(embedded)
    plain = await made.fetch()
    answer = await made.fetch(accept="application/json")
    assert answer.json() == {
        "receipt": plain.text,
        "claims": verify(plain.text, await made.keys()).claims,
    }
    assert {"Origin", "Accept"} <= set(answer.headers["vary"].split(", "))
    assert answer.headers["cache-control"].startswith("private")


async def test_a_withdrawal_is_told_as_one_and_does_not_name_the_choice_before_it(
    service: Service,
) -> None:
    given = {"functional": True, "analytics": True, "advertising": False}
    made = await scene(service, region="DE", gpc=False, choices=given)
    body = made.body | {
        "event_id": str(uuid.uuid4()), "method": "withdrawal",
        "choices": dict.fromkeys(given, False), "decided_at": rfc3339(utc_now()),
    }  # fmt: skip
    answer = await service.call("POST", "/v1/consent", body, None, origin=SHOP)
    taken_back = Scene(service, made.site_key, body, answer.json())
    claims = verify((await taken_back.fetch()).text, await made.keys()).claims

    purposes = claims["record"]["pii_processing"]["purposes"]
    assert {each["purpose_type"]: each["event_state"] for each in purposes} == {
        "functional": "withdrawn", "analytics": "withdrawn", "advertising": "refused",
    }  # fmt: skip
    assert claims["record"]["event"]["event_state"] == "withdrawn"
    assert made.id not in json.dumps(claims)
    assert not {"destinations", "record_kept_until"} & set(claims["record"]["extension"])


async def test_no_receipt_is_signed_for_words_that_were_changed(service: Service) -> None:
    kept = await scene(service)
    before = await kept.fetch()
    made = Scene(service, kept.site_key, kept.body, (await again(kept)).json())
    await forge(service)

    answer = await made.fetch(origin=SHOP)
    assert answer.status_code == 500
    assert answer.json()["type"] == "urn:quittance:problem:notice-altered"
    assert await service.rows("SELECT count(*) FROM consent_receipt") == [(1,)]
    assert (await kept.fetch()).content == before.content, "what was signed was true"


async def test_the_doctor_finds_changed_words_and_proof_that_could_be_changed(
    service: Service,
) -> None:
    made = await scene(service)

    async def said(name: str) -> tuple[bool, str]:
        found = await asyncio.to_thread(checking.doctor, service.runtime.settings)
        (one,) = [each for each in found if each["name"] == name]
        return one["ok"], one["detail"]

    count = (await service.rows("SELECT count(*) FROM notice_version"))[0][0]
    assert await said("proof") == (True, "its rows refuse changes")
    ok, detail = await said("notice versions")
    assert (ok, f"all {count} has the hash" in detail) == (True, True)

    await forge(service)
    ok, detail = await said("proof")
    assert (ok, "rows of notice_version can be changed" in detail) == (False, True)
    ok, detail = await said("notice versions")
    assert (ok, made.body["notice_version"] in detail) == (False, True)


async def again(made: Scene) -> httpx.Response:
    """The same visitor, once more."""
    body = made.body | {"event_id": str(uuid.uuid4()), "decided_at": rfc3339(utc_now())}
    return await made.service.call("POST", "/v1/consent", body, None, origin=SHOP)


async def forge(
    service: Service, change: str = f"UPDATE notice_version SET sha256 = '{'0' * 64}'"
) -> None:
    """As somebody can who owns the tables."""
    on = "" if service.runtime.database.is_sqlite else " ON notice_version"
    await service.run(f"DROP TRIGGER notice_version_stays{on}")
    await service.run(change)


# --- as a page

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


async def test_a_person_reads_what_was_shown_and_chosen_and_saves_the_file(
    service: Service,
) -> None:
    made = await scene(service, choices={"functional": True, "analytics": False,
                                         "advertising": False}, gpc=False)  # fmt: skip
    plain = await made.fetch()
    assert plain.headers["content-disposition"] == f'attachment; filename="{made.id}.jws"'
    for accept in ("*/*", "application/jose", "application/json"):
        assert (await made.fetch(accept=accept)).status_code == 200

    opened = await made.fetch(accept=BROWSER)
    assert (opened.status_code, opened.headers["vary"]) == (303, "Accept")
    path = opened.headers["location"]
    answer = await service.client.get(path)
    text = html.unescape(answer.text)

    assert (answer.status_code, path) == (200, f"/privacy/receipt/{made.id}")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"
    notice = (await service.get(f"/v1/consents/{made.id}"))["notice"]
    assert notice["language"] == "de"
    assert 'lang="de"' in text
    words = [notice["texts"]["title"], notice["texts"]["body"], "Aurora", notice["version_hash"]]
    for shown in (*words, plain.text, *(each["name"] for each in notice["purposes"])):
        assert shown in text
    told = re.findall(r'data-purpose-id="(\w+)".*?class="state"[^>]*>([^<]+)<', text, re.DOTALL)
    assert told == [
        ("necessary", "Immer aktiv"),
        ("functional", "An, nicht widersprochen"),
        ("analytics", "Abgelehnt"),
        ("advertising", "Abgelehnt"),
    ]
    facts = re.findall(r"<dt>([^<]+)</dt><dd>(?:<span[^>]*>)?([^<]+)<", text)
    assert facts == [
        ("Wie gewählt wurde", "Eigene Auswahl"),
        ("Gesetz", "California Consumer Privacy Act, as amended by the CPRA"),
    ]
    year = made.body["decided_at"][:10]
    assert f"{made.id} ({year}" in text
    assert f"receipt verify {made.id}.jws --jwks" in text
    assert made.body["visitor_id"] not in text

    saved = await service.client.get(f"{path}/file", headers={"accept": BROWSER})
    assert saved.content == plain.content
    assert saved.headers["content-type"] == "application/jose"
    assert f"{made.id}.jws" in saved.headers["content-disposition"]
    assert saved.headers["content-disposition"].startswith("attachment")


@pytest.mark.parametrize(
    ("changes", "how", "advertising"),
    [
        ({"method": "accept_all"}, "Alle akzeptieren", "Erlaubt"),
        ({"method": "reject_all"}, "Alle ablehnen", "Abgelehnt"),
        ({"method": "dismissed"}, "Schließen", "Nicht beantwortet, daher aus"),
        ({"method": "migrated"}, "Aus dem früheren Banner übernommen", "Abgelehnt"),
        ({"method": "gpc", "region": "US-CA"}, "Widerspruchssignal beachtet", "Abgelehnt"),
        ({"method": "reject_all", "region": "US-CA"}, "Alle ablehnen", "Abgelehnt"),
        ({"method": "custom", "region": "US-CA"}, "Eigene Auswahl", "Abgelehnt"),
        (
            {"method": "migrated", "region": "US-CA", "gpc": True},
            "Aus dem früheren Banner übernommen · <span.*Widerspruchssignal beachtet",
            "Abgelehnt",
        ),
    ],
)
async def test_the_page_says_how_it_was_chosen_and_what_that_means(
    embedded: Service, changes: dict[str, Any], how: str, advertising: str
) -> None:
    gpc = changes["method"] == "gpc"
    is_granted = changes["method"] == "accept_all" or "gpc" in changes
    choices = dict.fromkeys(("functional", "analytics", "advertising"), is_granted)
    made = await scene(embedded, **{"region": "DE", "choices": choices, "gpc": gpc} | changes)
    text = html.unescape((await embedded.client.get(f"/privacy/receipt/{made.id}")).text)

    assert re.search(rf"<dt>Wie gewählt wurde</dt><dd>(<span[^>]*>)?{how}", text)
    assert re.search(rf'"advertising".*?class="state"[^>]*>{advertising}<', text, re.DOTALL)
    expires_at = dt.datetime.fromisoformat(made.chosen["expires_at"])
    until = f"<dt>Gilt bis</dt><dd>{words_of('de').date(expires_at, 'UTC')}<"
    assert (until in text) == ("Gilt bis" in text) == (advertising == "Erlaubt")


async def test_the_page_shows_no_words_but_those_whose_hash_was_signed(service: Service) -> None:
    made = await scene(service)
    page = await service.client.get(f"/privacy/receipt/{made.id}")
    title = (await service.get(f"/v1/consents/{made.id}"))["notice"]["texts"]["title"]
    assert title in html.unescape(page.text)
    directory_of(service.runtime.database)._notices.clear()
    await forge(service, "UPDATE notice_version SET content = json_set(content, '$.format', 3)"
                if service.runtime.database.is_sqlite else
                "UPDATE notice_version SET content = content || '{\"format\": 3}'")  # fmt: skip

    answer = await service.client.get(f"/privacy/receipt/{made.id}")
    assert answer.status_code == 500
    assert title not in html.unescape(answer.text)


async def test_a_page_of_an_unknown_consent_is_not_found(embedded: Service) -> None:
    for path in ("/privacy/receipt/con_none", "/privacy/receipt/con_none/file"):
        answer = await embedded.client.get(path, headers={"accept": BROWSER})
        assert answer.status_code == 404
        assert answer.headers["content-type"].startswith("text/html")


async def test_only_pages_of_its_own_site_may_read_it(service: Service) -> None:
    made = await scene(service)
    other = await scene(service, "https://other.example")
    mine = await made.fetch(origin=SHOP)
    assert mine.headers["access-control-allow-origin"] == SHOP
    assert "access-control-allow-credentials" not in mine.headers
    for origin in ("https://other.example", "https://evil.example", "null"):
        answer = await made.fetch(origin=origin)
        assert "access-control-allow-origin" not in answer.headers
        assert "Origin" in answer.headers["vary"]
    assert (await other.fetch(origin="https://other.example")).headers[
        "access-control-allow-origin"
    ] == "https://other.example"
    preflight = await service.call(
        "OPTIONS", f"/v1/receipts/{made.id}", who=None, origin=SHOP,
        access_control_request_method="GET",
    )  # fmt: skip
    assert preflight.headers["access-control-allow-origin"] == SHOP
    assert preflight.headers["access-control-allow-methods"] == "GET"


async def test_proof_stays_when_the_site_is_gone(service: Service) -> None:
    made, kept = await scene(service), await scene(service)
    before = await kept.fetch()
    for each in (made, kept):
        gone = await service.call("DELETE", f"/v1/sites/{each.site_key}")
        assert gone.status_code == 204
    assert (await kept.fetch()).content == before.content
    late = await made.fetch(origin=SHOP)
    assert verify(late.text, await made.keys()).claims["jti"] == made.id
    assert late.headers["access-control-allow-origin"] == SHOP


@pytest.mark.parametrize("unknown", ["con_", "con_000000000000000000000000000000", "con_' OR 1=1"])
async def test_an_unknown_id_is_not_found_and_the_page_can_read_that(
    service: Service, unknown: str
) -> None:
    answer = await service.call("GET", f"/v1/receipts/{unknown}", who=None, origin=SHOP)
    assert answer.status_code == 404
    assert answer.headers["access-control-allow-origin"] == "*"


async def test_a_changed_receipt_is_refused(embedded: Service) -> None:
    made = await scene(embedded)
    header, payload, signature = (await made.fetch()).text.split(".")
    claims = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
    lie = claims.replace(b'"refused"', b'"given"')
    assert lie != claims
    forged = base64.urlsafe_b64encode(lie).decode().rstrip("=")
    with pytest.raises(NotValid):
        verify(f"{header}.{forged}.{signature}", await made.keys())


# --- the command


def check(
    path: Path, token: str, keys: dict[str, Any], pair: tuple[str, str] | None = None
) -> tuple[int, str]:
    """Exit code and text of ``quittance receipt verify``."""
    (path / "receipt.jws").write_text(token)
    (path / "jwks.json").write_text(json.dumps(keys))
    code, answer = checking.check(
        path / "receipt.jws", str(path / "jwks.json"), None, pair, Settings
    )
    return code, checking.as_text(answer)


async def test_the_command_says_whether_it_is_valid_and_what_was_chosen(
    embedded: Service, tmp_path: Path
) -> None:
    made = await scene(embedded, language="en")
    token, keys = (await made.fetch()).text, await made.keys()

    code, text = check(tmp_path, token, keys, ("anonymous_id", made.body["visitor_id"]))

    assert code == checking.VALID
    lines = [" ".join(each.split()) for each in text.splitlines()]
    assert lines[0].startswith("VALID: signed by http://quittance.test (key ")
    assert f"consent {made.id}: custom under ccpa, decided {made.body['decided_at']}" in lines[1]
    assert "asked by Aurora" in lines
    assert {"not_objected Analytics (analytics)", "refused Advertising (advertising)"} < set(lines)
    assert "signal Global Privacy Control was on" in lines
    assert lines[-1] == "It speaks of the identifier you named."

    assert check(tmp_path, token, keys, ("anonymous_id", str(uuid.uuid4())))[0] == 1
    assert check(tmp_path, token[:-6] + "AAAAAA", keys)[0] == checking.NOT_VALID
    assert check(tmp_path, token, {"keys": []})[0] != checking.VALID


async def test_a_receipt_of_a_request_still_needs_the_opening_that_was_given(
    embedded: Service, tmp_path: Path
) -> None:
    await embedded.destination("crm")
    made = await embedded.ask()
    await embedded.work()
    token = (await embedded.call("GET", f"/v1/requests/{made['id']}/receipt")).text
    keys = (await embedded.client.get("/.well-known/jwks.json")).json()

    code, text = check(tmp_path, token, keys, ("email", "bob.subject@customer.example"))

    assert (code, "--opening" in text) == (checking.UNREADABLE, True)
