"""Stories of people: a choice in the banner, a request by form, mail, status page, receipt."""

from __future__ import annotations

import json
import re
import sqlite3
import time
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.journeys.instance import Embedded, Instance, wait_for

pytestmark = pytest.mark.slow

ORIGIN = "https://shop.example"
PURPOSES = ("functional", "analytics", "advertising")


def make_site(instance: Instance) -> str:
    """A published site with the standard banner."""
    made = instance.quittance("site", "create", "--name", "Shop", "--origin", ORIGIN, "--json")
    return str(json.loads(made.stdout)["site_key"])


def send_form(instance: Instance, site_key: str, kind: str, email: str) -> httpx.Response:
    """Fill in the form as a browser does."""
    page = instance.visitor.get(f"/privacy/{site_key}")
    assert page.status_code == 200, page.text
    token = re.search(r'name="token" value="([^"]+)"', page.text)
    assert token
    time.sleep(1.1)  # faster would be a machine
    return instance.visitor.post(
        f"/privacy/{site_key}",
        data={"token": token[1], "kind": kind, "email": email, "note": ""},
        headers={"Origin": instance.base_url, "Sec-Fetch-Site": "same-origin"},
    )


def mail_to(instance: Instance, email: str, count: int = 1) -> dict[str, Any]:
    """The ``count``-th mail to an address, oldest first."""

    def look() -> dict[str, Any] | None:
        items = instance.visitor.get("/dev/mail.json").raise_for_status().json()["items"]
        mine = [each for each in reversed(items) if each["to"] == email]
        return mine[count - 1] if len(mine) >= count else None

    return wait_for(look, f"mail {count} to be sent")


def link_in(mail: dict[str, Any], path: str) -> str:
    (link,) = {each for each in mail["links"] if path in each}
    return str(link)


def confirm(instance: Instance, link: str) -> str:
    """Follow the link twice (a scanner does, too), then press the button; returns the
    status link.
    """
    for _ in range(2):
        assert instance.visitor.get(link).status_code == 200
    token = re.search(r'name="token" value="([^"]+)"', instance.visitor.get(link).text)
    answer = instance.visitor.post(
        link,
        data={"token": token[1]} if token else {},
        headers={"Origin": instance.base_url, "Sec-Fetch-Site": "same-origin"},
    )
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"])


def status_of(instance: Instance, link: str) -> dict[str, Any]:
    answer = instance.visitor.get(link, headers={"Accept": "application/json"})
    found: dict[str, Any] = answer.raise_for_status().json()
    return found


def test_a_person_asks_confirms_thinks_again_and_cancels(instance: Instance) -> None:
    site_key = make_site(instance)
    shop = instance.shared / "shop.sqlite"
    with sqlite3.connect(shop) as connection:
        connection.execute("CREATE TABLE customer (id INTEGER PRIMARY KEY, email TEXT)")
        connection.execute("INSERT INTO customer VALUES (1, 'bob@example.com')")
    tables = [{"name": "customer", "match": {"email": "email"}, "action": "delete"}]
    settings = {"url": f"sqlite:///{shop}", "tables": tables}
    instance.api.post(
        "/v1/destinations", json={"name": "Shop", "connector": "sql", "settings": settings}
    ).raise_for_status()

    sent = send_form(instance, site_key, "erasure", "bob@example.com")
    assert sent.status_code == 303
    assert not re.search(r"\bbob\b", sent.headers["location"])
    mail = mail_to(instance, "bob@example.com")
    assert instance.api.get("/v1/requests").json()["items"][0]["status"] == "awaiting_verification"
    status_link = confirm(instance, link_in(mail, "/privacy/confirm/"))

    status = status_of(instance, status_link)
    assert (status["status"], status["can_cancel"]) == ("cooling_off", True)
    page = instance.visitor.get(status_link, headers={"Accept": "text/html"}).text
    token = re.search(r'name="token" value="([^"]+)"', page)
    cancelled = instance.visitor.post(
        f"{status_link}/cancel",
        data={"token": token[1]} if token else {},
        headers={"Origin": instance.base_url, "Sec-Fetch-Site": "same-origin"},
    )
    assert cancelled.status_code == 303, cancelled.text
    assert status_of(instance, status_link)["status"] == "cancelled"
    with sqlite3.connect(shop) as connection:
        assert connection.execute("SELECT count(*) FROM customer").fetchone() == (1,)
    used = instance.visitor.post(
        link_in(mail, "/privacy/confirm/"),
        headers={"Origin": instance.base_url, "Sec-Fetch-Site": "same-origin"},
    )
    assert used.status_code == 410
    assert "bob@example.com" not in instance.logs()


def test_a_choice_is_proof_and_its_withdrawal_an_opt_out(instance: Instance) -> None:
    site_key = make_site(instance)
    script = instance.visitor.get(f"/b/{site_key}.js", params={"region": "DE"})
    assert (script.status_code, script.headers["x-quittance-regime"]) == (200, "gdpr")
    banner = instance.visitor.get(
        f"/v1/sites/{site_key}/banner", params={"region": "DE"}, headers={"Origin": ORIGIN}
    ).json()
    visitor = str(uuid.uuid4())

    def choose(granted: bool, method: str) -> httpx.Response:
        body = {
            "event_id": str(uuid.uuid4()),
            "site_key": site_key,
            "visitor_id": visitor,
            "notice_version": banner["notice_version"],
            "choices": dict.fromkeys(PURPOSES, granted),
            "method": method,
            "language": "en",
            "region": "DE",
            "gpc": False,
            "decided_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        return instance.visitor.post("/v1/consent", json=body, headers={"Origin": ORIGIN})

    accepted = choose(True, "accept_all")
    assert accepted.status_code == 201, accepted.text
    current = f"/v1/sites/{site_key}/visitors/{visitor}/consent"
    read = instance.visitor.get(current, headers={"Origin": ORIGIN}).json()
    assert read["consent_id"] == accepted.json()["consent_id"]
    assert set(read["choices"].values()) >= {True}

    time.sleep(1.1)  # decided_at has whole seconds here, and on a tie denied wins anyway
    assert choose(False, "withdrawal").status_code == 201

    def opted_out() -> dict[str, Any] | None:
        items = instance.api.get("/v1/requests").json()["items"]
        return next((each for each in items if each["completed_at"]), None)

    request = wait_for(opted_out, "the opt-out to be carried out", seconds=10)
    assert (request["kind"], request["channel"]) == ("opt_out", "consent")
    assert request["regime"] == "gdpr"
    checked = instance.api.post(
        "/v1/suppressions/check",
        json={"identifiers": [{"kind": "anonymous_id", "value": visitor}], "purpose": "analytics"},
    ).json()
    assert checked["results"][0]["suppressed"] is True
    assert len(instance.api.get("/v1/consents").json()["items"]) == 2


class Demo(Embedded):
    """The embedded form as ``make up`` starts it."""

    def start(self, **more: str) -> None:
        process = self.launch("up", "--port", "0", "--json", **more)
        assert process.stdout is not None
        welcome = json.loads(process.stdout.readline())
        self.base_url, self.key = welcome["base_url"], welcome["api_key"]
        self.site_key = welcome["site_key"]
        self._connect()


@pytest.fixture
def demo(tmp_path: Path) -> Any:
    running = Demo(tmp_path / "data", {"QUITTANCE_ALLOWED_PRIVATE_NETWORKS": ""})
    try:
        running.start()
        yield running
    finally:
        running.kill()
        running.disconnect()


def test_a_demo_customer_is_erased_by_form_and_holds_a_verified_receipt(
    demo: Demo, tmp_path: Path
) -> None:
    customers = demo.visitor.get("/demo/customers").text
    email = re.findall(r"[a-z0-9.+-]+@example\.(?:com|org|net)", customers)[0]
    assert demo.site_key

    assert send_form(demo, demo.site_key, "erasure", email).status_code == 303
    status_link = confirm(demo, link_in(mail_to(demo, email), "/privacy/confirm/"))
    receipt_mail = mail_to(demo, email, count=3)

    assert email not in demo.visitor.get("/demo/customers").text
    assert "outcome" not in receipt_mail["subject"]
    opening = re.search(r"email: ([A-Za-z0-9_-]{43})", receipt_mail["text"])
    assert opening
    request_id = next(
        each["id"]
        for each in demo.api.get("/v1/requests").json()["items"]
        if each["channel"] == "form" and each["completed_at"]
    )
    receipt = demo.api.get(f"/v1/requests/{request_id}/receipt").text
    (tmp_path / "receipt.jws").write_text(receipt)
    checked = demo.quittance(
        "receipt",
        "verify",
        str(tmp_path / "receipt.jws"),
        "--jwks",
        f"{demo.base_url}/.well-known/jwks.json",
        "--opening",
        opening[1],
        "--identifier",
        f"email:{email}",
        check=False,
    )
    assert checked.returncode == 0, checked.stderr

    def forgotten() -> bool:
        return bool(demo.api.get(f"/v1/requests/{request_id}").json()["forgotten_at"])

    wait_for(forgotten, "the demo to forget at once")
    answer = demo.api.get(
        f"/v1/requests/{request_id}/receipt", headers={"Accept": "application/json"}
    )
    assert answer.json()["openings"] is None
    assert demo.visitor.get(status_link).status_code == 410
