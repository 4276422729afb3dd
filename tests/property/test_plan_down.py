from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cost.plan import NodeCost, VariantCost, floor, plan_down

pytestmark = pytest.mark.property

bounded = settings(deadline=None, max_examples=60)


@st.composite
def graphs(draw: st.DrawFn, nodes_max: int) -> list[NodeCost]:
    count = draw(st.integers(1, nodes_max))
    top = draw(st.sampled_from([3, 40, 10**12]))
    amounts = st.integers(0, top)
    nodes = []
    for index in range(count):
        names = draw(st.sampled_from(["", "x", "xy"]))
        variants = tuple(VariantCost(name, "variant", draw(amounts), draw(amounts)) for name in names)
        children = tuple(f"n{other:03d}" for other in range(index + 1, count) if draw(st.integers(0, 3)) == 0)
        nodes.append(NodeCost(f"n{index:03d}", draw(st.booleans()), draw(amounts), draw(amounts), variants=variants, children=children))
    return nodes


def dependencies_respected(nodes: list[NodeCost], choices: dict[str, str]) -> bool:
    for node in nodes:
        parents = [other.id for other in nodes if node.id in other.children]
        if node.required and choices[node.id] == "skip":
            return False
        if not node.required and parents and all(choices[p] == "skip" for p in parents) and choices[node.id] != "skip":
            return False
    return True


def cost_and_value(nodes: list[NodeCost], choices: dict[str, str]) -> tuple[int, int]:
    cost = value = 0
    for node in nodes:
        table = {"as_is": (node.estimate_micros, node.value), "skip": (0, 0)}
        table.update({v.name: (v.estimate_micros, min(v.value, node.value)) for v in node.variants})
        cost += table[choices[node.id]][0]
        value += table[choices[node.id]][1]
    return cost, value


def best_by_enumeration(nodes: list[NodeCost], available: int) -> int | None:
    names = [["as_is", *([] if node.required else ["skip"]), *(v.name for v in node.variants)] for node in nodes]
    best = None
    for picks in product(*names):
        choices = {node.id: pick for node, pick in zip(nodes, picks, strict=True)}
        cost, value = cost_and_value(nodes, choices)
        if cost <= available and dependencies_respected(nodes, choices) and (best is None or value > best):
            best = value
    return best


@bounded
@given(graphs(40), st.integers(0, 1000))
def test_a_plan_fits_whenever_the_floor_does_and_keeps_the_rules(nodes: list[NodeCost], permille: int) -> None:
    full, least = sum(node.estimate_micros for node in nodes), floor(nodes)
    available = least + (full - least) * permille // 1000
    plan = plan_down(nodes, available)
    assert plan.fits
    assert plan.cost_micros <= available
    assert dependencies_respected(nodes, dict(plan.choices))
    assert (plan.cost_micros, plan.value) == cost_and_value(nodes, dict(plan.choices))
    assert sum(change.estimated_saving_micros for change in plan.modifications) == full - plan.cost_micros
    assert plan == plan_down(reversed(nodes), available)
    if least:
        assert not plan_down(nodes, least - 1).fits


@bounded
@given(graphs(40), st.integers(0, 10**6))
def test_nothing_is_given_up_while_everything_fits(nodes: list[NodeCost], more: int) -> None:
    plan = plan_down(nodes, sum(node.estimate_micros for node in nodes) + more)
    assert set(plan.choices.values()) == {"as_is"}
    assert plan.modifications == ()


@bounded
@given(graphs(40), st.integers(0, 1000))
def test_no_single_thing_was_given_up_without_need(nodes: list[NodeCost], permille: int) -> None:
    full, least = sum(node.estimate_micros for node in nodes), floor(nodes)
    available = least + (full - least) * permille // 1000
    plan = plan_down(nodes, available)
    for change in plan.modifications:
        undone = {**plan.choices, change.node: "as_is"}
        assert cost_and_value(nodes, undone)[0] > available or not dependencies_respected(nodes, undone)


@settings(deadline=None, max_examples=150)
@given(graphs(6), st.integers(0, 1000))
def test_small_graphs_keep_the_most_value_that_any_plan_could(nodes: list[NodeCost], permille: int) -> None:
    full = sum(node.estimate_micros for node in nodes)
    available = full * permille // 1000
    plan = plan_down(nodes, available)
    assert plan.exact
    assert (plan.value if plan.fits else None) == best_by_enumeration(nodes, available)
