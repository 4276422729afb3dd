"""Limits of money with real workers: charges beyond a reservation, months, strict tenants, whole estimates, limits that only observe."""

from __future__ import annotations

from typing import Any

import pytest
from running import Running, by_id
from ulid import ULID

from orchestrator import BudgetRefused, Graph, Refused

TIMEOUT_S = 60


def tenant_of(stack: Running, **policy: Any) -> str:
    tenant = f"limits-{str(ULID()).lower()[-8:]}"
    stack.client.tenants.create(tenant, **policy)
    return tenant


def graph_of(*nodes: dict[str, Any]) -> Graph:
    return Graph.parse({"name": "limits", "nodes": list(nodes)})


def spend(node: str, micros: int, estimate: int, **fields: Any) -> dict[str, Any]:
    said = {"task": "synthetic.spend", "params": {"micros": micros}, "estimate": {"llm": estimate}}
    return {"id": node, **said, **fields}


def test_a_charge_beyond_the_reservation_is_covered_before_it_counts(stack: Running) -> None:
    run = stack.client.submit(graph_of(spend("a", 30_000, 5_000)), budget=60_000).wait(TIMEOUT_S)
    assert run.outcome == "succeeded"
    events = [(event["t"], event.get("amount")) for event in run.events if event["t"].startswith("money.")]
    assert events[0] == ("money.extended", "25000")
    assert events[-1][0] == "money.settled"
    assert run.cost_micros >= 30_000


def test_a_charge_that_nothing_covers_is_refused_and_not_counted(stack: Running) -> None:
    run = stack.client.submit(graph_of(spend("a", 30_000, 5_000, attempts=3)), budget=20_000).wait(TIMEOUT_S)
    assert run.outcome == "failed"
    node = by_id(run)["a"]
    assert (node["outcome"], node["attempt"]) == ("failed", 1), "it would be refused again"
    assert "BudgetRefused" in str(node["error"])
    assert run.cost_micros < 20_000


def test_the_month_has_a_limit_of_its_own(stack: Running) -> None:
    tenant = tenant_of(stack, limit_per_month_micros=40_000)
    assert stack.client.submit(graph_of(spend("a", 30_000, 30_000)), tenant=tenant).wait(TIMEOUT_S).outcome == "succeeded"
    with pytest.raises(BudgetRefused) as refused:
        stack.client.submit(graph_of(spend("a", 30_000, 30_000)), tenant=tenant)
    assert refused.value.limit == 40_000


def test_a_strict_tenant_reserves_the_most_that_a_node_says_it_costs(stack: Running) -> None:
    tenant = tenant_of(stack, strict=True, limit_per_day_micros=100_000)
    with pytest.raises(Refused, match=r"is strict: each node says its most by `max_cost`, and these do not: b"):
        stack.client.submit(graph_of(spend("a", 1, 1, max_cost=10), spend("b", 1, 1)), tenant=tenant)
    run = stack.client.submit(graph_of(spend("a", 1_000, 1_000, max_cost=80_000)), tenant=tenant).wait(TIMEOUT_S)
    assert [event["amount"] for event in run.events if event["t"] == "node.began"] == ["80000"]
    assert run.outcome == "succeeded"
    with pytest.raises(BudgetRefused):
        stack.client.submit(graph_of(spend("a", 1_000, 1_000, max_cost=100_000)), tenant=tenant)


def test_a_strict_tenant_is_charged_for_its_cpu_only_as_far_as_that_is_reserved(stack: Running) -> None:
    tenant = tenant_of(stack, strict=True, limit_per_day_micros=40)
    burn = {"id": "a", "task": "synthetic.burn", "params": {"seconds": 0.2}, "estimate": {"compute": 40}, "max_cost": 40}
    run = stack.client.submit(graph_of(burn), tenant=tenant).wait(TIMEOUT_S)
    assert (run.outcome, run.cost_micros) == ("succeeded", 40), "0.2 s are 200 micros"
    assert not any(event.get("overshoot") for event in run.events)
    usage = stack.client.tenants.usage(tenant)
    assert (usage.settled_micros, usage.reserved_micros) == (40, 0)
    lenient = tenant_of(stack, limit_per_day_micros=40)
    over = stack.client.submit(graph_of(burn), tenant=lenient).wait(TIMEOUT_S)
    (settled,) = [event for event in over.events if event["t"] == "money.settled"]
    assert int(settled["overshoot"]) == over.cost_micros - 40 >= 100, "actual - reserved, as the bound has it"


def test_a_run_that_wants_its_whole_estimate_is_refused_where_only_its_floor_fits(stack: Running) -> None:
    graph = graph_of(spend("a", 1_000, 30_000), spend("b", 1_000, 30_000, required=False))
    with pytest.raises(BudgetRefused):
        stack.client.submit(graph, budget=40_000, quality="full")
    assert stack.client.submit(graph, budget=40_000).wait(TIMEOUT_S).outcome == "degraded"
    tenant = tenant_of(stack, admit="full", limit_per_day_micros=40_000)
    with pytest.raises(BudgetRefused):
        stack.client.submit(graph, tenant=tenant)


def test_limits_that_are_only_observed_refuse_nothing_and_are_told(stack: Running) -> None:
    tenant = tenant_of(stack, enforcement="observe", limit_per_day_micros=10)
    run = stack.client.submit(graph_of(spend("a", 30_000, 5_000)), tenant=tenant).wait(TIMEOUT_S)
    assert run.outcome == "succeeded"
    told = [(event.get("node"), event["reason"], event["limit"]) for event in run.events if event["t"] == "money.would_refuse"]
    assert told == [(None, "budget", "10"), ("a", "budget", "10")]
    tenant = tenant_of(stack, enforcement="off", limit_per_day_micros=10)
    run = stack.client.submit(graph_of(spend("a", 30_000, 5_000)), tenant=tenant).wait(TIMEOUT_S)
    assert run.outcome == "succeeded"
    assert not [event for event in run.events if event["t"] == "money.would_refuse"]
