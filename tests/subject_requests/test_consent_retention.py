"""Consent records go when their time is over, and never while the choice holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.core import bulk
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
