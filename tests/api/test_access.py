"""Who may call what: every route, every scope, every workspace."""

from __future__ import annotations

import re
import uuid
from typing import Any

import pytest
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from app.core.clock import utc_now
from app.security import api_keys
from tests.running import BOB, CAROL, Service

PUBLIC = {
    ("POST", "/v1/consent"),
    ("GET", "/v1/sites/{site_key}/banner"),
    ("GET", "/v1/sites/{site_key}/visitors/{visitor_id}/consent"),
    ("GET", "/v1/receipts/{receipt_id}"),
}
BUILT = """
GET /v1/consents
POST /v1/visitors/link
POST /v1/suppressions/check
GET /v1/suppressions
POST /v1/requests
POST /v1/requests/bulk
GET /v1/batches/{}
GET /v1/requests
GET /v1/requests/{}
POST /v1/requests/search
POST /v1/requests/{}/approve
POST /v1/requests/{}/deny
POST /v1/requests/{}/cancel
POST /v1/requests/{}/extend
POST /v1/requests/{}/hold
POST /v1/requests/{}/release
GET /v1/requests/{}/timeline
GET /v1/requests/{}/receipt
GET /v1/connectors
GET /v1/destinations
POST /v1/destinations
GET /v1/destinations/{}
PATCH /v1/destinations/{}
DELETE /v1/destinations/{}
POST /v1/destinations/{}/test
GET /v1/deliveries/{}
POST /v1/deliveries/{}/replay
POST /v1/deliveries/replay
GET /v1/queues
GET /v1/sites
POST /v1/sites
GET /v1/keys
POST /v1/keys
DELETE /v1/keys/{}
GET /v1/receipts/{}
POST /v1/consent
POST /b/{}/remember
POST /b/{}/seen
POST /b/{}/shown
GET /v1/sites/{}/trackers/seen
GET /v1/consents/stats
GET /v1/sites/{}/banner
GET /v1/sites/{}/visitors/{}/consent
GET /.well-known/jwks.json
GET /healthz
GET /readyz
""".split("\n")  # noqa: SIM905 (a list that is read by people)


def routes(found: list[BaseRoute]) -> list[APIRoute]:
    flat: list[APIRoute] = []
    for each in found:
        inner = getattr(each, "routes", None) or getattr(
            getattr(each, "original_router", None), "routes", None
        )
        if isinstance(each, APIRoute):
            flat.append(each)
        elif inner:
            flat += routes(inner)
    return flat


def scope_of(route: APIRoute) -> str | None:
    """What a route's dependencies ask of the key."""
    todo = [route.dependant]
    while todo:
        dependant = todo.pop()
        if scope := getattr(dependant.call, "scope", None):
            return str(scope)
        todo += dependant.dependencies
    return None


def guarded(service: Service) -> list[tuple[str, str, str | None]]:
    return [
        (method, route.path, scope_of(route))
        for route in routes(service.app.routes)
        for method in sorted((route.methods or set()) - {"HEAD", "OPTIONS"})
        if route.path.startswith("/v1/") and (method, route.path) not in PUBLIC
    ]


def filled(path: str) -> str:
    return re.sub(r"\{action\}", "pause", path).replace("{", "").replace("}", "")


async def test_every_route_but_the_public_ones_refuses_who_has_no_key(embedded: Service) -> None:
    walked = guarded(embedded)
    assert len(walked) > 30
    answers = set()
    for method, path, _ in walked:
        answer = await embedded.call(
            method, filled(path), {} if method in {"POST", "PATCH", "PUT"} else None, who=None
        )
        answers.add((answer.status_code, answer.content))

    assert len(answers) == 1
    assert next(iter(answers))[0] == 401


async def test_every_route_refuses_a_key_without_its_scope(embedded: Service) -> None:
    """The same call is let through with the scope, so that the refusal has the right reason."""
    for method, path, scope in guarded(embedded):
        assert scope in api_keys.SCOPES, f"{method} {path} asks for no scope"
        area = scope.partition(":")[0]
        others = sorted(
            each for each in api_keys.SCOPES - {"all"} if each.partition(":")[0] != area
        )
        if scope.endswith(":write"):
            others += [each for each in api_keys.SCOPES if each == f"{area}:read"]
        if "other" in embedded.keys:
            del embedded.keys["other"]
        await embedded.add_key("other", *others)
        await embedded.add_key("right", scope)
        body: Any = {} if method in {"POST", "PATCH", "PUT"} else None

        refused = await embedded.call(method, filled(path), body, "other")
        allowed = await embedded.call(method, filled(path), body, "right")

        assert refused.status_code == 403, f"{method} {path}"
        assert refused.json()["type"].endswith("missing-scope")
        assert allowed.status_code not in {401, 403}, f"{method} {path}: {allowed.text}"


async def test_a_writing_key_may_read_too_and_all_may_do_all(embedded: Service) -> None:
    await embedded.add_key("wanda", "requests:write")
    assert (await embedded.call("GET", "/v1/requests", who="wanda")).status_code == 200
    assert api_keys.allows(["all"], "keys:write")
    assert not api_keys.allows(["requests:read"], "requests:write")
    assert not api_keys.allows([], "requests:read")


async def test_the_description_lists_every_promised_route_that_is_built(
    embedded: Service,
) -> None:
    described = (await embedded.get("/openapi.json"))["paths"]
    known = {
        f"{method.upper()} {re.sub(r'{[^}]*}', '{}', path)}"
        for path, methods in described.items()
        for method in methods
    }

    assert {each for each in BUILT if each} - known == set()
    assert any(re.fullmatch(r"POST /v1/queues/\{\}/(\{\}|pause)", each) for each in known)


@pytest.mark.parametrize("who", ["eve"])
async def test_a_neighbour_finds_nothing_and_changes_nothing_by_any_id(
    service: Service, who: str
) -> None:
    """Two workspaces with the same things: eve uses alice's ids everywhere."""
    await service.destination("crm")
    made = await service.ask()
    await service.work()
    waiting = await service.ask(CAROL)
    batch = await service.post(
        "/v1/requests/bulk",
        {"kind": "erasure", "subjects": [{"identifiers": [{"kind": "email", "value": BOB}]}]},
        202,
    )
    key = await service.post("/v1/keys", {"name": "k", "scopes": ["ops:read"]}, 201)
    site = await service.post(
        "/v1/sites", {"name": "Shop", "origins": ["https://shop.example"]}, 201
    )
    version = await service.post(f"/v1/sites/{site['site_key']}/publish")
    choice = {
        "event_id": str(uuid.uuid4()), "site_key": site["site_key"],
        "visitor_id": str(uuid.uuid4()), "notice_version": version["notice_version"],
        "choices": dict.fromkeys(("functional", "analytics", "advertising"), True),
        "method": "accept_all", "language": "en", "region": "DE", "gpc": False,
        "decided_at": utc_now().isoformat(),
    }  # fmt: skip
    chosen = await service.call("POST", "/v1/consent", choice, None, origin="https://shop.example")
    assert chosen.status_code == 201, chosen.text
    delivery = await service.delivery(made["id"])
    ids = {
        "consent_id": chosen.json()["consent_id"], "number": 1,
        "request_id": waiting["id"], "batch_id": batch["batch_id"], "key_id": key["id"],
        "delivery_id": delivery["id"], "destination_id": service.destinations["crm"],
        "site_key": site["site_key"], "site_id": site.get("id", site["site_key"]),
        "action": "pause",
    }  # fmt: skip
    bodies: dict[str, Any] = {
        "preview": {"identifiers": [{"kind": "email", "value": BOB}]},
        "deny": {"reason": "x"}, "hold": {"reason": "x"}, "extend": {"days": 1, "reason": "x"},
    }  # fmt: skip
    before = await service.dump()

    walked = 0
    for method, path, _ in guarded(service):
        names = re.findall(r"{(\w+)}", path)
        if not names:
            continue
        walked += 1
        target = re.sub(r"{(\w+)}", lambda found: str(ids[found.group(1)]), path)
        body = (
            bodies.get(path.rpartition("/")[2], {}) if method in {"POST", "PATCH", "PUT"} else None
        )
        answer = await service.call(
            method, target, body if method in {"POST", "PATCH", "PUT"} else None, who
        )
        assert answer.status_code == 404, f"{method} {path}: {answer.status_code} {answer.text}"

    assert walked >= 18
    after = await service.dump()
    changed = {name for name in after if after[name] != before[name]} - {"api_key"}
    assert changed == set(), "a refused call left something behind"


async def test_lists_and_searches_show_only_ones_own(service: Service) -> None:
    await service.destination("crm")
    await service.ask()
    await service.work()
    body = {"identifiers": [{"kind": "email", "value": BOB}]}

    for path in ("/v1/requests", "/v1/destinations", "/v1/queues", "/v1/suppressions",
                 "/v1/consents", "/v1/sites"):  # fmt: skip
        assert (await service.get(path, "eve"))["items"] == [], path
    assert (await service.post("/v1/requests/search", body, who="eve"))["items"] == []
    checked = await service.post("/v1/suppressions/check", body, who="eve")
    assert checked["results"][0]["suppressed"] is False


async def test_a_request_cannot_name_a_neighbours_destination(service: Service) -> None:
    await service.destination("crm")
    body = {
        "kind": "erasure", "identifiers": [{"kind": "email", "value": BOB}],
        "destinations": [service.destinations["crm"]],
    }  # fmt: skip
    assert (await service.call("POST", "/v1/requests", body, "eve")).status_code == 422
