"""What a receipt says: built from facts by pure functions, never more than was seen.

Field names after security.md 3.3; the mapping from delivery states is the table of design section
4.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from app.core.clock import rfc3339
from app.receipts.canonical import canonical

VERSION = 1


@dataclass(frozen=True, slots=True)
class DeliveryFact:
    """A delivery as the receipt needs it; ``evidence`` is the one of its newest transition."""

    ref: str
    connector: str
    operation: str
    state: str
    detail: str | None
    assurance: str
    attempt: int
    reason: str | None
    requested_at: dt.datetime
    settled_at: dt.datetime | None
    evidence: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Told:
    """A delivery's words in a receipt, and what it counts as: complete, residual, exception or
    open.
    """

    state: str
    assurance: str
    counts_as: str


_DONE_WORD = {"erase": "deleted", "suppress": "suppressed", "unsuppress": "unsuppressed"}


def tell(fact: DeliveryFact) -> Told:
    """The table of design section 4."""
    match (fact.state, fact.detail):
        case ("succeeded", "done"):
            word = "anonymised" if fact.evidence.get("anonymised") else _DONE_WORD[fact.operation]
            return Told(word, fact.assurance, "complete")
        case ("succeeded", "absent"):
            return Told("not_found", "confirmed", "complete")
        case ("succeeded", "accepted_unconfirmable"):
            return Told("accepted", "acknowledged", "residual")
        case ("succeeded", "skipped") if fact.reason == NO_IDENTIFIER:
            return Told("not_applicable", "none", "exception")
        case ("succeeded", "skipped"):
            return Told("not_applicable", "none", "complete")
        case ("discarded", "overtaken"):  # a later request of the person took its place
            return Told("not_applicable", "none", "complete")
        case ("discarded", "unconfirmed"):
            return Told("accepted", "acknowledged", "exception")
        case ("discarded", "failed"):
            return Told(
                "refused" if fact.evidence.get("verdict") == "failed" else "failed",
                "requested",
                "exception",
            )
        case ("discarded", _):
            return Told("failed", "requested", "exception")
        case ("archived", _):
            return Told("failed", "requested", "exception")
        case _:
            return Told("pending", "requested", "open")


NO_IDENTIFIER = "no_usable_identifier"


def outcome_of(told: Sequence[Told], *, is_refused: bool, has_residuals: bool) -> str:
    """complete, complete_with_residuals, partial or refused."""
    if is_refused:
        return "refused"
    kinds = {each.counts_as for each in told}
    if kinds & {"exception", "open"}:
        return "partial"
    return "complete_with_residuals" if has_residuals or "residual" in kinds else "complete"


def destinations_json(facts: Sequence[DeliveryFact]) -> list[dict[str, Any]]:
    """One entry per delivery: the destination's kind, never its label."""
    entries = []
    for fact in facts:
        told = tell(fact)
        entry = {
            "ref": fact.ref,
            "kind": fact.connector,
            "operation": _operation_word(fact, told),
            "state": told.state,
            "assurance": told.assurance,
            "requested_at": rfc3339(fact.requested_at),
            "settled_at": rfc3339(fact.settled_at),
            "attempts": fact.attempt,
        }
        if digest := fact.evidence.get("sha256"):
            entry["evidence"] = digest
        if fact.reason:
            entry["reason"] = fact.reason
        entries.append(entry)
    return entries


def _operation_word(fact: DeliveryFact, told: Told) -> str:
    if fact.operation == "erase":
        return "anonymise" if told.state == "anonymised" else "delete"
    return fact.operation


def residuals_json(facts: Sequence[DeliveryFact]) -> list[dict[str, Any]]:
    """What destinations keep on purpose, each once."""
    seen: dict[tuple[str, str, str | None], dict[str, Any]] = {}
    for fact in facts:
        for each in fact.evidence.get("residuals", []):
            entry = {
                "ref": fact.ref,
                "what": each["what"],
                "form": "destination_record",
                "basis": each["reason"],
            }
            if each.get("until"):
                entry["until"] = each["until"]
            seen[fact.ref, each["what"], each.get("until")] = entry
    return list(seen.values())


def own_records_json(
    *, suppression_until: dt.datetime | None, record_until: dt.datetime, forget_after_days: int
) -> list[dict[str, Any]]:
    """What this service keeps itself, which does not count against the outcome."""
    records: list[dict[str, Any]] = [
        {"what": "request_record", "form": "without identifiers", "until": rfc3339(record_until)},
        {
            "what": "identifiers_and_contact",
            "form": "encrypted; the key is destroyed",
            "until": f"{forget_after_days} days after this receipt was delivered",
        },
        {
            "what": "backups",
            "form": "encrypted, without the key store",
            "until": "overwritten by the operator's rotation",
        },
    ]
    if suppression_until is not None:
        records.insert(
            0,
            {
                "what": "suppression_entry",
                "form": "keyed digest",
                "until": rfc3339(suppression_until),
            },
        )
    return records


@lru_cache(maxsize=64)
def policy_json(**rules: int | bool) -> dict[str, Any]:
    """The retention rules in force, fixed by their digest. The answer is shared: leave it as it
    is.
    """
    return {"version": VERSION, "sha256": hashlib.sha256(canonical(rules)).hexdigest()}
