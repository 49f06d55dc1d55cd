"""The story of one person with two browsers: what they choose in one holds in the other once they
have signed in there.
"""

from __future__ import annotations

import datetime as dt
import re
import uuid
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tests.identity.hosts import Host
from tests.journeys.instance import Instance, wait_for
from tests.journeys.test_people import ORIGIN, PURPOSES, make_site

pytestmark = pytest.mark.slow

ALL, NONE = dict.fromkeys(PURPOSES, True), dict.fromkeys(PURPOSES, False)


@dataclass
class Browser:
    """A widget's side of HTTP, without cookies."""

    instance: Instance
    site_key: str
    notice_version: str
    visitor_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def choose(self, method: str, choices: dict[str, bool], at: dt.datetime) -> str:
        body = {
            "event_id": str(uuid.uuid4()), "site_key": self.site_key,
            "visitor_id": self.visitor_id, "notice_version": self.notice_version,
            "choices": choices, "method": method, "language": "en", "region": "DE", "gpc": False,
            "decided_at": at.isoformat(),
        }  # fmt: skip
        answer = self.instance.visitor.post("/v1/consent", json=body, headers={"Origin": ORIGIN})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["consent_id"])

    def sign_in(self, token: str) -> httpx.Response:
        return self.instance.visitor.post(
            "/v1/visitors/link",
            json={"site_key": self.site_key, "visitor_id": self.visitor_id},
            headers={"Origin": ORIGIN, "Authorization": f"Bearer {token}"},
        )

    def choices(self) -> Any:
        path = f"/v1/sites/{self.site_key}/visitors/{self.visitor_id}/consent"
        answer = self.instance.visitor.get(path, headers={"Origin": ORIGIN})
        return answer.raise_for_status().json()["choices"]


def test_a_choice_follows_a_person_from_browser_to_browser(instance: Instance) -> None:
    site_key = make_site(instance)
    site = instance.api.get(f"/v1/sites/{site_key}").json()
    version = site["published"]["notice_version"]
    phone, laptop = (Browser(instance, site_key, version) for _ in range(2))
    hosts = [
        Host(each, kid=each, issuer=ORIGIN, audience=instance.base_url)
        for each in ("RS256", "EdDSA")
    ]
    identity = {"issuer": ORIGIN, "jwks": {"keys": [each.jwk for each in hosts]}}
    named = instance.api.patch(f"/v1/sites/{site_key}", json={"host_identity": identity})
    assert named.status_code == 200, named.text
    start = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=10)

    accepted = phone.choose("accept_all", ALL, start)
    bob = {"sub": "bob-1", "email": "bob@example.com", "email_verified": True}
    token = hosts[0].token(**bob)
    assert phone.sign_in(token).json()["state"]["source"] == "this_device"
    assert phone.sign_in(token).status_code == 401, "a token is used once"
    state = laptop.sign_in(hosts[1].token(**bob)).json()["state"]
    assert (state["choices"], state["consent_id"]) == (ALL, accepted)
    assert (state["source"], state["stale"]) == ("other_device", False)

    laptop.choose("withdrawal", NONE, start + dt.timedelta(minutes=1))
    assert phone.choices() == laptop.choices() == NONE

    def opted_out() -> dict[str, Any] | None:
        items = instance.api.get("/v1/requests").json()["items"]
        return next((each for each in items if each["completed_at"]), None)

    request = wait_for(opted_out, "the opt-out to be carried out")
    assert (request["kind"], request["channel"]) == ("opt_out", "consent")
    identifiers = [
        {"kind": "anonymous_id", "value": phone.visitor_id},
        {"kind": "anonymous_id", "value": laptop.visitor_id},
        {"kind": "user_id", "value": "bob-1"},
        {"kind": "email", "value": "bob@example.com"},
    ]
    checked = instance.api.post(
        "/v1/suppressions/check", json={"identifiers": identifiers, "purpose": "analytics"}
    ).json()
    assert [each["suppressed"] for each in checked["results"]] == [True] * 4

    moment = start + dt.timedelta(minutes=2)
    phone.choose("accept_all", ALL, moment)
    assert laptop.choices() == ALL
    laptop.choose("custom", ALL | {"advertising": False}, moment)
    assert phone.choices() == laptop.choices() == ALL | {"advertising": False}
    assert not re.search(r"\bbob\b", instance.logs())  # ids may hold anything
