"""One JSON behaviour for every body (HTTP-009 to HTTP-015)."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import BadRequest
from app.core.http import strict_json

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")), inner,
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@given(json_values, st.booleans())
def test_every_good_body_is_read_as_it_was_written(value: Any, ascii_only: bool) -> None:
    assert strict_json(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


def test_http_009_a_byte_order_mark_changes_nothing() -> None:
    assert strict_json(b'\xef\xbb\xbf{"a":1}') == {"a": 1}


REFUSED = {
    "http_011_five_thousand_digits": b'{"a":' + b"1" * 5000 + b"}",
    "http_013_a_name_twice": b'{"email":"a@example.com","email":"b@example.com"}',
    "a_name_twice_deep_inside": b'[{"a":[{"b":1,"b":1}]}]',
    "a_name_twice_by_escape": b'{"a":1,"\\u0061":2}',
    "http_015_a_lone_high_surrogate": b'"\\ud800"',
    "a_lone_low_surrogate": b'{"a":["\\uDFFF"]}',
    "a_lone_surrogate_in_a_name": b'{"\\udc00":1}',
    "a_nul": b'"a\\u0000b"',
    "not_a_number": b'{"a":NaN}',
    "infinity": b'{"a":-Infinity}',
    "a_number_beyond_floats": b'{"a":1e999}',
    "not_utf_8": b'"\xff"',
    "utf_16": '{"a":1}'.encode("utf-16"),
    "surrogates_as_utf_8": b'"\xed\xa0\x80"',
    "deep_nesting": b"[" * 100_000 + b"]" * 100_000,
    "nothing": b"",
    "two_documents": b"{}{}",
    "a_trailing_comma": b"[1,]",
    "a_comment": b"{}//",
    "single_quotes": b"{'a':1}",
    "a_raw_control_character": b'"\x01"',
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED.keys())
def test_a_body_that_readers_could_understand_differently_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        strict_json(body)


def test_a_pair_of_surrogates_is_one_character() -> None:
    assert strict_json(b'"\\ud83d\\ude00"') == "\U0001f600"


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused_and_nothing_else(body: bytes) -> None:
    with suppress(BadRequest):
        strict_json(body)
