"""Holds alone may promise a budget to its last micro: that changes nothing for the runs that have them."""

from __future__ import annotations

from pathlib import Path

import pytest
from running import Running, by_id

from orchestrator import BudgetRefused, Graph

TIMEOUT_S = 60
TENANT = "promised"


def test_runs_that_hold_a_budget_to_its_last_micro_finish_at_full_quality_and_nothing_is_decided(stack: Running, tmp_path: Path) -> None:
    client, release = stack.client, tmp_path / "release"
    client.tenants.create(TENANT, limit_per_day_micros=100_000, max_concurrent_runs=5)

    def graph(*costs: int) -> Graph:
        first = {"id": "first", "task": "slots.free", "params": {"log": str(tmp_path / "log"), "seconds": 0, "until": str(release)}}
        cheaper = {"name": "cheap", "kind": "variant", "params": {"micros": 1}, "estimate": {"other": 1}, "value": 0}
        rest = [
            {
                "id": f"n{at}",
                "task": "synthetic.spend",
                "params": {"micros": cost // 2},
                "after": ["first"],
                "required": at == 0,
                "estimate": {"other": cost},
                "variants": [cheaper],
            }
            for at, cost in enumerate(costs)
        ]
        return Graph.parse({"name": "promised", "nodes": [{**first, "estimate": {"compute": 10_000}}, *rest]})

    wanted = graph(20_000, 15_000, 5_000)
    runs = [client.submit(wanted, tenant=TENANT, quality="full") for _ in range(2)]
    assert client.tenants.usage(TENANT).exposure_micros == 100_000
    with pytest.raises(BudgetRefused):
        client.submit(
            Graph.parse({"name": "one", "nodes": [{"id": "a", "task": "synthetic.noop", "estimate": {"compute": 1}}]}), tenant=TENANT
        )
    release.touch()
    for run in runs:
        assert run.wait(TIMEOUT_S).outcome == "succeeded"
        assert {node["outcome"] for node in by_id(run).values()} == {"succeeded"}
        assert not any(event["t"].startswith(("decision.", "money.refused", "node.skipped")) for event in run.events)
        assert not any(event.get("verdict") for event in run.events)
    usage = client.tenants.usage(TENANT)
    assert (usage.level, usage.held_micros, usage.reserved_micros) == ("HEALTHY", 0, 0)
