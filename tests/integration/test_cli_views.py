"""The terminal shows what the console shows: top, budget, graph, and how far a run is where there is no terminal."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from running import Running
from terminal import Terminal
from ulid import ULID

from orchestrator.cli import follow
from orchestrator.cli.follow import Following
from orchestrator.graph import Graph


@pytest.fixture
def terminal(stack: Running, tmp_path: Path) -> Terminal:
    return Terminal(tmp_path, stack.client.settings.home)


@pytest.fixture
def tenant(stack: Running) -> str:
    return stack.client.tenants.create(f"t-{str(ULID())[-12:].lower()}", limit_per_day_micros=1_000_000).id


def graph(seconds: float = 0.0) -> Graph:
    nodes = [{"id": name, "task": "synthetic.sleep", "params": {"seconds": seconds}} for name in ("a", "b")]
    return Graph.parse({"name": "viewed", "nodes": [*nodes, {"id": "c", "task": "synthetic.noop", "after": ["a", "b"]}]})


def test_budget_tells_what_a_tenant_has_committed_as_its_usage_does(stack: Running, terminal: Terminal, tenant: str) -> None:
    stack.client.submit(graph(), tenant=tenant).wait(60)
    usage = stack.client.tenants.usage(tenant)
    [found] = json.loads(terminal.headgate("budget", tenant, "--json").out)
    assert found["settled_micros"] == usage.settled_micros
    shown = terminal.headgate("budget", tenant).out.splitlines()
    assert shown[0].split()[:3] == ["tenant", "of", "committed"]
    assert shown[1].split()[:2] == [tenant, "day"]
    assert max(map(len, shown)) <= 100
    nobody = terminal.headgate("budget", "nobody-at-all")
    assert nobody.code == 2
    assert "nobody-at-all" in nobody.err


def test_top_shows_pools_and_tenants_once_where_there_is_no_terminal(stack: Running, terminal: Terminal, tenant: str) -> None:
    run = stack.client.submit(graph(20), tenant=tenant)
    try:
        found = json.loads(terminal.headgate("top", "--json").out)
        assert found["runs"]["running"] + found["runs"]["submitted"] >= 1
        assert [pool["slots"] for pool in found["pools"] if pool["pool"] == "default"] == [4]
        assert tenant in [each["tenant"] for each in found["tenants"]]
        shown = terminal.headgate("top")
        assert shown.code == 0
        assert tenant in shown.out
        assert "new runs" in shown.out
    finally:
        stack.client.cancel(run.run_id, now=True)
    run.wait(60)


def test_graph_draws_a_run_with_what_became_of_its_nodes(stack: Running, terminal: Terminal) -> None:
    run = stack.client.submit(graph()).wait(60)
    drawn = terminal.headgate("graph", "--run", run.run_id, "--format", "svg")
    assert drawn.code == 0, drawn.err
    assert ET.fromstring(drawn.out).tag.endswith("svg")
    assert "succeeded" in drawn.out
    nodes = json.loads(terminal.headgate("graph", "--run", run.run_id, "--json").out)["nodes"]
    assert {node["id"]: (node["state"], node["after"]) for node in nodes} == {
        "a": ("succeeded", []),
        "b": ("succeeded", []),
        "c": ("succeeded", ["a", "b"]),
    }


def test_graph_draws_a_file_without_a_stack(terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "two.json").write_text(json.dumps(json.loads(graph().canonical())))
    alone = Terminal(tmp_path, tmp_path / "nowhere")
    drawn = alone.headgate("graph", "two.json", "--format", "dot")
    assert drawn.code == 0, drawn.err
    assert '"a" -> "c";' in drawn.out
    assert alone.headgate("graph").code == 2
    assert alone.headgate("graph", "two.json", "--format", "png").code == 2


def test_how_far_a_run_is_comes_as_lines_where_there_is_no_terminal(
    stack: Running, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(follow, "PROGRESS_S", 0.0)
    code = Following(stack.client.submit(graph(1.0)), "").to_the_end(60, as_json=False)
    said = capsys.readouterr().err.splitlines()
    assert code == 0
    assert any(" of 3 nodes ended, " in line for line in said)
    assert len(set(said)) == len(said)  # what has not changed is not said again
