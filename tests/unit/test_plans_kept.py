"""What plans keep of the optimum, on a part of the graphs of `./dev plans`; the results of all of them are committed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.plans.__main__ import summary
from benchmarks.plans.graphs import WORKFLOWS, case, workflow
from benchmarks.plans.oracle import faults
from benchmarks.plans.trial import trial
from cost.plan import plan_down

pytestmark = pytest.mark.unit

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "plans.json"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_plans_of_real_workflows_keep_99_per_cent_of_the_optimum_within_the_budget(path: Path) -> None:
    assert trial(workflow(path, 7)).problems == []


@pytest.mark.parametrize("number", range(1, 21))
def test_plans_of_random_graphs_keep_99_per_cent_of_the_optimum_within_the_budget(number: int) -> None:
    assert trial(case(7, number, nodes_max=120)).problems == []


def test_a_plan_of_more_than_2000_nodes_keeps_95_per_cent_of_the_bound_that_it_states() -> None:
    found = trial(case(1, 8))
    assert found.nodes > 2_000
    assert found.problems == []


def test_the_oracle_sees_a_plan_that_breaks_a_rule() -> None:
    made = case(7, 5, nodes_max=120)
    plan = plan_down(made.nodes, made.available)
    assert faults(made.nodes, plan, made.available) == []
    assert faults(made.nodes, plan, plan.cost_micros - 1) == [f"it costs {plan.cost_micros} of {plan.cost_micros - 1} micros"]
    skipped = {node.id: "skip" for node in made.nodes}
    assert any("is required, and skipped" in said for said in faults(made.nodes, replace(plan, choices=skipped), made.available))


def test_the_committed_results_are_of_200_graphs_and_every_workflow_without_a_problem() -> None:
    found = json.loads(RESULTS.read_text())
    rows = list(found["graphs"].values())
    assert found["summary"] == summary(rows)
    assert found["summary"]["problems"] == 0
    assert {path.stem for path in WORKFLOWS} | {str(number) for number in range(1, 201)} <= found["graphs"].keys()
    assert found["summary"]["least kept of the optimum"] >= 0.99
    assert found["summary"]["least kept of the bound above"] >= 0.95
