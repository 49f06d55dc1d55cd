"""Consent records go when their time is over, and never while the choice holds."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlmodel import col

from app.consent.models import VisitorLink
from app.core import bulk
from app.core.clock import utc_now
from app.core.settings import Settings
from tests.running import Service
from tests.subject_requests.site_stage import Site, visitors


async def kept(service: Service, table: str = "consent_record") -> int:
    return int((await service.rows(f"select count(*) from {table}"))[0][0])


async def test_a_record_and_its_receipt_go_when_their_time_is_over(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "BITE", 2)
    service, people = site.service, visitors(5)
    for visitor in people:
        await site.choose(visitor, "accept_all", True)
    ((consent_id,), *_) = await service.rows("select id from consent_record")
    receipt = await service.client.get(f"/v1/receipts/{consent_id}")
    assert receipt.status_code == 200, receipt.text

    service.later(days=1119)
    await service.maintain()
    assert (await kept(service), await kept(service, "consent_receipt")) == (5, 1)

    service.later(days=1)
    await site.choose(people[0], "reject_all", False)
    await service.maintain()
    while await kept(service) > 1:
        await service.maintain()

    assert await kept(service, "consent_receipt") == 0
    assert set((await site.choices(people[0])).values()) == {False}


def test_records_outlive_what_they_have_suppressed(tmp_path: Path) -> None:
    found = Settings(data_dir=tmp_path, consent_record_days=1120, suppression_months=60).problems()
    assert [each.partition(" ")[0] for each in found] == ["QUITTANCE_CONSENT_RECORD_DAYS"]
    assert not Settings(data_dir=tmp_path).problems()


async def test_a_link_under_which_nothing_was_chosen_in_time_goes_with_its_key(site: Site) -> None:
    service, (chose, idle, stays) = site.service, visitors(3)
    for visitor in (chose, idle, stays):
        await site.link(visitor, user_id="bob")
    async with service.runtime.database.writing() as session:
        for visitor in (chose, idle):
            await session.execute(
                sa.update(VisitorLink)
                .where(col(VisitorLink.visitor_id) == visitor)
                .values(idle_until=utc_now() + dt.timedelta(hours=6))
            )
    holders = {visitor: holder for holder, visitor in await service.rows(LINKS)}
    await site.choose(chose, "accept_all", True)

    await service.maintain()
    assert len(await kept_links(service)) == 3
    service.later(hours=7)
    await service.maintain()

    assert await kept_links(service) == {chose, stays}
    found = await service.runtime.keys.load(list(holders.values()))
    assert set(found) == {holders[chose], holders[stays]}
    assert await kept(service, "personal_value") == 2


LINKS = "select id, visitor_id from visitor_link"


async def kept_links(service: Service) -> set[str]:
    return {visitor for _, visitor in await service.rows(LINKS)}
