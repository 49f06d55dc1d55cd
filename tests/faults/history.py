"""The history checker: what destinations saw, what the service wrote down and what its receipts
claim are held against the invariants of a fault run.

Plain data in, violations out: a history is collected from running processes (``collect.py``), from
the service in one process (``test_mixture.py``), or written by hand to test the checker.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Value = tuple[str, str]
"""An identifier: kind and value."""
Person = frozenset[Value]

RECOVERY_SECONDS = 30.0
PROVEN_BY = {
    "deleted": "done",
    "suppressed": "done",
    "unsuppressed": "done",
    "anonymised": "done",
    "not_found": "absent",
    "accepted": "accepted",
}
"""What a receipt says of a destination -> the word that destination must have answered."""
COMPLETE = {"deleted", "suppressed", "unsuppressed", "anonymised", "not_found", "not_applicable"}


@dataclass(slots=True)
class Hit:
    """One call as its destination saw it, noted on arrival; ``told``: delivery id -> the word that
    was answered, empty as long as (or because) no answer went out. ``at``: Unix seconds.
    """

    at: float
    destination: str
    key: str
    people: Mapping[str, Person]
    told: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """One transition of a delivery."""

    state: str
    detail: str | None = None
    call_id: str | None = None
    evidence: str | None = None
    """The digest that a receipt repeats."""

    @property
    def has_ended(self) -> bool:
        return self.state in {"succeeded", "discarded"}


@dataclass(frozen=True, slots=True)
class Delivery:
    request_id: str
    destination: str
    steps: Sequence[Step]


@dataclass(frozen=True, slots=True)
class Request:
    """``outcome`` is None until the end; a duplicate shares the deliveries of its original."""

    outcome: str | None
    duplicate_of: str | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """``open_calls``: ids of the calls in flight when it struck; ``recovered_after``: seconds from
    its end until the service answered again, None if it never did.
    """

    name: str
    open_calls: frozenset[str]
    recovered_after: float | None


@dataclass(slots=True)
class History:
    """Everything a run left behind. Ids are keys: of requests, deliveries, calls."""

    asked: Mapping[str, Person]
    """Acknowledged requests, and whom each one named."""
    requests: Mapping[str, Request]
    deliveries: Mapping[str, Delivery]
    calls: Mapping[str, frozenset[str]]
    """Call id -> delivery ids, as written down before sending."""
    hits: Sequence[Hit]
    receipts: Mapping[str, Mapping[str, Any]]
    """Request id -> claims of the newest receipt; only those whose signature holds."""
    faults: Sequence[Fault] = ()
    alarmed: frozenset[str] = frozenset()
    """Deliveries somebody was told about: archived ones, and those in a parked queue."""
    removed: Mapping[str, Person] = field(default_factory=dict)
    """Destination -> all that is gone there."""
    sinks: Mapping[str, bytes] = field(default_factory=dict)
    """Where no identifier may be: logs, databases, broker."""

    def hits_of(self, delivery_id: str) -> list[Hit]:
        return [hit for hit in self.hits if delivery_id in hit.people]

    def told(self, delivery_id: str) -> set[str]:
        return {hit.told[delivery_id] for hit in self.hits if delivery_id in hit.told}

    def by_key(self) -> dict[str, list[Hit]]:
        """Calls in the order of their first arrival, each with all its arrivals."""
        found: dict[str, list[Hit]] = defaultdict(list)
        for hit in sorted(self.hits, key=lambda each: each.at):
            found[hit.key].append(hit)
        return found

    @property
    def repeats(self) -> int:
        return sum(len(hits) - 1 for hits in self.by_key().values())

    @property
    def in_flight(self) -> int:
        return sum(len(fault.open_calls) for fault in self.faults)

    @property
    def slowest_recovery(self) -> float:
        return max((fault.recovered_after or 0.0 for fault in self.faults), default=0.0)


@dataclass(frozen=True, slots=True)
class Violation:
    invariant: str
    text: str


def violations(history: History) -> list[Violation]:
    """All that is wrong with a history."""
    return [
        Violation(invariant, text)
        for invariant, checks in CHECKS.items()
        for check in checks
        for text in check(history)
    ]


# I1: every acknowledged request ends, or somebody was alarmed


def every_request_ends(history: History) -> Iterator[str]:
    for request_id in history.asked:
        request = history.requests.get(request_id)
        if request is None:
            yield f"{request_id} was acknowledged and is not there"
        elif request.outcome is None and not _is_alarmed(history, request_id):
            yield f"{request_id} has neither ended nor raised an alarm"


def _is_alarmed(history: History, request_id: str) -> bool:
    whose = history.requests[request_id].duplicate_of or request_id
    return any(
        delivery.request_id == whose and delivery_id in history.alarmed
        for delivery_id, delivery in history.deliveries.items()
    )


# I2: whatever claims to be done was called, and repeats are the same call


def what_is_done_was_called(history: History) -> Iterator[str]:
    for delivery_id, delivery in history.deliveries.items():
        last = delivery.steps[-1]
        claims_a_call = last.state == "succeeded" and last.detail != "skipped"
        if claims_a_call and not history.hits_of(delivery_id):
            yield f"{delivery_id} is {last.detail}, but its destination was never called"


def calls_were_written_down_first(history: History) -> Iterator[str]:
    for key, hits in history.by_key().items():
        planned = history.calls.get(key)
        if planned is None:
            yield f"a destination saw the key {key}, which is no call of ours"
        elif any(not hit.people.keys() <= planned for hit in hits):
            yield f"call {key} carried deliveries that it was not made for"


def repeats_say_the_same(history: History) -> Iterator[str]:
    """The same person under the same key, or already settled and left out; never another one."""
    for key, (first, *others) in history.by_key().items():
        for other in others:
            if other.destination != first.destination:
                yield f"call {key} went to two destinations"
            if not other.people.items() <= first.people.items():
                yield f"call {key} was repeated with other people than before"


def another_key_needs_a_recorded_answer(history: History) -> Iterator[str]:
    """A delivery gets a new key only once the last call's answer is in its history."""
    keys: dict[str, list[str]] = defaultdict(list)
    for key, (first, *_) in history.by_key().items():
        for delivery_id in first.people:
            keys[delivery_id].append(key)
    for delivery_id, used in keys.items():
        if delivery_id not in history.deliveries:
            continue  # said by ``only_the_named_are_sent``
        answered = {step.call_id: step for step in history.deliveries[delivery_id].steps}
        for key in used[:-1]:
            if key not in answered:
                yield f"{delivery_id} got a new key though the answer to {key} was never recorded"
            elif answered[key].has_ended:
                yield f"{delivery_id} was sent again after call {key} had settled it"


def repeats_were_in_flight(history: History) -> Iterator[str]:
    """Only a call in flight when a fault struck is repeated, and once per fault."""
    for key, hits in history.by_key().items():
        struck = sum(key in fault.open_calls for fault in history.faults)
        if len(hits) - 1 > struck:
            yield f"call {key} was repeated {len(hits) - 1} times; it was in flight at {struck}"


# I3: no receipt claims more than the destination's log shows


def ended_requests_have_a_valid_receipt(history: History) -> Iterator[str]:
    for request_id in history.asked:
        request = history.requests.get(request_id)
        if request is None or request.outcome is None:
            continue
        claims = history.receipts.get(request_id)
        if claims is None:
            yield f"{request_id} has ended without a valid receipt"
        elif claims["request"]["id"] != request_id or claims["outcome"] != request.outcome:
            yield f"the receipt of {request_id} speaks of another request or outcome"


def receipts_claim_what_was_seen(history: History) -> Iterator[str]:
    for request_id, claims in history.receipts.items():
        request = history.requests.get(request_id)
        mine = {
            each.evidence: delivery_id
            for delivery_id, delivery in history.deliveries.items()
            if delivery.request_id == ((request and request.duplicate_of) or request_id)
            for each in delivery.steps
            if each.evidence
        }
        for entry in claims["destinations"]:
            yield from _entry_is_proven(history, request_id, entry, mine)
        states = {entry["state"] for entry in claims["destinations"]}
        if claims["outcome"] == "complete" and not states <= COMPLETE:
            yield f"the receipt of {request_id} says complete with {sorted(states - COMPLETE)}"


def _entry_is_proven(
    history: History, request_id: str, entry: Mapping[str, Any], mine: Mapping[str, str]
) -> Iterator[str]:
    if entry["assurance"] == "verified_absent":
        yield f"the receipt of {request_id} claims a read-back that no destination offers"
    needed = PROVEN_BY.get(entry["state"])
    if needed is None:
        return
    delivery_id = mine.get(entry.get("evidence", ""))
    if delivery_id is None:
        yield f"the receipt of {request_id} rests on evidence that was never recorded"
    elif needed not in history.told(delivery_id):
        yield f"the receipt of {request_id} says {entry['state']}; {delivery_id} never heard so"


# I4: nobody but the named people was touched


def only_the_named_are_sent(history: History) -> Iterator[str]:
    for hit in history.hits:
        for delivery_id, person in hit.people.items():
            delivery = history.deliveries.get(delivery_id)
            if delivery is None or delivery.request_id not in history.asked:
                yield f"call {hit.key} carried {delivery_id}, which nobody asked for"
            elif not person <= history.asked[delivery.request_id]:
                yield f"{delivery_id} carried an identifier that its request does not name"
            elif delivery.destination != hit.destination:
                yield f"{delivery_id} reached another destination than its own"


def only_the_named_are_gone(history: History) -> Iterator[str]:
    named = frozenset[Value]().union(*history.asked.values())
    for destination, gone in history.removed.items():
        if others := gone - named:
            yield f"{destination} lost {len(others)} identifiers of people nobody named"


# I6: no identifier in any sink


def no_identifier_in_any_sink(history: History) -> Iterator[str]:
    named = frozenset[Value]().union(*history.asked.values())
    for name, content in history.sinks.items():
        count = sum(value.encode() in content for _, value in named)
        if count:
            yield f"{count} identifiers are readable in {name}"


# I7: the service answers again soon


def it_answers_again(history: History) -> Iterator[str]:
    for fault in history.faults:
        if fault.recovered_after is None:
            yield f"after {fault.name} the service did not answer again"
        elif fault.recovered_after > RECOVERY_SECONDS:
            yield f"after {fault.name} it took {fault.recovered_after:.0f} s to answer again"


Check = Callable[[History], Iterable[str]]
CHECKS: dict[str, tuple[Check, ...]] = {
    "I1": (every_request_ends,),
    "I2": (
        what_is_done_was_called,
        calls_were_written_down_first,
        repeats_say_the_same,
        another_key_needs_a_recorded_answer,
        repeats_were_in_flight,
    ),
    "I3": (ended_requests_have_a_valid_receipt, receipts_claim_what_was_seen),
    "I4": (only_the_named_are_sent, only_the_named_are_gone),
    "I6": (no_identifier_in_any_sink,),
    "I7": (it_answers_again,),
}
"""I5 (the log never forks) is missing: the transparency log is not built yet."""
