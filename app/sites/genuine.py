"""Whether a notice version still says what was published: its content against its hash."""

from __future__ import annotations

from typing import Any

from app.core.logging import get_logger
from app.sites.changes import sha256_of
from app.sites.directory import Notice, notice_of
from app.sites.errors import NoticeAltered
from app.sites.models import NoticeVersion

log = get_logger(__name__)


def is_genuine(content: Any, sha256: str) -> bool:
    return sha256_of(content) == sha256


def genuine(version: NoticeVersion) -> Notice:
    """The version to be shown as proof; ``NoticeAltered`` when it is not what was published."""
    if not is_genuine(version.content, version.sha256):
        log.error("notice_altered", site_id=version.site_id, version=version.number)
        raise NoticeAltered(version.id)
    return notice_of(version)
