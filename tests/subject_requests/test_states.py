"""The state machine's whole table, and requests driven through it at random."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from app.subject_requests.states import BEFORE_FAN_OUT, FINAL, MOVES, Status, WrongState, move
from connectors.contract import done, failed, retry
from tests.running import BOB, CAROL, Service, running

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


class Requests(RuleBasedStateMachine):
    """Programs and operators do what they like, destinations answer as they like."""

    templates: dict[str, Path]
    asked = Bundle("asked")

    @initialize()
    def start(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.directory = Path(tempfile.mkdtemp())
        self.stack = AsyncExitStack()
        urls = [
            "sqlite+aiosqlite:///"
            + str(shutil.copy(self.templates[which], self.directory / f"{which}.sqlite"))
            for which in ("main", "keystore")
        ]
        context = running(self.directory, urls[0], urls[1])
        self.service: Service = self.run(self.stack.enter_async_context(context))
        for name in ("crm", "shop"):
            self.run(self.service.destination(name, batch=3))
        self.final: dict[str, dict[str, Any]] = {}
        self.stopped: dict[str, int] = {}

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    @rule(target=asked, who=st.sampled_from([BOB, CAROL]))
    def ask(self, who: str) -> str:
        return str(self.run(self.service.ask(who))["id"])

    @rule(target=asked)
    def ask_by_form(self) -> str:
        """Nobody has proved anything yet."""
        made = str(self.run(self.service.ask(BOB))["id"])
        self.run(
            self.service.run(
                "UPDATE subject_request SET status = 'awaiting_verification', verified_at = NULL,"
                " verification = 'none', next_step_at = NULL WHERE id = :id AND open_count = 0"
                " AND status = 'resolving'",
                id=made,
            )
        )
        return made

    @rule(
        request=asked,
        verb=st.sampled_from(["approve", "deny", "cancel", "hold", "release", "extend"]),
    )
    def decide(self, request: str, verb: str) -> None:
        body = {
            "deny": {"reason": "x"}, "hold": {"reason": "x"}, "extend": {"days": 1, "reason": "x"},
        }.get(verb)  # fmt: skip
        before = self.run(self.service.request(request))["status"]
        answer = self.run(self.service.call("POST", f"/v1/requests/{request}/{verb}", body))
        allowed = before in TABLE[verb]
        # one extension is allowed, and within the law
        assert answer.status_code in (
            {200, 409} if verb == "extend" else {200} if allowed else {409}
        )

    @rule(
        answers=st.lists(
            st.sampled_from([done(), failed("no"), retry("down"), RuntimeError()]), max_size=4
        )
    )
    def mood(self, answers: list[Any]) -> None:
        for double in self.service.doubles.values():
            double.answers = list(answers)

    @rule()
    def plan(self) -> None:
        self.run(self.service.step("advance"))

    @rule()
    def work(self) -> None:
        self.run(self.service.work())

    @rule()
    def an_hour_later(self) -> None:
        self.service.later(hours=1)
        self.run(self.service.work())

    @rule(request=consumes(asked))
    def lose_interest(self, request: str) -> None:
        """Some requests are never touched again."""

    @invariant()
    def final_states_are_final(self) -> None:
        if not hasattr(self, "service"):
            return
        found = self.run(self.service.get("/v1/requests?limit=500"))["items"]
        for each in found:
            if each["completed_at"] is None:
                continue
            fixed = {name: each[name] for name in ("status", "outcome", "receipt_id")}
            assert self.final.setdefault(each["id"], fixed) == fixed

    @invariant()
    def open_counts_are_right(self) -> None:
        if not hasattr(self, "service"):
            return
        wrong = self.run(
            self.service.rows(
                "SELECT r.id, r.open_count, count(d.id) FROM subject_request r"
                " LEFT JOIN delivery d ON d.request_id = r.id AND NOT EXISTS ("
                "  SELECT 1 FROM delivery_transition t WHERE t.delivery_id = d.id"
                "  AND t.state IN ('succeeded', 'discarded'))"
                " GROUP BY r.id, r.open_count HAVING r.open_count <> count(d.id)"
            )
        )
        assert wrong == []

    @invariant()
    def nothing_goes_out_unverified(self) -> None:
        if not hasattr(self, "service"):
            return
        rows = self.run(
            self.service.rows(
                "SELECT d.id FROM delivery d JOIN subject_request r ON r.id = d.request_id"
                " WHERE r.verified_at IS NULL OR r.status IN ('awaiting_verification', 'on_hold',"
                " 'awaiting_approval', 'cooling_off', 'resolving')"
            )
        )
        assert rows == []

    def teardown(self) -> None:
        if not hasattr(self, "service"):
            return
        for double in self.service.doubles.values():
            double.answers, double.default = [], done()
        for _ in range(8):
            self.service.later(hours=2)
            self.run(self.service.work())
        left = self.run(self.service.get("/v1/requests?status=in_progress"))["items"]
        assert left == [], "with good destinations everything that began comes to its end"
        self.run(self.stack.aclose())
        self.run(self.loop.shutdown_asyncgens())
        self.loop.close()
        shutil.rmtree(self.directory)


def test_whatever_happens_requests_stay_sound(sqlite_templates: dict[str, Path]) -> None:
    Requests.templates = sqlite_templates
    run_state_machine_as_test(
        Requests,
        settings=settings(
            max_examples=8, stateful_step_count=14, deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
