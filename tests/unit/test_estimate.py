"""What a run will cost: declared, else learned, else the default; and what admission would say of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cost.estimate import DEFAULT, LEARNED_FROM, WINDOW, Learned, Standing, estimate, foresee
from cost.money import MICROS_MAX
from orchestrator.graph import Graph
from orchestrator.settings import Settings
from orchestrator.submission import Submission

pytestmark = pytest.mark.unit

STANDING = Standing(limit_micros=1_000, exposure_micros=400, running=1, max_runs=3)


def test_what_is_declared_goes_before_what_is_learned_and_that_before_the_default() -> None:
    assert estimate({"llm": 5}, {"llm": 70}) == ({"llm": 5}, "declared")
    assert estimate({"compute": 1_000}, {"llm": 70}) == ({"llm": 70}, "learned")
    assert estimate({"compute": 1_000}, None) == (DEFAULT, "default")
    assert estimate({}, {"llm": 70}) == ({}, "declared")
    assert estimate({"compute": 1_000}, {}).micros == 0


def test_a_mean_needs_executions_and_is_rounded_up_by_category() -> None:
    few = Learned().add([{"llm": 10}] * (LEARNED_FROM - 1))
    assert few.mean() is None
    assert few.add([{"compute": 1}]).mean() == {"compute": 1, "llm": 8}
    assert Learned().add([{}] * LEARNED_FROM).mean() == {}


def test_a_mean_follows_what_executions_cost_lately_and_its_sums_stay_small() -> None:
    old = Learned().add([{"llm": 1_000}] * 10_000)
    assert old.count <= WINDOW
    new = old.add([{"llm": 10}] * 5_000).mean()
    assert new is not None
    assert new["llm"] <= 12
    huge = Learned().add([{"llm": MICROS_MAX}] * 3_000)
    assert sum((huge.sums or {}).values()) < 2**63
    assert huge.mean() == {"llm": MICROS_MAX}


@pytest.mark.parametrize(
    ("changes", "estimate_micros", "floor", "budget", "decision", "hold"),
    [
        ({}, 600, 300, None, "admitted", 600),
        ({}, 601, 300, None, "planned_down", 600),
        ({}, 500, 300, 400, "planned_down", 400),
        ({}, 500, 300, 299, "refused", 0),
        ({}, 2_000, 1_001, None, "refused", 0),
        ({}, 2_000, 601, None, "refused", 0),
        ({"on_budget_limit": "hold"}, 2_000, 601, None, "held", 0),
        ({"running": 3}, 1, 1, None, "held", 0),
        ({"running": 3, "on_runs_limit": "reject"}, 1, 1, None, "refused", 0),
        ({"waiting": 1}, 1, 1, None, "held", 0),
        ({"waiting": 1, "max_waiting": 1}, 1, 1, None, "refused", 0),
        ({"running": 3, "max_waiting": 0}, 1, 1, None, "refused", 0),
        ({"status": "closed"}, 0, 0, None, "refused", 0),
        ({"exposure_micros": 1_500}, 5, 0, None, "planned_down", 0),
        ({"exposure_micros": 1_500}, 0, 0, None, "admitted", 0),
        ({"exposure_micros": 1_000, "committed_micros": 1_000}, 0, 0, None, "refused", 0),
        ({"limit_micros": 0, "exposure_micros": 0}, 0, 0, None, "refused", 0),
        ({"limit_micros": 0, "exposure_micros": 0}, 1, 1, None, "refused", 0),
        ({"limit_month_micros": 1_000, "month_exposure_micros": 700}, 300, 300, None, "admitted", 300),
        ({"limit_month_micros": 1_000, "month_exposure_micros": 700}, 301, 300, None, "planned_down", 300),
        ({"limit_month_micros": 1_000, "month_exposure_micros": 700}, 301, 301, None, "refused", 0),
        ({"limit_month_micros": 1_000, "month_exposure_micros": 1_000, "month_committed_micros": 1_000}, 0, 0, None, "refused", 0),
        ({"limit_month_micros": 200}, 500, 201, None, "refused", 0),
        ({"admit": "full"}, 601, 300, None, "refused", 0),
        ({"admit": "full"}, 600, 300, None, "admitted", 600),
    ],
)
def test_what_admission_would_say(changes: Any, estimate_micros: int, floor: int, budget: int | None, decision: str, hold: int) -> None:
    found = foresee(estimate_micros, floor, replace(STANDING, **changes), budget)
    assert (found.decision, found.hold_micros) == (decision, hold)
    assert found.reason


def test_learned_means_change_what_a_graph_costs_and_not_its_digest() -> None:
    nodes = [{"id": "a", "task": "t.silent"}, {"id": "b", "task": "t.silent", "estimate": {"llm": 7}}, {"id": "c", "task": "t.other"}]
    graph = Graph.parse({"name": "g", "nodes": nodes})
    plain = Submission.of(graph, Settings())
    learned = Submission.of(graph, Settings(), learned={"t.silent": {"llm": 40, "compute": 2}, "t.unused": {"llm": 1}})
    assert (plain.estimate_micros, learned.estimate_micros) == (2_007, 1_049)
    assert learned.learned == {"t.silent": {"llm": 40, "compute": 2}}
    assert [learned.estimates[node].source for node in "abc"] == ["learned", "declared", "default"]
    assert learned.want(None)["estimate"] == learned.want(None)["floor"] == "1049"
    assert '"amounts":{"":"42"}' in next(learned.rows({}))[0][2]
    assert learned.graph.digest == plain.graph.digest
    assert learned.relearned({}).estimate_micros == plain.estimate_micros
