"""`headgate estimate` without a stack: what a graph and the record say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import insert

from cost.estimate import Standing
from orchestrator.cli import main
from orchestrator.cli.estimate import facts
from orchestrator.graph import Graph
from orchestrator.settings import Settings
from orchestrator.store import tables as t
from orchestrator.store.engine import create_tables, open_engine
from orchestrator.submission import Submission

pytestmark = pytest.mark.unit

GRAPH = {
    "name": "report",
    "nodes": [
        {"id": "draft", "task": "far.draft", "estimate": {"llm": 30_000, "compute": 5}},
        {"id": "check", "task": "far.check", "after": ["draft"], "required": False, "estimate": {"llm": 10_000}},
        {"id": "send", "task": "far.send", "after": ["draft"]},
    ],
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "report.json").write_text(json.dumps(GRAPH))
    return tmp_path


def headgate(home: Path, *words: str) -> Result:
    with Settings(home=home).in_force():
        return CliRunner().invoke(main, ["estimate", str(home / "report.json"), *words])


def test_without_a_stack_the_graph_s_own_numbers_are_added_up(home: Path) -> None:
    found = json.loads(headgate(home, "--json").stdout)
    assert (found["estimate_micros"], found["floor_micros"]) == (41_005, 31_005)
    assert found["by_category"] == {"compute": 1_005, "llm": 40_000}
    assert [(node["id"], node["micros"], node["source"]) for node in found["nodes"]] == [
        ("draft", 30_005, "declared"),
        ("check", 10_000, "declared"),
        ("send", 1_000, "default"),
    ]
    assert (found["remains"], found["prospect"]) == (None, None)
    shown = headgate(home).stdout
    assert "0.041005" in shown
    assert "no stack runs" in shown


def test_what_the_record_learned_stands_in_for_what_is_not_declared(home: Path) -> None:
    engine = open_engine(f"sqlite:///{home}/headgate.db", writer=True)
    create_tables(engine)
    sums = {"sum_llm": 700, "sum_retrieval": 0, "sum_storage": 0, "sum_compute": 10, "sum_other": 0}
    with engine.begin() as connection:
        for task in ("far.send", "far.draft"):
            connection.execute(insert(t.learned).values(tenant="acme", task=task, variant="", count=10, **sums))
    engine.dispose()
    found = {node["id"]: node for node in json.loads(headgate(home, "--tenant", "acme", "--json").stdout)["nodes"]}
    assert (found["send"]["by_category"], found["send"]["source"]) == ({"compute": 1, "llm": 70}, "learned")
    assert found["draft"]["source"] == "declared"
    assert json.loads(headgate(home, "--json").stdout)["nodes"][2]["source"] == "default"  # of another tenant nothing is known


def test_what_would_be_given_up_is_named() -> None:
    submission = Submission.of(Graph.parse(GRAPH), Settings())
    found = facts(submission, "acme", Standing(limit_micros=50_000, exposure_micros=15_000, running=0, max_runs=1), None)
    assert found["remains"]["room_micros"] == 35_000
    assert found["prospect"]["decision"] == "planned_down"
    assert found["prospect"]["given_up"] == [{"node": "check", "type": "skip", "change": "skip", "saving_micros": 10_000}]
    refused = facts(submission, "acme", Standing(limit_micros=50_000, exposure_micros=0, running=0, max_runs=1), 31_004)
    assert refused["prospect"]["decision"] == "refused"


def test_a_graph_with_problems_is_refused_with_all_of_them(home: Path) -> None:
    (home / "report.json").write_text('{"name": "report", "nodes": [{"id": "a", "task": "t", "after": ["b"]}]}')
    assert headgate(home, "--json").exit_code == 2
