"""What an auditor gets for a consent: the record by the names of ISO/IEC TS 27560:2023, and what
the visitor was shown. Pure functions.
"""

from __future__ import annotations

from typing import Any

from app.consent.models import ConsentRecord
from app.core.clock import rfc3339
from app.sites import regimes
from app.sites.banner import texts_under
from app.sites.directory import Notice
from app.sites.models import NoticeVersion

SCHEMA_VERSION = "ISO/IEC TS 27560:2023"


def shown(record: ConsentRecord, notice: Notice, version: NoticeVersion) -> dict[str, Any]:
    """The words of the notice version in the visitor's own language, under the law that was
    applied. Whoever has the version's whole content can compute ``version_hash`` anew.
    """
    content = notice.content
    said = content["languages"][record.language]
    mode = mode_of(record, notice)
    return {
        "notice_version": version.id,
        "number": version.number,
        "version_hash": version.sha256,
        "published_at": rfc3339(version.published_at),
        "language": record.language,
        "regime": record.regime,
        "mode": mode,
        "texts": texts_under(said["texts"], mode),
        "purposes": [each | said["purposes"][each["id"]] for each in content["purposes"]],
        "policy_url": content["policy_url"],
        "controller": content["controller"],
    }


def mode_of(record: ConsentRecord, notice: Notice) -> str:
    """How the visitor was asked: opt_in, opt_out or notice."""
    if said := notice.content["regimes"].get(record.regime):
        return str(said["mode"])
    law = regimes.load().get(record.regime)  # the region's own, which the site does not list
    return law.mode if law else "opt_in"


def iso_27560(
    record: ConsentRecord, site_key: str, notice: Notice, principal: str
) -> dict[str, Any]:
    """The record by the field names of ISO/IEC TS 27560:2023 (after the W3C DPV guide of
    2026-02-15); ``extension`` holds what the standard has no name for. Fields that the service
    cannot know (third parties, legal bases of the controller's own) are left out. ``principal``:
    how the visitor is named.
    """
    controller = notice.content["controller"]
    said = notice.content["languages"][record.language]["purposes"]
    return {
        "schema_version": SCHEMA_VERSION,
        "record_id": record.id,
        "pii_principal_id": principal,
        "pii_processing": {
            "privacy_notice": notice.content["policy_url"] or None,
            "language": record.language,
            "jurisdiction": record.regime,
            "collection_method": record.method,
            "withdrawal_method": "the banner's settings, which stay on every page",
            "retention_period": rfc3339(record.expires_at),
            "service": site_key,
            "purposes": [
                {
                    "purpose": said[each]["name"],
                    "purpose_type": each,
                    "lawful_basis": "consent",
                    "event_state": "given" if granted else "refused",
                }
                for each, granted in sorted(record.choices.items())
            ],
        },
        "party_identification": [
            {
                "party_id": site_key,
                "party_name": controller["name"],
                "party_contact": controller["contact"],
                "party_role": "pii_controller",
            }
        ],
        "event": {
            "event_time": rfc3339(record.decided_at),
            "validity_duration": rfc3339(record.expires_at),
            "entity_id": principal,
            "event_type": "explicit" if record.method in _EXPLICIT else "other",
            "event_state": "given" if any(record.choices.values()) else "refused",
        },
        "extension": {
            "notice_version": record.notice_version_id,
            "version_hash": notice.sha256,
            "choice_source": record.method,
            "gpc": record.gpc,
            "gpc_applied": record.is_gpc_applied,
            "region": record.region,
            "recorded_at": rfc3339(record.recorded_at),
            "idempotency_id": record.event_id,
        },
    }


_EXPLICIT = frozenset({"accept_all", "reject_all", "custom", "withdrawal"})
