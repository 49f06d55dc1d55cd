"""How claimed deliveries become calls, and which identifiers a call carries."""

from __future__ import annotations

import datetime as dt
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.delivery.carry import people_of, usable
from app.delivery.claim import group
from app.delivery.due import Member
from connectors.contract import Identifier

NOW = dt.datetime(2026, 3, 2, tzinfo=dt.UTC)
ids = st.sampled_from([None, "job-1", "job-2"])
operations = st.sampled_from(["erase", "suppress"])


def member(number: int, operation: str = "erase", job: str | None = None) -> Member:
    return Member(
        f"dlv_{number:03}", operation, 3, 0, 1, NOW, job, None, None, "req_1", "ws_1", (), None
    )


def test_a_call_carries_one_operation() -> None:
    calls = group([member(1), member(2, "suppress"), member(3)], 10)

    assert [[each.operation for each in call] for call in calls] == [
        ["erase", "erase"], ["suppress"],
    ]  # fmt: skip


def test_people_who_wait_for_one_job_share_its_poll_however_many_they_are() -> None:
    calls = group([member(each, job="job-1") for each in range(50)] + [member(99, job="job-2")], 10)

    assert sorted(len(call) for call in calls) == [1, 50]


@given(st.lists(st.tuples(operations, ids), max_size=60), st.integers(1, 20))
def test_everybody_travels_once_in_a_call_of_the_right_size(
    wanted: list[tuple[str, str | None]], batch: int
) -> None:
    members = [member(number, *each) for number, each in enumerate(wanted)]

    calls = group(members, batch)

    carried = [each.delivery_id for call in calls for each in call]
    assert sorted(carried) == [each.delivery_id for each in members]
    for call in calls:
        assert len({(each.operation, each.job) for each in call}) == 1
        assert call[0].job is not None or len(call) <= batch


EMAIL, OTHER_EMAIL = Identifier("email", "bob@a.example"), Identifier("email", "b@b.example")
USER, PHONE = Identifier("user_id", "u1"), Identifier("phone", "+49301234567")
PERSON = [EMAIL, USER, OTHER_EMAIL, PHONE]


@pytest.mark.parametrize(
    ("accepts", "accepts_all", "expected"),
    [
        ((), False, PERSON),
        (("user_id", "email"), False, [USER]),
        (("device_id", "email"), False, [EMAIL, OTHER_EMAIL]),
        (("user_id", "email"), True, [EMAIL, USER, OTHER_EMAIL]),
        (("device_id",), False, []),
        (("device_id",), True, []),
    ],
)
def test_a_delivery_uses_the_first_kind_it_can_or_all_of_them(
    accepts: tuple[str, ...], accepts_all: bool, expected: list[Identifier]
) -> None:
    assert usable(accepts, accepts_all, PERSON) == expected


def test_people_whose_values_cannot_be_opened_any_more_do_not_travel() -> None:
    bob, carol = member(1), member(2)
    bob.identifier_ids, carol.identifier_ids = ("pv_1", "pv_2"), ("pv_3",)
    opened = {"pv_2": SimpleNamespace(identifier=EMAIL)}

    people = people_of([bob, carol], opened)

    assert [(each.id, each.identifiers) for each in people] == [("dlv_001", (EMAIL,))]
