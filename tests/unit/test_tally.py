"""The counters of metrics follow the log, event by event."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from prometheus_client.metrics_core import Metric

from orchestrator.metrics import tally as t
from orchestrator.metrics.tally import Tally


def event(name: str, /, at: int = 0, **fields: Any) -> dict[str, Any]:
    return {"t": name, "at": at, "run": "r1", "gen": 1, "tenant": "acme", **fields}


def samples(tally: Tally) -> dict[tuple[str, ...], float]:
    """Value by name and labels' values."""
    families: list[Metric] = [*tally.families(), *tally.families_of_tenants()]
    return {(each.name, *each.labels.values()): each.value for family in families for each in family.samples}


def test_what_rules_of_alerts_look_at_for_changes_is_there_at_0_before_anything_happens() -> None:
    rules = (Path(__file__).parents[2] / "docs" / "alerts.yml").read_text()
    changing = re.findall(r"(?:rate|increase)\((headgate_\w+?)(?:\{(\w+)=~?\"([^\"]*)\"\})?\[", rules)
    assert len(changing) > 8
    found = samples(Tally())
    for name, _, values in changing:
        if name.endswith("_bucket"):
            assert any(key[0] == name for key in found), name
            continue
        for value in values.split("|") if values else [""]:
            labelled = [count for key, count in found.items() if key[0] == name and (not value or value in key[1:])]
            assert labelled, f"{name} has no {value}"
            assert set(labelled) == {0}


def test_a_node_is_counted_with_how_long_it_waited_and_what_its_last_attempt_took() -> None:
    tally = Tally()
    tally.note(
        [
            event("node.due", 1_000, nodes=["a", "b"]),
            event("node.began", 3_000, node="a", attempt=1),
            event("node.lost", 9_000, node="a", attempt=1),
            event("node.due", 9_000, nodes=["a"]),
            event("node.began", 9_040, node="a", attempt=2),
            event("node.ended", 9_240, node="a", attempt=2, outcome="succeeded"),
            event("node.ended", 9_300, node="b", outcome="cancelled"),
        ]
    )
    found = samples(tally)
    assert found["headgate_nodes_total", "succeeded"] == 1
    assert found["headgate_nodes_total", "cancelled"] == 1
    assert found["headgate_nodes_total", "failed"] == 0
    assert found["headgate_executions_lost_total",] == 1
    assert found["headgate_tenant_nodes_total", "acme", "succeeded"] == 1
    assert found["headgate_node_queue_wait_seconds_count",] == 2
    assert found["headgate_node_queue_wait_seconds_sum",] == 2.04
    assert found["headgate_node_queue_wait_seconds_bucket", "0.05"] == 1
    assert found["headgate_node_queue_wait_seconds_bucket", "+Inf"] == 2
    assert found["headgate_node_duration_seconds_sum", "succeeded"] == 0.2
    assert found["headgate_node_duration_seconds_count", "cancelled"] == 0  # it never began


def test_a_clock_that_was_set_back_gives_no_negative_time() -> None:
    tally = Tally()
    tally.note([event("node.due", 5_000, nodes=["a"]), event("node.began", 1_000, node="a")])
    assert samples(tally)["headgate_node_queue_wait_seconds_sum",] == 0


def test_runs_decisions_repairs_and_charges_are_counted_by_what_they_were() -> None:
    tally = Tally()
    tally.note(
        [
            event("run.ended", outcome="degraded"),
            event("run.refused", reason="budget"),
            event("decision.made", action="degrade", observed=1),
            {"t": "sweep.repaired", "at": 0, "published": 3, "settled": 1},
            event("money.settled", by="sweeper", kind="settle", cats={"llm": "30", "compute": "0"}),
            event("worker.dead", inc="i"),
            event("request.submit"),
        ]
    )
    found = samples(tally)
    assert found["headgate_runs_total", "degraded"] == found["headgate_runs_total", "refused"] == 1
    assert found["headgate_agent_decisions_total", "degrade", "1"] == 1
    assert found["headgate_agent_decisions_total", "degrade", "0"] == 0
    assert found["headgate_sweeper_repairs_total", "published"] == 3
    assert found["headgate_settlements_total", "sweeper", "settle"] == 1
    assert found["headgate_tenant_charged_micros_total", "acme", "llm"] == 30
    assert ("headgate_tenant_charged_micros_total", "acme", "compute") not in found
    assert found["headgate_tenant_refusals_total", "acme", "run"] == 1
    assert found["headgate_workers_dead_total",] == 1


def test_what_is_remembered_is_bounded_whatever_the_log_says(monkeypatch: Any) -> None:
    monkeypatch.setattr(t, "NODES_KEPT", 10)
    monkeypatch.setattr(t, "TENANTS_MAX", 2)
    monkeypatch.setattr(t, "LABELS_MAX", 8)
    tally = Tally()
    tally.note([event("node.due", nodes=[f"n{each}" for each in range(1_000)])])
    tally.note([event("node.began", 10, node=f"n{each}") for each in range(1_000)])
    tally.note([event("node.ended", 20, node="n1", outcome=f"odd-{each}", tenant=f"t{each}") for each in range(100)])
    found = samples(tally)
    assert found["headgate_node_queue_wait_seconds_count",] == 10
    assert len([name for name in found if name[0] == "headgate_nodes_total"]) <= 9
    assert found["headgate_nodes_total", "other"] == 98
    assert sum(value for name, value in found.items() if name[0] == "headgate_tenant_nodes_total") == 100
    assert len([name for name in found if name[0] == "headgate_tenant_nodes_total"]) < 30


def test_nothing_of_a_tenant_is_among_the_open_families() -> None:
    tally = Tally()
    tally.note([event("node.ended", node="acme", outcome="succeeded"), event("run.refused", reason="acme")])
    assert "acme" not in repr([each.samples for each in tally.families()])
