"""One person, several devices: the newest explicit choice holds on each, and a denial wins ties."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.consent import devices, links
from app.consent.writer import ConsentWriter
from app.core.clock import rfc3339, utc_now
from app.core.db import Database
from app.crypto.keystore import HolderKey
from app.identity import vault
from app.identity.models import PersonalValue
from tests.consent.conftest import Shop, open_shop
from tests.consent.people import Browser, believe
from tests.identity.hosts import Host

HOST = Host()
ALL = dict.fromkeys(("functional", "analytics", "advertising"), True)
NONE = dict.fromkeys(ALL, False)
DAY = dt.timedelta(days=1)
REJECTS: dict[str, Any] = {"choices": NONE, "method": "reject_all"}


def ago(**units: float) -> str:
    return str(rfc3339(utc_now() - dt.timedelta(**units)))


@pytest.fixture
async def shop(shop: Shop) -> Shop:
    assert (await believe(shop, HOST)).status_code == 200
    return shop


@pytest.fixture
def phone(shop: Shop) -> Browser:
    return Browser(shop)


@pytest.fixture
def laptop(shop: Shop) -> Browser:
    return Browser(shop)


async def test_what_was_chosen_on_one_device_holds_on_the_other(
    phone: Browser, laptop: Browser
) -> None:
    moment = ago(minutes=1)
    consent_id = await phone.choose(decided_at=moment)

    at_home = await phone.state(HOST.token())
    elsewhere = await laptop.state(HOST.token())

    assert at_home is not None
    assert elsewhere is not None
    assert elsewhere == at_home | {"source": "other_device"}
    assert at_home["source"] == "this_device"
    assert (elsewhere["choices"], elsewhere["stale"]) == (ALL, False)
    assert (elsewhere["consent_id"], elsewhere["decided_at"]) == (consent_id, moment)
    assert (await laptop.current()) == (await phone.current()) | {"visitor_id": laptop.visitor_id}
    assert (await laptop.current())["consent_id"] == consent_id


async def test_a_later_refusal_on_the_other_device_wins_there_and_here(
    phone: Browser, laptop: Browser
) -> None:
    await phone.choose(decided_at=ago(minutes=2))
    for each in (phone, laptop):
        await each.state(HOST.token())
    refusal = await laptop.choose(**REJECTS, decided_at=ago(minutes=1))

    assert (await phone.current())["choices"] == NONE
    assert (await phone.current())["consent_id"] == refusal

    await phone.choose()
    assert (await laptop.current())["choices"] == ALL


async def test_of_choices_of_one_moment_each_denial_wins(phone: Browser, laptop: Browser) -> None:
    moment = ago(minutes=1)
    custom: dict[str, Any] = {"method": "custom", "decided_at": moment}
    await phone.choose(**custom, choices=ALL | {"analytics": False})
    await laptop.choose(**custom, choices=ALL | {"advertising": False})
    for each in (phone, laptop):
        await each.state(HOST.token())

    for each in (phone, laptop):
        assert (await each.current())["choices"] == {
            "advertising": False, "analytics": False, "functional": True,
        }  # fmt: skip


async def test_an_earlier_choice_of_ones_own_gives_way(phone: Browser, laptop: Browser) -> None:
    """The record that lost stays, as proof of what it was."""
    await laptop.choose(**REJECTS, decided_at=ago(minutes=5))
    await phone.choose(decided_at=ago(minutes=1))
    await phone.state(HOST.token())

    state = await laptop.state(HOST.token())

    assert state is not None
    assert (state["choices"], state["source"]) == (ALL, "other_device")
    assert await laptop.shop.count() == 2


async def test_people_and_sites_are_kept_apart(phone: Browser, laptop: Browser) -> None:
    await phone.choose()
    await phone.state(HOST.token(sub="bob"))
    assert await laptop.state(HOST.token(sub="carol")) is None

    blog = await open_shop(phone.shop.service)
    await believe(blog, HOST)
    assert await Browser(blog).state(HOST.token(sub="bob")) is None


async def test_who_shares_no_account_shares_nothing_by_address(
    phone: Browser, laptop: Browser
) -> None:
    family: dict[str, Any] = {"email": "family@shop.example", "email_verified": True}
    await phone.choose()
    await phone.state(HOST.token(sub="bob", **family))

    assert await laptop.state(HOST.token(sub="carol", **family)) is None


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"method": "dismissed", "choices": NONE}, "a closed banner"),
        ({"method": "migrated"}, "what another tool had stored"),
    ],
)
async def test_only_an_explicit_choice_travels(
    phone: Browser, laptop: Browser, record: dict[str, Any], reason: str
) -> None:
    await phone.choose(decided_at=ago(minutes=2))
    await laptop.choose(**record, decided_at=ago(minutes=1))
    for each in (phone, laptop):
        await each.state(HOST.token())

    assert (await phone.current())["choices"] == ALL, reason
    assert (await laptop.current())["choices"] == ALL


CALIFORNIA: dict[str, Any] = {"region": "US-CA", "gpc": True}
SIGNAL: dict[str, Any] = {
    "choices": ALL | {"advertising": False}, "method": "gpc", **CALIFORNIA,
}  # fmt: skip


async def test_a_signal_in_one_browser_denies_in_all_until_the_person_chooses_otherwise(
    phone: Browser, laptop: Browser
) -> None:
    """11 CCR 7025(c)(1). A page learns it apart from what was chosen, which it may know better."""
    await laptop.choose(decided_at=ago(minutes=3))
    signalled = ago(minutes=2)
    record = await phone.choose(**SIGNAL, decided_at=signalled)
    await phone.linked(HOST.token())

    said = await laptop.linked(HOST.token())
    signal = {"denied": ["advertising"], "decided_at": signalled, "consent_id": record}
    assert said["signal"] == signal
    assert (said["state"]["choices"], said["state"]["source"]) == (ALL, "this_device")
    current = await laptop.current()
    assert (current["choices"], current["signal"]) == (ALL | {"advertising": False}, signal)

    await laptop.choose(
        region="US-CA", method="custom", choices={"functional": False}, decided_at=ago(minutes=1)
    )
    assert (await laptop.linked(HOST.token()))["signal"] == signal, "that was about something else"
    await laptop.choose(region="US-CA", method="custom", choices={"advertising": True})
    assert "signal" not in await laptop.linked(HOST.token())
    assert (await laptop.current())["choices"]["advertising"] is True
    assert (await phone.current())["choices"]["advertising"] is False, (
        "there the signal is still on"
    )


async def test_a_signal_reaches_also_who_has_chosen_nothing_and_nobody_else(
    phone: Browser, laptop: Browser
) -> None:
    await phone.choose(**SIGNAL)
    await phone.state(HOST.token(sub="bob"))

    assert "signal" not in await laptop.linked(HOST.token(sub="carol"))
    tablet = Browser(laptop.shop)
    said = await tablet.linked(HOST.token(sub="bob"))
    assert (said["state"], said["signal"]["denied"]) == (None, ["advertising"])
    current = await tablet.current()
    assert (current["choices"], current["consent_id"]) == ({"advertising": False}, None)


async def test_who_has_chosen_nothing_anywhere_keeps_what_this_browser_has(
    phone: Browser, laptop: Browser
) -> None:
    await phone.choose(method="dismissed", choices=NONE)

    state = await phone.state(HOST.token())

    assert state is not None
    assert (state["choices"], state["source"]) == (NONE, "this_device")
    assert await laptop.state(HOST.token()) is None
    assert (await laptop.current())["choices"] is None


async def test_a_signal_in_this_browser_still_denies_what_was_granted_elsewhere(
    phone: Browser, laptop: Browser
) -> None:
    california: dict[str, Any] = {"region": "US-CA", "gpc": True}
    await laptop.choose(**california, method="gpc", decided_at=ago(minutes=5))
    await phone.choose(decided_at=ago(minutes=1))
    await phone.state(HOST.token())

    state = await laptop.state(HOST.token())
    assert state is not None
    assert state["choices"] == ALL | {"advertising": False}
    assert (await phone.current())["choices"] == ALL

    await laptop.choose(**california, method="custom")
    assert (await laptop.current())["choices"] == ALL


async def test_what_somebody_refused_under_the_signal_stays_denied_in_that_browser(
    phone: Browser, laptop: Browser
) -> None:
    refusal: dict[str, Any] = {"method": "custom", "choices": ALL | {"advertising": False}}
    await phone.choose(**CALIFORNIA, **refusal, decided_at=ago(minutes=5))
    await phone.state(HOST.token())
    await laptop.choose(region="US-CA", decided_at=ago(minutes=4))
    await laptop.state(HOST.token())

    state = await phone.state(HOST.token())
    assert state is not None
    assert (state["choices"], state["source"]) == (ALL | {"advertising": False}, "other_device")
    assert (await phone.current())["choices"] == ALL | {"advertising": False}
    assert (await laptop.current())["choices"] == ALL


async def test_what_is_chosen_of_something_else_leaves_the_signal_be_in_its_browser_too(
    phone: Browser, laptop: Browser
) -> None:
    await phone.choose(**SIGNAL, decided_at=ago(minutes=2))
    limit: dict[str, Any] = {"method": "custom", "choices": {"functional": False}}
    await laptop.choose(region="US-CA", **limit, decided_at=ago(minutes=1))
    for each in (laptop, phone):
        await each.state(HOST.token())

    for each in (laptop, phone):
        assert (await each.current())["choices"] == {"advertising": False, "functional": False}


async def test_an_opt_out_covers_a_purpose_that_came_later(phone: Browser, laptop: Browser) -> None:
    await phone.choose(region="US-CA", method="custom", choices={"advertising": False})
    await phone.state(HOST.token())
    partners = {"id": "partners", "denied_by_gpc": True, "texts": {"en": {"name": "Partners"}}}
    surveys = {"id": "surveys", "texts": {"en": {"name": "Surveys"}}}
    ours = [{"id": "analytics"}, {"id": "advertising", "denied_by_gpc": True}]
    await publish(phone.shop, purposes=[*ours, partners, surveys])

    denied = {"advertising": False, "partners": False}
    told = await phone.current()
    assert (told["choices"], told["stale"]) == (denied, False)
    state = await laptop.state(HOST.token())
    assert state is not None
    assert state["choices"] == denied


async def publish(shop: Shop, **config: Any) -> None:
    site = f"/v1/sites/{shop.site_key}"
    auth = shop.service.auth()
    await shop.service.client.patch(site, json={"config": config}, headers=auth)
    await shop.service.client.post(f"{site}/publish", headers=auth)
    banner = (await shop.service.client.get(f"{site}/banner")).json()
    shop.notice_version = banner["notice_version"]


async def test_a_grant_rests_on_what_was_asked_and_a_denial_does_not(
    phone: Browser, laptop: Browser
) -> None:
    mixed = ALL | {"advertising": False}
    await phone.choose(choices=mixed, method="custom")
    await phone.state(HOST.token())
    await publish(phone.shop, theme={"accent": "#aa0000"})
    state = await laptop.state(HOST.token())
    assert state is not None
    assert (state["choices"], state["stale"]) == (mixed, False), "another look asks nothing new"

    await publish(phone.shop, controller={"name": "Somebody else"})
    for each in (phone, laptop):
        state = await each.state(HOST.token())
        assert state is not None
        assert (state["choices"], state["stale"]) == ({"advertising": False}, True)
        assert (await each.current())["choices"] == {"advertising": False}
        assert (await each.current())["stale"] is True


async def test_a_grant_ends_with_its_term(phone: Browser, laptop: Browser) -> None:
    await phone.choose(
        choices=ALL | {"analytics": False}, method="custom", decided_at=ago(days=181)
    )
    await phone.state(HOST.token())

    state = await laptop.state(HOST.token())
    assert state is not None
    assert (state["choices"], state["stale"]) == ({"analytics": False}, True)


async def test_who_opted_out_is_not_asked_again_on_another_device_either(
    phone: Browser, laptop: Browser
) -> None:
    denied = ALL | {"advertising": False}
    await phone.choose(choices=denied, method="custom", region="US-CA", decided_at=ago(days=181))
    await phone.state(HOST.token())

    state = await laptop.state(HOST.token())
    assert state is not None
    assert (state["choices"], state["stale"]) == ({"advertising": False}, False)
    assert (await laptop.current())["stale"] is False


async def test_a_stale_closed_banner_grants_nothing_either(phone: Browser) -> None:
    await phone.choose(method="migrated", decided_at=ago(days=181))

    state = await phone.state(HOST.token())

    assert state is not None
    assert (state["choices"], state["stale"]) == ({}, True)


# --- links by key, and the end of links


def _body(browser: Browser, *users: str) -> dict[str, Any]:
    return {
        "site_key": browser.shop.site_key,
        "visitor_id": browser.visitor_id,
        "identifiers": [{"kind": "user_id", "value": each} for each in users],
    }


async def link(browser: Browser, *users: str) -> dict[str, Any]:
    service = browser.shop.service
    answer = await service.client.post(
        "/v1/visitors/link", json=_body(browser, *users), headers=service.auth()
    )
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_link_by_key_is_as_good_as_one_by_token(phone: Browser, laptop: Browser) -> None:
    await phone.choose()
    await link(phone, "u-1")

    assert (await link(laptop, "u-1"))["state"]["source"] == "other_device"
    assert (await Browser(phone.shop).state(HOST.token(sub="u-1"))) is not None


async def test_a_device_of_several_accounts_leads_from_none_to_another(
    phone: Browser, laptop: Browser
) -> None:
    shared = Browser(phone.shop)
    await link(shared, "bob", "carol")
    await link(phone, "bob")
    await link(laptop, "carol")
    await shared.choose()
    await phone.choose(**REJECTS)

    assert (await shared.current())["choices"] == ALL
    assert (await phone.current())["choices"] == NONE
    assert (await laptop.current())["choices"] is None


async def test_when_the_links_are_gone_each_browser_stands_for_itself(
    phone: Browser, laptop: Browser
) -> None:
    service = phone.shop.service
    await phone.choose()
    for each in (phone, laptop):
        await each.state(HOST.token())
    assert (await laptop.current())["choices"] == ALL

    holders = [each for (each,) in await service.rows("select id from visitor_link")]
    await service.key_store.forget(holders)
    async with service.database.writing() as session:
        await links.forget(session, holders)

    assert (await laptop.current())["choices"] is None
    assert (await phone.current())["choices"] == ALL


async def test_a_link_that_has_expired_counts_no_more(phone: Browser, laptop: Browser) -> None:
    service = phone.shop.service
    await phone.choose()
    for each in (phone, laptop):
        await each.state(HOST.token())
    async with service.database.reading() as session:
        ends = await links.expired(session, utc_now() + dt.timedelta(days=181))
    assert len(ends) == 2
    moved = utc_now() - dt.timedelta(seconds=1)
    async with service.database.writing() as session:
        await session.execute(sa.update(PersonalValue).values(expires_at=moved))

    assert (await laptop.current())["choices"] is None


async def test_what_more_visitors_have_than_one_person_is_refused_as_a_user_id(
    phone: Browser, laptop: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that links all who are not signed in as "guest" would make one person of them."""
    monkeypatch.setattr(links, "MAX_VISITORS", 2)
    service = phone.shop.service
    for each in (phone, laptop):
        await each.state(HOST.token(sub="guest"))
    third, token = Browser(phone.shop), HOST.token(sub="guest")

    by_token = await third.sign_in(token)
    by_key = await service.client.post(
        "/v1/visitors/link",
        json=_body(third, "u-1", "guest"),
        headers=service.auth(),
    )

    for refused in (by_token, by_key):
        assert refused.status_code == 422
        assert refused.json()["type"] == "urn:quittance:problem:too-many-visitors"
        assert "leave them unlinked" in refused.json()["detail"]
    assert len(await service.rows("select id from visitor_link")) == 2, "nothing was kept"
    await phone.state(HOST.token(sub="guest"))  # who is linked stays so
    await third.state(HOST.token(sub="u-1"))
    blog = await open_shop(service)
    await believe(blog, HOST)
    await Browser(blog).state(HOST.token(sub="guest"))  # counted by site

    async with service.database.writing() as session:
        await session.execute(
            sa.update(PersonalValue).values(expires_at=utc_now() - dt.timedelta(seconds=1))
        )
    assert (await Browser(phone.shop).sign_in(token)).status_code == 201, "not used up; links ended"


@pytest.mark.parametrize("order", ["before", "half-way", "after"])
async def test_who_signs_in_while_their_links_end_is_linked_anew(
    phone: Browser, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    """A key that was destroyed meanwhile seals nothing of the new link."""
    service = phone.shop.service
    await phone.state(HOST.token())
    ((holder_id,),) = await service.rows("select id from visitor_link")
    load = service.key_store.load

    async def end() -> None:
        await service.key_store.forget([holder_id])
        if order != "half-way":
            async with service.database.writing() as session:
                await links.forget(session, [holder_id])

    async def meanwhile(holders: list[str]) -> dict[str, HolderKey]:
        monkeypatch.setattr(service.key_store, "load", load)
        if order == "after":
            found = await load(holders)
            await end()
            return found
        await end()
        return await load(holders)

    monkeypatch.setattr(service.key_store, "load", meanwhile)
    await phone.state(HOST.token(email="bob@shop.example", email_verified=True))

    ((new_id,),) = await service.rows("select id from visitor_link")
    async with service.database.reading() as session:
        opened = await vault.open_holder(session, service.key_store, [new_id])
    assert {each.kind for each in opened} == {"user_id", "email"}
    assert await service.rows("select distinct holder_id from personal_value") == [(new_id,)]
    assert await service.key_store.load([holder_id]) == {}


async def test_sign_ins_at_once_do_not_pass_the_limit_and_leave_no_keys(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "MAX_VISITORS", 3)
    answers = await asyncio.gather(
        *(Browser(shop).sign_in(HOST.token(sub="guest")) for _ in range(8))
    )

    assert sorted(each.status_code for each in answers) == [201] * 3 + [422] * 5
    made = [each async for each in shop.service.key_store.made(None, utc_now() + DAY)]
    assert sum(map(len, made)) == 3


# --- who has chosen nothing yet


async def idle_after(shop: Shop, span: dt.timedelta) -> set[str]:
    """The visitors whose links end by then."""
    async with shop.service.database.reading() as session:
        holders = await links.idle(session, utc_now() + span)
    rows = await shop.service.rows("select id, visitor_id from visitor_link")
    return {visitor_id for holder_id, visitor_id in rows if holder_id in holders}


async def test_a_link_ends_soon_where_nothing_was_ever_chosen(
    shop: Shop, phone: Browser, laptop: Browser
) -> None:
    """Each page of somebody who has not chosen is another visitor, for it stores nothing."""
    await phone.state(HOST.token())
    await laptop.state(HOST.token())
    assert await idle_after(shop, links.IDLE - dt.timedelta(minutes=1)) == set()
    both = {phone.visitor_id, laptop.visitor_id}
    assert await idle_after(shop, links.IDLE + dt.timedelta(minutes=1)) == both

    await laptop.choose(**REJECTS)
    assert await idle_after(shop, 2 * links.IDLE) == {phone.visitor_id}, "without another sign-in"


@pytest.mark.parametrize("told", [REJECTS, {"method": "gpc", "gpc": True, "region": "US-CA"}])
async def test_a_link_stays_of_a_device_that_may_have_taken_a_choice_over(
    shop: Shop, phone: Browser, laptop: Browser, told: dict[str, Any]
) -> None:
    await laptop.state(HOST.token())
    await phone.choose(**{"choices": NONE, **told})
    await phone.state(HOST.token())
    tablet = Browser(shop)
    await tablet.linked(HOST.token())
    assert await idle_after(shop, 2 * links.IDLE) == {laptop.visitor_id}

    await laptop.linked(HOST.token())
    assert await idle_after(shop, 2 * links.IDLE) == set()


async def test_a_link_by_key_stays_whoever_signs_in_with_it(shop: Shop, phone: Browser) -> None:
    await link(phone, "bob")
    await phone.state(HOST.token(sub="bob"))
    assert await idle_after(shop, 2 * links.IDLE) == set()

    tablet = Browser(shop)
    await tablet.state(HOST.token(sub="bob"))
    assert await idle_after(shop, 2 * links.IDLE) == {tablet.visitor_id}
    await link(tablet, "bob")
    assert await idle_after(shop, 2 * links.IDLE) == set()


# --- what a refusal on another device takes back


async def test_a_refusal_takes_back_what_was_granted_on_another_device(
    phone: Browser, laptop: Browser
) -> None:
    await phone.choose(
        choices=ALL | {"functional": False}, method="custom", decided_at=ago(minutes=1)
    )
    for each in (phone, laptop):
        await each.state(HOST.token())
    await laptop.choose(choices=ALL | {"advertising": False}, method="custom")
    await laptop.choose(**REJECTS)

    assert await phone.shop.outbox() == [
        (laptop.visitor_id, ["advertising"]),
        (laptop.visitor_id, ["analytics", "functional"]),
    ]
    assert await phone.shop.outbox(is_grant=True) == [(laptop.visitor_id, ["functional"])]


@pytest.mark.parametrize(
    "record",
    [
        {"choices": NONE, "method": "reject_all", "decided_at": ago(minutes=5)},
        {"choices": NONE, "method": "dismissed"},
        {
            "choices": NONE,
            "method": "gpc",
            "gpc": True,
            "region": "US-CA",
            "decided_at": ago(minutes=5),
        },
    ],
)
async def test_an_older_choice_or_none_takes_nothing_back(
    phone: Browser, laptop: Browser, record: dict[str, Any]
) -> None:
    await phone.choose(decided_at=ago(minutes=1))
    for each in (phone, laptop):
        await each.state(HOST.token())
    await laptop.choose(**record)

    assert await phone.shop.outbox() == []


async def test_a_signal_in_one_browser_opts_the_known_consumer_out_until_they_choose_otherwise(
    phone: Browser, laptop: Browser
) -> None:
    """11 CCR 7025(c)(1)."""
    await phone.choose(region="US-CA", decided_at=ago(minutes=2))
    for each in (phone, laptop):
        await each.state(HOST.token())
    await laptop.choose(**SIGNAL, decided_at=ago(minutes=1))
    await laptop.choose(**SIGNAL)
    assert await phone.shop.outbox() == [(laptop.visitor_id, ["advertising"])]

    limit: dict[str, Any] = {"method": "custom", "choices": {"functional": False}}
    await phone.choose(region="US-CA", **limit)
    assert await phone.shop.outbox(is_grant=True) == [], "it says nothing of what was denied"

    await phone.choose(region="US-CA")
    granted = [(phone.visitor_id, ["advertising", "functional"])]
    assert await phone.shop.outbox(is_grant=True) == granted


@pytest.mark.parametrize(
    "late", [REJECTS, {"choices": ALL | {"functional": False}, "method": "custom"}]
)
async def test_a_choice_that_comes_in_after_a_later_signal_is_carried_all_the_same(
    phone: Browser, laptop: Browser, late: dict[str, Any]
) -> None:
    await phone.choose(region="US-CA", decided_at=ago(minutes=3))
    for each in (phone, laptop):
        await each.state(HOST.token())
    await laptop.choose(**SIGNAL, decided_at=ago(minutes=1))
    await phone.choose(**late, region="US-CA", decided_at=ago(minutes=2))

    refused = sorted(purpose for purpose, granted in late["choices"].items() if not granted)
    assert await phone.shop.outbox() == [
        (laptop.visitor_id, ["advertising"]),
        (phone.visitor_id, refused),
    ]


async def test_a_person_we_know_who_refuses_under_the_signal_is_opted_out_of_all_of_it(
    laptop: Browser,
) -> None:
    await laptop.state(HOST.token())
    await laptop.choose(**REJECTS, gpc=True, region="US-CA")

    assert await laptop.shop.outbox() == [
        (laptop.visitor_id, ["advertising", "analytics", "functional"])
    ]


@pytest.mark.parametrize(
    ("record", "carried"),
    [
        (SIGNAL, ["advertising"]),
        (REJECTS | {"region": "US-CA"}, ["advertising", "analytics", "functional"]),
        (REJECTS, []),  # under a law that asks first, nothing has run
    ],
)
async def test_what_was_refused_before_anybody_signed_in_is_carried_once_we_know_who_it_was(
    laptop: Browser, record: dict[str, Any], carried: list[str]
) -> None:
    await laptop.choose(**record)
    at_once = await laptop.shop.outbox()
    for _ in range(2):
        await laptop.state(HOST.token())

    told = [(laptop.visitor_id, carried)] if carried else []
    assert await laptop.shop.outbox() == at_once + told


async def test_signing_in_settles_what_other_devices_had_said(
    phone: Browser, laptop: Browser
) -> None:
    await phone.choose(
        choices=ALL | {"functional": False}, decided_at=ago(minutes=2), method="custom"
    )
    await phone.state(HOST.token())
    await laptop.choose(
        choices=NONE | {"functional": True}, decided_at=ago(minutes=1), method="custom"
    )
    assert await laptop.shop.outbox() == []

    await laptop.state(HOST.token())

    assert await laptop.shop.outbox() == [(laptop.visitor_id, ["advertising", "analytics"])]
    assert await laptop.shop.outbox(is_grant=True) == [(laptop.visitor_id, ["functional"])]


@pytest.mark.parametrize("is_linked_first", [False, True])
async def test_who_limits_one_purpose_grants_none_of_those_that_run_unasked(
    phone: Browser, laptop: Browser, *, is_linked_first: bool
) -> None:
    """Before the laptop says whose it is, it knows nothing of what the phone refused."""
    california: dict[str, Any] = {"region": "US-CA"}
    await phone.choose(**california, **REJECTS, decided_at=ago(minutes=2))
    await phone.state(HOST.token())
    if is_linked_first:
        await laptop.state(HOST.token())
    await laptop.choose(**california, method="custom", choices={"functional": True})
    await laptop.state(HOST.token())

    held = NONE | {"functional": True}
    assert (await phone.current())["choices"] == held
    assert (await laptop.current())["choices"] == held
    granted = await phone.shop.outbox(is_grant=True)
    assert granted == [(laptop.visitor_id, ["functional"])]
    told = await laptop.state(HOST.token())
    assert told is not None
    assert told["source"] == "other_device", "it has a say in what this one left be"


@pytest.mark.parametrize("more_choices", [0, 3])
async def test_what_a_device_left_be_is_what_was_chosen_on_it_before(
    phone: Browser, laptop: Browser, more_choices: int
) -> None:
    """The laptop's refusal is older than the phone's acceptance, which a new notice let lapse."""
    california: dict[str, Any] = {"region": "US-CA"}
    await laptop.choose(**california, **REJECTS, decided_at=ago(minutes=9))
    await phone.choose(**california, decided_at=ago(minutes=8))
    for each in (laptop, phone):
        await each.state(HOST.token())
    await publish(phone.shop, controller={"name": "Somebody else"})
    limit: dict[str, Any] = {"method": "custom", "choices": {"functional": True}}
    for minutes in range(1 + more_choices):
        await phone.choose(**california, **limit, decided_at=ago(minutes=7 - minutes))

    for each in (laptop, phone):
        assert (await each.current())["choices"] == {"functional": True}
    await laptop.choose(**california, **REJECTS)
    told = await phone.shop.outbox()
    assert told[-1] == (laptop.visitor_id, ["advertising", "analytics", "functional"])


@pytest.mark.parametrize(
    ("looked_at", "left"),
    [(3, ALL), (2, {"analytics": True, "advertising": True})],
)
async def test_choices_of_some_purposes_hide_what_is_older_than_those_that_are_looked_at(
    phone: Browser,
    laptop: Browser,
    monkeypatch: pytest.MonkeyPatch,
    looked_at: int,
    left: dict[str, bool],
) -> None:
    monkeypatch.setattr(devices, "_BACK", looked_at)
    for minutes, name in ((3, "functional"), (2, "analytics"), (1, "advertising")):
        partial: dict[str, Any] = {"method": "custom", "region": "US-CA"}
        await phone.choose(**partial, choices={name: True}, decided_at=ago(minutes=minutes))
    for each in (phone, laptop):
        await each.state(HOST.token())

    assert (await laptop.current())["choices"] == left


@pytest.mark.parametrize(("region", "mode"), [("DE", "opt_in"), ("US-CA", "opt_out")])
async def test_a_page_is_told_how_the_person_was_asked(
    phone: Browser, laptop: Browser, region: str, mode: str
) -> None:
    await phone.choose(region=region)
    await phone.state(HOST.token())

    state = await laptop.state(HOST.token())
    assert state is not None
    assert state["mode"] == mode


async def test_in_one_batch_each_persons_refusal_takes_back_their_own_grants(
    shop: Shop, phone: Browser, laptop: Browser
) -> None:
    tablet, watch = Browser(shop), Browser(shop)
    await phone.choose(
        choices=NONE | {"analytics": True}, method="custom", decided_at=ago(minutes=1)
    )
    await tablet.choose(
        choices=NONE | {"functional": True}, method="custom", decided_at=ago(minutes=1)
    )
    for each, user in ((phone, "bob"), (laptop, "bob"), (tablet, "carol"), (watch, "carol")):
        await each.state(HOST.token(sub=user))
    await asyncio.gather(*(each.choose(**REJECTS) for each in (laptop, watch)))

    assert sorted(await shop.outbox()) == sorted(
        [(laptop.visitor_id, ["analytics"]), (watch.visitor_id, ["functional"])]
    )


async def test_in_one_batch_a_refusal_takes_back_what_another_device_grants_in_it(
    shop: Shop, phone: Browser, laptop: Browser
) -> None:
    for each in (phone, laptop):
        await each.state(HOST.token())
    await asyncio.gather(
        phone.choose(decided_at=ago(seconds=2)), laptop.choose(**REJECTS, decided_at=ago(seconds=1))
    )

    assert await shop.outbox() == [(laptop.visitor_id, ["advertising", "analytics", "functional"])]


class Pausing(Database):
    """Holds a transaction just before its commit."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.has_written, self.may_commit = asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncSession]:
        async with super().writing() as session:
            yield session
            self.has_written.set()
            await self.may_commit.wait()


async def test_two_processes_take_turns_at_a_person(
    shop: Shop, phone: Browser, laptop: Browser
) -> None:
    for each in (phone, laptop):
        await each.state(HOST.token())
    other = Pausing(shop.service.database.url)
    state = shop.service.app.state
    state.consents, usual = ConsentWriter(other), state.consents
    state.consents.start()
    granting = asyncio.create_task(phone.choose(decided_at=ago(seconds=2)))
    await other.has_written.wait()
    state.consents, other_writer = usual, state.consents
    refusing = asyncio.create_task(laptop.choose(**REJECTS))
    await asyncio.sleep(0.3)
    waits = not refusing.done()
    other.may_commit.set()
    await asyncio.gather(granting, refusing)
    await other_writer.stop()
    await other.close()

    assert waits
    assert await shop.outbox() == [(laptop.visitor_id, ["advertising", "analytics", "functional"])]


async def test_a_refusal_of_one_person_takes_nothing_back_for_another(
    phone: Browser, laptop: Browser
) -> None:
    await phone.choose(decided_at=ago(minutes=1))
    await phone.state(HOST.token(sub="bob"))
    await laptop.state(HOST.token(sub="carol"))
    await laptop.choose(**REJECTS)

    assert await phone.shop.outbox() == []
