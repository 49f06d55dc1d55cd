"""What differs between two versions of a notice."""

from __future__ import annotations

from typing import Any

import pytest

from app.sites.changes import is_material, left_behind, news

Words = dict[str, dict[str, str]]
"""Language -> purpose -> what it is called there."""

BEFORE: Words = {
    "en": {"analytics": "Statistics", "surveys": "Surveys"},
    "de": {"analytics": "Statistik", "surveys": "Umfragen"},
    "fr": {"analytics": "Statistiques", "surveys": "Sondages"},
}


def notice(words: Words) -> dict[str, Any]:
    return {
        "default_language": "en",
        "purposes": [{"id": each} for each in next(iter(words.values()))],
        "languages": {
            tag: {"purposes": {each: {"name": name} for each, name in said.items()}}
            for tag, said in words.items()
        },
    }


def reworded(*tags: str, purpose: str = "analytics") -> Words:
    return {
        tag: said | ({purpose: f"{said[purpose]}, new"} if tag in tags else {})
        for tag, said in BEFORE.items()
    }


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (BEFORE, {}),
        (reworded("en"), {"analytics": ["de", "fr"]}),
        (reworded("de", purpose="surveys"), {"surveys": ["en", "fr"]}),
        (reworded("en", "fr"), {"analytics": ["de"]}),
        (reworded("en", "de", "fr"), {}),
        ({"en": reworded("en")["en"]}, {}),
        ({**BEFORE, "es": {"analytics": "Otra", "surveys": "Encuestas"}}, {}),
        ({tag: said | {"ads": tag} for tag, said in BEFORE.items()}, {}),
        ({tag: {"surveys": said["surveys"]} for tag, said in BEFORE.items()}, {}),
    ],
    ids=[
        "nothing", "one language", "another purpose", "two languages", "all languages",
        "the others are no longer offered", "a new language", "a new purpose", "a purpose is gone",
    ],
)  # fmt: skip
def test_a_purpose_reworded_in_some_languages_names_those_that_stayed(
    after: Words, expected: dict[str, list[str]]
) -> None:
    assert left_behind(notice(BEFORE), notice(after)) == expected


@pytest.mark.parametrize(
    ("german", "english", "expected"),
    [
        ("Kekse", "Cookies", {}),
        ("Cookies", "Biscuits", {"cookies": ["fr"]}),
        ("Kekse", "Biscuits", {"cookies": ["fr"]}),
    ],
    ids=["a first translation", "the default's words follow", "both"],
)
def test_a_language_without_words_of_its_own_is_neither_reworded_nor_left(
    german: str, english: str, expected: dict[str, list[str]]
) -> None:
    before = {
        "en": {"cookies": "Cookies"},
        "de": {"cookies": "Cookies"},
        "fr": {"cookies": "Témoins"},
    }
    after = {"en": {"cookies": english}, "de": {"cookies": german}, "fr": before["fr"]}
    assert left_behind(notice(before), notice(after)) == expected


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (BEFORE, []),
        (reworded("en"), ["analytics"]),
        (reworded("de", purpose="surveys"), ["surveys"]),
        ({**BEFORE, "es": {"analytics": "Otra", "surveys": "Encuestas"}}, []),
        ({"en": BEFORE["en"]}, []),
    ],
    ids=["nothing", "default language", "another language", "a new language", "one less"],
)
def test_other_words_in_any_language_have_people_asked_again(
    after: Words, expected: list[str]
) -> None:
    before = {**notice(BEFORE), "controller": {"name": "Shop"}}
    later = {**notice(after), "controller": {"name": "Shop"}}
    assert (is_material(before, later), news(before, later)) == (bool(expected), expected)
