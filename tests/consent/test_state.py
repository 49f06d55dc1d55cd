"""What records add up to: by table, and in whatever order the network brings them."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from app.consent.schemas import ConsentIn, reduce_page
from app.consent.state import Decision, combine, withdrawn

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
