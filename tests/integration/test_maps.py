"""Maps on real workers: one node for each item, gathered in order, whatever fails or is cancelled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from running import Running, by_id, until

from orchestrator.graph import Graph
from orchestrator.replay import replay_run
from orchestrator.store import read

TIMEOUT_S = 60


def graph(count: int, *rest: dict[str, Any], padding: int = 0, split: Any = None, **fields: Any) -> Graph:
    """A list of `count` items, a map over it, and what takes its result."""
    params = {"x": {"$item": True}, **fields.pop("params", {})}
    nodes = [
        {"id": "split", "task": "node_tasks.numbers", "params": {"count": count, "padding": padding}},
        {"id": "m", "task": "node_tasks.double", "map": {"$ref": "split"}, "params": params, "attempts": 1, **fields},
        {"id": "end", "task": "node_tasks.together", "params": {"parts": [{"$ref": "m"}]}},
    ]
    return Graph.parse({"name": "mapped", "nodes": [*nodes, *rest]})


def outcomes(run: Any) -> dict[str, str | None]:
    return {id_: node["outcome"] for id_, node in by_id(run).items()}


def replayed(stack: Running, run: Any) -> tuple[str, ...]:
    """What a replay of the run's log finds that is not as the record has it."""
    return replay_run(stack.client.engine, run.run_id, run.generation, None).differences


def test_a_map_runs_once_for_each_item_and_gathers_in_order(stack: Running) -> None:
    run = stack.client.submit(graph(450)).wait(TIMEOUT_S)
    assert run.outcome == "succeeded"
    assert run.result("m") == [[2 * i, f"1.m.{i}"] for i in range(450)]
    assert run.result("end") == [[run.result("m")], None]
    nodes = by_id(run)
    assert list(nodes)[:4] == ["split", "m", "end", "m.0"]
    assert (nodes["m.7"]["task"], nodes["m.7"]["required"], nodes["m.7"]["attempt"]) == ("node_tasks.double", True, 1)
    assert (nodes["m"]["attempt"], nodes["m"]["cost_micros"]) == (2, 0)
    assert read.get_run(stack.client.engine, run.run_id).total == 453
    began = [event["node"] for event in run.events if event["t"] == "node.began"]
    assert sorted(began) == sorted(["split", "m", "m", "end", *(f"m.{i}" for i in range(450))])
    assert [event["count"] for event in run.events if event["t"] == "node.expanded"] == [200, 200, 50]
    assert replayed(stack, run) == ()


def test_large_items_are_objects_and_an_empty_list_gives_an_empty_list(stack: Running) -> None:
    run = stack.client.submit(graph(3, padding=5000)).wait(TIMEOUT_S)
    assert [each[0][:1] for each in run.result("m")] == ["0", "1", "2"]
    assert len(run.result("m")[2][0]) == 2 * 5001
    none = stack.client.submit(graph(0)).wait(TIMEOUT_S)
    assert (none.outcome, none.result("m"), none.result("end")) == ("succeeded", [], [[[]], None])


@pytest.mark.parametrize(
    ("fields", "outcome", "of_map", "result"),
    [
        ({}, "failed", "upstream_failed", None),
        ({"join": "all_done"}, "degraded", "succeeded", [0, 2, 6]),
        ({"join": "at_least(3)"}, "degraded", "succeeded", None),
        ({"join": "at_least(4)"}, "failed", "upstream_failed", None),
    ],
)
def test_what_a_failed_item_means_is_said_by_the_join(
    stack: Running, fields: dict[str, Any], outcome: str, of_map: str, result: list[int] | None
) -> None:
    run = stack.client.submit(graph(4, params={"bad": 2}, **fields)).wait(TIMEOUT_S)
    found = outcomes(run)
    assert (run.outcome, found["m"]) == (outcome, of_map)
    assert [found[f"m.{i}"] for i in range(4)] == ["succeeded", "succeeded", "failed", "succeeded"]
    if of_map == "succeeded":
        assert {each[0] for each in run.result("m")} <= {0, 2, 6}
    if result is not None:
        assert [each[0] for each in run.result("m")] == result
    assert replayed(stack, run) == ()


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (graph(30, max_items=20), "has 30 items, and its max_items is 20; raise it"),
        (
            Graph.parse(
                {
                    "name": "odd",
                    "nodes": [
                        {"id": "s", "task": "node_tasks.length", "params": {"text": "four"}},
                        {"id": "m", "task": "node_tasks.double", "map": {"$ref": "s"}, "params": {"x": {"$item": True}}},
                    ],
                }
            ),
            "what 's' returned, which is 4; return a list there",
        ),
    ],
)
def test_a_list_that_cannot_be_mapped_fails_the_node_at_once_and_leaves_nothing(stack: Running, made: Graph, said: str) -> None:
    run = stack.client.submit(made).wait(TIMEOUT_S)
    node = by_id(run)["m"]
    assert (run.outcome, node["outcome"], node["attempt"]) == ("failed", "failed", 1)
    assert said in node["error"]["message"]
    assert len(run.nodes) == len(made.nodes)


def test_a_literal_list_may_hold_references_and_items_take_results_of_others(stack: Running) -> None:
    nodes = [
        {"id": "a", "task": "node_tasks.length", "params": {"text": "four"}},
        {
            "id": "m",
            "task": "node_tasks.together",
            "map": [{"$ref": "a"}, "x", {"$ref": "nothing"}],
            "params": {"parts": [{"$item": True}, {"$ref": "a"}], "rest": {"deep": [{"$item": True}]}},
        },
        {"id": "nothing", "task": "synthetic.fail", "params": {"times": 9}, "attempts": 1, "required": False},
    ]
    run = stack.client.submit(Graph.parse({"name": "literal", "nodes": nodes})).wait(TIMEOUT_S)
    assert run.result("m") == [[[4, 4], {"deep": [4]}], [["x", 4], {"deep": ["x"]}]]


def test_cancelling_a_map_cancels_its_items_and_an_item_can_be_cancelled_alone(stack: Running, tmp_path: Path) -> None:
    release, log = tmp_path / "release", tmp_path / "log"
    nodes = [
        {
            "id": "m",
            "task": "node_tasks.wait_for",
            "map": list(range(300)),
            "params": {"path": str(release), "log": str(log)},
            "join": "all_done",
        },
        {"id": "after", "task": "synthetic.noop", "after": ["m"], "join": "all_done"},
    ]
    run = stack.client.submit(Graph.parse({"name": "held", "nodes": nodes}))
    until(lambda: log.exists() and stack.redis.hget(f"hg1:state:{run.run_id}.1", "m") == "pending")
    assert run.cancel("m.299", reason="not that one")
    until(lambda: outcomes(run)["m.299"] == "cancelled")
    assert run.cancel("m", reason="none of it")
    release.touch()
    found = outcomes(run.wait(TIMEOUT_S))
    assert found.pop("after") == "succeeded"
    assert set(found.values()) == {"cancelled"}
    assert len(found) == 301
    assert replayed(stack, run) == ()


def test_a_rerun_repeats_no_item_that_had_succeeded(stack: Running, tmp_path: Path) -> None:
    log, path = tmp_path / "log", tmp_path / "path"
    run = stack.client.submit(graph(6, params={"log": str(log), "path": str(path), "bad": 4})).wait(TIMEOUT_S)
    assert (run.outcome, outcomes(run)["m"]) == ("failed", "upstream_failed")
    path.touch()
    again = run.rerun().wait(TIMEOUT_S)
    assert again.outcome == "succeeded"
    assert [each[0] for each in again.result("m")] == [0, 2, 4, 6, 8, 10]
    assert sorted(log.read_text().split()) == ["0", "1", "2", "3", "4", "4", "5"]
    assert {id_: node["adopted"] for id_, node in by_id(again).items() if node["adopted"]} == dict.fromkeys(
        ["split", *(f"m.{i}" for i in range(6) if i != 4)], 1
    )
    assert replayed(stack, again) == ()
    one = again.rerun("m.2", "node").wait(TIMEOUT_S)
    assert one.outcome == "succeeded"
    assert sorted(log.read_text().split()) == ["0", "1", "2", "2", "3", "4", "4", "5"]
    below = one.rerun("split", "from").wait(TIMEOUT_S)
    assert below.outcome == "succeeded"
    assert len(log.read_text().split()) == 14


def test_items_are_paid_by_the_hold_first_and_those_beyond_the_budget_are_given_up_one_by_one(stack: Running) -> None:
    nodes = [
        {"id": "split", "task": "node_tasks.numbers", "params": {"count": 6}, "estimate": {"compute": 1}},
        {
            "id": "m",
            "task": "node_tasks.use",
            "map": {"$ref": "split"},
            "params": {"tokens": 20, "seconds": 0},
            "estimate": {"llm": 400},
            "expected_items": 2,
            "attempts": 1,
            "join": "all_done",
        },
    ]
    run = stack.client.submit(Graph.parse({"name": "dear", "nodes": nodes}), budget=900).wait(TIMEOUT_S)
    nodes_now = by_id(run)
    items = [nodes_now[f"m.{i}"] for i in range(6)]
    assert {item["outcome"] for item in items} == {"succeeded", "skipped"}
    assert sum(item["outcome"] == "succeeded" for item in items) in (1, 2)
    reasons = [item["reason"] for item in items if item["outcome"] == "skipped"]
    # By the cost agent, which sees items as nodes, or where it does not come in time by the gate.
    assert all(reason.startswith("given up: ") or "the budget does not cover its 400 micros" in reason for reason in reasons), reasons
    assert (run.outcome, nodes_now["m"]["outcome"]) == ("degraded", "succeeded")
    assert replayed(stack, run) == ()


def test_a_sub_graph_runs_as_the_nodes_that_it_stands_for(stack: Running) -> None:
    inner = [
        {"id": "each", "task": "node_tasks.double", "map": {"$input": "list"}, "params": {"x": {"$item": True}}},
        {"id": "all", "task": "node_tasks.together", "params": {"parts": [{"$ref": "each"}]}},
    ]
    nodes = [
        {"id": "split", "task": "node_tasks.numbers", "params": {"count": 2}},
        {"id": "n", "params": {"list": {"$ref": "split"}}, "graph": {"nodes": inner}},
        {"id": "end", "task": "node_tasks.together", "params": {"parts": [{"$ref": "n"}]}},
    ]
    run = stack.client.submit(Graph.parse({"name": "nested", "nodes": nodes})).wait(TIMEOUT_S)
    assert run.result() == [[[[[[0, "1.n.each.0"], [2, "1.n.each.1"]]], None]], None]
    assert set(outcomes(run)) == {"split", "n.each", "n.each.0", "n.each.1", "n.all", "end"}
