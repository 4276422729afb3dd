"""The cost agent with real beat, real workers and the stock schedule: nothing here calls it by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from running import Running, by_id, until

from orchestrator.graph import Graph
from orchestrator.handle import RunHandle
from orchestrator.store.decisions import DecisionView, list_decisions

TICKS_S = 20
"""More than two ticks of the stock schedule, on a machine that has much else to do."""
TIMEOUT_S = 60


def spending(id_: str, path: Path, estimate: int, micros: int, **fields: Any) -> dict[str, Any]:
    params = {"micros": micros, "path": str(path), "log": f"{path}.log"}
    declared = {"estimate": {"other": estimate}, "attempts": 1, **fields}
    return {"id": id_, "task": "node_tasks.charge_then_wait", "params": params, **declared}


def quality(id_: str, path: Path, estimate: int, cheap: int | None = None, **fields: Any) -> dict[str, Any]:
    node = {"id": id_, "task": "node_tasks.quality", "params": {"level": "full", "log": f"{path}.{id_}"}, "estimate": {"other": estimate}}
    if cheap is not None:
        variant = {"name": "cheap", "kind": "generation", "params": {"level": "cheap"}, "estimate": {"other": cheap}, "value": 1}
        node["variants"] = [variant]
    return {"value": 3, **node, **fields}


def submit(stack: Running, tenant: str, limit: int, *nodes: dict[str, Any], max_parallel: int = 1, **policy: Any) -> RunHandle:
    stack.client.tenants.create(tenant, limit_per_day_micros=limit, **policy)
    return stack.client.submit(Graph.parse({"name": "governed", "max_parallel": max_parallel, "nodes": list(nodes)}), tenant=tenant)


def decisions(stack: Running, run: RunHandle) -> list[DecisionView]:
    return list_decisions(stack.client.engine, run=run.run_id)


def in_broker(stack: Running, run: RunHandle, node: str) -> bool:
    return bool(stack.redis.hexists("hg1:once", f"{run.run_id}.1.{node}"))


def state(stack: Running, run: RunHandle, node: str) -> str | None:
    return stack.redis.hget(f"hg1:state:{run.run_id}.1", node)


def test_one_charge_degrades_what_is_queued_while_the_node_that_charged_goes_on(stack: Running, tmp_path: Path) -> None:
    release = tmp_path / "release"
    run = submit(
        stack,
        "gov-degrade",
        1_000_000,
        spending("first", release, 400_000, 900_000),
        quality("draft", release, 300_000, 50_000),
        quality("extra", release, 200_000, required=False, value=1),
        {"id": "join", "task": "synthetic.noop", "after": ["first", "draft", "extra"], "estimate": {"other": 0}},
    )
    until(lambda: state(stack, run, "first") == "running")
    until(lambda: in_broker(stack, run, "draft") and in_broker(stack, run, "extra"))
    until(lambda: state(stack, run, "extra") == "skipped", TICKS_S)
    until(lambda: stack.redis.hget(f"hg1:verdict:{run.run_id}.1", "draft") == "cheap", TICKS_S)
    assert not in_broker(stack, run, "extra")
    assert in_broker(stack, run, "draft")  # where it was: the gate reads what it is to run as
    assert state(stack, run, "first") == "running"
    release.touch()
    run.wait(TIMEOUT_S)
    nodes = by_id(run)
    assert run.outcome == "degraded"
    assert {id_: node["outcome"] for id_, node in nodes.items()} == {
        "first": "succeeded",
        "draft": "succeeded",
        "extra": "skipped",
        "join": "succeeded",
    }
    assert Path(f"{release}.draft").read_text() == "cheap\n"
    assert not Path(f"{release}.extra").exists()
    [made] = [each for each in decisions(stack, run) if each.action == "degrade"]
    assert made.applied_at is not None
    assert {(change.node, change.change) for change in made.plan} == {("draft", "cheap"), ("extra", "skip")}
    assert "BUDGET_CRITICAL" in made.flags


def test_what_can_no_longer_be_paid_for_is_revoked_and_the_join_outside_it_passes(stack: Running, tmp_path: Path) -> None:
    release, started = tmp_path / "release", tmp_path / "started"
    started.touch()
    run = submit(
        stack,
        "gov-terminate",
        1_000_000,
        spending("sibling", release, 10_000, 0),
        spending("dear", started, 400_000, 950_000),
        quality("draft", release, 300_000, after=["dear"]),
        {"id": "review", "task": "synthetic.noop", "after": ["draft"], "estimate": {"other": 50_000}},
        {"id": "tidy", "task": "synthetic.noop", "after": ["sibling", "review"], "join": "all_done", "estimate": {"other": 1_000}},
        max_parallel=2,
    )
    until(lambda: state(stack, run, "draft") == "cancelled", TICKS_S)
    assert state(stack, run, "review") == "cancelled"
    assert state(stack, run, "sibling") == "running"
    assert state(stack, run, "tidy") == "pending"
    assert not in_broker(stack, run, "draft")
    release.touch()
    run.wait(TIMEOUT_S)
    assert run.outcome == "terminated_by_cost"
    assert {id_: node["outcome"] for id_, node in by_id(run).items()} == {
        "sibling": "succeeded",
        "dear": "succeeded",
        "draft": "cancelled",
        "review": "cancelled",
        "tidy": "succeeded",
    }
    made = decisions(stack, run)[-1]
    assert (made.action, "TERMINATED_BY_COST" in made.flags) == ("terminate", True)
    assert made.applied is not None
    assert {change.node for change in made.applied} == {"draft", "review"}
