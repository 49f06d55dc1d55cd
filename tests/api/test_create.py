"""Programs' bad inputs (API-001 to API-025)."""

from __future__ import annotations

import asyncio
import datetime as dt
import uuid
from typing import Any

import httpx
import pytest

from app.core.clock import utc_now
from app.security import api_keys
from app.subject_requests import intake
from tests.running import BOB, CAROL, Service

BODY: dict[str, Any] = {"kind": "erasure", "identifiers": [{"kind": "email", "value": BOB}]}
OTHER: dict[str, Any] = {"kind": "erasure", "identifiers": [{"kind": "email", "value": CAROL}]}


async def count(service: Service, table: str = "subject_request") -> int:
    return int((await service.rows(f"SELECT count(*) FROM {table}"))[0][0])


async def test_api_001_every_way_of_not_having_a_key_gets_one_answer(service: Service) -> None:
    revoked = await service.add_key("rosa", "all")
    await service.call("DELETE", f"/v1/keys/{revoked}")
    await service.add_key("otto", "all", expires_at=utc_now() + dt.timedelta(minutes=1))
    service.later(minutes=2)
    alice = service.keys["alice"]
    made_up = api_keys.new_secret()
    headers = [
        None, "", "Bearer", "Bearer ", f"Basic {alice}", alice, f"Token {alice}",
        f"Bearer {made_up}", f"Bearer {alice[:-1]}", f"Bearer {alice}x", "Bearer qt_" + "0" * 46,
        f"Bearer {service.keys['rosa']}", f"Bearer {service.keys['otto']}", "Bearer \u00e9",
        f"Bearer {alice.upper()}",
    ]  # fmt: skip

    answers = [
        await service.client.get(
            "/v1/requests",
            headers=[] if each is None else [(b"authorization", each.encode())],
        )
        for each in headers
    ]

    assert {each.status_code for each in answers} == {401}
    assert len({each.content for each in answers}) == 1
    assert {each.headers["www-authenticate"] for each in answers} == {"Bearer"}


async def test_api_003_a_key_cannot_make_a_stronger_one(service: Service) -> None:
    await service.add_key("karl", "keys:write", "requests:read")

    for scopes in (["all"], ["requests:write"], ["requests:read", "destinations:read"]):
        body = {"name": "stronger", "scopes": scopes}
        answer = await service.call("POST", "/v1/keys", body, "karl")
        assert answer.status_code == 403
    made = await service.post(
        "/v1/keys", {"name": "same", "scopes": ["requests:read"]}, 201, who="karl"
    )
    assert made["scopes"] == ["requests:read"]


@pytest.mark.parametrize("name", ["api_key", "access_token", "x_api_key"])
async def test_api_005_a_key_in_the_address_is_refused_even_beside_a_good_one(
    embedded: Service, name: str
) -> None:
    answer = await embedded.call("GET", f"/v1/requests?{name}={embedded.keys['alice']}")

    assert answer.status_code == 400
    assert embedded.keys["alice"] not in answer.text


async def test_api_007_twenty_at_once_with_one_idempotency_key_make_one_request(
    service: Service,
) -> None:
    crm = await service.destination("crm")

    answers = await asyncio.gather(
        *(service.call("POST", "/v1/requests", BODY, idempotency_key="k-1") for _ in range(20))
    )

    assert {each.status_code for each in answers} <= {201, 409}
    ids = {each.json()["id"] for each in answers if each.status_code == 201}
    assert len(ids) == 1
    assert await count(service) == 1
    await service.work()
    assert len(crm.asked) == 1


async def test_the_same_key_and_body_get_the_same_answer_for_a_week(service: Service) -> None:
    first = await service.call("POST", "/v1/requests", BODY, idempotency_key="k-1")
    again = await service.call("POST", "/v1/requests", BODY, idempotency_key="k-1")

    assert again.json() == first.json()
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers

    service.later(days=7, hours=2)
    await service.maintain()
    late = await service.call("POST", "/v1/requests", BODY, idempotency_key="k-1")
    assert late.json()["id"] != first.json()["id"]


async def test_another_body_under_the_same_key_is_refused_and_changes_nothing(
    service: Service,
) -> None:
    await service.call("POST", "/v1/requests", BODY, idempotency_key="k-1")

    answer = await service.call("POST", "/v1/requests", OTHER, idempotency_key="k-1")

    assert answer.status_code == 422
    assert answer.json()["type"].endswith("idempotency-key-reused")
    assert await count(service) == 1


async def test_the_order_of_members_does_not_make_it_another_body(embedded: Service) -> None:
    first = await embedded.call("POST", "/v1/requests", BODY, idempotency_key="k-1")
    turned = dict(reversed(BODY.items()))

    assert (
        await embedded.call("POST", "/v1/requests", turned, idempotency_key="k-1")
    ).json() == first.json()


async def test_api_009_the_same_idempotency_key_elsewhere_is_another(service: Service) -> None:
    ours = await service.call("POST", "/v1/requests", BODY, "alice", idempotency_key="k-1")
    theirs = await service.call("POST", "/v1/requests", BODY, "eve", idempotency_key="k-1")
    bulk = {"kind": "erasure", "subjects": [{"identifiers": BODY["identifiers"]}]}
    other_route = await service.call("POST", "/v1/requests/bulk", bulk, idempotency_key="k-1")

    assert ours.status_code == theirs.status_code == 201
    assert ours.json()["id"] != theirs.json()["id"]
    assert other_route.status_code == 202


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb"])
async def test_an_idempotency_key_is_short_and_printable(embedded: Service, key: str) -> None:
    answer = await embedded.call("POST", "/v1/requests", BODY, idempotency_key=key)
    assert answer.status_code == 422


async def test_api_011_after_a_failure_of_ours_the_same_key_does_the_work_once(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    crm = await service.destination("crm")
    write = intake.write

    async def broken(*given: Any) -> None:
        await write(*given)
        raise RuntimeError("the process fails after writing")

    monkeypatch.setattr(intake, "write", broken)
    failed = await service.call("POST", "/v1/requests", BODY, idempotency_key="k-1")
    monkeypatch.undo()
    again = await service.call("POST", "/v1/requests", BODY, idempotency_key="k-1")

    assert (failed.status_code, again.status_code) == (500, 201)
    assert await count(service) == 1
    await service.work()
    assert len(crm.asked) == 1


@pytest.mark.parametrize("value", ["%", "_ob", "%25", "*", "b%", "user_id"])
async def test_api_013_wildcards_are_letters(embedded: Service, value: str) -> None:
    await embedded.ask(identifiers=[{"kind": "user_id", "value": "bob"}])

    body = {"identifiers": [{"kind": "user_id", "value": value}]}

    assert (await embedded.post("/v1/requests/search", body))["items"] == []
    assert len((await embedded.post(
        "/v1/requests/search", {"identifiers": [{"kind": "user_id", "value": "bob"}]}
    ))["items"]) == 1  # fmt: skip


async def test_api_013_an_unknown_filter_is_not_a_search(embedded: Service) -> None:
    await embedded.ask()
    for query in ("status=%25", "status=completed'--", "limit=0", "limit=501", "limit=x"):
        assert (await embedded.call("GET", f"/v1/requests?{query}")).status_code == 422


@pytest.mark.parametrize("method", ["PATCH", "PUT", "DELETE"])
async def test_api_015_no_one_writes_a_state(embedded: Service, method: str) -> None:
    made = await embedded.ask()
    for change in ({"status": "completed"}, {"verified": True}):
        answer = await embedded.call(method, f"/v1/requests/{made['id']}", change)
        assert answer.status_code in {403, 405, 422}
    extra = BODY | {"status": "completed"}
    assert (await embedded.call("POST", "/v1/requests", extra)).status_code == 422
    assert (await embedded.request(made["id"]))["status"] == "resolving"


WRONG_VALUES: list[Any] = [{}, {"$ne": ""}, [], ["a"], True, False, 0, 1, 1.5, "", " ", None,
                           "x" * 3000]  # fmt: skip


@pytest.mark.parametrize("value", WRONG_VALUES, ids=repr)
async def test_api_017_an_identifier_that_is_no_text_matches_nobody(
    embedded: Service, value: Any
) -> None:
    await embedded.ask(identifiers=[{"kind": "user_id", "value": "0"}])
    identifiers = [{"kind": "user_id", "value": value}]

    for path, body in (
        ("/v1/requests", {"kind": "erasure", "identifiers": identifiers}),
        ("/v1/requests/search", {"identifiers": identifiers}),
        ("/v1/suppressions/check", {"identifiers": identifiers}),
    ):
        assert (await embedded.call("POST", path, body)).status_code == 422, path
    bulk = {"kind": "erasure", "subjects": [{"identifiers": identifiers}]}
    answer = await embedded.post("/v1/requests/bulk", bulk, 202)
    assert (answer["accepted"], len(answer["rejected"])) == (0, 1)
    assert await count(embedded) == 1


ONE_IS_WRONG = [
    ([{"kind": "user_id", "value": "u1"}, {"kind": "email", "value": "no address"}],
     {"at": "identifiers.1",
      "problem": "Give exactly one e-mail address, such as name@example.com."}),
    ([{"kind": "phone", "value": "030 1234567"}, {"kind": "email", "value": BOB}],
     {"at": "identifiers.0",
      "problem": "Give the telephone number in international form, such as +49 30 1234567."}),
]  # fmt: skip


@pytest.mark.parametrize(("identifiers", "told"), ONE_IS_WRONG, ids=["email", "phone"])
async def test_whoever_takes_identifiers_says_the_same_of_a_wrong_one(
    embedded: Service, identifiers: list[dict[str, str]], told: dict[str, str]
) -> None:
    site = {"name": "Shop", "origins": ["https://shop.example"]}
    site_key = (await embedded.post("/v1/sites", site, 201))["site_key"]
    await embedded.post(f"/v1/sites/{site_key}/publish")
    manual = {"name": "Desk", "connector": "manual", "settings": {"instructions": "Look."}}
    destination = await embedded.post("/v1/destinations", manual, 201)
    body = {"identifiers": identifiers}

    for path, more in {
        "/v1/requests": {"kind": "erasure"},
        "/v1/requests/search": {},
        "/v1/suppressions/check": {},
        "/v1/visitors/link": {"site_key": site_key, "visitor_id": str(uuid.uuid4())},
        f"/v1/destinations/{destination['id']}/preview": {},
    }.items():
        answer = await embedded.post(path, body | more, 422)
        assert answer["type"] == "urn:quittance:problem:invalid-identifier", path
        assert answer["errors"] == [told], path
    bulk = {"kind": "erasure", "subjects": [body]}
    (rejected,) = (await embedded.post("/v1/requests/bulk", bulk, 202))["rejected"]
    assert rejected == {
        "index": 0, "type": "urn:quittance:problem:invalid-identifier",
        "detail": told["problem"], "errors": [told],
    }  # fmt: skip


async def test_a_wrong_contact_address_is_named(embedded: Service) -> None:
    answer = await embedded.post("/v1/requests", BODY | {"contact_email": "nobody"}, 422)

    (told,) = answer["errors"]
    assert told["at"] == "contact_email"
    assert "name@example.com" in told["problem"]


WRONG_BODIES: list[Any] = [
    {}, [], "erasure", BODY | {"kind": "destroy"}, BODY | {"identifiers": []},
    BODY | {"identifiers": BODY["identifiers"] * 51}, BODY | {"regime": "mars"},
    BODY | {"regime": 1}, BODY | {"destinations": []}, BODY | {"destinations": ["dst_none"]},
    BODY | {"destinations": "all"}, BODY | {"external_id": ""}, BODY | {"external_id": 7},
    BODY | {"contact_email": "nobody"}, BODY | {"contact_email": "a@b.example,c@d.example"},
    BODY | {"identifiers": [{"kind": "email"}]}, BODY | {"identifiers": [{"value": BOB}]},
    BODY | {"identifiers": [{"kind": "E-Mail", "value": BOB}]},
    BODY | {"identifiers": [{"kind": "email", "value": BOB, "more": 1}]},
    BODY | {"identifiers": [{"kind": "email", "value": "a@b.example;c@d.example"}]},
]  # fmt: skip


@pytest.mark.parametrize("body", WRONG_BODIES, ids=range(len(WRONG_BODIES)))
async def test_a_wrong_request_is_refused_whole_and_repeats_no_input(
    embedded: Service, body: Any
) -> None:
    answer = await embedded.call("POST", "/v1/requests", body)

    assert answer.status_code == 422, answer.text
    assert BOB not in answer.text
    assert await count(embedded) == 0


async def test_api_023_reading_methods_never_change_anything(embedded: Service) -> None:
    made = await embedded.ask()
    paths = [f"/v1/requests/{made['id']}/{verb}" for verb in ("approve", "cancel", "deny", "hold")]
    for path in [*paths, "/v1/requests/bulk/x", "/v1/suppressions/check", "/v1/requests/search"]:
        for method in ("GET", "HEAD"):
            answer = await embedded.call(method, path)
            assert answer.status_code in {404, 405}, path
    assert (await embedded.request(made["id"]))["status"] == "resolving"


async def test_api_025_every_error_is_a_problem(embedded: Service) -> None:
    made = await embedded.ask()
    planted = "planted-value-4711"
    calls: list[tuple[int, httpx.Response]] = [
        (404, await embedded.call("GET", f"/v1/requests/{planted}")),
        (404, await embedded.call("GET", f"/{planted}")),
        (405, await embedded.call("PUT", "/v1/requests", {planted: planted})),
        (409, await embedded.call("POST", f"/v1/requests/{made['id']}/approve")),
        (413, await embedded.call("POST", "/v1/requests", {"kind": planted * 100_000})),
        (415, await embedded.call("POST", "/v1/requests", content_type=planted)),
        (422, await embedded.call("POST", "/v1/requests", BODY | {planted: planted})),
        (401, await embedded.client.get(f"/v1/requests?{planted}=1")),
    ]
    for status, answer in calls:
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert {"type", "title", "status"} <= answer.json().keys()
        assert planted not in answer.text


# --- bulk


async def test_a_bulk_intake_takes_the_good_and_names_the_bad(service: Service) -> None:
    subjects: list[Any] = [
        {"identifiers": [{"kind": "email", "value": BOB}], "external_id": "t-1"},
        {"identifiers": [{"kind": "email", "value": "nobody"}]},
        {"identifiers": []}, "text", None, {"identifiers": [{"kind": "email", "value": CAROL}]},
        {"identifiers": [{"kind": "user_id", "value": "u1"}], "more": 1},
    ]  # fmt: skip
    crm = await service.destination("crm", batch=100)

    answer = await service.post("/v1/requests/bulk", {"kind": "erasure", "subjects": subjects}, 202)

    assert answer["accepted"] == 2
    assert [each["index"] for each in answer["rejected"]] == [1, 2, 3, 4, 6]
    assert "nobody" not in str(answer)
    assert "SubjectIn" not in str(answer)
    places = [{error["at"] for error in each["errors"]} for each in answer["rejected"]]
    assert places == [{"identifiers.0"}, {"identifiers"}, {"body"}, {"body"}, {"more"}]
    await service.work()
    batch = await service.get(f"/v1/batches/{answer['batch_id']}")
    assert (batch["total"], batch["by_status"]) == (2, {"completed": 2})
    listed = await service.get(f"/v1/requests?batch_id={answer['batch_id']}")
    assert len(listed["items"]) == 2
    assert sum(len(each.people) for each in crm.asked) == 2


async def test_more_than_five_thousand_subjects_are_too_many_and_none_is_taken(
    embedded: Service,
) -> None:
    subject = {"identifiers": [{"kind": "user_id", "value": "u"}]}

    answer = await embedded.call(
        "POST", "/v1/requests/bulk", {"kind": "erasure", "subjects": [subject] * 5001}
    )

    assert answer.status_code == 413
    assert await count(embedded) == 0


async def test_five_thousand_subjects_are_taken_in_one_call(service: Service) -> None:
    subjects = [{"identifiers": [{"kind": "user_id", "value": f"u{n}"}]} for n in range(5000)]

    answer = await service.post("/v1/requests/bulk", {"kind": "erasure", "subjects": subjects}, 202)

    assert answer["accepted"] == 5000
    assert await count(service) == 5000


async def test_lists_are_walked_to_their_end_without_repeats(service: Service) -> None:
    subjects = [{"identifiers": [{"kind": "user_id", "value": f"u{n}"}]} for n in range(7)]
    await service.post("/v1/requests/bulk", {"kind": "erasure", "subjects": subjects}, 202)
    seen: list[str] = []
    cursor = ""
    while True:
        page = await service.get(f"/v1/requests?limit=3{cursor}")
        seen += [each["id"] for each in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"

    assert len(seen) == 7
    assert seen == sorted(set(seen), reverse=True)


async def test_a_cursor_is_bound_to_its_workspace_and_filter(service: Service) -> None:
    for person in (BOB, CAROL):
        await service.ask(person)
        await service.post("/v1/requests", OTHER, 201, "eve")
    cursor = (await service.get("/v1/requests?limit=1"))["next_cursor"]
    assert cursor

    theirs = await service.call("GET", f"/v1/requests?limit=1&cursor={cursor}", who="eve")
    filtered = await service.call("GET", f"/v1/requests?status=resolving&cursor={cursor}")
    made_up = await service.call("GET", "/v1/requests?cursor=abc")

    assert {theirs.status_code, filtered.status_code, made_up.status_code} == {422}
