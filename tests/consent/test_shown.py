"""How often a banner was shown, and what was answered by law, language and version."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import time_machine

from app.consent import shown
from app.consent.routes import router
from app.consent.writer import ConsentWriter
from app.core.clock import utc_now
from tests.consent.conftest import Shop, open_shop
from tests.sites.stage import SHOP, Stage, stage

NONE = dict.fromkeys(("functional", "analytics", "advertising"), False)
VIEWS = "select day, language, regime, count from consent_view order by language, regime, day"


@pytest.fixture
async def service(database_url: str, keystore_url: str, tmp_path: Path) -> AsyncIterator[Stage]:
    async with stage(database_url, keystore_url, tmp_path, router, shown.router) as made:
        made.app.state.consents = writer = ConsentWriter(made.database)
        writer.start()
        yield made
        await writer.stop()


@pytest.fixture
async def shop(service: Stage) -> Shop:
    return await open_shop(service, modules=["counts"])


async def show(shop: Shop, origin: str | None = SHOP, **changes: Any) -> httpx.Response:
    body = {"notice_version": shop.notice_version, "language": "en", "regime": "gdpr"} | changes
    return await shop.service.client.post(
        f"/b/{shop.site_key}/shown", json=body, headers={"Origin": origin} if origin else {}
    )


async def stats(shop: Shop, key: str = "alice", **asked: Any) -> list[dict[str, Any]]:
    answer = await shop.service.client.get(
        "/v1/consents/stats", params=asked, headers=shop.service.auth(key)
    )
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def views(shop: Shop) -> list[tuple[str, str, str, int]]:
    return [
        (str(day), language, regime, count)
        for day, language, regime, count in await shop.service.rows(VIEWS)
    ]


async def test_displays_are_counted_by_day_language_and_law(shop: Shop) -> None:
    with time_machine.travel(dt.datetime(2026, 11, 26, 23, 59, tzinfo=dt.UTC), tick=False):
        for _ in range(2):
            answer = await show(shop)
            assert (answer.status_code, answer.content) == (204, b"")
            assert answer.headers["access-control-allow-origin"] == SHOP
            assert "set-cookie" not in answer.headers
        await show(shop, language="de")
    with time_machine.travel(dt.datetime(2026, 11, 27, 0, 1, tzinfo=dt.UTC), tick=False):
        await show(shop)

    assert await views(shop) == [
        ("2026-11-26", "de", "gdpr", 1),
        ("2026-11-26", "en", "gdpr", 2),
        ("2026-11-27", "en", "gdpr", 1),
    ]


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"notice_version": "ntv_unknown"}, 422),
        ({"language": "xx"}, 422),
        ({"regime": "nowhere"}, 422),
        ({"regime": 7}, 422),
        ({"visitor_id": "x"}, 422),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": None}, 403),
    ],
)
async def test_what_visitors_cannot_have_been_shown_is_refused(
    shop: Shop, changes: dict[str, Any], status: int
) -> None:
    assert (await show(shop, **changes)).status_code == status
    assert await views(shop) == []
    assert (await show(shop)).status_code == 204  # so that the refusal has the right reason


async def test_the_law_of_a_region_that_the_site_left_out_is_counted(service: Stage) -> None:
    shop = await open_shop(service, SHOP, modules=["counts"], regimes=["au_privacy"])
    assert (await show(shop, regime="gdpr")).status_code == 204
    assert [law for _, _, law, _ in await views(shop)] == ["gdpr"]


async def test_another_sites_version_and_a_site_that_does_not_count_are_refused(
    shop: Shop, service: Stage
) -> None:
    other = await open_shop(service)
    assert (await show(shop, notice_version=other.notice_version)).status_code == 422
    assert (await show(other)).status_code == 404
    assert await views(shop) == []


async def test_displays_that_come_at_once_are_all_counted(shop: Shop) -> None:
    tags = ["en", "de", "fr"] * 20
    answers = await asyncio.gather(*(show(shop, language=tag) for tag in tags))

    assert {each.status_code for each in answers} == {204}
    assert [count for *_, count in await views(shop)] == [20, 20, 20]


async def test_one_that_could_not_be_stored_is_told_so_and_harms_nobody(
    shop: Shop, service: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    displays = shown.displays_of(service.database)
    with monkeypatch.context() as away:
        away.setattr(displays, "_database", _Away())
        assert (await show(shop)).status_code == 503
    assert (await show(shop)).status_code == 204
    assert [count for *_, count in await views(shop)] == [1]


class _Away:
    def writing(self) -> Any:
        raise ConnectionRefusedError


async def test_stats_tell_what_was_shown_and_answered(shop: Shop) -> None:
    for _ in range(5):
        await show(shop)
    await show(shop, language="de")
    await shop.choose()
    await shop.choose()
    await shop.choose(choices=NONE | {"analytics": True}, method="custom")
    await shop.choose(choices=NONE, method="reject_all")
    await shop.choose(choices=NONE, method="withdrawal", language="de")
    await shop.choose(choices=NONE, method="gpc", region="US-CA", gpc=True)

    answered = {"accepted": 2, "partial": 1, "rejected": 2, "other": 0}
    assert await stats(shop, site_key=shop.site_key) == [
        {"key": "gdpr", "shown": 6} | answered,
        {"key": "ccpa", "shown": None, "accepted": 0, "partial": 0, "rejected": 0, "other": 1},
    ]
    by_language = {each["key"]: each for each in await stats(shop, by="language")}
    assert by_language["en"]["shown"] == 5
    assert (by_language["de"]["shown"], by_language["de"]["rejected"]) == (1, 1)
    (version,) = await stats(shop, by="version")
    assert version == {"key": shop.notice_version, "shown": 6} | answered | {"other": 1}


@pytest.mark.parametrize(
    ("region", "method", "granted", "answer"),
    [
        ("DE", "custom", ("functional", "analytics", "advertising"), "accepted"),
        ("DE", "custom", ("analytics",), "partial"),
        ("DE", "custom", (), "rejected"),
        ("DE", "dismissed", (), "rejected"),
        ("US-CA", "dismissed", ("functional", "analytics", "advertising"), "other"),
        ("US-CA", "dismissed", (), "other"),
        ("AU", "dismissed", ("functional", "analytics", "advertising"), "other"),
        ("AU", "withdrawal", (), "rejected"),
        ("DE", "migrated", (), "other"),
    ],
)
async def test_an_answer_is_told_by_what_was_granted_and_how_it_was_asked(
    service: Stage, region: str, method: str, granted: tuple[str, ...], answer: str
) -> None:
    shop = await open_shop(service, regimes=["gdpr", "ccpa", "au_privacy"])
    await shop.choose(region=region, method=method, choices=NONE | dict.fromkeys(granted, True))

    (law,) = await stats(shop)
    assert {key for key in ("accepted", "partial", "rejected", "other") if law[key]} == {answer}


@pytest.mark.parametrize("granted", [False, True])
async def test_who_decides_on_some_purposes_answers_in_part_unless_all_are_denied(
    service: Stage, *, granted: bool
) -> None:
    shop = await open_shop(service, regimes=["ccpa"])
    await shop.choose(region="US-CA", method="custom", choices={"analytics": granted})

    (law,) = await stats(shop)
    assert law["partial" if granted else "rejected"] == 1


async def test_a_purpose_named_true_or_false_is_no_answer(service: Stage) -> None:
    purposes = [{"id": each, "texts": {"en": {"name": each}}} for each in ("true", "false")]
    shop = await open_shop(service, purposes=purposes, languages=["en"])
    for granted in (True, False):
        await shop.choose(method="custom", choices={"true": granted, "false": granted})

    (law,) = await stats(shop)
    assert (law["accepted"], law["partial"], law["rejected"]) == (1, 0, 1)


async def test_stats_tell_sites_apart_by_their_keys(shop: Shop, service: Stage) -> None:
    await show(shop)
    await shop.choose()
    other = await open_shop(service)
    await other.choose(method="custom", choices=NONE | {"analytics": True})

    found = {each["key"]: each for each in await stats(shop, by="site")}
    assert set(found) == {shop.site_key, other.site_key}
    assert (found[shop.site_key]["shown"], found[shop.site_key]["accepted"]) == (1, 1)
    assert (found[other.site_key]["shown"], found[other.site_key]["partial"]) == (None, 1)


async def test_stats_keep_to_the_period_the_site_and_the_workspace(
    shop: Shop, service: Stage
) -> None:
    await show(shop)
    await shop.choose()
    other = await open_shop(service)
    now = utc_now()
    tomorrow = now + dt.timedelta(days=1)

    assert len(await stats(shop, since=(now - dt.timedelta(hours=1)).isoformat())) == 1
    assert await stats(shop, since=tomorrow.isoformat()) == []
    assert await stats(shop, until=(now - dt.timedelta(days=1)).isoformat()) == []
    assert await stats(shop, site_key=other.site_key) == []
    assert await stats(shop, "eve") == []
    wrong = await service.client.get(
        "/v1/consents/stats", params={"by": "visitor"}, headers=service.auth()
    )
    assert wrong.status_code == 422


async def test_a_day_that_is_partly_wanted_counts_as_a_whole(shop: Shop) -> None:
    with time_machine.travel(dt.datetime(2026, 11, 26, 9, tzinfo=dt.UTC), tick=False):
        await show(shop)
    for since, until, counted in (
        ("2026-11-26T12:00:00Z", "2026-11-27T00:00:00Z", 1),
        ("2026-11-25T00:00:00Z", "2026-11-26T00:00:00Z", 0),
        ("2026-11-27T01:00:00+02:00", "2026-11-28T00:00:00Z", 1),
    ):
        assert len(await stats(shop, since=since, until=until)) == counted
