"""A choice that was acknowledged is stored, whatever happens to the process next."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from app.core.clock import rfc3339, utc_now
from tests.journeys.instance import Instance

SHOP = "https://shop.example"
ENOUGH = 100


@pytest.mark.slow
@pytest.mark.parametrize("instance", ["embedded", "redis"], indirect=True)
def test_no_acknowledged_choice_is_lost_to_a_kill(instance: Instance) -> None:
    made = instance.api.post("/v1/sites", json={"name": "Shop", "origins": [SHOP]}).json()
    published = instance.api.post(f"/v1/sites/{made['site_key']}/publish").json()
    acknowledged: list[dict[str, Any]] = []
    enough = threading.Event()

    def visit(_: int) -> None:
        """Visitors who reject, one after the other, until nobody answers any more."""
        with httpx.Client(base_url=instance.base_url, timeout=30, trust_env=False) as client:
            while True:
                body = {
                    "event_id": str(uuid.uuid4()), "visitor_id": str(uuid.uuid4()),
                    "site_key": made["site_key"], "notice_version": published["notice_version"],
                    "choices": dict.fromkeys(("functional", "analytics", "advertising"), False),
                    "method": "reject_all", "language": "en", "region": "DE", "gpc": False,
                    "decided_at": rfc3339(utc_now()),
                }  # fmt: skip
                try:
                    answer = client.post("/v1/consent", json=body, headers={"Origin": SHOP})
                except httpx.TransportError:
                    return
                assert answer.status_code == 201, answer.text
                acknowledged.append(answer.json())
                if len(acknowledged) >= ENOUGH:
                    enough.set()

    with ThreadPoolExecutor(16) as pool:
        visits = pool.map(visit, range(16))
        assert enough.wait(30)
        instance.kill()
        list(visits)
    instance.start()

    stored = instance.api.get("/v1/consents/export").text
    assert len(acknowledged) >= ENOUGH
    assert [each for each in acknowledged if each["consent_id"] not in stored] == []
