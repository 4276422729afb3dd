"""Graphs that tasks return, on real workers: spliced in under their node, gathered, or refused in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from running import Running, by_id

from orchestrator.graph import Graph
from orchestrator.replay import replay_run

TIMEOUT_S = 60


def returning(*nodes: dict[str, Any], id_: str = "n", **fields: Any) -> dict[str, Any]:
    """A node whose task returns a graph of these nodes."""
    return {"id": id_, "task": "node_tasks.graph_of", "params": {"spec": {"name": "inner", "nodes": list(nodes)}}, "attempts": 2, **fields}


def length(id_: str, text: str, **fields: Any) -> dict[str, Any]:
    return {"id": id_, "task": "node_tasks.length", "params": {"text": text}, **fields}


def together(id_: str, *parents: str, **fields: Any) -> dict[str, Any]:
    # Quoted, because references inside the params of the node that returns them are not its own.
    return {"id": id_, "task": "node_tasks.together", "params": {"parts": [{"ref": parent} for parent in parents]}, **fields}


def run_of(stack: Running, *nodes: dict[str, Any]) -> Any:
    end = {"id": "end", "task": "node_tasks.together", "params": {"parts": [{"$ref": "n", "default": "nothing"}]}, "join": "all_done"}
    return stack.client.submit(Graph.parse({"name": "outer", "nodes": [*nodes, end]})).wait(TIMEOUT_S)


def outcomes(run: Any) -> dict[str, str | None]:
    return {id_: node["outcome"] for id_, node in by_id(run).items()}


def replayed(stack: Running, run: Any) -> tuple[str, ...]:
    return replay_run(stack.client.engine, run.run_id, run.generation, None).differences


def test_a_graph_that_a_task_returns_runs_in_its_place(stack: Running) -> None:
    chain = [length("a", "12"), length("b", "123", after=["a"]), together("c", "a", "b")]
    run = run_of(stack, returning(*chain))
    assert run.outcome == "succeeded"
    assert run.result("n") == [[2, 3], None]
    assert run.result("end") == [[[[2, 3], None]], None]
    nodes = by_id(run)
    assert {id_: node["task"] for id_, node in nodes.items() if id_.startswith("n.")} == {
        "n.a": "node_tasks.length",
        "n.b": "node_tasks.length",
        "n.c": "node_tasks.together",
    }
    assert (nodes["n"]["attempt"], nodes["n"]["fails"]) == (2, 0)
    assert replayed(stack, run) == ()


def test_several_sinks_give_an_object_and_graphs_may_return_graphs(stack: Running) -> None:
    inner = returning(length("x", "1"), length("y", "22"), id_="deep")
    run = run_of(stack, returning(inner, length("z", "333")))
    assert run.result("n") == {"deep": {"x": 1, "y": 2}, "z": 3}
    assert set(outcomes(run)) == {"n", "end", "n.deep", "n.z", "n.deep.x", "n.deep.y"}
    assert replayed(stack, run) == ()


def test_a_large_graph_comes_in_pieces_and_may_hold_maps(stack: Running) -> None:
    many = [length(f"p{i}", "x", after=[f"p{i - 1}"] if i % 50 else []) for i in range(300)]
    mapped = {"id": "m", "task": "node_tasks.length", "map": ["1", "22"], "params": {"text": {"item": True}}}
    run = run_of(stack, returning(*many, mapped))
    assert run.outcome == "succeeded"
    assert run.result("n")["m"] == [1, 2]
    assert len(run.nodes) == 2 + 301 + 2
    assert [event["count"] for event in run.events if event["t"] == "node.expanded" and event["node"] == "n"] == [200, 101]
    assert replayed(stack, run) == ()


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ([length("a", "1", after=["b"])], "`after` refers to 'b', which is not a node"),
        ([{"id": "a", "task": "nobody.has"}], "unknown task 'nobody.has'"),
        ([{"id": "a", "task": "node_tasks.length", "params": {}}], "missing parameter 'text'"),
        ([{"id": "taken", "task": "synthetic.noop"}], "the run has another one of that id"),
    ],
)
def test_a_graph_that_cannot_be_spliced_fails_its_node_in_words_at_once(stack: Running, nodes: list[dict[str, Any]], said: str) -> None:
    run = run_of(stack, returning(*nodes), {"id": "n.taken", "task": "synthetic.noop"})
    node = by_id(run)["n"]
    assert (run.outcome, node["outcome"], node["attempt"]) == ("failed", "failed", 1)
    assert said in node["error"]["message"]
    assert set(outcomes(run)) == {"n", "n.taken", "end"}
    assert replayed(stack, run) == ()


def test_graphs_are_spliced_five_deep_at_most(stack: Running) -> None:
    node = length("leaf", "1")
    for _ in range(5):
        node = returning(node, id_="d")
    run = run_of(stack, returning(node))
    assert run.outcome == "failed"
    assert "at most 5 deep" in by_id(run)["n.d.d.d.d.d"]["error"]["message"]


def test_what_fails_inside_fails_the_node_and_an_optional_one_is_only_without_its_result(stack: Running) -> None:
    fails = {"id": "f", "task": "synthetic.fail", "params": {"times": 9}, "attempts": 1}
    run = run_of(stack, returning(fails, length("a", "1")))
    assert (run.outcome, outcomes(run)["n"], run.result("end")) == ("failed", "upstream_failed", [["nothing"], None])
    optional = run_of(stack, returning(fails, required=False))
    assert (optional.outcome, outcomes(optional)["n"], optional.result("end")) == ("degraded", "skipped", [["nothing"], None])
    assert replayed(stack, optional) == ()


def test_a_rerun_goes_on_with_the_graph_that_was_returned_and_repeats_nothing_of_it(stack: Running, tmp_path: Path) -> None:
    log, release = tmp_path / "log", tmp_path / "release"

    def noted(id_: str, **fields: Any) -> dict[str, Any]:
        return {"id": id_, "task": "node_tasks.noted", "params": {"name": id_, "log": str(log)}, **fields}

    inner = [noted("a"), {**noted("b", after=["a"]), "attempts": 1}, noted("c", after=["b"])]
    inner[1]["params"] |= {"needs": str(release)}
    nested = {"name": "deep", "nodes": [*inner, noted("x")]}
    deep = {"id": "d", "task": "node_tasks.graph_of", "params": {"spec": nested, "log": str(log)}}
    outer = {"id": "n", "task": "node_tasks.graph_of", "params": {"spec": {"name": "outer", "nodes": [noted("o"), deep]}, "log": str(log)}}
    run = run_of(stack, outer)
    assert (run.outcome, outcomes(run)["n.d.b"], outcomes(run)["n.d.c"]) == ("failed", "failed", "upstream_failed")
    assert sorted(log.read_text().split()) == ["a", "b", "deep", "o", "outer", "x"]
    release.touch()
    again = run.rerun().wait(TIMEOUT_S)
    assert again.outcome == "succeeded"
    assert sorted(log.read_text().split()) == ["a", "b", "b", "c", "deep", "o", "outer", "x"]
    assert {id_ for id_, node in by_id(again).items() if node["adopted"]} == {"end", "n.o", "n.d.a", "n.d.x"}
    assert replayed(stack, again) == ()
    one = again.rerun("n.d.c", "node").wait(TIMEOUT_S)
    assert one.outcome == "succeeded"
    assert log.read_text().split()[8:] == ["c"]
    anew = one.rerun("n", "from").wait(TIMEOUT_S)
    assert anew.outcome == "succeeded"
    assert sorted(log.read_text().split()[9:]) == ["a", "b", "c", "deep", "o", "outer", "x"]
