"""A published notice for the tests of pure functions."""

from __future__ import annotations

import datetime as dt

from app.sites import changes, directory, service
from app.sites.config import SiteConfig
from app.sites.models import NoticeVersion, Site


def notice(config: SiteConfig, now: dt.datetime) -> directory.Notice:
    site = Site(
        id="sit_1", workspace_id="wsp_1", site_key="site_1", name="Shop", origins=[],
        draft=config.model_dump(mode="json"), created_at=now,
    )  # fmt: skip
    content = service.content_of(site)
    version = NoticeVersion(
        id="ntv_1", site_id="sit_1", number=1, sha256=changes.sha256_of(content), content=content,
        published_at=now, published_by="alice",
    )  # fmt: skip
    return directory.notice_of(version)
