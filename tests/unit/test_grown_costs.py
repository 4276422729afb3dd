"""What the cost agent sees of a map that became its items."""

from __future__ import annotations

import pytest

from cost.plan import NodeCost, VariantCost
from orchestrator.govern.costs import RunCosts
from orchestrator.govern.views import children_first, counted_on
from orchestrator.graph import Graph
from orchestrator.settings import Settings
from orchestrator.submission import Submission
from tenancy.priorities import Priority

pytestmark = pytest.mark.unit

MAP = NodeCost("m", True, 30, 1000, variants=(VariantCost("cheap", "variant", 100, 10),), children=("end",), needs=("split",))
COSTS = RunCosts(
    {"split": NodeCost("split", True, 1, 5), "m": MAP, "end": NodeCost("end", True, 1, 7)},
    {"split": (), "m": ("split",), "end": ("m",)},
    frozenset(),
    {"m": (10, False, True)},
)


def test_before_a_map_is_expanded_nothing_changes() -> None:
    assert COSTS.grown(dict.fromkeys(COSTS.parents, "pending")) is COSTS


def test_an_item_costs_its_share_and_the_map_itself_nothing_more() -> None:
    grown = COSTS.grown({"split": "succeeded", "m": "pending", "end": "pending", "m.0": "due", "m.1": "running", "m.2": "due"})
    assert grown.costs["m"].estimate_micros == 0
    item = grown.costs["m.1"]
    assert (item.estimate_micros, item.required, item.value, item.children) == (100, False, 10, ("m",))
    assert [(v.name, v.estimate_micros) for v in item.variants] == [("cheap", 10)]
    assert grown.tolerant == {"m"}
    assert children_first(["m", "end", "m.0", "m.2"], grown.parents) == ["end", "m", "m.2", "m.0"]


def test_what_else_a_node_became_is_known_by_its_place_alone() -> None:
    grown = COSTS.grown({"split": "pending", "split.a": "due", "split.a.b": "due"})
    assert "split.a" not in grown.costs
    assert grown.costs["split"].estimate_micros == 0
    assert children_first(["split.a", "split", "split.a.b"], grown.parents) == ["split", "split.a", "split.a.b"]


def test_a_graph_that_a_task_returned_costs_what_its_nodes_do_and_the_node_itself_nothing_more() -> None:
    nodes = [
        {"id": "a", "task": "synthetic.noop", "estimate": {"llm": 40}},
        {"id": "b", "task": "synthetic.noop", "required": False, "after": ["a"], "estimate": {"llm": 30}},
    ]
    graph = Graph.parse({"name": "inner", "nodes": [{"id": "m", "graph": {"nodes": nodes}}]})
    grown = COSTS.with_spliced("m", Submission.of(graph, Settings(), Priority.NORMAL), required=True)
    assert {id_: (cost.estimate_micros, cost.required) for id_, cost in grown.costs.items()} == {
        "split": (5, True),
        "m": (0, True),
        "end": (7, True),
        "m.a": (40, True),
        "m.b": (30, False),
    }
    assert grown.costs["m.b"].children == ("m",)
    assert (grown.parents["m.b"], grown.parents["m"]) == (("m.a",), ("split", "m.b"))
    states = {"split": "succeeded", "m": "pending", "end": "pending", "m.a": "due", "m.b": "pending"}
    assert grown.grown(states) is grown
    optional = COSTS.with_spliced("m", Submission.of(graph, Settings(), Priority.NORMAL), required=False, adopted={"m.a"})
    assert ("m.a" in optional.costs, optional.costs["m.b"].required) == (False, False)


def test_what_an_at_least_counts_on_is_not_given_up_also_once_another_has_failed() -> None:
    costs = {id_: NodeCost(id_, False, 1, 10, children=("join",)) for id_ in "abc"}
    parents: dict[str, tuple[str, ...]] = {"a": (), "b": (), "c": (), "join": ("a", "b", "c")}
    run = RunCosts({**costs, "join": NodeCost("join", True, 1, 1)}, parents, frozenset(), {}, {"join": 2})
    assert counted_on(run, {}) == {"a", "b"}
    assert counted_on(run, {"a": "succeeded"}) == {"b"}
    assert counted_on(run, {"a": "failed"}) == {"b", "c"}
    assert counted_on(run, {"a": "running", "c": "succeeded"}) == set()
    assert counted_on(run, {"a": "succeeded", "b": "skipped", "c": "due"}) == {"c"}
    assert counted_on(run, {"join": "upstream_failed"}) == set()
