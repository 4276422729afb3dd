"""What the docs name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FOLDERS = ("tenancy", "cost", "orchestrator", "tasks", "tests", "benchmarks", "docs")

_PATH = re.compile(rf"(?<![\w/.-])(?:{'|'.join(FOLDERS)})/[\w./*-]*\w(?:/|\.\w+)?")
_LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_and_links_of_a_page_exist(page: Path) -> None:
    text = page.read_text()
    named = {path.rstrip("/.") for path in _PATH.findall(text)}
    missing = sorted(path for path in named if not list(ROOT.glob(path)))
    broken = sorted(link for link in _LINK.findall(text) if not (page.parent / link).exists())
    assert not missing, f"{page.name} names what is not there: {missing}"
    assert not broken, f"{page.name} links to what is not there: {broken}"


def test_every_script_states_its_contract() -> None:
    for script in ROOT.glob("*/**/*.lua"):
        if ".venv" in script.parts:
            continue
        head = script.read_text().split("\n\n")[0]
        assert head.startswith("-- "), script
        assert "ARGV" in head or "hg1:" in head, f"{script} says neither its arguments nor its keys"


def test_every_key_in_a_script_is_on_the_protocol_page() -> None:
    page = (ROOT / "docs" / "protocol.md").read_text()
    keys = {
        key for script in ROOT.glob("*/**/*.lua") if ".venv" not in script.parts for key in re.findall(r"'hg1:([a-z]+)", script.read_text())
    }
    missing = sorted(key for key in keys if not re.search(rf"`{key}[:`]", page))
    assert not missing, f"keys without a row in docs/protocol.md: {missing}"


def test_every_event_in_a_script_is_on_the_protocol_page() -> None:
    page = (ROOT / "docs" / "protocol.md").read_text()
    source = "".join(script.read_text() for script in ROOT.glob("*/**/*.lua") if ".venv" not in script.parts)
    events = set(re.findall(r"'((?:node|run|money|worker|epoch)\.[a-z]+)'", source))
    assert len(events) > 10
    assert not sorted(event for event in events if f"`{event}`" not in page)


def test_keys_are_spelt_in_one_module_of_each_folder() -> None:
    sources = [path for folder in ("tenancy", "cost", "orchestrator", "tasks") for path in (ROOT / folder).rglob("*.py")]
    spelt = sorted(str(path.relative_to(ROOT)) for path in sources if path.name != "keys.py" and re.search(r"[\"']hg1:", path.read_text()))
    assert not spelt, f"spell keys in keys.py: {spelt}"
