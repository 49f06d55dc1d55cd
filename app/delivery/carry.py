"""Carrying out one claimed call: open the identifiers, ask the connector, and give every member its
outcome.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from app.core.clock import utc_now
from app.delivery.claim import Claimed, Lease
from app.delivery.due import Member
from app.delivery.reports import can_be_woken
from app.delivery.states import JOBS, wait_for, worst
from connectors.contract import (
    AnyConnector,
    Call,
    Connector,
    Identifier,
    Operation,
    Outcome,
    Outcomes,
    Person,
    Verdict,
    failed,
    retry,
    supports,
)

LOOKS_EVERY = dt.timedelta(days=1)

Ask = Callable[..., Awaitable[Any]]
"""``await ask(destination, call, method, *args)``: the connector's answer, under its deadline;
failures are outcomes.
"""


@dataclass(frozen=True, slots=True)
class Answered:
    """A finished call: one outcome per delivery id; none at all: it was not sent, and its people
    keep their places.
    """

    lease: Lease
    call: Claimed
    outcomes: Mapping[str, Outcome]
    duration_ms: int


async def carry_out(
    lease: Lease, call: Claimed, people: Sequence[Person], connector: type[AnyConnector], ask: Ask
) -> Answered:
    """Make the call; members whose identifiers are gone fail, everybody else gets what the
    destination said.
    """
    clock = asyncio.get_running_loop().time
    started = clock()
    gone = {member.delivery_id for member in call.members} - {person.id for person in people}
    outcomes: dict[str, Outcome] = dict.fromkeys(gone, failed("identifiers_forgotten"))
    if people:
        outcomes.update(
            await _ask(call, people, connector, partial(ask, lease.destination, context_of(call)))
        )
    now = utc_now()
    for member in call.members:
        waited = now - (member.job_since or now)
        outcomes[member.delivery_id] = _paced(
            outcomes[member.delivery_id], member.job, connector, waited
        )
    return Answered(lease, call, outcomes, round((clock() - started) * 1000))


def _paced(
    outcome: Outcome, known_job: str | None, connector: type[AnyConnector], waited: dt.timedelta
) -> Outcome:
    """With the connector's own wait before the next poll, unless the destination named one."""
    job = known_job or (outcome.job if outcome.verdict is Verdict.ACCEPTED else None)
    if job is None or outcome.retry_after is not None:
        return outcome
    if not supports(connector, "poll"):
        # Nobody is asked, so there is nothing to do before the callback or the end; but where a
        # callback cannot wake the delivery, it looks for one by itself.
        return replace(
            outcome, retry_after=connector.gives_up_after if can_be_woken(job) else LOOKS_EVERY
        )
    if connector.poll_schedule:
        return replace(outcome, retry_after=wait_for(connector.poll_schedule, waited))
    return outcome


async def _ask(
    call: Claimed,
    people: Sequence[Person],
    connector: type[AnyConnector],
    ask: Callable[..., Awaitable[Any]],
) -> dict[str, Outcome]:
    if call.job is not None:
        polled = [await ask("poll", job) for job in call.job.split(JOBS)]
        # While one of several jobs is open, all are asked about again.
        return _for_all(people, polled[0] if len(polled) == 1 else replace(worst(polled), job=None))
    if not supports(connector, call.operation):
        return _for_all(people, failed("operation_not_supported"))
    if issubclass(connector, Connector):
        return await _by_kind(call, people, ask)
    return _for_all(people, await ask(call.operation, people))


def _for_all(people: Sequence[Person], answer: Outcomes) -> dict[str, Outcome]:
    if isinstance(answer, Outcome):
        return {person.id: answer for person in people}
    return {person.id: answer.get(person.id) or retry("no_answer_for_person") for person in people}


async def _by_kind(
    call: Claimed, people: Sequence[Person], ask: Callable[..., Awaitable[Any]]
) -> dict[str, Outcome]:
    """A vendor that takes values of one kind: one request per kind, each distinct value once."""
    kinds: dict[str, dict[str, None]] = {}
    for person in people:
        for identifier in person.identifiers:
            kinds.setdefault(identifier.kind, {})[identifier.value] = None
    answers: dict[Identifier, Outcome] = {}
    for kind, values in kinds.items():
        answer = await ask(call.operation, kind, list(values))
        for value in values:
            outcome = answer if isinstance(answer, Outcome) else answer.get(value)
            answers[Identifier(kind, value)] = outcome or retry("no_answer_for_value")
    return {person.id: worst(answers[each] for each in person.identifiers) for person in people}


def usable(accepts: Sequence[str], accepts_all: bool, identifiers: Sequence[Any]) -> list[Any]:
    """The identifiers a delivery uses: all accepted ones, or those of the first accepted kind the
    person has.
    """
    if not accepts:
        return list(identifiers)
    if accepts_all:
        return [each for each in identifiers if each.kind in accepts]
    for kind in accepts:
        if found := [each for each in identifiers if each.kind == kind]:
            return found
    return []


def people_of(members: Sequence[Member], opened: Mapping[str, Any]) -> list[Person]:
    """Members as people, without those none of whose identifiers can be opened any more."""
    people = []
    for member in members:
        identifiers = tuple(
            opened[each].identifier for each in member.identifier_ids if each in opened
        )
        if identifiers:
            people.append(Person(member.delivery_id, identifiers))
    return people


def context_of(call: Claimed) -> Call:
    """The call as connectors see it."""
    deadlines = [member.deadline for member in call.members if member.deadline]
    return Call(call.id, Operation(call.operation), call.attempt, min(deadlines, default=None))
