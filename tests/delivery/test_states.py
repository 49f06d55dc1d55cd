"""What an answer means for a delivery: the whole table of outcomes, and the times that follow."""

from __future__ import annotations

import datetime as dt
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.delivery.states import (
    BACKOFF_BASE,
    BACKOFF_CAP,
    BACKOFF_FLOOR,
    WISH_CAP,
    Assurance,
    Situation,
    State,
    Step,
    backoff,
    judge,
    wait_for,
    worst,
)
from connectors.contract import (
    Outcome,
    Residual,
    Verdict,
    absent,
    accepted,
    done,
    failed,
    retry,
    skipped,
)

NOW = dt.datetime(2026, 3, 2, 12, tzinfo=dt.UTC)
MINUTE = dt.timedelta(minutes=1)
DAY = dt.timedelta(days=1)
CHANCE = random.Random(7)


def situation(**changes: object) -> Situation:
    known: dict[str, object] = {
        "now": NOW, "attempt": 0, "expires_at": NOW + 30 * DAY, "job": None, "job_since": None,
        "poll_every": 5 * MINUTE, "gives_up_after": 90 * DAY,
    }  # fmt: skip
    return Situation(**(known | changes))  # type: ignore[arg-type]


WAITING = situation(job="j-1", job_since=NOW - DAY)

ENDS = [
    (done(read_back=True), situation(), State.SUCCEEDED, "done", Assurance.VERIFIED_ABSENT),
    (done(), situation(), State.SUCCEEDED, "done", Assurance.CONFIRMED),
    (done(), WAITING, State.SUCCEEDED, "done", Assurance.CONFIRMED),
    (absent(), situation(), State.SUCCEEDED, "absent", Assurance.CONFIRMED),
    (absent(), WAITING, State.SUCCEEDED, "absent", Assurance.CONFIRMED),
    (
        accepted(), situation(), State.SUCCEEDED, "accepted_unconfirmable",
        Assurance.ACKNOWLEDGED,
    ),
    (
        accepted("j-1"), situation(job="j-1", job_since=NOW - 90 * DAY), State.DISCARDED,
        "unconfirmed", Assurance.ACKNOWLEDGED,
    ),
    (skipped("below_age"), situation(), State.SUCCEEDED, "skipped", Assurance.NONE),
    (failed("no_such_field"), situation(), State.DISCARDED, "failed", Assurance.REQUESTED),
    (failed("job_failed"), WAITING, State.DISCARDED, "failed", Assurance.REQUESTED),
]  # fmt: skip


@pytest.mark.parametrize(("outcome", "known", "state", "detail", "assurance"), ENDS)
def test_an_answer_that_ends_a_delivery_says_how_much_was_seen(
    outcome: Outcome, known: Situation, state: State, detail: str, assurance: Assurance
) -> None:
    step = judge(outcome, known, CHANCE)

    assert (step.state, step.detail, step.assurance) == (state, detail, assurance)
    assert step.is_settled
    assert step.due_at is None


def test_codes_of_the_destination_are_kept_as_the_reason() -> None:
    assert judge(skipped("below_age"), situation(), CHANCE).reason == "below_age"
    assert judge(failed("no_such_field"), situation(), CHANCE).reason == "no_such_field"


def test_an_accepted_job_is_asked_about_after_the_usual_pause() -> None:
    step = judge(accepted("j-1"), situation(), CHANCE)

    assert step.state is State.AWAITING_CONFIRMATION
    assert step.assurance is Assurance.ACKNOWLEDGED
    assert (step.job, step.due_at) == ("j-1", NOW + 5 * MINUTE)
    assert not step.is_settled


def test_the_destination_may_say_when_to_ask_about_its_job() -> None:
    assert judge(accepted("j", after=3 * MINUTE), situation(), CHANCE).due_at == NOW + 3 * MINUTE


def test_a_poll_that_names_no_job_goes_on_with_the_known_one() -> None:
    step = judge(accepted(), WAITING, CHANCE)

    assert (step.state, step.job) == (State.AWAITING_CONFIRMATION, "j-1")


def test_a_job_is_given_up_exactly_when_its_time_is_over() -> None:
    just_before = situation(job="j", job_since=NOW - 90 * DAY + dt.timedelta(microseconds=1))

    assert judge(accepted("j"), just_before, CHANCE).state is State.AWAITING_CONFIRMATION
    at_the_end = situation(job="j", job_since=NOW - 90 * DAY)
    assert judge(accepted("j"), at_the_end, CHANCE).reason == "no_confirmation"


def test_a_job_is_asked_about_a_last_time_when_its_time_is_over() -> None:
    almost_over = situation(job="j", job_since=NOW - 90 * DAY + MINUTE)

    for answer in (accepted("j"), accepted("j", after=7 * DAY), retry("timeout")):
        assert judge(answer, almost_over, CHANCE).due_at == NOW + MINUTE


def test_a_job_has_its_own_time_and_not_that_of_the_delivery() -> None:
    expired = situation(job="j", job_since=NOW - 60 * DAY, expires_at=NOW - 30 * DAY)

    for answer in (accepted("j"), retry("timeout"), retry("unauthorized", parks=True)):
        assert judge(answer, expired, CHANCE).state is State.AWAITING_CONFIRMATION
    given_up = judge(retry("timeout"), situation(job="j", job_since=NOW - 90 * DAY), CHANCE)
    assert (given_up.state, given_up.detail) == (State.DISCARDED, "unconfirmed")


def test_a_poll_that_fails_is_no_reason_to_poll_more_often() -> None:
    assert judge(retry("timeout"), WAITING, CHANCE).due_at == NOW + 5 * MINUTE
    assert judge(retry("rate_limited", 3 * MINUTE), WAITING, CHANCE).due_at == NOW + 3 * MINUTE


SECOND = dt.timedelta(seconds=1)
SCHEDULE = (30 * SECOND, MINUTE, 5 * MINUTE)


@pytest.mark.parametrize(
    ("schedule", "waited", "wait"),
    [
        (SCHEDULE, dt.timedelta(), 30 * SECOND),
        (SCHEDULE, 29 * SECOND, 30 * SECOND),
        (SCHEDULE, 31 * SECOND, MINUTE),
        (SCHEDULE, 92 * SECOND, 5 * MINUTE),
        (SCHEDULE, 7 * MINUTE, 5 * MINUTE),
        (SCHEDULE, 80 * DAY, 5 * MINUTE),
        ((MINUTE,), dt.timedelta(), MINUTE),
        ((MINUTE,), DAY, MINUTE),
    ],
)
def test_the_waits_of_a_schedule_follow_each_other_and_the_last_is_repeated(
    schedule: tuple[dt.timedelta, ...], waited: dt.timedelta, wait: dt.timedelta
) -> None:
    assert wait_for(schedule, waited) == wait


def test_a_retry_waits_and_counts_an_attempt() -> None:
    step = judge(retry("timeout"), situation(attempt=3), CHANCE)

    assert (step.state, step.assurance) == (State.AWAITING_RETRY, Assurance.REQUESTED)
    assert step.counts_attempt
    assert step.due_at is not None
    assert NOW < step.due_at <= NOW + BACKOFF_BASE * 8


def test_a_failed_poll_keeps_the_job_and_what_was_acknowledged() -> None:
    step = judge(retry("unreachable"), WAITING, CHANCE)

    assert step.state is State.AWAITING_CONFIRMATION
    assert (step.job, step.assurance) == ("j-1", Assurance.ACKNOWLEDGED)


def test_the_destinations_wish_to_wait_is_followed_up_to_a_week() -> None:
    def due(after: dt.timedelta) -> dt.datetime | None:
        return judge(retry("rate_limited", after), situation(), CHANCE).due_at

    assert due(10 * MINUTE) == NOW + 10 * MINUTE
    assert due(300 * DAY) == NOW + WISH_CAP


def test_a_negative_wish_is_no_reason_to_hurry() -> None:
    due = judge(retry("rate_limited", -DAY), situation(), CHANCE).due_at

    assert due is not None
    assert due >= NOW + BACKOFF_FLOOR


def test_refused_credentials_burn_neither_attempt_nor_time() -> None:
    step = judge(retry("unauthorized", parks=True), situation(attempt=2), CHANCE)

    assert (step.state, step.due_at) == (State.AWAITING_RETRY, NOW)
    assert not step.counts_attempt


def test_a_retry_that_would_come_after_the_expiry_goes_to_the_archive() -> None:
    almost = situation(expires_at=NOW + BACKOFF_FLOOR)

    step = judge(retry("timeout"), almost, CHANCE)

    assert (step.state, step.detail, step.reason) == (State.ARCHIVING, "expired", "timeout")
    assert not step.is_settled
    assert step.due_at is None


@given(
    verdict=st.sampled_from(Verdict),
    read_back=st.booleans(),
    job=st.sampled_from([None, "a", "b"]),
    known_job=st.sampled_from([None, "a"]),
    parks=st.booleans(),
    attempt=st.integers(0, 10_000),
    wish=st.none() | st.timedeltas(-DAY, 400 * DAY),
    expires_in=st.timedeltas(-DAY, 40 * DAY),
    waited=st.timedeltas(dt.timedelta(), 100 * DAY),
)
def test_every_answer_leads_somewhere_and_never_claims_more_than_was_seen(
    verdict: Verdict, read_back: bool, job: str | None, known_job: str | None, parks: bool,
    attempt: int, wish: dt.timedelta | None, expires_in: dt.timedelta, waited: dt.timedelta,
) -> None:  # fmt: skip
    outcome = Outcome(verdict, read_back=read_back, job=job, parks=parks, retry_after=wish)
    known = situation(
        attempt=attempt, job=known_job, job_since=NOW - waited if known_job else None,
        expires_at=NOW + expires_in,
    )  # fmt: skip

    step: Step = judge(outcome, known, CHANCE)

    assert (step.due_at is None) == (step.is_settled or step.state is State.ARCHIVING)
    if step.assurance in {Assurance.CONFIRMED, Assurance.VERIFIED_ABSENT}:
        assert verdict in {Verdict.DONE, Verdict.ABSENT}
    if step.assurance is Assurance.VERIFIED_ABSENT:
        assert read_back
    if step.state is State.AWAITING_CONFIRMATION:
        assert step.job is not None
    if step.due_at is not None:
        if step.state is State.AWAITING_CONFIRMATION:
            assert step.due_at <= (known.job_since or NOW) + known.gives_up_after
        else:
            assert step.due_at < known.expires_at


@given(attempt=st.integers(0, 10**9), seed=st.integers())
def test_backoff_stays_between_its_floor_and_its_growing_top(attempt: int, seed: int) -> None:
    wait = backoff(attempt, random.Random(seed))

    assert BACKOFF_FLOOR <= wait <= min(BACKOFF_CAP, BACKOFF_BASE * 2 ** min(attempt, 30))


def test_backoff_is_spread_over_its_whole_range() -> None:
    chance = random.Random(1)

    waits = sorted(backoff(20, chance) for _ in range(500))

    assert waits[0] < BACKOFF_CAP / 20
    assert waits[-1] > BACKOFF_CAP * 0.95
    assert BACKOFF_CAP * 0.4 < waits[250] < BACKOFF_CAP * 0.6


BY_BADNESS = [
    retry("timeout"), failed("no"), accepted("j"), done(), done(read_back=True), absent(),
    skipped("rule"),
]  # fmt: skip


@given(st.lists(st.sampled_from(BY_BADNESS), min_size=1, max_size=6))
def test_the_worst_of_several_answers_counts(outcomes: list[Outcome]) -> None:
    found = worst(outcomes)

    expected = BY_BADNESS[min(BY_BADNESS.index(each) for each in outcomes)]
    assert found.verdict is expected.verdict
    if found.read_back:
        assert all(each.read_back or each.verdict is not Verdict.DONE for each in outcomes)


def test_what_one_of_several_answers_keeps_is_not_lost() -> None:
    invoices = Residual("invoices", "tax records", "2036")

    found = worst([done(read_back=True, residuals=[invoices]), done(anonymised=True), absent()])

    assert found.verdict is Verdict.DONE
    assert found.residuals == (invoices,)
    assert found.anonymised


def test_one_refusal_of_our_credentials_parks_whatever_else_was_said() -> None:
    found = worst([retry("timeout"), retry("unauthorized", parks=True), done()])

    assert found.parks
    assert found.reason == "unauthorized"
