from __future__ import annotations

import subprocess
import sys

import pytest

from cost.plan import NodeCost, VariantCost, floor, plan_down

pytestmark = pytest.mark.unit

ONE = (VariantCost("one", "generation", 10_000, 7),)
ARTICLE = (
    NodeCost("draft", True, 10, 30_000, variants=ONE, children=("merge",)),
    NodeCost("draft-2", True, 10, 30_000, variants=ONE, children=("merge",)),
    NodeCost("draft-3", False, 10, 30_000, variants=ONE, children=("merge",)),
    NodeCost("merge", True, 1, 1_000),
)


@pytest.mark.parametrize(
    ("budget", "cost", "value", "given_up"),
    [
        (91_000, 91_000, 31, {}),
        (71_000, 71_000, 28, {"draft": "one"}),
        (60_000, 51_000, 25, {"draft": "one", "draft-2": "one"}),
        (31_000, 31_000, 22, {"draft": "one", "draft-2": "one", "draft-3": "one"}),
        (21_000, 21_000, 15, {"draft": "one", "draft-2": "one", "draft-3": "skip"}),
    ],
)
def test_the_article_gives_up_what_matters_least(budget: int, cost: int, value: int, given_up: dict[str, str]) -> None:
    plan = plan_down(ARTICLE, budget)
    assert (plan.cost_micros, plan.value, plan.fits, plan.exact) == (cost, value, True, True)
    assert {change.node: change.change for change in plan.modifications} == given_up
    assert sum(change.estimated_saving_micros for change in plan.modifications) == 91_000 - cost


def test_below_the_floor_the_cheapest_plan_is_returned_and_does_not_fit() -> None:
    assert floor(ARTICLE) == 21_000
    plan = plan_down(ARTICLE, 20_999)
    assert not plan.fits
    assert plan.cost_micros == 21_000


def test_skipping_takes_along_what_only_the_skipped_node_feeds() -> None:
    nodes = [
        NodeCost("a", False, 1, 100, children=("b", "c", "d")),
        NodeCost("b", False, 1, 100),
        NodeCost("c", True, 1, 100),
        NodeCost("d", False, 1, 0),
        NodeCost("e", True, 1, 0, children=("d",)),
    ]
    plan = plan_down(nodes, 100)
    assert plan.choices == {"a": "skip", "b": "skip", "c": "as_is", "d": "as_is", "e": "as_is"}
    assert [(m.type, m.node, m.reason) for m in plan.modifications] == [
        ("skip", "a", "everything would cost 300 micros, and 100 are available"),
        ("skip", "b", "what feeds it is skipped"),
    ]


def test_an_optional_node_does_not_run_without_a_result_it_needs() -> None:
    nodes = [
        NodeCost("a", False, 1, 100, children=("d",)),
        NodeCost("d", False, 1, 10, needs=("a",)),
        NodeCost("e", True, 1, 0, children=("d",)),
    ]
    assert plan_down(nodes, 20).choices == {"a": "skip", "d": "skip", "e": "as_is"}


def test_a_variant_that_saves_nothing_is_never_chosen() -> None:
    variants = (VariantCost("dear", "variant", 200, 9), VariantCost("same", "variant", 100, 9), VariantCost("cheap", "variant", 50, 90))
    plan = plan_down([NodeCost("a", True, 5, 100, variants=variants)], 99)
    assert plan.choices == {"a": "cheap"}
    assert plan.value == 5


def test_the_kinds_of_modification_are_the_strategies() -> None:
    nodes = [NodeCost("a", True, 5, 100, variants=(VariantCost("few", "retrieval", 10, 4),)), NodeCost("b", False, 1, 50)]
    assert [m.type for m in plan_down(nodes, 10).modifications] == ["retrieval", "skip"]


def test_a_large_graph_keeps_nearly_all_that_can_be_kept_and_says_of_how_much() -> None:
    nodes = [
        NodeCost(f"n{i:03d}", False, 1 + i * 7919 % 1000, 1 + i * 104_729 % 9973, children=tuple(f"n{j:03d}" for j in range(i + 1, i + 4)))
        for i in range(300)
    ]
    plan = plan_down(nodes, sum(node.estimate_micros for node in nodes) // 2)
    assert plan.fits
    assert not plan.exact
    assert plan.bound >= plan.value >= 0.99 * plan.bound


def test_many_identical_branches_are_given_up_one_by_one() -> None:
    nodes = [NodeCost("start", True, 1, 0, children=tuple(f"a{i:04d}" for i in range(3_000)))]
    nodes += [NodeCost(f"a{i:04d}", False, 1, 100, children=(f"b{i:04d}",)) for i in range(3_000)]
    nodes += [NodeCost(f"b{i:04d}", False, 5, 100) for i in range(3_000)]
    plan = plan_down(nodes, 200 * 1_000 + 150)
    assert (plan.value, plan.cost_micros) == (6 * 1_000 + 1 + 1, 200 * 1_000 + 100)
    assert plan.bound == 6 * 1_000 + 1 + 4


def test_a_node_that_something_else_feeds_runs_without_those_that_are_skipped() -> None:
    nodes = [NodeCost("a", False, 1, 100, children=("b",)), NodeCost("b", False, 1, 10)]
    assert plan_down(nodes, 50).choices == {"a": "skip", "b": "skip"}
    assert plan_down([nodes[0], NodeCost("b", False, 1, 10, fed=True)], 50).choices == {"a": "skip", "b": "as_is"}


def test_neither_producers_nor_workers_load_the_solver_until_a_plan_needs_it() -> None:
    said = "import sys, cost.agent, orchestrator; print('scipy' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_a_long_optional_chain_can_be_given_up_whole() -> None:
    nodes = [NodeCost(f"n{i:03d}", False, 1, 10, children=(f"n{i + 1:03d}",)) for i in range(300)]
    assert plan_down(nodes, 0).cost_micros == 0


def test_senseless_input_is_refused() -> None:
    with pytest.raises(ValueError, match="wait for each other"):
        plan_down([NodeCost("a", True, 1, 1, children=("b",)), NodeCost("b", True, 1, 1, children=("a",))], 1)
    with pytest.raises(ValueError, match="name is taken"):
        NodeCost("a", True, 1, 1, variants=(VariantCost("skip", "variant", 0, 0),))
    with pytest.raises(ValueError, match="estimate of a"):
        NodeCost("a", True, 1, -1)
    with pytest.raises(ValueError, match="available"):
        plan_down([], -1)
