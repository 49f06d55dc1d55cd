"""The page about changing a site, pasted into a shell beside a running service."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.docs.markdown import BASH, blocks
from tests.journeys.instance import Embedded

CONFIG = {
    "controller": {"name": "Aurora"},
    "policy_url": "/privacy",
    "languages": ["de", "en"],
    "regimes": ["gdpr"],
    "modules": ["counts"],
    "mapping": {"matomo": "analytics"},
}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_pages_commands_change_one_thing_of_a_site_and_keep_the_rest(tmp_path: Path) -> None:
    commands = "\n".join(each.text for each in blocks("sh") if each.mark == "tested: site")
    instance = Embedded(tmp_path / "data", {})
    try:
        instance.start()
        site = {"name": "Shop", "origins": ["https://www.shop.example"], "config": CONFIG}
        made = instance.api.post("/v1/sites", json=site).raise_for_status().json()
        done = subprocess.run(
            [BASH, "-euo", "pipefail", "-c", commands.replace("SITE_KEY", made["site_key"])],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "BASE": instance.base_url, "KEY": instance.key},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        after = instance.api.get(f"/v1/sites/{made['site_key']}").raise_for_status().json()
    finally:
        instance.kill()
        instance.disconnect()

    assert done.returncode == 0, done.stdout + done.stderr
    changed: dict[str, Any] = {
        "modules": ["consent_mode", "counts", "gpp"],
        "mapping": {"matomo": "analytics", "Facebook Pixel": "advertising"},
        "first_party": "https://www.shop.example/consent",
    }
    assert after["config"] == made["config"] | changed
    assert after["published"]
    assert not after["has_unpublished_changes"]
