"""What a record says by the names of ISO/IEC TS 27560: a case a line, and the same over HTTP."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from typing import Any

import pytest

from app.consent.audit_trail import Told, iso_27560
from app.consent.models import ConsentRecord
from app.core.clock import rfc3339, utc_now
from app.destinations.models import Destination
from app.sites.config import SiteConfig
from tests.consent.conftest import Shop, open_shop
from tests.consent.notices import notice
from tests.sites.stage import Stage

NOW = dt.datetime(2026, 11, 27, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
ON = {"functional": True, "analytics": True, "advertising": True}
OFF = dict.fromkeys(ON, False)
NO_ADS = ON | {"advertising": False}

NOTICE = notice(SiteConfig(regimes=("gdpr", "ccpa", "au_privacy")), NOW)


def record(regime: str, method: str, choices: dict[str, bool], **more: Any) -> ConsentRecord:
    facts: dict[str, Any] = {
        "id": "con_2", "workspace_id": "wsp_1", "site_id": "sit_1", "notice_version_id": "ntv_1",
        "visitor_id": "v", "event_id": "e", "choices": choices, "method": method, "language": "en",
        "regime": regime, "gpc": False, "is_gpc_applied": False, "fingerprint": b"",
        "decided_at": NOW, "recorded_at": NOW, "expires_at": NOW + 180 * DAY,
    }  # fmt: skip
    return ConsentRecord(**facts | more)


def before(regime: str, method: str, choices: dict[str, bool], days: int = 1) -> ConsentRecord:
    at = NOW - days * DAY
    return record(regime, method, choices, id="con_1", decided_at=at, expires_at=at + 180 * DAY)


GDPR_ALL = before("gdpr", "accept_all", ON)
ASKED = "consent"


@pytest.mark.parametrize(
    ("made", "previous", "event", "said"),
    [
        # Asked first: the person's answer is consent or its refusal.
        (record("gdpr", "accept_all", ON), None, "given", "given given given"),
        (record("gdpr", "custom", NO_ADS), None, "mixed", "given given refused"),
        (record("gdpr", "reject_all", OFF), None, "refused", "refused refused refused"),
        (record("gdpr", "migrated", NO_ADS), None, "mixed", "given given refused"),
        (record("gdpr", "dismissed", OFF), None, "deferred", "deferred deferred deferred"),
        # Taking back what was given, by whichever button.
        (record("gdpr", "withdrawal", OFF), None, "withdrawn", "withdrawn withdrawn withdrawn"),
        (record("gdpr", "withdrawal", OFF), before("gdpr", "custom", NO_ADS), "withdrawn",
         "withdrawn withdrawn refused"),
        (record("gdpr", "withdrawal", OFF), before("gdpr", "withdrawal", OFF), "withdrawn",
         "withdrawn withdrawn withdrawn"),
        (record("gdpr", "reject_all", OFF), GDPR_ALL, "withdrawn", "withdrawn withdrawn withdrawn"),
        (record("gdpr", "reject_all", OFF), before("gdpr", "accept_all", ON, days=200), "refused",
         "refused refused refused"),
        (record("gdpr", "custom", NO_ADS), GDPR_ALL, "mixed", "given given withdrawn"),
        # The signal gives nothing; what it leaves stands on the consent before it.
        (record("gdpr", "gpc", NO_ADS, gpc=True), GDPR_ALL, "mixed", "given given withdrawn"),
        (record("gdpr", "gpc", NO_ADS, gpc=True), None, "mixed", "unknown unknown refused"),
        # Not asked first: what nobody chose is no consent.
        (record("ccpa", "gpc", NO_ADS, gpc=True), None, "mixed",
         "not_objected not_objected refused"),
        (record("ccpa", "migrated", ON), None, "not_objected",
         "not_objected not_objected not_objected"),
        (record("au_privacy", "dismissed", ON), None, "not_objected",
         "not_objected not_objected not_objected"),
        (record("au_privacy", "dismissed", NO_ADS), before("au_privacy", "custom", NO_ADS), "mixed",
         "not_objected not_objected refused"),
        # A box that was ticked beforehand is none either; one that a person ticked is.
        (record("ccpa", "custom", NO_ADS), None, "mixed", "not_objected not_objected refused"),
        (record("ccpa", "custom", ON, gpc=True), None, "mixed", "not_objected not_objected given"),
        (record("ccpa", "custom", ON), before("ccpa", "custom", NO_ADS), "mixed",
         "not_objected not_objected given"),
        (record("ccpa", "custom", NO_ADS), before("ccpa", "accept_all", ON), "mixed",
         "given given withdrawn"),
        (record("ccpa", "accept_all", ON), None, "given", "given given given"),
        (record("ccpa", "reject_all", OFF), None, "refused", "refused refused refused"),
        (record("ccpa", "withdrawal", OFF), None, "withdrawn", "withdrawn withdrawn withdrawn"),
        (record("ccpa", "reject_all", OFF), before("ccpa", "custom", ON), "refused",
         "refused refused refused"),
    ],
)  # fmt: skip
def test_each_purpose_and_the_event_say_what_the_act_was(
    made: ConsentRecord, previous: ConsentRecord | None, event: str, said: str
) -> None:
    found = iso_27560(Told(made, NOTICE, "site_1", "Shop", previous), "v")
    purposes = {each["purpose_type"]: each for each in found["pii_processing"]["purposes"]}

    assert [purposes[each]["event_state"] for each in ON] == said.split()
    assert found["event"]["event_state"] == event
    asks_first = made.regime == "gdpr"
    for each in purposes.values():
        state = each["event_state"]
        is_consent = state == "given" or (asks_first and state != "unknown")
        assert each.get("lawful_basis") == (ASKED if is_consent else None)


def test_only_a_persons_own_act_is_explicit() -> None:
    def kind(method: str) -> str:
        told = Told(record("ccpa", method, NO_ADS), NOTICE, "site_1", "Shop")
        return str(iso_27560(told, "v")["event"]["event_type"])

    acts = ("accept_all", "reject_all", "custom", "withdrawal")
    assert {kind(each) for each in acts} == {"explicit"}
    assert {kind(each) for each in ("gpc", "dismissed", "migrated", "api")} == {"other"}


async def told(shop: Shop, consent_id: str) -> dict[str, Any]:
    path = f"/v1/consents/{consent_id}"
    answer = await shop.service.client.get(path, headers=shop.service.auth())
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["iso_27560"]
    return found


async def test_what_the_auditor_reads_of_a_withdrawal(shop: Shop) -> None:
    visitor = str(uuid.uuid4())
    given_at = rfc3339(utc_now() - dt.timedelta(minutes=1))
    first = await shop.choose(visitor_id=visitor, decided_at=given_at)
    await shop.choose()  # somebody else
    second = await shop.choose(visitor_id=visitor, choices=OFF, method="withdrawal")
    found, earlier = await told(shop, second["consent_id"]), await told(shop, first["consent_id"])

    assert found["event"]["event_state"] == "withdrawn"
    assert found["extension"]["previous_record_id"] == first["consent_id"]
    assert earlier["event"]["event_state"] == "given"
    assert earlier["extension"]["previous_record_id"] is None
    assert found["extension"]["site_name"] == "Shop"
    processing = found["pii_processing"]
    assert processing["pii_controllers"] == [found["party_identification"][0]["party_id"]]
    assert "a link of its own" in processing["withdrawal_method"]
    assert "every page" not in processing["withdrawal_method"]
    for unknown in ("retention_period", "recipient_third_parties", "collection_method"):
        assert unknown not in processing


async def test_it_says_how_long_the_record_itself_stays(shop: Shop) -> None:
    made = await shop.choose()
    found = await told(shop, made["consent_id"])
    kept = dt.datetime.fromisoformat(found["extension"]["record_kept_until"])

    days = shop.service.app.state.settings.consent_record_days
    assert kept == dt.datetime.fromisoformat(made["recorded_at"]) + days * DAY
    assert found["event"]["validity_duration"] == made["expires_at"]
    assert kept > dt.datetime.fromisoformat(made["expires_at"])


async def test_it_names_todays_destinations_of_its_purposes(shop: Shop) -> None:
    made = await shop.choose()
    await add_destinations(shop.service)
    found = (await told(shop, made["consent_id"]))["extension"]["destinations"]

    assert [(each["destination_id"], each["purposes"]) for each in found] == [
        ("dst_ads", ["advertising"]),
        ("dst_every", ["advertising", "analytics", "functional"]),
    ]
    assert found[0] | {"since": None} == {
        "destination_id": "dst_ads", "connector": "webhook", "purposes": ["advertising"],
        "since": None,
    }  # fmt: skip


async def add_destinations(stage: Stage) -> None:
    facts: list[dict[str, Any]] = [
        {"id": "dst_ads", "purposes": ["advertising"], "regimes": ["gdpr"]},
        {"id": "dst_every"},
        {"id": "dst_other", "purposes": ["surveys"]},
        {"id": "dst_law", "regimes": ["ccpa"]},
        {"id": "dst_off", "is_enabled": False},
        {"id": "dst_gone", "deleted_at": utc_now()},
        {"id": "dst_foreign", "workspace_id": "wsp_two"},
    ]
    common = {
        "workspace_id": "wsp_one", "name": "A", "connector": "webhook", "settings": {},
        "secrets_sealed": b"",
    }  # fmt: skip
    async with stage.database.writing() as session:
        session.add_all(
            Destination(**common | each | {"created_at": NOW + n * DAY})
            for n, each in enumerate(facts)
        )


async def test_the_export_says_the_same_of_every_record(shop: Shop) -> None:
    other = await open_shop(shop.service)
    visitor = str(uuid.uuid4())
    made = [await shop.choose(visitor_id=visitor, decided_at=rfc3339(NOW))]
    made += [await shop.choose(visitor_id=visitor, choices=OFF, method="withdrawal")]
    made += [await other.choose(visitor_id=visitor)]
    await add_destinations(shop.service)
    path, auth = "/v1/consents/export?format=iso_27560", shop.service.auth()

    answer = await shop.service.client.get(path, headers=auth)
    one = await shop.service.client.get(f"{path}&site_key={shop.site_key}", headers=auth)
    foreign = await shop.service.client.get(path, headers=shop.service.auth("eve"))

    assert 'filename="consents.iso_27560.ndjson"' in answer.headers["content-disposition"]
    found = [json.loads(each) for each in answer.text.splitlines()]
    assert found == [await told(shop, each["consent_id"]) for each in reversed(made)]
    assert [each["record_id"] for each in found[1:]] == [
        json.loads(each)["record_id"] for each in one.text.splitlines()
    ]
    assert (foreign.status_code, foreign.text) == (200, "")
