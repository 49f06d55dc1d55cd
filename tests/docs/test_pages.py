"""What the pages show can be followed, pasted and read."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.docs.markdown import BASH, ROOT, Block, anchors, blocks, links, pages


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if re.match(r"(https?|mailto):", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.is_relative_to(ROOT), link
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


@pytest.mark.parametrize("block", blocks("sh", "bash", "shell"), ids=str)
def test_shell_can_be_pasted(block: Block) -> None:
    checked = subprocess.run(
        [BASH, "-n"], input=block.text, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("block", blocks("python", "json"), ids=str)
def test_python_and_json_can_be_read(block: Block) -> None:
    if block.language == "json":
        json.loads(block.text)
    else:
        compile(block.text, str(block.page), "exec")


def test_pages_name_no_place_of_one_machine() -> None:
    for page in pages():
        assert not re.search(r"(?<![\w.])/(home|root|work|Users)/", page.read_text()), page


def test_every_page_can_be_reached_from_the_index() -> None:
    index = ROOT / "docs" / "index.md"
    reached = {index}
    todo = [index]
    while todo:
        page = todo.pop()
        for link in links(page):
            target = (page.parent / link.partition("#")[0]).resolve()
            if target.suffix == ".md" and target.exists() and target not in reached:
                reached.add(target)
                todo.append(target)
    written = {page for page in pages() if page.is_relative_to(ROOT / "docs")}
    assert written <= reached


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_that_call_a_service_say_where_its_address_and_key_come_from(page: Path) -> None:
    calls = [each.text for each in blocks("sh") if each.page == page and "curl " in each.text]
    for text in calls:
        assert not re.search(r"https://privacy\.example|\$QUITTANCE(_URL|_KEY)?\b", text)
    if any(re.search(r"\$(BASE|KEY)\b", each) for each in calls):
        assert "export BASE=" in page.read_text() or any(
            link.endswith("index.md#base-and-key") for link in links(page)
        )
