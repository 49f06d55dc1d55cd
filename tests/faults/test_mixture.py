"""Anything may happen in any order: people ask, operators decide, destinations answer as they like,
queues are paused and boosted, time passes, workers die or freeze in the middle of their calls.

The service runs in this process (``tests/running.py``). After each step a small model and the
history checker say whether it may have come to this.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from app.subject_requests.states import BEFORE_FAN_OUT
from connectors.contract import Outcome, Verdict, absent, accepted, done, failed, retry
from tests.faults.history import Delivery, Fault, History, Hit, Person, Request, Step, violations
from tests.running import BOB, CAROL, Asked, Double, Service, running
from tests.subject_requests.test_states import TABLE

EXAMPLES = int(os.environ.get("FAULT_MIXTURES", "6"))
WORDS = {Verdict.DONE: "done", Verdict.ABSENT: "absent", Verdict.ACCEPTED: "accepted"}
ANSWERS: list[Outcome | None] = [
    done(), absent(), failed("no"), retry("down"), accepted("job 1"), accepted(), None,
]  # fmt: skip
"""What a destination may say; None is a connector that breaks."""
QUEUES = ("crm", "shop")
PEOPLE = (BOB, CAROL, "dan.subject@customer.example", "erin.subject@customer.example")


class Mixture(RuleBasedStateMachine):
    templates: dict[str, Path]
    asked = Bundle("asked")

    @initialize(
        target=asked,
        who=st.lists(st.sampled_from(PEOPLE), min_size=1, max_size=4),
        answers=st.lists(st.sampled_from(ANSWERS), min_size=2, max_size=6),
    )
    def start(self, who: list[str], answers: list[Outcome | None]) -> Any:
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
        self.people: dict[str, Person] = {}
        self.told: dict[str, str] = {}
        """Call id -> the word that was last said to it."""
        self.faults: list[Fault] = []
        self.paused: set[str] = set()
        self.final: dict[str, dict[str, Any]] = {}
        for name in QUEUES:
            double = self.run(self.service.destination(name, batch=3))
            double.default = partial(self.answer, done())
            self.mood(name, answers)
        return multiple(*(self.ask(each) for each in who))

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def answer(self, outcome: Outcome | None, asked: Asked) -> Outcome:
        """Say it to everybody in the call, and note that it was said."""
        if outcome is None:
            raise RuntimeError("a bug of the connector")
        if word := WORDS.get(outcome.verdict):
            self.told[asked.call_id] = word
        return outcome

    # What people and operators do

    @rule(target=asked, who=st.sampled_from(PEOPLE))
    def ask_for(self, who: str) -> str:
        return self.ask(who)

    def ask(self, who: str) -> str:
        made = str(self.run(self.service.ask(who))["id"])
        self.people[made] = frozenset({("email", who)})
        return made

    @rule(target=asked)
    def ask_by_form(self) -> str:
        """Nobody has proved anything yet."""
        made = self.ask(BOB)
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

    @rule(request=consumes(asked))
    def lose_interest(self, request: str) -> None:
        """Some requests are never touched again."""

    @rule(
        name=st.sampled_from(QUEUES),
        action=st.sampled_from(["pause", "resume", "boost", "flush"]),
    )
    def change_queue(self, name: str, action: str) -> None:
        path = f"/v1/queues/{self.service.destinations[name]}/{action}"
        answer = self.run(self.service.call("POST", path))
        if answer.status_code == 404:
            return  # it gets a queue with its first delivery
        assert answer.status_code == 200
        if action == "pause":
            self.paused.add(name)
        if action == "resume":
            self.paused.discard(name)

    # What the world does

    @rule(name=st.sampled_from(QUEUES), answers=st.lists(st.sampled_from(ANSWERS), max_size=4))
    def mood(self, name: str, answers: list[Outcome | None]) -> None:
        double = self.service.doubles[name]
        double.answers = [partial(self.answer, each) for each in answers]

    @rule()
    def plan(self) -> None:
        self.run(self.service.step("advance"))

    @rule()
    def work(self) -> None:
        before = {name: len(self.service.doubles[name].asked) for name in self.paused}
        self.run(self.service.work())
        for name, count in before.items():
            assert len(self.service.doubles[name].asked) == count, f"{name} is paused"

    @rule()
    def sweep(self) -> None:
        self.run(self.service.step("sweep"))

    @rule(hours=st.sampled_from([1, 24]))
    def later(self, hours: int) -> None:
        self.service.later(hours=hours)
        self.work()

    @precondition(lambda self: not self.paused)
    @rule(dies=st.booleans())
    def interrupt(self, dies: bool) -> None:
        """A worker dies, or freezes past its lease, with its calls at the destinations; another one
        goes on, and who was frozen wakes up.
        """
        self.run(self._interrupt(dies=dies))

    async def _interrupt(self, *, dies: bool) -> None:
        gates = [each.gate for each in self.service.doubles.values()]
        for gate in gates:
            gate.clear()
        await self.service.step("advance")
        await self.service.step("dispatch")
        await asyncio.sleep(0.02)
        rows = await self.service.rows("SELECT call_id FROM open_call")
        self.faults.append(Fault("interruption", frozenset(row.call_id for row in rows), 0.0))
        if dies:
            await self.service.crash()
        await self.service.expire_leases()
        await self.service.workers[0].engine.step()
        await asyncio.sleep(0.02)
        for gate in gates:
            gate.set()
        await self.service.work()

    # What must hold

    @invariant()
    def final_states_are_final(self) -> None:
        found = self.run(self.service.get("/v1/requests?limit=500"))["items"]
        for each in found:
            if each["completed_at"] is None:
                continue
            fixed = {name: each[name] for name in ("status", "outcome", "receipt_id")}
            assert self.final.setdefault(each["id"], fixed) == fixed

    @invariant()
    def open_counts_are_right(self) -> None:
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
        rows = self.run(
            self.service.rows(
                "SELECT d.id FROM delivery d JOIN subject_request r ON r.id = d.request_id"
                " WHERE r.verified_at IS NULL OR r.status IN ('awaiting_verification', 'on_hold',"
                " 'awaiting_approval', 'cooling_off', 'resolving')"
            )
        )
        assert rows == []

    @invariant()
    def history_is_sound(self) -> None:
        found = violations(self.run(self.history()))
        assert [each for each in found if each.invariant != "I1"] == []

    async def history(self) -> History:
        requests = await self.service.rows(
            "SELECT id, status, outcome, duplicate_of, receipt_id FROM subject_request"
        )
        began = [each for each in requests if each.status not in BEFORE_FAN_OUT]
        deliveries: dict[str, Delivery] = {}
        names = {made: name for name, made in self.service.destinations.items()}
        for row in await self.service.rows(
            "SELECT d.id, d.request_id, d.destination_id, t.state, t.detail, t.call_id,"
            " json_extract(t.evidence, '$.sha256') AS sha256 FROM delivery d"
            " JOIN delivery_transition t ON t.delivery_id = d.id ORDER BY d.id, t.seq"
        ):
            known = deliveries.get(row.id)
            steps = (
                *(known.steps if known else ()),
                Step(row.state, row.detail, row.call_id, row.sha256),
            )
            deliveries[row.id] = Delivery(row.request_id, names[row.destination_id], steps)
        calls: dict[str, frozenset[str]] = {}
        for row in await self.service.rows("SELECT id, delivery_ids FROM call"):
            calls[row.id] = frozenset(json.loads(row.delivery_ids))
        return History(
            asked={each.id: self.people[each.id] for each in began},
            requests={each.id: Request(each.outcome, each.duplicate_of) for each in began},
            deliveries=deliveries,
            calls=calls,
            hits=[
                self._hit(double, number, asked, calls)
                for double in self.service.doubles.values()
                for number, asked in enumerate(double.asked)
            ],
            receipts={
                each.id: await self.service.claims(each.id) for each in began if each.receipt_id
            },
            faults=self.faults,
        )

    def _hit(
        self, double: Double, number: int, asked: Asked, calls: Mapping[str, frozenset[str]]
    ) -> Hit:
        """A poll names a job and nobody: it is about the people its call was written down for."""
        people = {
            each.id: frozenset((one.kind, one.value) for one in each.identifiers)
            for each in asked.people
        } or dict.fromkeys(calls.get(asked.call_id, ()), frozenset())
        word = self.told.get(asked.call_id)
        told = dict.fromkeys(people, word) if word else {}
        return Hit(float(number), double.name, asked.call_id, people, told)

    def teardown(self) -> None:
        if not hasattr(self, "service"):
            return
        for double in self.service.doubles.values():
            double.answers, double.default = [], partial(self.answer, done())
        for name in self.paused:
            self.run(self.service.change_queue(name, "resume"))
        for _ in range(8):
            self.service.later(hours=2)
            self.run(self.service.work())
        left = self.run(self.service.get("/v1/requests?status=in_progress"))["items"]
        assert left == [], "with good destinations everything that began comes to its end"
        assert violations(self.run(self.history())) == []
        self.run(self.stack.aclose())
        self.run(self.loop.shutdown_asyncgens())
        self.loop.close()
        shutil.rmtree(self.directory)


@pytest.mark.slow
@pytest.mark.timeout(60 * EXAMPLES)
def test_whatever_happens_the_history_is_sound(sqlite_templates: dict[str, Path]) -> None:
    Mixture.templates = sqlite_templates
    run_state_machine_as_test(
        Mixture,
        settings=settings(
            max_examples=EXAMPLES, stateful_step_count=16, deadline=None,
            suppress_health_check=list(HealthCheck),
            # Shrinking would replay a minute's steps for an hour; sixteen steps can be read.
            phases=[Phase.explicit, Phase.reuse, Phase.generate],
        ),
    )  # fmt: skip
