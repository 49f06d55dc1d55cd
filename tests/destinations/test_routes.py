"""Destinations over HTTP: what goes in, what comes back, and what never does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import col

from app.core.settings import Settings
from app.destinations.models import Destination
from app.destinations.service import matches, view
from app.security.models import AuditEntry
from connectors.webhook import Webhook
from tests.destinations.conftest import Scene
from tests.destinations.receiver import Receiver

TOKEN = "canary-token-9f8e7d"
KEY = "whsec_" + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo="


async def test_connectors_are_described_with_their_forms(scene: Scene):
    answer = await scene.call("GET", "/connectors", who="bob")
    found = {each["name"]: each for each in answer.json()["items"]}
    assert {"archive", "manual", "sql", "vault", "webhook"} <= set(found)
    assert "contract" not in found
    assert "trees" not in found
    webhook = found["webhook"]
    assert webhook["title"] == Webhook.title
    assert {"erase", "suppress", "unsuppress", "poll", "test"} <= set(webhook["operations"])
    assert webhook["secrets"] == ["signing_secret"]
    assert set(webhook["settings_schema"]["properties"]) == {"url", "signing_secret"}
    assert found["sql"]["secrets"] == ["url"]
    assert found["vault"]["secrets"] == ["token", "accounts.*.token", "headers.*"]


async def test_a_destination_lives_from_post_to_delete(scene: Scene):
    made = await scene.add("vault", {"token": TOKEN}, purposes=["analytics"], kinds=["erasure"])
    assert made.status_code == 201
    body = made.json()
    assert body["settings"] == {"token": {"set": True}}
    assert (body["enabled"], body["purposes"], body["kinds"], body["regimes"]) == (
        True, ["analytics"], ["erasure"], [],
    )  # fmt: skip
    path = f"/destinations/{body['id']}"
    assert (await scene.call("GET", path, who="bob")).json() == body
    changed = await scene.call("PATCH", path, {"name": "Till", "enabled": False})
    assert changed.json() == body | {"name": "Till", "enabled": False}
    assert (await scene.call("DELETE", path)).status_code == 204
    for method in ("GET", "PATCH", "DELETE"):
        answer = await scene.call(method, path, {"name": "x"} if method == "PATCH" else None)
        assert answer.status_code == 404
    assert (await scene.call("GET", "/destinations")).json()["items"] == []
    row = await scene.row(body["id"])
    assert scene.instances.secrets_of(row).secrets == {}


async def test_the_list_goes_on_where_the_cursor_says(scene: Scene):
    made = [(await scene.add("vault", {}, name=f"d{i}")).json()["name"] for i in range(5)]
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = (await scene.call("GET", f"/destinations?limit=2{cursor}")).json()
        seen += [each["name"] for each in page["items"]]
        cursor = page["next_cursor"] and f"&cursor={page['next_cursor']}"
    assert seen == made
    elsewhere = (await scene.call("GET", "/destinations?limit=2")).json()["next_cursor"]
    assert (
        await scene.call("GET", f"/destinations?cursor={elsewhere}", who="eve")
    ).status_code == 422


async def test_who_may_do_what(scene: Scene):
    made = (await scene.add("vault", {})).json()
    path = f"/destinations/{made['id']}"
    body = {"name": "x", "connector": "vault", "settings": {}}
    for method, where, sent in (
        ("GET", "/connectors", None),
        ("GET", "/destinations", None),
        ("GET", path, None),
        ("POST", "/destinations", body),
        ("PATCH", path, {"name": "x"}),
        ("POST", f"{path}/test", None),
        ("DELETE", path, None),
    ):
        assert (await scene.call(method, where, sent, who="carol")).status_code == 403
        reader = await scene.call(method, where, sent, who="bob")
        assert reader.status_code == (200 if method == "GET" else 403)
        if made["id"] in where:
            assert (await scene.call(method, where, sent, who="eve")).status_code == 404
    assert (await scene.call("GET", path)).json()["name"] == "Shop"


async def test_the_same_idempotency_key_makes_one_destination(scene: Scene):
    body: dict[str, Any] = {"name": "Shop", "connector": "vault", "settings": {"token": TOKEN}}
    first = await scene.call("POST", "/destinations", body, idempotency_key="k1")
    again = await scene.call("POST", "/destinations", body, idempotency_key="k1")
    assert first.json() == again.json()
    other = await scene.call("POST", "/destinations", body | {"name": "x"}, idempotency_key="k1")
    assert other.json()["type"].endswith("idempotency-key-reused")
    assert len((await scene.call("GET", "/destinations")).json()["items"]) == 1
    assert TOKEN not in await scene.dump()


@pytest.mark.parametrize(
    ("connector", "settings", "slug", "at"),
    [
        ("nothing", {}, "unknown-connector", None),
        ("contract", {}, "unknown-connector", None),
        ("os", {}, "unknown-connector", None),
        ("vault", {"colour": TOKEN}, "settings-refused", "settings.colour"),
        ("vault", {"accounts": [{"host": "a"}]}, "settings-refused", "settings.accounts.0.token"),
        ("vault", {"token": {"set": True}}, "settings-refused", "settings.token"),
        ("vault", {"token": 5}, "settings-refused", "settings.token"),
        ("vault", {"mood": "refusing", "token": TOKEN}, "settings-refused", None),
        ("webhook", {"url": TOKEN}, "settings-refused", "settings.url"),
        ("webhook", {"url": "https://x.example", "signing_secret": TOKEN}, "settings-refused",
         "settings.signing_secret"),
        ("webhook", {"url": "https://x.example", "signing_secret": "whsec_c2hvcnQ="},
         "settings-refused", "settings.signing_secret"),
        ("manual", {}, "settings-refused", "settings.instructions"),
    ],
)  # fmt: skip
async def test_wrong_settings_are_named_but_never_repeated(
    scene: Scene, connector: str, settings: dict[str, Any], slug: str, at: str | None
):
    answer = await scene.add(connector, settings)
    assert answer.status_code == 422
    assert answer.json()["type"] == f"urn:quittance:problem:{slug}"
    assert TOKEN not in answer.text
    if at:
        assert at in [each["at"] for each in answer.json()["errors"]]
    assert (await scene.call("GET", "/destinations")).json()["items"] == []


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/",
        "http://[fd00:ec2::254]/",
        "http://100.64.0.1/",
        "https://[::ffff:127.0.0.1]/",
        "https://0.0.0.0/",
        "https://user:pass@host.example/",
        "https://host.example/#f",
        "https://host.example/\r\nX: y",
        "https://a.example\\@b.example/",
        "https://host.example:22/",
        "https://host.example:6379/",
        " https://host.example/",
        "http://host.example/",
    ],
)
@pytest.mark.parametrize("connector", ["webhook", "vault"])
async def test_cnx_001_003_009_011_an_address_inside_is_refused_at_save(
    scene: Scene, connector: str, url: str
):
    answer = await scene.add(connector, {"url": url})
    assert answer.status_code == 422
    assert url not in answer.text


async def test_cnx_015_secrets_are_masked_everywhere_also_nested_ones(scene: Scene):
    settings = {
        "url": "https://vault.example/hook",
        "token": TOKEN,
        "accounts": [{"host": "a.example", "token": f"{TOKEN}-a"}],
        "headers": {"X-Key": f"{TOKEN}-h", "a/b~c": f"{TOKEN}-p"},
    }
    made = await scene.add("vault", settings)
    mask = {"set": True}
    assert made.json()["settings"] == {
        "url": "https://vault.example/hook",
        "token": mask,
        "accounts": [{"host": "a.example", "token": mask}],
        "headers": {"X-Key": mask, "a/b~c": mask},
    }
    path = f"/destinations/{made.json()['id']}"
    answers = [made, await scene.call("GET", path), await scene.call("GET", "/destinations")]
    for mood in ("broken", "talking"):
        answers.append(
            await scene.call("PATCH", path, {"settings": made.json()["settings"] | {"mood": mood}})
        )
        answers.append(await scene.call("POST", f"{path}/test"))
        assert answers[-1].json()["ok"] is False
        answers.append(await scene.call("GET", path))
    refused = {"settings": made.json()["settings"] | {"mood": "refusing"}}
    answers.append(await scene.call("PATCH", path, refused))
    assert answers[-1].status_code == 422
    assert not any(TOKEN in each.text for each in answers)
    assert TOKEN not in await scene.dump()
    row = await scene.row(made.json()["id"])
    async with scene.instances.use(row) as connector:
        assert connector.settings.token.get_secret_value() == TOKEN
        assert connector.settings.accounts[0].token.get_secret_value() == f"{TOKEN}-a"
        assert connector.settings.headers["a/b~c"].get_secret_value() == f"{TOKEN}-p"
        assert TOKEN not in repr(connector.settings)


async def test_cnx_017_a_viewer_sees_no_address(scene: Scene):
    accounts = [{"host": "inside.example", "token": TOKEN}]
    made = (await scene.add("vault", {"accounts": accounts, "url": "https://in.example/x"})).json()
    shown = view(await scene.row(made["id"]), for_viewer=True)
    assert "inside.example" not in str(shown)
    assert "in.example" not in str(shown)


async def test_credentials_in_a_url_are_not_shown(scene: Scene):
    made = (await scene.add("vault", {"mood": "ftp://bob:s3cret@files.example/x?y"})).json()
    assert made["settings"]["mood"] == "ftp://***@files.example/x?y"


async def _stored(scene: Scene, destination_id: str) -> dict[str, str]:
    return scene.instances.secrets_of(await scene.row(destination_id)).secrets


async def test_a_secret_stays_until_it_is_changed_or_taken_away(scene: Scene):
    made = (await scene.add("vault", {"token": TOKEN, "headers": {"a": "h1", "b": "h2"}})).json()
    path = f"/destinations/{made['id']}"

    async def change(settings: dict[str, Any]) -> dict[str, str]:
        answer = await scene.call("PATCH", path, {"settings": settings})
        assert answer.status_code == 200, answer.text
        return await _stored(scene, made["id"])

    whole = {"/token": TOKEN, "/headers/a": "h1", "/headers/b": "h2"}
    assert await change(made["settings"]) == whole
    assert await change({"headers": {"a": {"set": True}, "b": {"set": True}}}) == whole
    assert await change({"mood": "ill", "headers": {"b": {"set": True}}}) == {
        "/token": TOKEN, "/headers/b": "h2",
    }  # fmt: skip
    assert await change({"token": "fresh"}) == {"/token": "fresh"}
    assert await change({"token": None}) == {}
    refused = await scene.call("PATCH", path, {"settings": {"token": {"set": True}}})
    assert refused.status_code == 422
    assert (await scene.row(made["id"])).version == 6


@pytest.mark.parametrize(
    "change",
    [
        {"url": "https://evil.example/hook"},
        {"url": "http://vault.example/hook"},
        {"url": "https://vault.example:8443/hook"},
        {"url": "https://vault.example/other"},
        {"accounts": [{"host": "evil.example", "token": {"set": True}}]},
        {"accounts": []},
    ],
)
async def test_cnx_021_a_new_address_needs_the_secrets_again(scene: Scene, change: dict[str, Any]):
    settings = {
        "url": "https://vault.example/hook",
        "token": TOKEN,
        "accounts": [{"host": "a.example", "token": "t"}],
    }
    made = (await scene.add("vault", settings)).json()
    path = f"/destinations/{made['id']}"
    sent = made["settings"] | change
    refused = await scene.call("PATCH", path, {"settings": sent})
    assert refused.status_code == 422
    assert refused.json()["type"] == "urn:quittance:problem:secret-needed"
    left_out = {name: value for name, value in sent.items() if name != "token"}
    assert (await scene.call("PATCH", path, {"settings": left_out})).status_code == 422
    assert (await scene.call("GET", path)).json() == made


async def test_cnx_021_swapping_two_accounts_needs_their_secrets_again(scene: Scene):
    accounts = [{"host": "a.example", "token": "ta"}, {"host": "b.example", "token": "tb"}]
    made = (await scene.add("vault", {"accounts": accounts})).json()
    swapped = {"accounts": list(reversed(made["settings"]["accounts"]))}
    path = f"/destinations/{made['id']}"
    assert (await scene.call("PATCH", path, {"settings": swapped})).status_code == 422
    entered = {"accounts": list(reversed(accounts))}
    assert (await scene.call("PATCH", path, {"settings": entered})).status_code == 200
    assert await _stored(scene, made["id"]) == {
        "/accounts/0/token": "tb",
        "/accounts/1/token": "ta",
    }


async def test_a_new_query_keeps_the_secret_and_the_mask_key(scene: Scene):
    made = (await scene.add("vault", {"url": "https://v.example/x?a=1", "token": TOKEN})).json()
    before = scene.instances.secrets_of(await scene.row(made["id"]))
    path = f"/destinations/{made['id']}"
    changed = await scene.call("PATCH", path, {"settings": {"url": "https://v.example/x?a=2"}})
    assert changed.status_code == 200
    assert scene.instances.secrets_of(await scene.row(made["id"])) == before
    assert len(before.mask_key) == 32


async def test_audit_tells_who_changed_what_without_values(scene: Scene):
    made = (await scene.add("vault", {"token": TOKEN})).json()
    path = f"/destinations/{made['id']}"
    await scene.call("PATCH", path, {"settings": {"mood": "glad"}, "enabled": False})
    await scene.call("DELETE", path)
    async with scene.database.reading() as session:
        rows = await session.execute(sa.select(AuditEntry).order_by(col(AuditEntry.id)))
        entries = [each for each in rows.scalars() if each.target == made["id"]]
    assert sorted(each.verb for each in entries) == [
        "destination.create", "destination.delete", "destination.update",
    ]  # fmt: skip
    changes = next(each for each in entries if each.verb.endswith("update"))
    assert changes.data == {"name": "Shop", "changed": ["enabled", "settings"]}
    assert "glad" not in str([each.data for each in entries])


async def test_a_test_answers_200_and_is_remembered(scene: Scene, server: Receiver):
    made = (await scene.add("webhook", {"url": server.url, "signing_secret": KEY})).json()
    path = f"/destinations/{made['id']}"
    well = await scene.call("POST", f"{path}/test")
    assert well.status_code == 200
    assert well.json() | {"latency_ms": 0} == {
        "ok": True,
        "latency_ms": 0,
        "detail": "It answered.",
    }
    server.says(401)
    ill = (await scene.call("POST", f"{path}/test")).json()
    assert (ill["ok"], ill["detail"]) == (False, "It refused the credentials. (HTTP status 401)")
    seen = (await scene.call("GET", path)).json()
    assert seen["test_error"] == ill["detail"]
    assert seen["tested_at"]
    server.says(204)
    await scene.call("POST", f"{path}/test")
    assert (await scene.call("GET", path)).json()["test_error"] is None


async def test_identity_sources_are_marked(scene: Scene):
    made = (await scene.add("vault", {"identity_source": True})).json()
    assert (await scene.row(made["id"])).is_identity_source
    path = f"/destinations/{made['id']}"
    await scene.call("PATCH", path, {"settings": {}})
    assert not (await scene.row(made["id"])).is_identity_source


async def test_a_change_based_on_an_old_version_is_refused(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
):
    made = (await scene.add("vault", {"mood": "a"})).json()
    path = f"/destinations/{made['id']}"

    async def meddle(*_: object) -> None:
        async with scene.database.writing() as session:
            await session.execute(sa.update(Destination).values(version=9))

    monkeypatch.setattr("app.destinations.settings._check", meddle)
    answer = await scene.call("PATCH", path, {"settings": {"mood": "b"}})
    assert answer.status_code == 409


def _destination(**members: Any) -> Destination:
    whole: dict[str, Any] = {"purposes": [], "kinds": [], "regimes": [], "is_enabled": True}
    return Destination(**(whole | members))


@pytest.mark.parametrize(
    ("members", "kind", "regime", "purposes", "expected"),
    [
        ({}, "erasure", "gdpr", (), True),
        ({"is_enabled": False}, "erasure", "gdpr", (), False),
        ({"kinds": ["erasure"]}, "erasure", "gdpr", (), True),
        ({"kinds": ["erasure"]}, "opt_out", "gdpr", (), False),
        ({"regimes": ["ccpa"]}, "erasure", "gdpr", (), False),
        ({"regimes": ["ccpa", "gdpr"]}, "erasure", "gdpr", (), True),
        ({"purposes": ["analytics"]}, "erasure", "gdpr", (), True),
        ({"purposes": ["analytics"]}, "opt_out", "gdpr", ("advertising",), False),
        ({"purposes": ["analytics"]}, "opt_out", "gdpr", ("advertising", "analytics"), True),
        ({}, "opt_out", "gdpr", ("advertising",), True),
    ],
)
def test_matches(
    members: dict[str, Any], kind: str, regime: str, purposes: tuple[str, ...], expected: bool
):
    assert matches(_destination(**members), kind, regime, purposes) is expected


async def test_real_settings_of_the_first_connectors_are_taken(scene: Scene):
    shared = Path(Settings(data_dir=scene.settings.data_dir).shared_paths[0])
    (shared / "events").mkdir()
    archive = {"url": str(shared / "events"), "format": "ndjson", "match": {"user.id": "user_id"}}
    assert (await scene.add("archive", archive)).status_code == 201
    assert (await scene.add("archive", archive | {"url": "/etc"})).status_code == 422
    assert (await scene.add("archive", archive | {"url": "s3://bucket/x"})).status_code == 422
    assert (await scene.add("manual", {"instructions": "Look in the cellar"})).status_code == 201
    assert (await scene.add("webhook", {"url": "https://shop.example/hook"})).status_code == 201
