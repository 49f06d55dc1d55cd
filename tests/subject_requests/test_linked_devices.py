"""What a person asks for on one device reaches them on all, and nobody beside them."""

from __future__ import annotations

from tests.running import BOB, Double, Service
from tests.subject_requests.site_stage import Site, values_of, visitors


async def test_a_withdrawal_on_one_device_reaches_all_that_the_person_is_known_by(
    site: Site, stats: Double
) -> None:
    service = site.service
    phone, laptop, strangers = visitors(3)
    await site.choose(phone, "accept_all", True)
    await site.link(phone, user_id="u-1", email=BOB)
    await site.link(laptop, user_id="u-1")
    await site.link(strangers, user_id="u-2")
    assert set((await site.choices(laptop)).values()) == {True}

    await site.choose(laptop, "withdrawal", False)
    await service.work()

    assert values_of(stats, "suppress") == {phone, laptop, "u-1", BOB}
    assert set((await site.choices(phone)).values()) == {False}
    (request,) = (await service.get("/v1/requests"))["items"]
    assert (request["kind"], request["channel"]) == ("opt_out", "consent")
    named = [
        {"kind": "anonymous_id", "value": phone}, {"kind": "user_id", "value": "u-1"},
        {"kind": "user_id", "value": "u-2"}, {"kind": "anonymous_id", "value": strangers},
    ]  # fmt: skip
    checked = await service.post(
        "/v1/suppressions/check", {"identifiers": named, "purpose": "analytics"}
    )
    assert [each["suppressed"] for each in checked["results"]] == [True, True, False, False]


async def test_an_erasure_finds_the_persons_other_devices_and_ends_all_their_links(
    site: Site, service: Service
) -> None:
    crm = await service.destination("crm")
    phone, laptop = visitors(2)
    await site.choose(phone, "accept_all", True)
    await site.link(phone, user_id="u-1", email=BOB)
    await site.link(laptop, user_id="u-1")

    made = await service.ask(BOB)
    await service.work()
    assert values_of(crm, "erase") == {BOB, "u-1", phone, laptop}
    await service.call("GET", f"/v1/requests/{made['id']}/receipt")
    service.later(days=31)
    await service.work()

    assert (await service.request(made["id"]))["forgotten_at"] is not None
    assert await service.rows("select id from visitor_link") == []
    assert await site.choices(laptop) is None
    assert set((await site.choices(phone)).values()) == {True}, "its own record stays as proof"


async def test_a_device_that_two_people_share_leads_from_none_to_the_others_devices(
    site: Site, service: Service
) -> None:
    crm = await service.destination("crm")
    shared, carols = visitors(2)
    await site.link(shared, email=BOB)
    await site.link(shared, user_id="bob")
    await site.link(shared, user_id="carol")
    await site.link(carols, user_id="carol", email="carol@customer.example")

    await service.ask(BOB)
    await service.work()

    reached = values_of(crm, "erase")
    assert reached >= {BOB, shared}
    assert not reached & {carols, "carol@customer.example"}
