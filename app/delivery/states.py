"""What an answer means for a delivery: pure functions, no clock, no database.

States (after Centrifuge): awaiting_scheduling -> executing -> succeeded | discarded |
awaiting_retry | awaiting_confirmation; expired ones go archiving -> archived and can be replayed.
"""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import accumulate

from connectors.contract import Outcome, Verdict


class State(StrEnum):
    AWAITING_SCHEDULING = "awaiting_scheduling"
    EXECUTING = "executing"
    AWAITING_RETRY = "awaiting_retry"
    AWAITING_CONFIRMATION = "awaiting_confirmation"
    SUCCEEDED = "succeeded"
    DISCARDED = "discarded"
    ARCHIVING = "archiving"
    ARCHIVED = "archived"


SETTLED = frozenset({State.SUCCEEDED, State.DISCARDED})


class Assurance(StrEnum):
    """How much was seen, from nothing to a read-back."""

    NONE = "none"
    REQUESTED = "requested"
    ACKNOWLEDGED = "acknowledged"
    CONFIRMED = "confirmed"
    VERIFIED_ABSENT = "verified_absent"


BACKOFF_BASE = dt.timedelta(seconds=5)
BACKOFF_CAP = dt.timedelta(hours=1)
BACKOFF_FLOOR = dt.timedelta(seconds=1)
WISH_CAP = dt.timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Step:
    """The next transition. ``due_at`` is set while the delivery stays live; ``counts_attempt``: it
    was really tried.
    """

    state: State
    detail: str | None
    assurance: Assurance
    reason: str | None = None
    due_at: dt.datetime | None = None
    job: str | None = None
    counts_attempt: bool = True

    @property
    def is_settled(self) -> bool:
        return self.state in SETTLED


@dataclass(frozen=True, slots=True)
class Situation:
    """What is known about a delivery when its answer arrives. ``attempt`` counts earlier tries."""

    now: dt.datetime
    attempt: int
    expires_at: dt.datetime
    job: str | None
    job_since: dt.datetime | None
    poll_every: dt.timedelta
    gives_up_after: dt.timedelta


def judge(outcome: Outcome, situation: Situation, chance: random.Random) -> Step:
    """The step that follows an answer (the table of design section 4)."""
    match outcome.verdict:
        case Verdict.DONE:
            assurance = Assurance.VERIFIED_ABSENT if outcome.read_back else Assurance.CONFIRMED
            return Step(State.SUCCEEDED, "done", assurance)
        case Verdict.ABSENT:
            return Step(State.SUCCEEDED, "absent", Assurance.CONFIRMED)
        case Verdict.SKIPPED:
            return Step(State.SUCCEEDED, "skipped", Assurance.NONE, outcome.reason)
        case Verdict.FAILED:
            return Step(State.DISCARDED, "failed", Assurance.REQUESTED, outcome.reason)
        case Verdict.ACCEPTED:
            return _accepted(outcome, situation)
        case Verdict.RETRY:
            return _again(outcome, situation, chance)


def _accepted(outcome: Outcome, situation: Situation) -> Step:
    job = outcome.job or situation.job
    if job is None:
        return Step(State.SUCCEEDED, "accepted_unconfirmable", Assurance.ACKNOWLEDGED)
    return _ask_later(job, situation, outcome.retry_after or situation.poll_every)


def _ask_later(
    job: str, situation: Situation, wait: dt.timedelta, reason: str | None = None
) -> Step:
    """The job's own time counts from here on, not the delivery's expiry."""
    gives_up_at = (situation.job_since or situation.now) + situation.gives_up_after
    if situation.now >= gives_up_at:
        return Step(State.DISCARDED, "unconfirmed", Assurance.ACKNOWLEDGED, "no_confirmation")
    due_at = min(situation.now + wait, gives_up_at)
    return Step(
        State.AWAITING_CONFIRMATION, None, Assurance.ACKNOWLEDGED, reason, due_at=due_at, job=job
    )


def _again(outcome: Outcome, situation: Situation, chance: random.Random) -> Step:
    wait = backoff(situation.attempt, chance)
    if outcome.retry_after is not None:
        wait = max(wait, min(outcome.retry_after, WISH_CAP))
    elif situation.job is not None:
        wait = max(wait, situation.poll_every)
    if outcome.parks:
        wait = (
            dt.timedelta()
        )  # the queue is parked as a whole; the delivery keeps its place and its attempts
    if situation.job is not None:
        return _ask_later(situation.job, situation, wait, outcome.reason)
    due_at = situation.now + wait
    if due_at >= situation.expires_at:
        return Step(State.ARCHIVING, "expired", Assurance.REQUESTED, outcome.reason)
    return Step(
        State.AWAITING_RETRY,
        None,
        Assurance.REQUESTED,
        outcome.reason,
        due_at,
        counts_attempt=not outcome.parks,
    )


def wait_for(schedule: Sequence[dt.timedelta], waited: dt.timedelta) -> dt.timedelta:
    """The wait before the next poll of a job that was accepted ``waited`` ago: as many waits of the
    schedule are over as fit into that time; the last one is repeated.
    """
    over = sum(end <= waited for end in accumulate(schedule))
    return schedule[min(over, len(schedule) - 1)]


def backoff(attempt: int, chance: random.Random) -> dt.timedelta:
    """Full jitter: uniform between the floor and base x 2^attempt, capped."""
    top: dt.timedelta = min(BACKOFF_CAP, BACKOFF_BASE * 2 ** min(attempt, 20))
    return max(BACKOFF_FLOOR, chance.random() * top)


_BADNESS = {
    Verdict.RETRY: 5,
    Verdict.FAILED: 4,
    Verdict.ACCEPTED: 3,
    Verdict.DONE: 2,
    Verdict.ABSENT: 1,
    Verdict.SKIPPED: 0,
}


JOBS = "\x1e"
"""Between the handles of several vendor jobs of one delivery."""


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """The outcome of a delivery that used several identifiers: what is unfinished or refused
    outweighs what is done; what any of them keeps, and every job to be asked about, stays known.
    """
    known = list(outcomes)
    found = max(known, key=lambda each: (_BADNESS[each.verdict], each.parks, not each.read_back))
    jobs = [each.job for each in known if each.verdict is Verdict.ACCEPTED]
    return replace(
        found,
        residuals=tuple(dict.fromkeys(kept for each in known for kept in each.residuals)),
        anonymised=any(each.anonymised for each in known),
        # one that can never be asked about: the whole is never more than acknowledged
        job=None if None in jobs else JOBS.join(dict.fromkeys(filter(None, jobs))) or None,
    )
