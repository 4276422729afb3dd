"""The agent's decisions on worked examples: which threshold trips it, what it then does, and that it can be recomputed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cost.agent import Basis, Decision, Inputs, RunView, TenantView, decide, decide_on, solver
from cost.plan import NodeCost, VariantCost

pytestmark = pytest.mark.unit

NODES = (
    NodeCost("search", True, 5, 20, variants=(VariantCost("few", "retrieval", 10, 4),), children=("write", "extra")),
    NodeCost(
        "write", True, 9, 40, variants=(VariantCost("one", "generation", 20, 7), VariantCost("small", "variant", 15, 5)), needs=("search",)
    ),
    NodeCost("extra", False, 1, 40),
)
"""100 micros in full; the floor is 10 + 15."""

TODAY = Basis("2026-11-22", 1_000, None, 0)
TENANT = TenantView(limit=1_000, committed=0, elsewhere=0, others=0, active=1, running=1, max_runs=10, waiting=0, basis=TODAY)
RUN = RunView("r", 0, 0, hold=100, reserved=0, estimate=100, finished=0, room=0, pending=NODES)


def given_up(decision: Decision) -> dict[str, str]:
    return {change.node: change.change for change in decision.plan.modifications} if decision.plan else {}


@pytest.mark.parametrize(
    ("tenant", "run", "action", "flags", "choices"),
    [
        # Everything fits, with hardly anything used.
        (TENANT, RUN, "continue", (), {}),
        # The rate alone, at the threshold and just below; and where the rest fits.
        (
            replace(TENANT, committed=900),
            replace(RUN, hold=90),
            "degrade",
            ("BUDGET_ALERT", "BUDGET_CRITICAL", "DEGRADED_MODE"),
            {"search": "few"},
        ),
        (replace(TENANT, committed=899), replace(RUN, hold=90), "continue", ("BUDGET_ALERT",), {}),
        (replace(TENANT, committed=900), RUN, "continue", ("BUDGET_ALERT", "BUDGET_CRITICAL"), {}),
        (replace(TENANT, committed=899, budget=80), replace(RUN, hold=90), "degrade", ("BUDGET_ALERT", "DEGRADED_MODE"), {"search": "few"}),
        (
            replace(TENANT, committed=999, budget=None),
            replace(RUN, hold=90),
            "continue",
            ("BUDGET_ALERT", "BUDGET_CRITICAL"),
            {},
        ),
        # The projection alone: 901 elsewhere and this run's 100; exactly the limit is no overrun.
        (replace(TENANT, elsewhere=901), replace(RUN, hold=90), "degrade", ("PROJECTED_OVERRUN", "DEGRADED_MODE"), {"search": "few"}),
        (replace(TENANT, elsewhere=900), replace(RUN, hold=90), "continue", (), {}),
        (replace(TENANT, others=901), RUN, "continue", ("PROJECTED_OVERRUN",), {}),
        # Concurrency alone: all that it allows, to the full; not if nobody waits, just below, for one place, or switched off.
        (
            replace(TENANT, running=8, waiting=1),
            RUN,
            "degrade",
            ("CONCURRENCY_HIGH", "DEGRADED_MODE"),
            {"search": "few", "write": "small", "extra": "skip"},
        ),
        (replace(TENANT, running=8), RUN, "continue", ("CONCURRENCY_HIGH",), {}),
        (replace(TENANT, running=7, waiting=5), RUN, "continue", (), {}),
        (replace(TENANT, running=1, max_runs=1, waiting=5), RUN, "continue", ("CONCURRENCY_HIGH",), {}),
        (replace(TENANT, running=9, waiting=5, concurrency=None), RUN, "continue", (), {}),
        # The same at a factor of 60: variants are switched above 70 only.
        (
            replace(TENANT, running=6, waiting=1, concurrency=60),
            RUN,
            "degrade",
            ("CONCURRENCY_HIGH", "DEGRADED_MODE"),
            {"search": "few", "extra": "skip"},
        ),
        # Neither: money is nearly gone, but what is pending is held.
        (replace(TENANT, committed=1_000), RUN, "continue", ("BUDGET_ALERT", "BUDGET_CRITICAL"), {}),
        # The floor: 25 can be had, 24 cannot; what open executions may give back counts.
        (replace(TENANT, committed=900), replace(RUN, hold=25), "degrade", None, {"search": "few", "write": "small", "extra": "skip"}),
        (TENANT, replace(RUN, hold=24), "terminate", ("TERMINATED_BY_COST",), {}),
        (TENANT, replace(RUN, hold=20, reserved=5), "continue", (), {}),
        (replace(TENANT, on_floor="hold"), replace(RUN, hold=24), "hold", (), {}),
        (replace(TENANT, on_floor="finish"), replace(RUN, hold=24, running=1), "finish", (), {}),
        (replace(TENANT, on_floor="finish"), replace(RUN, hold=24, running=1, stopped="finish"), "continue", (), {}),
        (replace(TENANT, on_floor="finish"), replace(RUN, hold=24, stopped="finish"), "terminate", ("TERMINATED_BY_COST",), {}),
        (replace(TENANT, on_floor="finish"), replace(RUN, hold=25, stopped="finish"), "restore", (), {}),
        (TENANT, replace(RUN, stopped="hold"), "continue", (), {}),
        # Watched only: the same, and said.
        (replace(TENANT, observe=True), replace(RUN, hold=24), "terminate", ("TERMINATED_BY_COST", "OBSERVED_ONLY"), {}),
    ],
)
def test_each_threshold_alone(
    tenant: TenantView, run: RunView, action: str, flags: tuple[str, ...] | None, choices: dict[str, str]
) -> None:
    decision = decide(tenant, run)
    assert (decision.action, given_up(decision)) == (action, choices)
    assert flags is None or decision.flags == flags


def test_a_refused_node_and_an_admission_are_planned_for_without_any_threshold() -> None:
    short = replace(RUN, hold=90)
    assert decide(TENANT, short).action == "continue"
    # At the gate what is allowed unasked comes first; an admission keeps the most value, whatever that takes.
    assert given_up(decide(TENANT, short, "gate")) == {"search": "few"}
    assert given_up(decide(TENANT, short, "admission")) == {"extra": "skip"}
    assert given_up(decide(TENANT, replace(RUN, hold=60), "gate")) == {"extra": "skip"}
    assert given_up(decide(TENANT, replace(RUN, hold=75), "gate")) == {"write": "small"}
    assert given_up(decide(TENANT, replace(RUN, hold=75), "admission")) == {"extra": "skip"}


def test_what_was_given_up_is_lowered_further_and_never_raised_by_the_way() -> None:
    run = replace(RUN, hold=70, estimate=80, current={"write": "one"})
    decision = decide(replace(TENANT, committed=900), run)
    assert given_up(decision) == {"search": "few"}
    assert decision.plan is not None
    assert decision.plan.choices == {"search": "few", "write": "one", "extra": "as_is"}
    assert decision.left == 70


@pytest.mark.parametrize(
    ("tenant", "run", "changes"),
    [
        # 65 are planned and 100 declared: with 105 all of it fits and 5 % more, with 95 the writing alone.
        (TENANT, {"hold": 60, "room": 45}, {"search": "as_is", "write": "as_is"}),
        (TENANT, {"hold": 60, "room": 35}, {"write": "as_is"}),
        (TENANT, {"hold": 65, "room": 0}, {}),
        (replace(TENANT, committed=850), {"hold": 60, "room": 45}, {}),
        (replace(TENANT, elsewhere=900, others=1), {"hold": 60, "room": 45}, {}),
        (replace(TENANT, basis=TODAY._replace(level=1)), {"hold": 60, "room": 45}, {}),
        (TENANT, {"hold": 60, "room": 45, "basis": TODAY}, {}),
        (TENANT, {"hold": 60, "room": 45, "basis": None}, {}),
        (TENANT, {"hold": 60, "room": 45, "basis": TODAY._replace(limit_day=900)}, {"search": "as_is", "write": "as_is"}),
        (TENANT, {"hold": 60, "room": 45, "basis": TODAY._replace(limit_month=900)}, {"search": "as_is", "write": "as_is"}),
        (TENANT, {"hold": 60, "room": 45, "basis": TODAY._replace(day="2026-11-21")}, {"search": "as_is", "write": "as_is"}),
        (replace(TENANT, running=9, waiting=1), {"hold": 60, "room": 45}, None),
    ],
)
def test_what_was_given_up_comes_back_when_money_appeared_and_it_fits(
    tenant: TenantView, run: dict[str, Any], changes: dict[str, str] | None
) -> None:
    lowered = replace(RUN, estimate=65, current={"search": "few", "write": "small"}, **{"basis": TODAY._replace(level=1), **run})
    decision = decide(tenant, lowered)
    if changes is None:
        assert decision.action == "degrade"
        return
    assert (decision.action, given_up(decision)) == ("restore" if changes else "continue", changes)
    if changes:
        assert decision.plan is not None
        assert decision.left == decision.plan.cost_micros == 65 - sum(m.estimated_saving_micros for m in decision.plan.modifications)
        assert {m.type for m in decision.plan.modifications} == {"restore"}


def test_a_projection_is_what_is_spent_elsewhere_and_what_active_runs_will_have_cost() -> None:
    # Half of 100 done at 60 instead of 50: ratio (60 + 10) / (50 + 10), so 100 become 117.
    run = replace(RUN, spent=60, hold=40, finished=50)
    decision = decide(replace(TENANT, elsewhere=200, others=300, active=3), run)
    assert decision.projected == 200 + 300 + 117
    # Half is done: 0.5 + 0.25, less 0.1 for each of two other runs.
    assert decision.confidence_permille == 550
    assert decision.concurrency_percent == 10


@pytest.mark.parametrize(
    ("spent", "finished", "hold", "projected"),
    [(0, 0, 100, 100), (3, 1, 97, 119), (50, 50, 50, 100), (25, 50, 50, 75), (100, 50, 0, 184), (0, 0, 150, 150)],
)
def test_the_projection_of_a_run_on_worked_examples(spent: int, finished: int, hold: int, projected: int) -> None:
    assert replace(RUN, spent=spent, finished=finished, hold=hold).projected == projected


def test_a_stored_decision_is_recomputed_to_the_byte() -> None:
    run = replace(RUN, hold=60, current={"write": "one"}, basis=TODAY, running=2)
    inputs = Inputs(replace(TENANT, committed=901), run, "gate", 3, solver())
    text = inputs.to_json()
    again = Inputs.from_json(text)
    assert again.to_json() == text
    assert again.digest() == inputs.digest()
    assert decide_on(again).to_json() == decide_on(inputs).to_json() == decide(inputs.tenant, run, "gate").to_json()
    shuffled = replace(inputs, run=replace(run, pending=NODES[::-1]))
    assert shuffled.digest() == inputs.digest()
    assert decide_on(shuffled).to_json() == decide_on(inputs).to_json()
    assert replace(inputs, policy_version=4).digest() != inputs.digest()


def test_a_choice_that_a_node_does_not_have_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="node 'write' is chosen to be 'none', and has no such variant"):
        decide(TENANT, replace(RUN, current={"write": "none"}))
