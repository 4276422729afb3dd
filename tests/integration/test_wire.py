"""On the wire: what the plan calls chain or chord travels in Celery's own chain and chord fields."""

from __future__ import annotations

import pytest
import singles
from running import Running
from test_workflows import graph_of
from wire import Wire, faults

from orchestrator.graph import Graph
from orchestrator.submission import Submission

Edges = dict[str, list[str]]


def noops(name: str, parents: Edges) -> Graph:
    return Graph.parse({"name": name, "nodes": [{"id": n, "task": "synthetic.noop", "after": above} for n, above in parents.items()]})


def fork_join(width: int) -> Edges:
    members = [f"m{index}" for index in range(width)]
    return {"fork": [], **{member: ["fork"] for member in members}, "join": members, "tail": ["join"]}


NESTED: Edges = {
    "a": [],
    "b": ["a"],
    "b1": ["b"],
    "b2": ["b"],
    "bj": ["b1", "b2"],
    "c": ["a"],
    "c1": ["c"],
    "d": ["bj", "c1"],
    "e": ["d"],
}
PIPELINE: Edges = {f"n{index}": [f"n{index - 1}"] if index else [] for index in range(12)}
SERIES_PARALLEL = {
    "pipeline": noops("pipeline", PIPELINE),
    "fork-join": noops("fork-join", fork_join(20)),
    "nested": noops("nested", NESTED),
}
MONTAGE = graph_of("montage-chameleon-2mass-015d-001", "synthetic.noop")


def record(stack: Running, graph: Graph) -> tuple[Submission, list[str]]:
    """Run a graph; return its submission, and the faults of what was published."""
    assert stack.stack.redis is not None
    with Wire(stack.stack.redis.socket) as wire:
        run = stack.client.submit(graph).wait(60)
    assert run.outcome == "succeeded"
    submission = Submission.of(graph, stack.client.settings)
    sent = wire.of(run.run_id)
    assert sorted(message.node for message in sent) == sorted(node.id for node in graph.nodes)
    assert max(message.bytes for message in sent) <= 65_536
    return submission, faults(submission.plan, sent)


@pytest.mark.parametrize("shape", SERIES_PARALLEL)
def test_all_edges_of_a_series_parallel_graph_travel_in_chain_and_chord_fields(shape: str, stack: Running) -> None:
    submission, found = record(stack, SERIES_PARALLEL[shape])
    assert found == []
    plan = submission.plan
    assert len(plan.fragments) == 1
    assert plan.fragments[0].kind == ("chain" if shape == "pipeline" else "chord")
    assert plan.statistics.carried_share == 1.0


def test_montage_carries_every_edge_that_its_plan_says_it_carries(stack: Running) -> None:
    submission, found = record(stack, MONTAGE)
    assert found == []
    kinds = submission.plan.statistics.fragments
    assert kinds["chain"] + kinds["chord"] > 0
    assert submission.plan.statistics.carried > 0


@pytest.mark.parametrize("shape", [*SERIES_PARALLEL, "montage"])
def test_these_tests_fail_when_the_canvas_publishes_single_tasks(shape: str, stack: Running) -> None:
    graph = {**SERIES_PARALLEL, "montage": MONTAGE}[shape]
    singles.flag().touch()
    try:
        submission, found = record(stack, graph)
    finally:
        singles.flag().unlink()
    plan = submission.plan
    # Not one edge is carried then, and each is told.
    missing = [fault for fault in found if "does not carry" in fault]
    assert len(missing) == plan.statistics.carried > 0
