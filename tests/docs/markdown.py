"""Reads the repository's Markdown: pages, links, code blocks."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
GIT = shutil.which("git") or "git"
BASH = shutil.which("bash") or "bash"
_FENCE = re.compile(
    r"^(?:<!-- (?P<mark>[^\n]*?) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S
)
_LINK = re.compile(r"\]\(([^()\s]+)\)")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block; ``mark`` is the comment right above it."""

    page: Path
    language: str
    text: str
    mark: str

    def __str__(self) -> str:
        return f"{self.page.name}: {self.text.strip().splitlines()[0][:40]}"


@cache
def pages() -> list[Path]:
    """All Markdown of ours, committed or about to be."""
    listed = subprocess.run(
        [GIT, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    ).stdout.decode()
    found = {ROOT / name for name in listed.split("\0") if name}
    if not found:  # not a checkout
        found = {*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/README.md")}
    return sorted(each for each in found if each.is_file())


def blocks(*languages: str) -> list[Block]:
    return [
        Block(page, found["language"], found["text"], found["mark"] or "")
        for page in pages()
        for found in _FENCE.finditer(page.read_text())
        if found["language"] in languages
    ]


def links(page: Path) -> list[str]:
    """Targets of links and pictures, without code."""
    return _LINK.findall(re.sub(r"`[^`\n]*`", "", _FENCE.sub("", page.read_text())))


def anchors(page: Path) -> set[str]:
    """What ``#...`` may name in a page: its headings, spelt as code hosts do."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text()), re.M)
    return {
        re.sub(r"[^\w\- ]", "", re.sub(r"[`*]|\]\([^)]*\)", "", each).lower()).replace(" ", "-")
        for each in headings
    }
