"""Recorded executions of real workflows (WfCommons), run on real workers: order is kept, and nothing waits without a cause."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from running import SLOTS, WORKERS, Running
from waits import Span, early, late_queued, waits_without_cause

from orchestrator.graph import Graph
from orchestrator.handle import RunHandle

WORKFLOWS = Path(__file__).resolve().parent.parent / "workflows"
NAMES = sorted(path.stem for path in WORKFLOWS.glob("*.json"))
TOLERANCE_S = 0.25
"""From the end of a node to the start of the next in its slot: settle, acknowledge, pop; and what two shared cores add."""


@cache
def workflow(name: str) -> dict[str, Any]:
    return json.loads((WORKFLOWS / f"{name}.json").read_text())


def graph_of(name: str, task: str, **params: Any) -> Graph:
    """The workflow with every node given `task`; its edges are waited for, and carry nothing."""
    document = workflow(name)
    parents: dict[str, list[str]] = {node["id"]: [] for node in document["nodes"]}
    for parent, child in document["edges"]:
        parents[child].append(parent)
    nodes = [{"id": node, "task": task, "params": params, "after": above} for node, above in parents.items()]
    return Graph.parse({"name": name, "nodes": nodes})


def spans_of(run: RunHandle) -> list[Span]:
    return [Span(n["id"], n["queued_at"], n["started_at"], n["finished_at"], n["worker"]) for n in run.nodes]


@pytest.mark.parametrize("name", NAMES)
def test_every_workflow_runs_to_its_end_and_no_child_starts_before_its_parents_have_ended(name: str, stack: Running) -> None:
    graph = graph_of(name, "synthetic.noop")
    run = stack.client.submit(graph).wait(90)
    assert run.outcome == "succeeded"
    spans = spans_of(run)
    assert len(spans) == len(graph.nodes)
    assert {node["attempt"] for node in run.nodes} == {1}
    assert early(spans, graph.parents()) == []


@pytest.mark.parametrize("name", ["montage-chameleon-2mass-015d-001", "epigenomics-chameleon-hep-1seq-100k-001"])
def test_no_node_waits_for_anything_but_its_own_parents_and_free_slots(name: str, stack: Running) -> None:
    graph = graph_of(name, "synthetic.sleep", seconds=0.025)
    run = stack.client.submit(graph).wait(60)
    assert run.outcome == "succeeded"
    spans = spans_of(run)
    slots = dict.fromkeys({span.worker for span in spans}, SLOTS)
    assert len(slots) == WORKERS
    assert early(spans, graph.parents()) == []
    assert late_queued(spans, graph.parents(), TOLERANCE_S) == {}
    assert waits_without_cause(spans, slots, TOLERANCE_S) == {}


def test_a_wait_is_without_cause_when_a_slot_lay_idle_meanwhile() -> None:
    busy = Span("a", 0, 0, 4, "w1")
    slots = {"w1": 1, "w2": 1}
    assert waits_without_cause([busy, Span("b", 1, 4.1, 5, "w1")], {"w1": 1}, 0.2) == {}
    assert waits_without_cause([busy, Span("b", 1, 4.5, 5, "w1")], {"w1": 1}, 0.2) == {"b": 0.5}
    assert waits_without_cause([busy, Span("b", 1, 4, 5, "w1")], slots, 0.2) == {"b": 3}
    assert waits_without_cause([busy, Span("b", 1, 1.1, 5, "w2")], slots, 0.2) == {}
    # Two short gaps of one slot are not one long one.
    row = [Span("a", 0, 0, 1, "w1"), Span("b", 0, 1.1, 2, "w1"), Span("c", 0, 2.1, 3, "w1")]
    assert waits_without_cause(row, {"w1": 1}, 0.15) == {}
    assert waits_without_cause(row, {"w1": 2}, 0.15) == pytest.approx({"b": 1.1, "c": 1.1})


def test_a_child_is_early_or_late_by_its_parents_ends() -> None:
    parents = {"a": (), "b": (), "c": ("a", "b")}
    spans = [Span("a", 0, 0, 1, "w"), Span("b", 0, 0, 2, "w"), Span("c", 2, 2, 3, "w")]
    assert early(spans, parents) == []
    assert late_queued(spans, parents, 0.1) == {}
    spans[2] = Span("c", 1.5, 1.5, 3, "w")
    assert early(spans, parents) == [("b", "c")]
    spans[2] = Span("c", 2.5, 2.6, 3, "w")
    assert late_queued(spans, parents, 0.1) == {"c": 0.5}
