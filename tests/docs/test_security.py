"""SECURITY.md names tests that exist."""

from __future__ import annotations

import re

import pytest

from tests.docs.markdown import ROOT

NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "SECURITY.md").read_text())))


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_the_test_behind_a_promise_exists(path: str, name: str) -> None:
    assert re.search(rf"^(?:async )?def {name}\(", (ROOT / path).read_text(), re.M)


def test_promises_are_backed_by_tests() -> None:
    assert len(NAMED) > 10
