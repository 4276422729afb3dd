"""What a run's nodes are planned at, by how those turned out that are finished."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cost.agent import Decision, RunView
from cost.plan import NodeCost, VariantCost, plan_down
from orchestrator.govern.order import Order

pytestmark = pytest.mark.unit


def view(spent: int, finished: int, estimate: int = 1_000) -> RunView:
    return RunView("r", spent, 0, hold=500, reserved=0, estimate=estimate, finished=finished, room=0, pending=())


@pytest.mark.parametrize(
    ("spent", "finished", "planned_at"),
    [
        (0, 0, 300),  # nothing is known
        (100, 50, 400),  # twice as dear, but not a tenth is done: e0 stands for a tenth that costs what was said
        (500, 300, 510),  # 5/3 of what was said, no less because of e0, and 2 % more
        (300, 300, 300),  # as it was said, to the last micro
        (100, 300, 150),  # cheaper than said: e0 keeps a part of that for what is to come
    ],
)
def test_once_a_tenth_is_finished_the_rest_is_planned_at_what_was_seen(spent: int, finished: int, planned_at: int) -> None:
    assert view(spent, finished).likely(300) == planned_at


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(1, 10**9), st.integers(0, 10**9))
def test_what_money_affords_is_likely_to_cost_no_more_than_that(spent: int, finished: int, estimate: int, micros: int) -> None:
    run = view(spent, finished, estimate)
    assert run.likely(run.affords(micros)) <= micros or run.spent + run.prior == 0


def test_a_run_that_is_planned_down_holds_what_its_plan_is_expected_to_cost() -> None:
    nodes = [NodeCost("a", True, 5, 30, variants=(VariantCost("one", "generation", 10, 3),))]
    decision = Decision("degrade", "", (), 0, 500, 10, plan_down(nodes, 20), left=17)
    order = Order.of(decision, "beat")
    assert (order.left, order.raised, dict(order.judge)) == (17, True, {"a": "one"})
    assert not Order.of(Decision("continue", "", (), 0, 500, 10), "beat").raised
