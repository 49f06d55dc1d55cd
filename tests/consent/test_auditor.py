"""What an auditor gets: who saw what, when, in which words, and a way to check it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from typing import Any

import pytest

from app.consent import queries
from tests.consent.conftest import Shop, open_shop
from tests.sites.stage import Stage


async def get(shop: Shop, path: str, key: str = "alice") -> Any:
    answer = await shop.service.client.get(path, headers=shop.service.auth(key))
    assert answer.status_code == 200, answer.text
    return answer


async def publish(shop: Shop, **config: Any) -> None:
    path, auth = f"/v1/sites/{shop.site_key}", shop.service.auth()
    changed = await shop.service.client.patch(path, json={"config": config}, headers=auth)
    assert changed.status_code == 200, changed.text
    done = await shop.service.client.post(f"{path}/publish", headers=auth)
    assert done.status_code == 200, done.text


async def test_a_consent_id_leads_to_the_words_that_were_shown_and_they_can_be_checked(
    shop: Shop,
) -> None:
    made = await shop.choose(language="de", region="DE", method="accept_all")
    await publish(shop, texts={"de": {"title": "Ganz anders"}})

    found = (await get(shop, f"/v1/consents/{made['consent_id']}")).json()
    notice = found["notice"]
    version = (await get(shop, f"/v1/sites/{shop.site_key}/versions/{notice['number']}")).json()

    assert (found["language"], found["regime"], notice["mode"]) == ("de", "gdpr", "opt_in")
    assert notice["notice_version"] == shop.notice_version == version["notice_version"]
    said = version["content"]["languages"]["de"]
    assert notice["texts"]["title"] == said["texts"]["title"] != "Ganz anders"
    assert [each["name"] for each in notice["purposes"]] == [
        said["purposes"][each["id"]]["name"] for each in version["content"]["purposes"]
    ]
    canonical = json.dumps(
        version["content"], sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    assert hashlib.sha256(canonical.encode()).hexdigest() == notice["version_hash"]


async def test_under_an_opt_out_law_the_words_are_those_of_that_law(shop: Shop) -> None:
    made = await shop.choose(region="US-CA", method="custom")
    notice = (await get(shop, f"/v1/consents/{made['consent_id']}")).json()["notice"]
    version = (await get(shop, f"/v1/sites/{shop.site_key}/versions/1")).json()

    texts = version["content"]["languages"]["en"]["texts"]
    assert notice["mode"] == "opt_out"
    assert notice["texts"]["body"] == texts["body_opt_out"] != texts["body"]


@pytest.mark.parametrize(
    ("region", "method", "labels"),
    [
        ("DE", "accept_all", {"accept", "reject"}),
        ("US-CA", "accept_all", {"accept", "do_not_sell"}),
        ("AU", "dismissed", {"understood"}),
        ("AU", "accept_all", {"accept", "reject", "understood"}),
    ],
)
async def test_labels_that_were_not_on_the_screen_are_not_told(
    service: Stage, region: str, method: str, labels: set[str]
) -> None:
    shop = await open_shop(service, regimes=["gdpr", "ccpa", "au_privacy"])
    made = await shop.choose(region=region, method=method)
    texts = (await get(shop, f"/v1/consents/{made['consent_id']}")).json()["notice"]["texts"]

    known = {"accept", "reject", "do_not_sell", "understood", "limit_use", "not_cleared"}
    assert texts.keys() & known == labels
    assert {"title", "body", "manage"} <= texts.keys()


async def test_the_record_is_told_by_the_names_of_the_standard(shop: Shop) -> None:
    choices = {"functional": True, "analytics": False, "advertising": False}
    body = shop.body(choices=choices, method="custom")
    made = (await shop.post(body)).json()
    iso = (await get(shop, f"/v1/consents/{made['consent_id']}")).json()["iso_27560"]

    assert iso["record_id"] == made["consent_id"]
    assert iso["pii_principal_id"] == body["visitor_id"]
    states = {
        each["purpose_type"]: each["event_state"] for each in iso["pii_processing"]["purposes"]
    }
    assert states == {"functional": "given", "analytics": "refused", "advertising": "refused"}
    assert iso["event"]["validity_duration"] == made["expires_at"]
    assert iso["extension"]["idempotency_id"] == body["event_id"]


async def test_a_version_tells_what_it_changed(shop: Shop) -> None:
    await publish(shop, texts={"en": {"title": "We ask"}}, expiry_days=90)
    second = (await get(shop, f"/v1/sites/{shop.site_key}/versions/2")).json()

    changed = {each["at"]: each for each in second["changes"]}
    assert second["changes_since"] == 1
    assert changed["languages.en.texts.title"]["after"] == "We ask"
    assert (changed["expiry_days"]["before"], changed["expiry_days"]["after"]) == (180, 90)
    assert set(changed) == {"languages.en.texts.title", "expiry_days"}

    path = f"/v1/sites/{shop.site_key}/versions"
    assert (await get(shop, f"{path}/1")).json()["changes"] == []
    assert (await get(shop, f"{path}/2?since=2")).json()["changes"] == []
    for wrong in (f"{path}/3", f"{path}/0", f"{path}/2?since=9"):
        answer = await shop.service.client.get(wrong, headers=shop.service.auth())
        assert answer.status_code == 404


async def test_a_new_purpose_is_a_change_by_its_id(shop: Shop) -> None:
    purposes: list[dict[str, Any]] = [
        {"id": "necessary", "required": True},
        {"id": "functional"},
        {"id": "analytics"},
        {"id": "advertising", "denied_by_gpc": True},
        {"id": "surveys", "texts": {"en": {"name": "Surveys"}}},
    ]
    await publish(shop, purposes=purposes)
    second = (await get(shop, f"/v1/sites/{shop.site_key}/versions/2")).json()

    added = [each for each in second["changes"] if each["at"].startswith("purposes.")]
    assert {each["at"] for each in added} == {
        "purposes.surveys.id", "purposes.surveys.required", "purposes.surveys.denied_by_gpc",
        "purposes.surveys.sensitive",
    }  # fmt: skip
    assert not any("before" in each for each in added)


@pytest.mark.parametrize("path", ["/v1/consents/{id}", "/v1/consents/export"])
async def test_other_workspaces_and_other_scopes_get_nothing(shop: Shop, path: str) -> None:
    made = await shop.choose()
    where = path.format(id=made["consent_id"])
    await shop.service.add_key("writer", "wsp_one", "sites:write")
    refused = await shop.service.client.get(where, headers=shop.service.auth("writer"))
    assert refused.status_code == 403

    foreign = await shop.service.client.get(where, headers=shop.service.auth("eve"))
    assert foreign.status_code == 404 if "{id}" in path else foreign.text == ""


async def test_the_export_has_every_record_once_in_both_forms(shop: Shop) -> None:
    await shop.choose(page="https://shop.example/=1+1")
    await shop.choose(choices=dict.fromkeys(("functional", "analytics", "advertising"), False),
                      method="reject_all")  # fmt: skip
    listed = (await get(shop, "/v1/consents")).json()["items"]

    lines = (await get(shop, "/v1/consents/export")).text.splitlines()
    assert [json.loads(each) for each in lines] == listed
    assert tuple(listed[0]) == queries.RECORD_MEMBERS

    answer = await get(shop, f"/v1/consents/export?format=csv&site_key={shop.site_key}")
    assert answer.headers["content-type"].startswith("text/csv")
    assert "consents.csv" in answer.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [each["consent_id"] for each in rows] == [each["consent_id"] for each in listed]
    assert [each["denied"] for each in rows] == ["advertising analytics functional", ""]
    assert rows[1]["granted"] == "advertising analytics functional"
