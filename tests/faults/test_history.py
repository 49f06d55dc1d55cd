"""The checker is held to account: a sound history passes, and every lie in it is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.faults.history import (
    CHECKS,
    Delivery,
    Fault,
    History,
    Hit,
    Person,
    Request,
    Step,
    violations,
)

ALICE: Person = frozenset({("email", "alice.canary@customer.example")})
BOB: Person = frozenset({("email", "bob.canary@customer.example")})
EVE: Person = frozenset({("email", "eve.canary@customer.example")})


def claims(request_id: str, state: str, evidence: str, **more: Any) -> dict[str, Any]:
    entry = {"state": state, "assurance": "confirmed", "evidence": evidence}
    return {"request": {"id": request_id}, "outcome": "complete", "destinations": [entry]} | more


def sound() -> History:
    """Alice's call was cut by a kill and made again; Bob's destination was busy the first time."""
    queued = Step("awaiting_scheduling")
    return History(
        asked={"req_alice": ALICE, "req_bob": BOB},
        requests={"req_alice": Request("complete"), "req_bob": Request("complete")},
        deliveries={
            "dlv_alice": Delivery(
                "req_alice", "crm", (queued, Step("succeeded", "done", "call_1", "digest_1"))
            ),
            "dlv_bob": Delivery(
                "req_bob",
                "crm",
                (
                    queued,
                    Step("awaiting_retry", None, "call_2", "digest_2"),
                    Step("succeeded", "absent", "call_3", "digest_3"),
                ),
            ),
        },
        calls={
            "call_1": frozenset({"dlv_alice"}),
            "call_2": frozenset({"dlv_bob"}),
            "call_3": frozenset({"dlv_bob"}),
        },
        hits=[
            Hit(1.0, "crm", "call_1", {"dlv_alice": ALICE}),
            Hit(1.1, "crm", "call_2", {"dlv_bob": BOB}),
            Hit(9.0, "crm", "call_1", {"dlv_alice": ALICE}, {"dlv_alice": "done"}),
            Hit(9.1, "crm", "call_3", {"dlv_bob": BOB}, {"dlv_bob": "absent"}),
        ],
        receipts={
            "req_alice": claims("req_alice", "deleted", "digest_1"),
            "req_bob": claims("req_bob", "not_found", "digest_3"),
        },
        faults=[Fault("kill of the worker", frozenset({"call_1"}), 4.0)],
        removed={"crm": ALICE},
        sinks={"the logs": b"delivery_settled dlv_alice"},
    )


def test_a_sound_history_holds() -> None:
    assert violations(sound()) == []


def test_an_alarm_excuses_a_request_that_did_not_end() -> None:
    history = sound()
    history.requests = {**history.requests, "req_bob": Request(None)}
    history.receipts = {"req_alice": history.receipts["req_alice"]}
    history.alarmed = frozenset({"dlv_bob"})
    assert violations(history) == []


def test_a_duplicate_rests_on_the_deliveries_of_its_original() -> None:
    history = sound()
    history.asked = {**history.asked, "req_again": ALICE}
    history.requests = {**history.requests, "req_again": Request("complete", "req_alice")}
    again = claims("req_again", "deleted", "digest_1")
    history.receipts = {**history.receipts, "req_again": again}
    assert violations(history) == []


def lost(history: History) -> None:
    history.requests = {"req_alice": Request("complete")}


def stuck(history: History) -> None:
    history.requests = {**history.requests, "req_bob": Request(None)}


def never_called(history: History) -> None:
    history.hits = [hit for hit in history.hits if hit.key == "call_1"]
    history.receipts = {"req_alice": history.receipts["req_alice"]}
    history.asked = {"req_alice": ALICE}


def unknown_key(history: History) -> None:
    history.calls = {key: who for key, who in history.calls.items() if key != "call_3"}


def smuggled(history: History) -> None:
    history.calls = {**history.calls, "call_1": frozenset({"dlv_other"})}


def changed_repeat(history: History) -> None:
    history.hits[2].people = {"dlv_alice": frozenset({("email", "other@customer.example")})}


def elsewhere(history: History) -> None:
    history.hits[2].destination = "shop"


def key_changed_unrecorded(history: History) -> None:
    bob = history.deliveries["dlv_bob"]
    steps = (bob.steps[0], bob.steps[2])
    history.deliveries = {**history.deliveries, "dlv_bob": replace(bob, steps=steps)}


def sent_after_the_end(history: History) -> None:
    alice = history.hits[2]
    history.hits = [*history.hits, replace(alice, at=11.0, key="call_4")]
    history.calls = {**history.calls, "call_4": frozenset({"dlv_alice"})}


def repeated_without_a_fault(history: History) -> None:
    history.faults = [Fault("kill of the worker", frozenset({"call_2"}), 4.0)]


def repeated_twice_for_one_fault(history: History) -> None:
    history.hits = [*history.hits, replace(history.hits[2], at=12.0)]


def no_receipt(history: History) -> None:
    history.receipts = {"req_alice": history.receipts["req_alice"]}


def receipt_of_another(history: History) -> None:
    history.receipts = {**history.receipts, "req_bob": history.receipts["req_alice"]}


def other_outcome(history: History) -> None:
    history.requests = {**history.requests, "req_bob": Request("partial")}


def claims_too_much(history: History) -> None:
    bob = claims("req_bob", "deleted", "digest_3")
    history.receipts = {**history.receipts, "req_bob": bob}


def answer_never_went_out(history: History) -> None:
    history.hits[2].told = {}


def made_up_evidence(history: History) -> None:
    bob = claims("req_bob", "not_found", "digest_9")
    history.receipts = {**history.receipts, "req_bob": bob}


def read_back(history: History) -> None:
    bob = claims("req_bob", "not_found", "digest_3")
    bob["destinations"][0]["assurance"] = "verified_absent"
    history.receipts = {**history.receipts, "req_bob": bob}


def pending_and_complete(history: History) -> None:
    bob = claims("req_bob", "pending", "digest_3")
    history.receipts = {**history.receipts, "req_bob": bob}


def stranger_sent(history: History) -> None:
    people = {"dlv_alice": ALICE, "dlv_eve": EVE}
    history.calls = {**history.calls, "call_1": frozenset(people)}
    history.hits[0].people = people


def too_much_sent(history: History) -> None:
    history.hits[3].people = {"dlv_bob": BOB | EVE}


def stranger_gone(history: History) -> None:
    history.removed = {"crm": ALICE | EVE}


def leak(history: History) -> None:
    history.sinks = {"the logs": b"{'event': 'sent', 'to': 'bob.canary@customer.example'}"}


def never_back(history: History) -> None:
    history.faults = [replace(history.faults[0], recovered_after=None)]


def back_too_late(history: History) -> None:
    history.faults = [replace(history.faults[0], recovered_after=31.0)]


LIES: list[tuple[Callable[[History], None], str, str]] = [
    (lost, "I1", "req_bob was acknowledged and is not there"),
    (stuck, "I1", "req_bob has neither ended nor raised an alarm"),
    (never_called, "I2", "dlv_bob is absent, but its destination was never called"),
    (unknown_key, "I2", "call_3, which is no call of ours"),
    (smuggled, "I2", "call_1 carried deliveries that it was not made for"),
    (changed_repeat, "I2", "call_1 was repeated with other people"),
    (elsewhere, "I2", "call_1 went to two destinations"),
    (key_changed_unrecorded, "I2", "dlv_bob got a new key though the answer to call_2"),
    (sent_after_the_end, "I2", "dlv_alice was sent again after call call_1 had settled it"),
    (repeated_without_a_fault, "I2", "call_1 was repeated 1 times; it was in flight at 0"),
    (repeated_twice_for_one_fault, "I2", "call_1 was repeated 2 times; it was in flight at 1"),
    (no_receipt, "I3", "req_bob has ended without a valid receipt"),
    (receipt_of_another, "I3", "the receipt of req_bob speaks of another request"),
    (other_outcome, "I3", "the receipt of req_bob speaks of another request or outcome"),
    (claims_too_much, "I3", "req_bob says deleted; dlv_bob never heard so"),
    (answer_never_went_out, "I3", "req_alice says deleted; dlv_alice never heard so"),
    (made_up_evidence, "I3", "req_bob rests on evidence that was never recorded"),
    (read_back, "I3", "req_bob claims a read-back"),
    (pending_and_complete, "I3", "req_bob says complete with ['pending']"),
    (stranger_sent, "I4", "carried dlv_eve, which nobody asked for"),
    (too_much_sent, "I4", "dlv_bob carried an identifier that its request does not name"),
    (elsewhere, "I4", "dlv_alice reached another destination than its own"),
    (stranger_gone, "I4", "crm lost 1 identifiers of people nobody named"),
    (leak, "I6", "1 identifiers are readable in the logs"),
    (never_back, "I7", "after kill of the worker the service did not answer again"),
    (back_too_late, "I7", "it took 31 s"),
]


@pytest.mark.parametrize(
    ("lie", "invariant", "text"), LIES, ids=lambda each: getattr(each, "__name__", "")
)
def test_a_lie_is_found(lie: Callable[[History], None], invariant: str, text: str) -> None:
    history = sound()
    lie(history)
    found = violations(history)
    assert [each for each in found if each.invariant == invariant and text in each.text], found


def test_every_check_is_shown_a_lie() -> None:
    """A check that nothing here makes speak could be one that cannot fail."""
    for checks in CHECKS.values():
        for check in checks:
            spoken = []
            for lie, _, _ in LIES:
                history = sound()
                lie(history)
                spoken += list(check(history))
            assert spoken, f"{check.__name__} found nothing in any lie"
