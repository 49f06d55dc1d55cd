"""The destination of the fault runs does what it is told to do, and its notes are true."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.faults import destination as meets
from tests.faults.destination import Destination

BOB = ("email", "bob.subject@customer.example")


@pytest.fixture
def crm() -> Iterator[Destination]:
    made = Destination("crm")
    made.held.add(BOB)
    yield made
    made.close()


def erase(crm: Destination, number: int = 1) -> httpx.Response:
    """The call a webhook connector makes for Bob."""
    identifiers = [{"kind": BOB[0], "value": BOB[1]}]
    body: dict[str, Any] = {
        "type": "quittance.erase",
        "people": [{"delivery_id": f"dlv_{number}", "identifiers": identifiers}],
    }
    headers = {"Idempotency-Key": f"call_{number}"}
    return httpx.post(crm.url, json=body, headers=headers, timeout=30, trust_env=False)


def test_who_is_there_is_removed_once(crm: Destination) -> None:
    assert erase(crm, 1).json() == {"results": {"dlv_1": "done"}}
    assert erase(crm, 2).json() == {"results": {"dlv_2": "absent"}}
    assert [hit.told for hit in crm.hits] == [{"dlv_1": "done"}, {"dlv_2": "absent"}]
    assert crm.removed == {BOB}


@pytest.mark.parametrize(
    ("behaviour", "is_gone"), [(meets.lost_ack, True), (meets.reset_before, False)]
)
def test_a_reset_says_nothing_whatever_was_done(
    crm: Destination, behaviour: meets.Behaviour, is_gone: bool
) -> None:
    crm.script = [behaviour]
    with pytest.raises(httpx.TransportError):
        erase(crm)
    (hit,) = crm.hits
    assert (hit.key, hit.people, hit.told) == ("call_1", {"dlv_1": frozenset({BOB})}, {})
    assert (BOB in crm.removed) is is_gone


def test_closed_it_refuses_and_opened_again_it_is_where_it_was(crm: Destination) -> None:
    crm.close()
    with pytest.raises(httpx.ConnectError):
        erase(crm)
    crm.open_again()
    assert erase(crm).status_code == 200


def test_64_calls_are_met_at_once(crm: Destination) -> None:
    together = threading.Barrier(64, timeout=30)

    def meet(to: Any, hit: Any) -> None:
        together.wait()  # nobody is answered before all have come
        meets.obey(to, hit)

    crm.default = meet
    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(lambda number: erase(crm, number), range(64)))
    assert {each.status_code for each in answers} == {200}
    assert len(crm.hits) == 64
