"""A graph in a file is refused once, with everything that is wrong with it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from orchestrator.cli import main
from orchestrator.cli.exits import Exit

MODULE = """
from orchestrator import task

@task
def shout(word: str, times: int = 1) -> str: return word.upper() * times
"""


@pytest.mark.parametrize("verb", ["plan", "run"])
def test_every_problem_of_a_graph_file_is_told_at_once(verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jsontarget.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "jsontarget", raising=False)
    nodes = [
        {"id": "a", "task": "jsontarget.shout", "params": {"word": "x"}},
        {"id": "a", "task": "jsontarget.shout", "params": {"word": "y"}},
        {"id": "b", "task": "jsontarget.shout", "params": {"word": "z"}, "map": "always"},
        {"id": "c", "task": "jsontarget.shuot", "params": {}},
        {"id": "d", "task": "jsontarget.shout", "params": {"word": "x", "tiems": 2}},
        {"id": "e", "task": "jsontarget.shout", "params": {"word": {"$ref": "nobody"}}},
    ]
    (tmp_path / "five.json").write_text(json.dumps({"name": "five", "nodes": nodes}))
    done = CliRunner().invoke(main, [verb, "five.json", "--tasks", "jsontarget"])
    assert done.exit_code == Exit.USAGE
    assert "the graph has 5 problems:" in done.stderr
    for said in ("duplicate id", "`map` is 'always'", "did you mean 'jsontarget.shout'?", "'tiems'", "'nobody'"):
        assert said in done.stderr
