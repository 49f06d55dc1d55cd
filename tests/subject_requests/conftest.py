"""Fixtures of what visitors choose."""

from __future__ import annotations

import pytest

from tests.running import Double, Service
from tests.subject_requests.site_stage import SHOP, Site


@pytest.fixture
async def site(service: Service) -> Site:
    made = await service.post("/v1/sites", {"name": "Shop", "origins": [SHOP]}, 201)
    version = await service.post(f"/v1/sites/{made['site_key']}/publish")
    return Site(service, made["site_key"], version["notice_version"])


@pytest.fixture
async def stats(service: Service) -> Double:
    """A destination that is mapped to analytics."""
    return await service.destination("stats", more={"purposes": ["analytics"]})
