"""What an auditor gets for a consent: the record by the names of ISO/IEC TS 27560:2023, and what
the visitor was shown. Pure functions.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from app.consent.models import ConsentRecord
from app.consent.schemas import Method
from app.core.clock import rfc3339
from app.destinations.models import Destination
from app.sites import regimes
from app.sites.banner import spoken, texts_under
from app.sites.directory import Notice
from app.sites.models import NoticeVersion

SCHEMA_VERSION = "ISO/IEC TS 27560:2023"
WITHDRAWAL = (
    "in the banner's settings, which the site opens by a link of its own; this record does not "
    "show that link"
)


def shown(record: ConsentRecord, notice: Notice, version: NoticeVersion) -> dict[str, Any]:
    """The words of the notice version in the visitor's own language, under the law that was
    applied, but for labels that are not on the screen under it. Whoever has the version's whole
    content can compute ``version_hash`` anew.
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
        "texts": _on_screen(record, spoken(texts_under(said["texts"], mode), mode, content)),
        "purposes": [each | said["purposes"][each["id"]] for each in content["purposes"]],
        "policy_url": content["policy_url"],
        "controller": content["controller"],
    }


def _on_screen(record: ConsentRecord, texts: dict[str, str]) -> dict[str, str]:
    """A banner that only tells and was closed had one button; others are in the settings."""
    is_told = record.method == "dismissed" and "understood" in texts
    unseen = {"accept", "reject"} if is_told else set()
    return {key: text for key, text in texts.items() if key not in unseen}


def mode_of(record: ConsentRecord, notice: Notice) -> str:
    """How the visitor was asked: opt_in, opt_out or notice."""
    if said := notice.content["regimes"].get(record.regime):
        return str(said["mode"])
    law = regimes.load().get(record.regime)  # the region's own, which the site does not list
    return law.mode if law else "opt_in"


class State(StrEnum):
    """What a record says of consent to a purpose. The W3C DPV has consent statuses of these names,
    but for the last of a purpose and that of an event."""

    GIVEN = "given"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"
    DEFERRED = "deferred"
    """The banner was closed without an answer, and the purpose stays off."""
    UNKNOWN = "unknown"
    """It runs on an earlier consent, of which there is no record here."""
    NOT_OBJECTED = "not_objected"
    """It runs because the law lets it run before a choice; nobody was asked for consent to it."""
    MIXED = "mixed"
    """Of an event: the purposes differ."""


_GRANTS_ALL = frozenset({Method.ACCEPT_ALL, Method.API})
"""Grants each purpose by an act, whatever ran before."""
_EXPLICIT = frozenset({Method.ACCEPT_ALL, Method.REJECT_ALL, Method.CUSTOM, Method.WITHDRAWAL})


@dataclass(frozen=True, slots=True)
class Told:
    """A record with what it takes to say what it means. ``previous``: the visitor's choice before
    it, if there was one."""

    record: ConsentRecord
    notice: Notice
    site_key: str
    site_name: str
    previous: ConsentRecord | None = None

    @property
    def mode(self) -> str:
        return mode_of(self.record, self.notice)

    def states(self) -> dict[str, State]:
        """By purpose; the required ones are no choice."""
        return {
            purpose: self._granted(purpose) if granted else self._denied(purpose)
            for purpose, granted in sorted(self.record.choices.items())
        }

    def state(self) -> State:
        """Of the event as a whole."""
        if self.record.method == Method.WITHDRAWAL:
            return State.WITHDRAWN
        found = set(self.states().values())
        return found.pop() if len(found) == 1 else State.MIXED if found else State.UNKNOWN

    def _granted(self, purpose: str) -> State:
        method = self.record.method
        if method in _GRANTS_ALL:
            return State.GIVEN
        is_kept = self._before(purpose) is True and self._was_consent()
        if self.mode == "opt_in":
            is_given = is_kept or method in {Method.CUSTOM, Method.MIGRATED}
            return State.GIVEN if is_given else State.UNKNOWN
        is_given = method == Method.CUSTOM and (is_kept or self._was_off(purpose))
        return State.GIVEN if is_given else State.NOT_OBJECTED

    def _denied(self, purpose: str) -> State:
        method, before = self.record.method, self._before(purpose)
        if before is False:
            was_withdrawn = self.previous and self.previous.method == Method.WITHDRAWAL
            again = was_withdrawn and method == Method.WITHDRAWAL
            return State.WITHDRAWN if again else State.REFUSED
        if method == Method.WITHDRAWAL or (before and self._was_consent()):
            return State.WITHDRAWN
        if method == Method.DISMISSED and not self._is_signalled(purpose):
            return State.DEFERRED
        return State.REFUSED

    def _before(self, purpose: str) -> bool | None:
        return self.previous.choices.get(purpose) if self.previous else None

    def _was_off(self, purpose: str) -> bool:
        """Its box was not ticked beforehand, so that the person has ticked it."""
        return self._before(purpose) is False or self._is_signalled(purpose)

    def _is_signalled(self, purpose: str) -> bool:
        regime = self.notice.content["regimes"].get(self.record.regime, {})
        is_heeded = self.record.gpc and regime.get("honours_gpc", False)
        return is_heeded and purpose in self.notice.denied_by_gpc

    def _was_consent(self) -> bool:
        """What the choice before granted was consent, which had not run out."""
        before = self.previous
        if before is None or before.expires_at <= self.record.decided_at:
            return False
        is_asked = self.mode == "opt_in" and before.regime == self.record.regime
        return is_asked or before.method in _GRANTS_ALL


def iso_27560(told: Told, principal: str) -> dict[str, Any]:
    """The record by the field names of ISO/IEC TS 27560:2023 (after the W3C DPV guide of
    2026-02-15); ``extension`` holds what the standard has no name for. What the service cannot know
    is left out: see docs/how-to/answer-an-auditor.md. ``principal``: how the visitor is named.
    """
    record, notice = told.record, told.notice
    controller = notice.content["controller"]
    return {
        "schema_version": SCHEMA_VERSION,
        "record_id": record.id,
        "pii_principal_id": principal,
        "pii_processing": {
            "privacy_notice": notice.content["policy_url"] or None,
            "language": record.language,
            "jurisdiction": record.regime,
            "withdrawal_method": WITHDRAWAL,
            "service": told.site_key,
            "pii_controllers": [told.site_key],
            "purposes": _purposes(told),
        },
        "party_identification": [
            {
                "party_id": told.site_key,
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
            "event_state": told.state().value,
        },
        "extension": {
            "site_name": told.site_name,
            "notice_version": record.notice_version_id,
            "version_hash": notice.sha256,
            "mode": told.mode,
            "choice_source": record.method,
            "gpc": record.gpc,
            "gpc_applied": record.is_gpc_applied,
            "region": record.region,
            "recorded_at": rfc3339(record.recorded_at),
        },
    }


def _purposes(told: Told) -> list[dict[str, Any]]:
    """Where the law asks first, consent is the basis. Elsewhere it is only where it was given; on
    what else a purpose stands, if on anything, its controller knows."""
    said = told.notice.content["languages"][told.record.language]["purposes"]
    found = []
    for purpose, state in told.states().items():
        each = {
            "purpose": said[purpose]["name"],
            "purpose_type": purpose,
            "event_state": state.value,
        }
        is_asked = told.mode == "opt_in" and state is not State.UNKNOWN
        if is_asked or state is State.GIVEN:
            each["lawful_basis"] = "consent"
        found.append(each)
    return found


def for_auditor(
    told: Told, destinations: Iterable[Destination], kept: dt.timedelta
) -> dict[str, Any]:
    """``iso_27560`` with what only the controller may see or what may change later, so that no
    receipt says it: which record came before, until when this one stays, and to which of today's
    ``destinations`` its purposes are mapped.
    """
    record = told.record
    found = iso_27560(told, record.visitor_id)
    found["extension"] |= {
        "idempotency_id": record.event_id,
        "previous_record_id": told.previous.id if told.previous else None,
        "record_kept_until": rfc3339(max(record.recorded_at + kept, record.expires_at)),
        "destinations": [
            {
                "destination_id": each.id,
                "connector": each.connector,
                "purposes": mapped,
                "since": rfc3339(each.created_at),
            }
            for each in destinations
            if (mapped := _mapped(each, record))
        ],
    }
    return found


def _mapped(destination: Destination, record: ConsentRecord) -> list[str]:
    """A destination that names no purposes, or no regimes, is for all."""
    if destination.regimes and record.regime not in destination.regimes:
        return []
    return sorted(
        each for each in record.choices if not destination.purposes or each in destination.purposes
    )
