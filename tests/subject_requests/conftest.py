"""Fixtures of what visitors choose."""

from __future__ import annotations

import pytest

from tests.running import Double, Service
from tests.subject_requests.site_stage import Site, open_site


@pytest.fixture
async def site(service: Service) -> Site:
    return await open_site(service)


@pytest.fixture
async def stats(service: Service) -> Double:
    """A destination that is mapped to analytics."""
    return await service.destination("stats", more={"purposes": ["analytics"]})
