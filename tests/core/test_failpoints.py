"""Failpoints: every name that is known is placed, every place is known, and one of them kills."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app.core.failpoints import FAILPOINTS, VARIABLE

ROOT = Path(__file__).parents[2]


def test_known_names_and_calls_in_the_code_are_the_same() -> None:
    placed = {
        name
        for path in (ROOT / "app").rglob("*.py")
        for name in re.findall(r'\bfailpoint\("([^"]*)"\)', path.read_text())
    }
    assert placed == set(FAILPOINTS)
    assert len(FAILPOINTS) == len(set(FAILPOINTS))


def passing(armed: str) -> subprocess.CompletedProcess[str]:
    """A process that passes two places three times each."""
    program = (
        "from app.core.failpoints import failpoint\n"
        "for number in range(3):\n"
        "    print(number, flush=True)\n"
        "    failpoint('plan.before_commit')\n"
        "    failpoint('plan.after_commit')\n"
    )
    return subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {VARIABLE: armed},
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("armed", "passes"), [("plan.after_commit", 1), ("plan.after_commit:3", 3)]
)
def test_the_nth_passage_of_the_armed_place_kills(armed: str, passes: int) -> None:
    ended = passing(armed)
    assert ended.returncode == -signal.SIGKILL
    assert len(ended.stdout.split()) == passes


def test_other_places_are_passed() -> None:
    ended = passing("sign.after_commit")
    assert (ended.returncode, len(ended.stdout.split())) == (0, 3)


def test_a_name_that_is_not_known_is_said_at_once() -> None:
    ended = passing("plan.befor_commit")
    assert ended.returncode == 1
    assert "no failpoint 'plan.befor_commit'" in ended.stderr
