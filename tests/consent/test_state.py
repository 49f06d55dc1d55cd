"""What records add up to: by table, and in whatever order the network brings them."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from app.consent.schemas import ConsentIn, reduce_page
from app.consent.state import (
    Choice,
    Decision,
    Merged,
    Signal,
    changed,
    combine,
    denials,
    granted_again,
    merge,
    refused_since,
    standing,
    still_denying,
    withdrawn,
)

NOON = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
choices = st.fixed_dictionaries({"analytics": st.booleans(), "advertising": st.booleans()})
decisions = st.builds(
    Decision, st.integers(0, 3).map(lambda each: NOON + dt.timedelta(minutes=each)), choices
)


@given(
    st.lists(decisions, min_size=1, max_size=6).flatmap(
        lambda each: st.tuples(st.just(each), st.permutations(each))
    )
)
def test_the_order_of_arrival_does_not_matter(pair: tuple[list[Decision], list[Decision]]) -> None:
    assert combine(pair[0]) == combine(pair[1])


@given(st.lists(decisions, min_size=1, max_size=6))
def test_the_newest_decides_and_on_a_tie_denied_wins(found: list[Decision]) -> None:
    current = combine(found)
    newest = max(each.decided_at for each in found)
    tied = [each for each in found if each.decided_at == newest]

    assert current is not None
    assert current.decided_at == newest
    for purpose in ("analytics", "advertising"):
        assert current.choices[purpose] == all(each.choices[purpose] for each in tied)


def choice(minute: int, name: str, *, may_grant: bool = True, **choices: bool) -> Choice:
    return Choice(NOON + dt.timedelta(minutes=minute), choices, name, may_grant=may_grant)


@pytest.mark.parametrize(
    ("made", "denied_here", "merged"),
    [
        ([], (), None),
        ([choice(1, "old", a=False), choice(2, "new", a=True)], (), Merged("new", {"a": True})),
        ([choice(2, "new", a=False), choice(1, "old", a=True)], (), Merged("new", {"a": False})),
        (
            [choice(1, "x", a=True, b=False), choice(1, "y", a=False, b=False)],
            (),
            Merged("y", {"a": False, "b": False}),
        ),
        (
            [choice(1, "x", a=True, b=False), choice(1, "y", a=False, b=True)],
            (),
            Merged("y", {"a": False, "b": False}),
        ),
        (
            [choice(1, "x", a=True), choice(1, "y", b=False)],
            (),
            Merged("y", {"a": True, "b": False}),
        ),
        (
            [choice(1, "old", a=True), choice(2, "lapsed", a=True, b=False, may_grant=False)],
            (),
            Merged("lapsed", {"b": False}),
        ),
        (
            [choice(1, "x", a=True, b=True), choice(1, "lapsed", a=False, b=True, may_grant=False)],
            (),
            Merged("lapsed", {"a": False, "b": True}),
        ),
        ([choice(1, "lapsed", a=True, may_grant=False)], (), Merged("lapsed", {})),
        ([choice(1, "x", a=True, b=True)], ("a", "c"), Merged("x", {"a": False, "b": True})),
        ([choice(1, "lapsed", a=True, may_grant=False)], ("a",), Merged("lapsed", {})),
    ],
)
def test_a_persons_newest_explicit_choice_holds_on_each_device(
    made: list[Choice], denied_here: tuple[str, ...], merged: Merged | None
) -> None:
    assert merge(made, denied_here) == merged


made_anywhere = st.builds(
    Choice,
    st.integers(0, 2).map(lambda each: NOON + dt.timedelta(minutes=each)),
    choices,
    st.uuids().map(str),
    st.booleans(),
)


@given(
    st.lists(made_anywhere, min_size=1, max_size=6).flatmap(
        lambda each: st.tuples(st.just(each), st.permutations(each))
    ),
    st.sets(st.sampled_from(["analytics", "advertising"])),
)
def test_merging_knows_no_order_and_no_device(
    pair: tuple[list[Choice], list[Choice]], denied_here: set[str]
) -> None:
    assert merge(pair[0], denied_here) == merge(pair[1], denied_here)
    assert merge([*pair[0], *pair[0]], denied_here) == merge(pair[0], denied_here)


@given(
    st.lists(made_anywhere, min_size=1, max_size=6),
    st.sets(st.sampled_from(["analytics", "advertising"])),
)
def test_nothing_is_granted_but_by_the_newest_choice_and_nothing_denied_is_lost(
    made: list[Choice], denied_here: set[str]
) -> None:
    merged = merge(made, denied_here)
    moment = max(each.decided_at for each in made)
    newest = [each for each in made if each.decided_at == moment]

    assert merged is not None
    assert merged.consent_id in {each.consent_id for each in newest}
    granted = {purpose for purpose, answer in merged.choices.items() if answer}
    for purpose in ("analytics", "advertising"):
        is_denied = any(not each.choices[purpose] for each in newest)
        if is_denied:
            assert merged.choices[purpose] is False
        assert not (purpose in granted and purpose in denied_here)
    for purpose in granted:
        assert any(each.may_grant and each.choices[purpose] for each in newest)


def test_what_a_choice_leaves_be_is_as_it_was_chosen_before() -> None:
    refusal, partial = choice(1, "all", a=False, b=False, gone=False), choice(2, "some", b=True)

    assert merge([refusal, partial], asked=("a", "b")) == Merged("some", {"a": False, "b": True})
    assert merge([partial], asked=("a", "b")) == Merged("some", {"b": True})
    whole = Decision(partial.decided_at, {"a": False, "b": True, "gone": False})
    assert standing([refusal, partial]) == standing([partial, refusal]) == whole
    assert changed(standing([refusal]), whole, asks_first=False) == (set(), {"b"})


def signal(minute: int, name: str, *purposes: str) -> Signal:
    return Signal(NOON + dt.timedelta(minutes=minute), dict.fromkeys(purposes, False), name)


@pytest.mark.parametrize(
    ("signals", "choices", "denied", "by"),
    [
        ([], [choice(1, "x", a=True)], None, None),
        ([signal(1, "s", "a")], [], {"a"}, "s"),
        ([signal(2, "s", "a")], [choice(1, "x", a=True)], {"a"}, "s"),
        ([signal(1, "s", "a")], [choice(1, "x", a=True)], {"a"}, "s"),
        ([signal(1, "s", "a")], [choice(2, "x", a=True)], None, None),
        ([signal(1, "s", "a")], [choice(2, "x", b=True)], {"a"}, "s"),
        ([signal(1, "s", "a", "b")], [choice(2, "x", b=True)], {"a"}, "s"),
        ([signal(3, "new", "a"), signal(1, "old", "b")], [], {"a", "b"}, "new"),
        ([signal(3, "new", "b"), signal(1, "old", "a")], [choice(4, "x", b=True)], {"a"}, "old"),
        ([signal(1, "s")], [], None, None),
    ],
)
def test_a_signal_denies_what_nobody_has_chosen_since(
    signals: list[Signal], choices: list[Choice], denied: set[str] | None, by: str | None
) -> None:
    found = still_denying(signals, choices)

    assert found == still_denying(reversed(signals), choices)
    assert (found and set(found.choices)) == denied
    assert (found and found.consent_id) == by
    state = standing([*signals, *choices])
    assert state is None or not any(state.choices[each] for each in denied or ())


@given(st.lists(made_anywhere, min_size=1, max_size=6), made_anywhere)
def test_a_later_denial_anywhere_is_the_end_of_every_grant(
    made: list[Choice], last: Choice
) -> None:
    refusal = Choice(
        NOON + dt.timedelta(hours=1), dict.fromkeys(last.choices, False), "refusal", last.may_grant
    )

    assert merge([*made, refusal]) == Merged("refusal", denials(refusal.choices))


@pytest.mark.parametrize(
    ("before", "after", "default", "purposes"),
    [
        (None, {"a": False}, (), []),
        (None, {"a": False, "b": True}, ("a", "b"), ["a"]),
        ({"a": True, "b": True}, {"a": False, "b": True}, (), ["a"]),
        ({"a": False}, {"a": False}, ("a",), []),
        ({"a": True, "gone": True}, {"a": False}, (), ["a"]),
        ({"a": False}, {"a": True}, (), []),
    ],
)
def test_a_withdrawal_is_a_grant_that_is_no_more(
    before: dict[str, bool] | None,
    after: dict[str, bool],
    default: tuple[str, ...],
    purposes: list[str],
) -> None:
    earlier = Decision(NOON, before) if before is not None else None

    assert withdrawn(earlier, Decision(NOON, after), default) == purposes


@pytest.mark.parametrize(
    ("page", "kept"),
    [
        ("https://shop.example/a?email=bob@x#y", "https://shop.example/a"),
        ("https://bob:secret@shop.example:8443/a", "https://shop.example:8443/a"),
        ("https://shop.example", "https://shop.example/"),
        ("http://[::1]:80/x", "http://[::1]:80/x"),
        ("/basket?id=7", "/basket"),
    ],
)
def test_a_page_is_reduced_to_origin_and_path(page: str, kept: str) -> None:
    assert reduce_page(page) == kept


@pytest.mark.parametrize(
    "page",
    [
        "javascript:alert(1)",
        "data:text/html,x",
        "//evil.example/x",
        "https://",
        "x",
        "https://a\\b/",
        "https://a b/",
        "/a\nb",
        "https://[::1",
        "https://a:99999/",
    ],
)
def test_other_addresses_are_refused(page: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        reduce_page(page)


@pytest.mark.parametrize(
    "moment",
    [
        0,
        1700000000,
        "1700000000",
        "2026-11-23T10:00:00",
        "yesterday",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        None,
        True,
    ],
)
def test_only_sane_rfc_3339_moments_pass(moment: object) -> None:
    body = {
        "event_id": "00000000-0000-4000-8000-000000000000",
        "visitor_id": "00000000-0000-4000-8000-000000000000",
        "site_key": "s",
        "notice_version": "n",
        "choices": {},
        "method": "custom",
        "language": "en",
        "gpc": False,
        "decided_at": moment,
    }
    with pytest.raises(ValidationError):
        ConsentIn.model_validate(body)


@pytest.mark.parametrize(
    ("choices", "denied"),
    [
        ({"ads": False}, {"partners"}),
        ({"ads": False, "functional": True}, {"partners"}),
        ({"ads": True, "functional": False}, set()),
        ({"functional": False}, set()),
        ({"gone": False}, {"ads", "partners"}),
        ({"gone": True, "ads": False}, {"partners"}),
        ({"ads": False, "partners": True}, set()),
    ],
)
def test_an_opt_out_covers_what_is_sold_later(choices: dict[str, bool], denied: set[str]) -> None:
    found = refused_since(choices, {"ads", "functional", "partners"}, sold={"ads", "partners"})
    assert found == dict.fromkeys(denied, False)


@pytest.mark.parametrize(
    ("before", "after", "purposes"),
    [
        ({"analytics": False, "ads": False}, {"analytics": True, "ads": False}, ["analytics"]),
        ({"analytics": True}, {"analytics": True, "ads": True}, []),
        ({"analytics": False}, {"ads": True}, []),
        (None, {"analytics": True}, []),
    ],
)
def test_granted_again_is_what_was_denied_and_no_longer_is(
    before: dict[str, bool] | None, after: dict[str, bool], purposes: list[str]
) -> None:
    earlier = None if before is None else Decision(NOON, before)
    assert granted_again(earlier, Decision(NOON, after)) == purposes
