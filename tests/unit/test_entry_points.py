"""An installed package brings its tasks with it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.loading import load_tasks
from orchestrator.registry import registry

MODULE = """
from orchestrator import task

@task(estimate={"llm": 7})
def shout(word: str) -> str: return word.upper()
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place of installed packages, on the path."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield tmp_path
    sys.modules.pop("entrytasks", None)


def install(site: Path, target: str) -> None:
    """Write what an installer writes of a distribution with an entry point `headgate.tasks`."""
    info = site / "entry_tasks-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: entry-tasks\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[headgate.tasks]\nanything = {target}\n")


def test_the_tasks_of_an_installed_package_are_loaded_unasked(site: Path) -> None:
    (site / "entrytasks.py").write_text(MODULE)
    install(site, "entrytasks")
    load_tasks(())
    definition = registry.get("entrytasks.shout")
    assert definition is not None
    assert (definition.estimate, definition.function("a")) == ({"llm": 7}, "A")
