"""Consent given again lifts exactly what consent withdrawn had suppressed."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from app.core.clock import utc_now
from app.subject_requests.withdrawals import take_withdrawals
from connectors.contract import absent, done, retry
from tests.running import BOB, Double, Service
from tests.subject_requests.site_stage import Site, values_of, visitors

Suppressed = Callable[..., Awaitable[bool]]


@pytest.fixture
def suppressed(service: Service) -> Suppressed:
    async def ask(value: str, kind: str = "anonymous_id", **where: str) -> bool:
        body: dict[str, Any] = {"identifiers": [{"kind": kind, "value": value}]} | where
        found = await service.post("/v1/suppressions/check", body)
        return bool(found["results"][0]["suppressed"])

    return ask


def methods(double: Double) -> list[str]:
    return [each.method for each in double.asked]


async def kinds(service: Service) -> list[str]:
    """Of all requests, oldest first."""
    found = (await service.get("/v1/requests"))["items"]
    return [each["kind"] for each in sorted(found, key=lambda each: each["received_at"])]


async def test_a_grant_lifts_what_the_withdrawal_suppressed(
    site: Site, stats: Double, suppressed: Suppressed
) -> None:
    service, (visitor,) = site.service, visitors(1)
    await site.accept_and_withdraw(visitor)
    await service.work()
    assert await suppressed(visitor, purpose="analytics")

    await site.choose(visitor, "accept_all", True)
    await service.work()

    assert methods(stats) == ["suppress", "unsuppress"]
    assert values_of(stats, "unsuppress") == {visitor}
    assert not await suppressed(visitor, purpose="analytics")
    (grant,) = [
        each
        for each in (await service.get("/v1/requests"))["items"]
        if each["kind"] == "unsuppression"
    ]
    assert (grant["channel"], grant["status"]) == ("consent", "completed")
    claims = await service.claims(grant["id"])
    assert [each["state"] for each in claims["destinations"]] == ["unsuppressed"]


async def test_a_grant_that_has_nothing_to_lift_makes_no_request(site: Site, stats: Double) -> None:
    (visitor,) = visitors(1)
    await site.choose(visitor, "reject_all", False)
    await site.choose(visitor, "accept_all", True)
    await site.service.work()

    assert await kinds(site.service) == []
    assert await site.service.rows("select id from consent_outbox") == []
    assert stats.asked == []


async def test_only_the_purposes_granted_again_are_lifted(
    site: Site, service: Service, stats: Double, suppressed: Suppressed
) -> None:
    ads = await service.destination("ads", more={"purposes": ["advertising"]})
    both = await service.destination("both", more={"purposes": ["analytics", "advertising"]})
    (visitor,) = visitors(1)
    await site.accept_and_withdraw(visitor)
    await service.work()

    await site.choose(visitor, "custom", False, analytics=True)
    await service.work()

    assert methods(stats) == ["suppress", "unsuppress"]
    assert methods(ads) == ["suppress"]
    assert methods(both) == ["suppress"], "advertising is still denied there"
    assert not await suppressed(visitor, purpose="analytics")
    assert await suppressed(visitor, purpose="advertising")

    await site.choose(visitor, "accept_all", True)
    await service.work()
    assert [methods(each) for each in (stats, ads, both)] == [["suppress", "unsuppress"]] * 3


async def test_a_grant_lifts_no_opt_out_that_was_asked_for_otherwise(
    site: Site, service: Service, stats: Double, suppressed: Suppressed
) -> None:
    (visitor,) = visitors(1)
    await site.accept_and_withdraw(visitor)
    await service.ask(kind="opt_out", identifiers=[{"kind": "anonymous_id", "value": visitor}])
    await service.work()
    assert sorted(methods(stats)) == ["suppress", "suppress"]

    await site.choose(visitor, "accept_all", True)
    await service.work()

    assert "unsuppress" not in methods(stats)
    assert await suppressed(visitor)


async def test_destinations_where_nothing_was_suppressed_are_not_told(
    site: Site, service: Service, stats: Double
) -> None:
    (visitor,) = visitors(1)
    stats.default = absent()
    await site.accept_and_withdraw(visitor)
    await service.work()
    newcomer = await service.destination("newcomer", more={"purposes": ["analytics"]})

    await site.choose(visitor, "accept_all", True)
    await service.work()

    assert methods(stats) == ["suppress"]
    assert newcomer.asked == []


async def test_a_grant_overtakes_a_withdrawal_that_is_stuck(
    site: Site, service: Service, stats: Double, suppressed: Suppressed
) -> None:
    shop = await service.destination("shop", more={"purposes": ["analytics"]})
    (visitor,) = visitors(1)
    stats.default = retry("down")
    await site.accept_and_withdraw(visitor)
    await service.work()
    await site.choose(visitor, "accept_all", True)
    await service.work()
    assert not await suppressed(visitor, purpose="analytics")
    assert methods(shop) == ["suppress", "unsuppress"], "one destination holds up no other"

    stats.default = done()
    before = len(stats.asked)
    for _ in range(3):
        service.later(hours=1)
        await service.work()
    assert methods(stats)[before:] == ["unsuppress"], "it may have been applied"
    assert {each["status"] for each in (await service.get("/v1/requests"))["items"]} == {
        "completed"
    }


async def test_a_withdrawal_that_was_never_tried_is_only_taken_back(
    site: Site, service: Service, stats: Double, suppressed: Suppressed
) -> None:
    (visitor,) = visitors(1)
    await site.accept_and_withdraw(visitor)
    await service.work()
    await site.choose(visitor, "accept_all", True)
    await service.work()
    before = len(stats.asked)
    await service.change_queue("stats", "pause")
    await site.choose(visitor, "withdrawal", False)
    await service.work()
    assert await suppressed(visitor, purpose="analytics")
    await site.choose(visitor, "accept_all", True)
    await service.work()
    await service.change_queue("stats", "resume")
    await service.work()

    assert len(stats.asked) == before
    assert not await suppressed(visitor, purpose="analytics")


async def test_choices_made_in_a_moment_take_effect_in_their_order(
    site: Site, service: Service, stats: Double, suppressed: Suppressed
) -> None:
    (visitor,) = visitors(1)
    await site.choose(visitor, "accept_all", True)
    for _ in range(2):
        await site.choose(visitor, "withdrawal", False)
        await site.accept_and_withdraw(visitor)
    for _ in range(12):
        service.later(seconds=30)
        await service.work()

    assert methods(stats)[-1] == "suppress"
    assert await suppressed(visitor, purpose="analytics")
    found = (await service.get("/v1/requests"))["items"]
    assert {each["status"] for each in found} == {"completed"}

    await site.choose(visitor, "accept_all", True)
    await service.work()
    assert methods(stats)[-1] == "unsuppress"
    assert not await suppressed(visitor, purpose="analytics")


async def test_a_withdrawal_takes_a_grant_that_is_stuck_out_of_the_queue(
    site: Site, service: Service, stats: Double, suppressed: Suppressed
) -> None:
    (visitor,) = visitors(1)
    await site.accept_and_withdraw(visitor)
    await service.work()
    stats.default = retry("down")
    await site.choose(visitor, "accept_all", True)
    await service.work()
    assert methods(stats)[-1] == "unsuppress"

    await site.choose(visitor, "withdrawal", False)
    await service.work()
    assert await suppressed(visitor, purpose="analytics"), "at once, whatever the destination does"
    stats.default = absent()
    before = len(stats.asked)
    for _ in range(3):
        service.later(hours=1)
        await service.work()

    assert methods(stats)[before:] == ["suppress"]
    (grant,) = [
        each
        for each in (await service.get("/v1/requests"))["items"]
        if each["kind"] == "unsuppression"
    ]
    assert grant["status"] == "completed"
    claims = await service.claims(grant["id"])
    assert [each["state"] for each in claims["destinations"]] == ["not_applicable"]


async def test_a_withdrawal_waits_for_a_call_that_nobody_can_recall(
    site: Site, service: Service, stats: Double, suppressed: Suppressed
) -> None:
    (visitor,) = visitors(1)
    await site.accept_and_withdraw(visitor)
    await service.work()
    stats.gate.clear()
    await site.choose(visitor, "accept_all", True)
    await service.work(until=lambda: methods(stats)[-1] == "unsuppress")

    await site.choose(visitor, "withdrawal", False)
    rounds = itertools.count()
    await service.work(until=lambda: next(rounds) > 20)
    assert methods(stats) == ["suppress", "unsuppress"]
    assert await suppressed(visitor, purpose="analytics"), "on our own list at once"
    stats.gate.set()
    for _ in range(3):
        service.later(seconds=10)
        await service.work()
    assert methods(stats) == ["suppress", "unsuppress", "suppress"]


async def test_a_grant_on_another_device_lifts_what_the_person_had_withdrawn(
    site: Site, service: Service, stats: Double, suppressed: Suppressed
) -> None:
    phone, laptop, stranger = visitors(3)
    await site.choose(phone, "accept_all", True)
    await site.link(phone, user_id="u-1", email=BOB)
    await site.link(laptop, user_id="u-1")
    await site.choose(stranger, "accept_all", True)
    for each in (phone, stranger):
        await site.choose(each, "withdrawal", False)
    await service.work()

    await site.choose(laptop, "accept_all", True)
    await service.work()

    assert values_of(stats, "unsuppress") == {phone, laptop, "u-1", BOB}
    assert not await suppressed(BOB, "email", purpose="analytics")
    assert await suppressed(stranger, purpose="analytics")


async def test_a_program_lifts_nothing_that_was_asked_for_later(
    service: Service, stats: Double, suppressed: Suppressed
) -> None:
    stats.default = retry("down")
    await service.ask(BOB, kind="opt_out")
    await service.work()
    service.later(seconds=1)
    await service.ask(BOB, kind="unsuppression")
    service.later(seconds=1)
    await service.ask(BOB, kind="opt_out", regime="ccpa")
    await service.work()
    stats.default = absent()
    for _ in range(4):
        service.later(hours=1)
        await service.work()

    assert await suppressed(BOB, "email")
    assert methods(stats)[-1] == "suppress"


async def test_on_a_device_that_two_people_share_nobody_lifts_what_the_other_withdrew(
    site: Site, service: Service, stats: Double, suppressed: Suppressed
) -> None:
    phone, tablet = visitors(2)
    await site.choose(phone, "accept_all", True)
    await site.link(phone, user_id="alice")
    for user in ("alice", "bob"):
        await site.link(tablet, user_id=user)
    await site.choose(phone, "withdrawal", False)
    await service.work()
    await site.choose(tablet, "reject_all", False)
    await site.choose(tablet, "accept_all", True)
    await service.work()

    assert await suppressed("alice", "user_id", purpose="analytics")
    assert "unsuppress" not in methods(stats)


async def test_a_late_older_grant_lifts_nothing(
    site: Site, service: Service, stats: Double, suppressed: Suppressed
) -> None:
    phone, laptop = visitors(2)
    await site.choose(phone, "accept_all", True)
    for each in (phone, laptop):
        await site.link(each, user_id="u-1")
    await site.choose(phone, "reject_all", False)
    late = site.at()
    await site.choose(laptop, "withdrawal", False)
    await service.work()
    await site.choose(phone, "accept_all", True, at=late)
    await service.work()

    assert await suppressed(phone, purpose="analytics")
    assert "unsuppress" not in methods(stats)


async def test_a_grant_lifts_whatever_law_and_kinds_the_destination_is_set_to(
    site: Site, service: Service
) -> None:
    more = {"purposes": ["analytics"], "kinds": ["opt_out"], "regimes": ["gdpr"]}
    narrow = await service.destination("narrow", more=more)
    (visitor,) = visitors(1)
    await site.accept_and_withdraw(visitor)
    await service.work()
    path = f"/v1/destinations/{service.destinations['narrow']}"
    assert (await service.call("PATCH", path, {"regimes": ["ccpa"]})).status_code == 200
    await site.choose(visitor, "accept_all", True)
    await service.work()

    assert methods(narrow) == ["suppress", "unsuppress"]


async def test_a_lapsed_link_keeps_nobody_suppressed(
    site: Site, service: Service, stats: Double, suppressed: Suppressed
) -> None:
    (visitor,) = visitors(1)
    await site.choose(visitor, "accept_all", True)
    await site.link(visitor, user_id="u-1")
    await site.choose(visitor, "withdrawal", False)
    await service.work()
    assert await suppressed("u-1", "user_id", purpose="analytics")
    service.later(days=200)
    await service.work()
    await site.choose(visitor, "accept_all", True)
    await service.work()

    assert not await suppressed("u-1", "user_id", purpose="analytics")
    assert methods(stats) == ["suppress", "unsuppress"]


async def test_a_withdrawal_released_after_a_new_grant_suppresses_only_what_is_still_denied(
    site: Site, service: Service, stats: Double, suppressed: Suppressed
) -> None:
    (visitor,) = visitors(1)
    await site.accept_and_withdraw(visitor)
    await take_withdrawals(service.runtime.services, utc_now())
    (held,) = (await service.get("/v1/requests"))["items"]
    await service.post(f"/v1/requests/{held['id']}/hold", {"reason": "A court asks."})
    await site.choose(visitor, "custom", False, analytics=True)
    await service.work()
    await service.post(f"/v1/requests/{held['id']}/release")
    await service.work()

    assert not await suppressed(visitor, purpose="analytics")
    assert await suppressed(visitor, purpose="advertising")
    assert stats.asked == []
