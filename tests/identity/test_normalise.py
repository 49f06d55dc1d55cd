"""Identifiers in one canonical form (FORM-003, FORM-009, FORM-011, FORM-013)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.provisional import domains

from app.identity.normalise import InvalidIdentifier, normalise
from connectors.contract import Identifier


def email(value: str) -> str:
    return normalise("email", value).value


NOT_ONE_ADDRESS = [
    "a@example.com,b@example.com", "a@example.com;b@example.com", "A <a@example.com>",
    "a@example.com b@example.com", "a@example.com\nbcc: b@example.com", "a@example.com\r\n",
    "<a@example.com>", "mailto:a@example.com", '"a"@example.com', "a@[127.0.0.1]", "a@localhost",
    "a@", "@example.com", "a", "a@@example.com", "a@example..com", ".a@example.com",
    "a@example.com\x00", "a@exa mple.com", "a" * 65 + "@example.com", "a@" + "b" * 260 + ".com",
    "a@example.com\u202e", "a(comment)@example.com",
]  # fmt: skip


@pytest.mark.parametrize("value", NOT_ONE_ADDRESS)
def test_form_003_anything_but_exactly_one_address_is_refused_without_repeating_it(
    value: str,
) -> None:
    if value == "a@example.com\r\n":
        assert email(value) == "a@example.com"  # white space around it is dropped
        return
    with pytest.raises(InvalidIdentifier) as raised:
        email(value)
    assert len(value) < 14 or value not in str(raised.value)


def test_form_009_a_cyrillic_look_alike_is_another_address() -> None:
    assert email("\u0430dmin@example.com") != email("admin@example.com")
    assert "\u0430" in email("\u0430dmin@example.com")


def test_form_009_letters_that_only_lower_to_ascii_stay_what_they_are() -> None:
    """The long s upper-cases to S, the dotted I lowers to i: neither is ours to change."""
    for letter in ("\u017f", "\u0130"):
        try:
            found = email(f"{letter}ate@example.com")
        except InvalidIdentifier:
            continue
        assert found not in {email("kate@example.com"), email("sate@example.com"),
                             email("iate@example.com")}  # fmt: skip


def test_form_011_both_forms_of_a_domain_are_one() -> None:
    assert email("bob@b\u00fccher.example") == email("bob@xn--bcher-kva.example")
    assert email("bob@B\u00dcCHER.example") == "bob@xn--bcher-kva.example"


def test_form_013_domain_and_ascii_local_part_are_lowered() -> None:
    assert email(" Bob.Subject@EXAMPLE.Com ") == "bob.subject@example.com"


locals_ = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9+_-]{0,12}", fullmatch=True)


@given(locals_, domains(max_length=40))
def test_the_canonical_form_of_an_address_is_stable_and_blind_to_case(
    local: str, domain: str
) -> None:
    try:
        once = email(f"{local}@{domain}")
    except InvalidIdentifier:
        return
    assert email(once) == once
    assert email(f"{local.upper()}@{domain.upper()}") == once


@given(st.sampled_from(["user_id", "email", "phone", "own_kind"]), st.text(max_size=60))
def test_any_text_is_refused_or_normalised_once_and_for_all(kind: str, value: str) -> None:
    try:
        once = normalise(kind, value)
    except InvalidIdentifier:
        return
    assert normalise(kind, once.value) == once
    assert once.value.strip() == once.value != ""


def test_composed_and_decomposed_text_is_one_user_id() -> None:
    assert normalise("user_id", "Zoe\u0308") == normalise("user_id", "Zo\u00eb")
    assert normalise("user_id", "Zoe") != normalise("user_id", "zoe")


@pytest.mark.parametrize("value", ["+49 (30) 123-45.67", "+49/30/1234567", "+49301234567"])
def test_telephone_numbers_become_e_164(value: str) -> None:
    assert normalise("phone", value) == Identifier("phone", "+49301234567")


@pytest.mark.parametrize("value", ["030 1234567", "+0301234567", "+49", "+4930123456789012", "+49x",
                                   "\u0662+49301234567", "+4930123456\u0667"])  # fmt: skip
def test_other_telephone_numbers_are_refused(value: str) -> None:
    with pytest.raises(InvalidIdentifier):
        normalise("phone", value)


@pytest.mark.parametrize("kind", ["", "E-Mail", "1st", "a b", "a" * 33, "\u00e9", "email\n"])
def test_kinds_are_plain_words(kind: str) -> None:
    with pytest.raises(InvalidIdentifier):
        normalise(kind, "value")


@pytest.mark.parametrize("value", ["", "   ", "a\x00b", "a\nb", "\ud800", "\ue000", "x" * 513])
def test_values_that_cannot_be_anybody_are_refused(value: str) -> None:
    with pytest.raises(InvalidIdentifier):
        normalise("user_id", value)
