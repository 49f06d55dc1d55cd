"""API keys: their form, their life, and what is kept of them."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.clock import utc_now
from app.security import api_keys
from tests.running import Service, running


def test_a_key_can_be_told_from_noise_without_asking_anybody() -> None:
    secret = api_keys.new_secret()

    assert api_keys.is_well_formed(secret)
    assert len(secret) == 49
    assert len({api_keys.new_secret() for _ in range(500)}) == 500


@given(st.text(max_size=60))
def test_no_text_passes_for_a_key_by_chance(text: str) -> None:
    assert not api_keys.is_well_formed(text)
    assert not api_keys.is_well_formed("qt_" + text[:46].ljust(46, "0"))


@given(st.integers(3, 48), st.sampled_from("0Az"))
def test_one_changed_character_is_noticed_offline(at: int, letter: str) -> None:
    secret = api_keys.new_secret()
    if secret[at] != letter:
        assert not api_keys.is_well_formed(secret[:at] + letter + secret[at + 1 :])


async def test_the_secret_is_shown_once_and_stored_nowhere(service: Service) -> None:
    made = await service.post("/v1/keys", {"name": "till", "scopes": ["requests:write"]}, 201)
    secret = made["key"]
    service.keys["till"] = secret

    assert (await service.call("GET", "/v1/requests", who="till")).status_code == 200
    listed = (await service.get("/v1/keys"))["items"]
    assert "key" not in listed[0]
    assert secret.startswith(next(each["hint"] for each in listed if each["id"] == made["id"]))
    assert secret not in str(await service.dump())


async def test_a_revoked_key_ends_at_once_and_stays_ended(service: Service) -> None:
    made = await service.post("/v1/keys", {"name": "till", "scopes": ["requests:read"]}, 201)
    service.keys["till"] = made["key"]
    assert (await service.call("GET", "/v1/requests", who="till")).status_code == 200

    for _ in range(2):
        assert (await service.call("DELETE", f"/v1/keys/{made['id']}")).status_code == 204

    assert (await service.call("GET", "/v1/requests", who="till")).status_code == 401


async def test_the_hour_of_the_last_use_is_remembered(service: Service) -> None:
    key_id = await service.add_key("till", "requests:read")
    await service.call("GET", "/v1/requests", who="till")

    listed = {each["id"]: each for each in (await service.get("/v1/keys"))["items"]}

    used = dt.datetime.fromisoformat(listed[key_id]["last_used_at"])
    assert used <= utc_now() < used + dt.timedelta(hours=1, minutes=1)
    assert (used.minute, used.second) == (0, 0)


@pytest.mark.parametrize(
    "body",
    [
        {"name": "", "scopes": ["all"]}, {"name": " ", "scopes": ["all"]},
        {"name": "x" * 101, "scopes": ["all"]}, {"name": "x", "scopes": []},
        {"name": "x", "scopes": ["everything"]}, {"name": "x", "scopes": "all"},
        {"name": "x", "scopes": ["all"], "expires_at": "2020-01-01T00:00:00Z"},
        {"name": "x", "scopes": ["all"], "expires_at": "2999-01-01T00:00:00"},
        {"name": "x", "scopes": ["all"], "workspace_id": "ws_1"}, {"name": "x"},
    ],
)  # fmt: skip
async def test_a_wrong_key_is_not_made(embedded: Service, body: dict[str, object]) -> None:
    answer = await embedded.call("POST", "/v1/keys", body)

    assert answer.status_code == 422, answer.text
    assert len((await embedded.get("/v1/keys"))["items"]) == 1


async def test_a_key_that_calls_too_often_is_told_when_to_come_back(
    sqlite_url: str, sqlite_keystore_url: str, tmp_path: object
) -> None:
    async with running(tmp_path, sqlite_url, sqlite_keystore_url, api_per_minute=5) as service:  # type: ignore[arg-type]
        answers = [await service.call("GET", "/v1/requests") for _ in range(7)]
        other = await service.call("GET", "/v1/requests", who="eve")

    assert [each.status_code for each in answers][:5] == [200] * 5
    assert answers[-1].status_code == 429
    # A window may have just begun; then a tenth of the next must pass until one of five is over.
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 67
    assert answers[-1].headers["ratelimit"].startswith('"api";r=0')
    assert other.status_code == 200, "one key's calls are not another's"
