"""The README's story by curl, pasted into a shell beside a running demo."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jwt
import pytest

from tests.docs.markdown import BASH, ROOT, blocks
from tests.journeys.instance import Embedded


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_readmes_story_by_curl_is_true(tmp_path: Path) -> None:
    story = [each.text for each in blocks("sh") if each.mark == "tested: curl"]
    assert len(story) == 4
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    instance = Embedded(tmp_path / "data", {})
    process = instance.launch("up", "--port", "0", "--json")
    try:
        assert process.stdout
        shown = json.loads(process.stdout.readline())
        done = subprocess.run(
            [BASH, "-euo", "pipefail", "-c", "\n".join(story)],
            cwd=tmp_path,
            env={
                "PATH": "/usr/bin:/bin",
                "BASE": shown["base_url"],
                "KEY": shown["api_key"],
                "PYTHONPATH": str(ROOT),
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        instance.kill()
        instance.disconnect()
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"status": "completed"' in done.stdout
    assert "VALID: signed by" in done.stdout
    assert "It speaks of the identifier you named." in done.stdout
    assert '"suppressed":true' in done.stdout
    _compare_with_the_tutorial(done.stdout)
    _check_with_other_software(tmp_path)


def _compare_with_the_tutorial(shown: str) -> None:
    """What the tutorial says the check prints, letter by letter; ``...`` stands for anything."""
    (sample,) = [
        each.text
        for each in blocks("text")
        if each.page.name == "tutorial.md" and "VALID" in each.text
    ]
    for line in sample.splitlines():
        pattern = re.escape(line).replace(r"\.\.\.", ".*").replace("8321", r"\d+")
        assert re.search(f"^{pattern}", shown, re.M), line


def _check_with_other_software(directory: Path) -> None:
    """The how-to page's code, which shares nothing with ours."""
    (code,) = [each.text for each in blocks("python") if each.page.name == "check-a-receipt.md"]
    example: dict[str, Any] = {}
    exec(code, example)  # noqa: S102 (our own page)
    receipt = (directory / "receipt.jws").read_text().strip()
    key_set = (directory / "jwks.json").read_text()
    opening = json.loads((directory / "receipt.json").read_text())["openings"][0]["opening"]
    claims = example["claims_of"](receipt, key_set)
    assert claims["outcome"] == "complete_with_residuals"
    assert example["speaks_of"](claims, "email", "ingrid.solberg@example.net", opening)
    assert not example["speaks_of"](claims, "email", "somebody@example.net", opening)
    header, payload, signature = receipt.split(".")
    changed = payload[:40] + ("A" if payload[40] != "A" else "B") + payload[41:]
    with pytest.raises(jwt.InvalidTokenError):
        example["claims_of"](f"{header}.{changed}.{signature}", key_set)
