"""The state machine's whole table; ``tests/faults/test_mixture.py`` drives requests through it at
random.
"""

from __future__ import annotations

import pytest

from app.subject_requests.states import BEFORE_FAN_OUT, FINAL, MOVES, Status, WrongState, move

WAITING = {"awaiting_approval", "cooling_off", "resolving"}
TABLE = {
    "verify": {"awaiting_verification": "resolving"},
    "approve": {"awaiting_approval": "resolving"},
    "deny": dict.fromkeys(
        WAITING | {"awaiting_verification", "on_hold", "in_progress"}, "denied"
    ),
    "cancel": dict.fromkeys(
        WAITING | {"awaiting_verification", "on_hold", "in_progress"}, "cancelled"
    ),
    "hold": dict.fromkeys(WAITING, "on_hold"),
    "release": {"on_hold": "resolving"},
    "extend": {
        each: each
        for each in WAITING | {"awaiting_verification", "on_hold", "in_progress"}
    },
}  # fmt: skip


@pytest.mark.parametrize("event", sorted(MOVES))
@pytest.mark.parametrize("status", list(Status))
def test_each_event_moves_each_state_as_the_table_says(event: str, status: Status) -> None:
    expected = TABLE[event].get(status)

    if expected is None:
        with pytest.raises(WrongState):
            move(status, event)
    else:
        assert move(status, event) == expected


def test_final_and_early_states_do_not_overlap_and_cover_all_but_the_work_itself() -> None:
    assert not FINAL & BEFORE_FAN_OUT
    assert frozenset(Status) == FINAL | BEFORE_FAN_OUT | {Status.IN_PROGRESS}
