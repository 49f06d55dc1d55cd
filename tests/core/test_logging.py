"""Saying something must not fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SAYS_AND_GOES_ON = """
from app.core.logging import configure, get_logger
configure("INFO", json=True)
get_logger("test").error("pump_failed")
print("went on")
"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_log_on_a_full_disk_loses_lines_and_stops_nobody() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", SAYS_AND_GOES_ON],
            cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, stderr=full, text=True,
            check=False,
        )  # fmt: skip
    assert done.stdout == "went on\n"
