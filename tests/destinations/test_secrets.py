"""Secrets apart from settings: what is split comes back, and nothing is shown in between."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from app.destinations import secrets
from connectors.contract import ConnectorSettings


class Inner(ConnectorSettings):
    host: str = "h"
    token: SecretStr | None = None


class Outer(ConnectorSettings):
    name: str = ""
    token: SecretStr | None = None
    inner: Inner | None = None
    many: tuple[Inner, ...] = ()
    headers: dict[str, SecretStr] = {}  # noqa: RUF012 - pydantic copies it
    deep: dict[str, list[Inner]] = {}  # noqa: RUF012


secret = st.uuids().map(str)
plain = st.text("abc/~:{}", max_size=5)
inner = st.fixed_dictionaries({}, optional={"host": plain, "token": secret | st.none()})
outer = st.fixed_dictionaries(
    {},
    optional={
        "name": plain,
        "token": secret | st.none(),
        "inner": inner | st.none(),
        "many": st.lists(inner, max_size=3),
        "headers": st.dictionaries(plain, secret, max_size=3),
        "deep": st.dictionaries(plain, st.lists(inner, max_size=2), max_size=2),
    },
)


def leaves(value: Any) -> list[str]:
    return [each for _, each in secrets.nodes(value) if isinstance(each, str) and len(each) == 36]


@given(outer)
def test_what_is_split_comes_back_and_the_plain_part_holds_no_secret(given_settings: Any):
    shown, kept = secrets.split(Outer.model_validate(given_settings))
    assert sorted(kept.values()) == sorted(leaves(given_settings))
    assert leaves(shown) == []
    whole = secrets.join(shown, kept)
    assert Outer.model_validate(whole) == Outer.model_validate(given_settings)
    assert secrets.given(given_settings, Outer) == kept


@given(outer)
def test_what_was_read_can_be_sent_back(given_settings: Any):
    shown, kept = secrets.split(Outer.model_validate(given_settings))
    filled, used = secrets.keep(shown, kept, secrets.places(Outer))
    assert used == kept
    assert secrets.unfilled(filled, secrets.places(Outer)) == []
    assert secrets.targets(filled) == secrets.targets(secrets.join(shown, kept))


@given(outer, outer)
def test_no_kept_secret_turns_up_at_another_place(before: Any, after: Any):
    _, kept = secrets.split(Outer.model_validate(before))
    filled, used = secrets.keep(after, kept, secrets.places(Outer))
    assert used.items() <= kept.items()
    assert sorted(leaves(filled)) == sorted([*leaves(after), *used.values()])


def test_places_of_secrets():
    assert secrets.places(Outer) == [
        ("token",),
        ("inner", "token"),
        ("many", "*", "token"),
        ("headers", "*"),
        ("deep", "*", "*", "token"),
    ]


def test_a_text_is_scrubbed_of_secrets_and_credentials():
    text = "cannot log in at postgres://u:p4ss@db/x with hunter22"
    assert secrets.scrub(text, {"/a": "hunter22"}) == (
        "cannot log in at postgres://***@db/x with ***"
    )
