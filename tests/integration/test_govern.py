"""The cost agent with real beat, real workers and the stock schedule: nothing here calls it by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from celery.result import AsyncResult
from consoles import told
from running import Running, by_id, until
from test_revoked_states import watched

from orchestrator.graph import Graph
from orchestrator.handle import RunHandle
from orchestrator.store.decisions import DecisionView, list_decisions
from tenancy.errors import Refused

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


def alone(id_: str, path: Path, estimate: int, **fields: Any) -> dict[str, Any]:
    """One of these runs at a time, and waits for a file: the others stay in the broker."""
    params = {"log": f"{path}.{id_}", "seconds": 0, "until": str(path)}
    return {"id": id_, "task": "slots.alone", "params": params, "estimate": {"other": estimate}, **fields}


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
    assert AsyncResult(f"{run.run_id}.1.extra", app=stack.app).result.startswith("skipped: ")
    assert not Path(f"{release}.extra").exists()
    [made] = [each for each in decisions(stack, run) if each.action == "degrade"]
    assert made.applied_at is not None
    assert {(change.node, change.change) for change in made.plan} == {("draft", "cheap"), ("extra", "skip")}
    assert "BUDGET_CRITICAL" in made.flags


def test_what_can_no_longer_be_paid_for_is_revoked_and_the_join_outside_it_passes(stack: Running, tmp_path: Path) -> None:
    release, begin = tmp_path / "release", tmp_path / "begin"
    run = submit(
        stack,
        "gov-terminate",
        1_000_000,
        alone("sibling", release, 10_000),
        alone("draft", release, 300_000),
        {"id": "start", "task": "node_tasks.wait_for", "params": {"path": str(begin), "log": f"{begin}.log"}, "estimate": {"other": 0}},
        spending("dear", tmp_path, 400_000, 950_000, after=["start"]),
        {"id": "review", "task": "synthetic.noop", "after": ["draft"], "estimate": {"other": 50_000}},
        {"id": "tidy", "task": "synthetic.noop", "after": ["sibling", "review"], "join": "all_done", "estimate": {"other": 1_000}},
        max_parallel=3,
    )
    until(lambda: state(stack, run, "sibling") == "running" and in_broker(stack, run, "draft"))
    with watched(stack) as seen:
        begin.touch()
        until(lambda: state(stack, run, "draft") == "cancelled", TICKS_S)
        until(lambda: f"{run.run_id}.1.draft" in seen.tasks and seen.tasks[f"{run.run_id}.1.draft"].state == "REVOKED")
    assert AsyncResult(f"{run.run_id}.1.draft", app=stack.app).state == "REVOKED"
    assert state(stack, run, "review") == "cancelled"
    assert state(stack, run, "sibling") == "running"
    assert state(stack, run, "tidy") == "pending"
    assert not in_broker(stack, run, "draft")
    release.touch()
    run.wait(TIMEOUT_S)
    assert run.outcome == "terminated_by_cost"
    assert {id_: node["outcome"] for id_, node in by_id(run).items()} == {
        "sibling": "succeeded",
        "start": "succeeded",
        "dear": "succeeded",
        "draft": "cancelled",
        "review": "cancelled",
        "tidy": "succeeded",
    }
    [made] = [each for each in decisions(stack, run) if each.action == "terminate"]
    assert (made.action, "TERMINATED_BY_COST" in made.flags) == ("terminate", True)
    assert made.applied is not None
    assert {change.node for change in made.applied} == {"draft", "review"}


def test_what_is_optional_and_queued_is_skipped_and_the_join_behind_it_passes(stack: Running, tmp_path: Path) -> None:
    release, begin = tmp_path / "release", tmp_path / "begin"
    run = submit(
        stack,
        "gov-skip",
        1_000_000,
        alone("sibling", release, 10_000),
        alone("extra", release, 300_000, required=False),
        {"id": "start", "task": "node_tasks.wait_for", "params": {"path": str(begin), "log": f"{begin}.log"}, "estimate": {"other": 0}},
        spending("dear", tmp_path, 400_000, 950_000, after=["start"]),
        {"id": "join", "task": "synthetic.noop", "after": ["sibling", "extra"], "estimate": {"other": 1_000}},
        max_parallel=3,
    )
    until(lambda: state(stack, run, "sibling") == "running" and in_broker(stack, run, "extra"))
    with watched(stack) as seen:
        begin.touch()
        until(lambda: state(stack, run, "extra") == "skipped", TICKS_S)
        until(lambda: f"{run.run_id}.1.extra" in seen.tasks and seen.tasks[f"{run.run_id}.1.extra"].state == "SUCCESS")
    assert AsyncResult(f"{run.run_id}.1.extra", app=stack.app).result.startswith("skipped: ")
    assert not in_broker(stack, run, "extra")
    assert (state(stack, run, "sibling"), state(stack, run, "join")) == ("running", "pending")
    release.touch()
    run.wait(TIMEOUT_S)
    assert run.outcome == "degraded"
    outcomes = {"sibling": "succeeded", "extra": "skipped", "start": "succeeded", "dear": "succeeded", "join": "succeeded"}
    assert {id_: node["outcome"] for id_, node in by_id(run).items()} == outcomes
    assert not Path(f"{release}.extra").exists()


def test_a_refusal_at_the_gate_is_a_trigger_and_the_node_runs_as_its_variant(stack: Running, tmp_path: Path) -> None:
    """What is spent before it leaves too little for the dear way, and nothing trips before the node asks."""
    step = tmp_path / "step"
    run = submit(
        stack,
        "gov-gate",
        1_000_000,
        spending("first", tmp_path, 300_000, 700_000),
        {"id": "step", "task": "node_tasks.wait_for", "params": {"path": str(step), "log": f"{step}.log"}, "estimate": {"other": 10_000}},
        quality("draft", step, 400_000, 50_000, after=["first", "step"]),
        max_parallel=2,
        degrade_budget_percent=None,
    )
    until(lambda: int(stack.redis.hget(f"hg1:purse:{run.run_id}.1", "spent") or 0) >= 700_000)
    step.touch()
    run.wait(TIMEOUT_S)
    assert (run.outcome, Path(f"{step}.draft").read_text()) == ("degraded", "cheap\n")
    [made] = [each for each in decisions(stack, run) if each.action == "degrade"]
    assert (made.trigger, made.cause) == ("gate", "draft")


def test_what_was_given_up_is_given_back_when_the_limit_is_raised(stack: Running, tmp_path: Path) -> None:
    release = tmp_path / "release"
    run = submit(stack, "gov-restore", 1_000_000, spending("first", release, 400_000, 900_000), quality("draft", release, 300_000, 50_000))
    verdict = f"hg1:verdict:{run.run_id}.1"
    until(lambda: stack.redis.hget(verdict, "draft") == "cheap", TICKS_S)
    stack.client.tenants.update("gov-restore", limit_per_day_micros=3_000_000, reason="more money")
    until(lambda: not stack.redis.hexists(verdict, "draft"), TICKS_S)
    release.touch()
    run.wait(TIMEOUT_S)
    assert (run.outcome, Path(f"{release}.draft").read_text()) == ("succeeded", "full\n")
    made = [each for each in decisions(stack, run) if each.action != "continue"][:2]
    assert [(each.action, each.applied_at is not None) for each in made] == [("degrade", True), ("restore", True)]


def test_a_tenant_that_is_only_observed_is_told_and_keeps_everything(stack: Running, tmp_path: Path) -> None:
    release = tmp_path / "release"
    run = submit(
        stack,
        "gov-observe",
        1_000_000,
        spending("first", release, 400_000, 950_000),
        quality("draft", release, 300_000, 50_000),
        enforcement="observe",
    )
    until(lambda: any(each.observed and each.action == "degrade" for each in decisions(stack, run)), TICKS_S)
    release.touch()
    run.wait(TIMEOUT_S)
    assert (run.outcome, Path(f"{release}.draft").read_text()) == ("succeeded", "full\n")
    assert not any(each.applied_at for each in decisions(stack, run))


def test_a_run_below_its_floor_is_held_until_somebody_approves_and_resuming_it_is_refused(
    stack: Running, console: str, tmp_path: Path
) -> None:
    release = tmp_path / "release"
    run = submit(
        stack,
        "gov-hold",
        1_000_000,
        alone("sibling", release, 10_000),
        alone("draft", release, 300_000),
        spending("dear", tmp_path, 400_000, 950_000),
        max_parallel=2,
        on_floor="hold",
    )
    scope = f"run:{run.run_id}.1"
    until(lambda: stack.redis.sismember("hg1:paused", scope), TICKS_S)
    try:
        until(lambda: "hold" in {each.action for each in decisions(stack, run)})
        stack.client.tenants.update("gov-hold", limit_per_day_micros=3_000_000, reason="more money")
        assert state(stack, run, "draft") == "due"
        until(lambda: stack.redis.zscore("hg1:away", f"{run.run_id}.1") is not None)
        assert stack.redis.hget("hg1:tenant:gov-hold", "running") == "0", "its place is free"
        with pytest.raises(Refused, match=f"goes on by an approval alone: `headgate approve {run.run_id}"):
            stack.client.resume(f"run:{run.run_id}", reason="it looks idle")
        assert stack.redis.sismember("hg1:paused", scope)
        assert told(f"{console}/run/{run.run_id}/summary")["held"], "its page offers an approval, and no way to resume it"
    finally:
        release.touch()
        run.approve(reason="it may")
    assert not told(f"{console}/run/{run.run_id}/summary")["held"]
    assert stack.redis.zscore("hg1:away", f"{run.run_id}.1") is None
    run.wait(TIMEOUT_S)
    assert run.outcome == "succeeded"


def test_below_its_floor_a_run_may_finish_what_runs_and_then_it_is_terminated(stack: Running, tmp_path: Path) -> None:
    release = tmp_path / "release"
    run = submit(
        stack,
        "gov-finish",
        1_000_000,
        alone("sibling", release, 10_000),
        alone("draft", release, 300_000),
        spending("dear", tmp_path, 400_000, 950_000),
        max_parallel=2,
        on_floor="finish",
    )
    until(lambda: "finish" in {each.action for each in decisions(stack, run)}, TICKS_S)
    until(lambda: stack.redis.sismember("hg1:paused", f"run:{run.run_id}.1"))
    assert (state(stack, run, "sibling"), state(stack, run, "draft")) == ("running", "due")
    release.touch()
    run.wait(TIMEOUT_S)
    assert run.outcome == "terminated_by_cost"
    assert {id_: node["outcome"] for id_, node in by_id(run).items()} == {"sibling": "succeeded", "dear": "succeeded", "draft": "cancelled"}
    assert [each.action for each in decisions(stack, run) if each.action != "continue"] == ["finish", "terminate"]
    assert not Path(f"{release}.draft").exists(), "it never began"
    assert AsyncResult(f"{run.run_id}.1.draft", app=stack.app).state == "REVOKED"


def test_nodes_of_a_graph_that_a_task_returned_are_given_up_like_any_other(stack: Running, tmp_path: Path) -> None:
    release = tmp_path / "release"
    inner = [
        spending("first", release, 400_000, 900_000),
        quality("draft", release, 300_000, 50_000, after=["first"]),
        quality("extra", release, 200_000, required=False, value=1, after=["first"]),
    ]
    returns = {"id": "n", "task": "node_tasks.graph_of", "params": {"spec": {"name": "inner", "nodes": inner}}, "estimate": {"other": 0}}
    run = submit(stack, "gov-spliced", 1_000_000, returns)
    until(lambda: state(stack, run, "n.extra") == "skipped", TICKS_S)
    until(lambda: stack.redis.hget(f"hg1:verdict:{run.run_id}.1", "n.draft") == "cheap", TICKS_S)
    assert state(stack, run, "n.first") == "running"
    release.touch()
    run.wait(TIMEOUT_S)
    assert (run.outcome, Path(f"{release}.draft").read_text()) == ("degraded", "cheap\n")
    assert {id_: node["outcome"] for id_, node in by_id(run).items()} == {
        "n": "succeeded",
        "n.first": "succeeded",
        "n.draft": "succeeded",
        "n.extra": "skipped",
    }


def test_a_worker_without_the_task_of_a_variant_hands_the_node_back_and_no_attempt_fails(stack: Running, tmp_path: Path) -> None:
    release = tmp_path / "release"
    variant = {"name": "cheap", "kind": "variant", "task": "node_tasks.quality_too", "estimate": {"other": 1_000}, "value": 1}
    nodes = [
        spending("first", release, 10_000, 0),
        {**quality("draft", release, 300_000, after=["first"]), "variants": [variant]},
    ]
    run = stack.client.submit(Graph.parse({"name": "lacking", "nodes": nodes}), budget=20_000)
    until(lambda: state(stack, run, "first") == "running")
    specs, attempts = f"hg1:spec:{run.run_id}.1", f"hg1:attempt:{run.run_id}.1"
    spec = stack.redis.hget(specs, "draft")
    assert spec is not None
    # As when its workers are of an older release by now.
    stack.redis.hset(specs, "draft", spec.replace("quality_too", "quality_gone"))
    release.touch()
    until(lambda: stack.redis.hexists(attempts, "draft:lacks"))
    assert state(stack, run, "draft") == "due"
    stack.redis.hset(specs, "draft", spec)
    run.wait(TIMEOUT_S)
    draft = by_id(run)["draft"]
    assert (run.outcome, draft["outcome"], draft["verdict"]) == ("degraded", "succeeded", "cheap")
    assert draft["attempt"] > 1
    assert not stack.redis.hexists(attempts, "draft:fails")


def test_so_does_an_item_of_a_map_whose_variant_its_worker_lacks(stack: Running, tmp_path: Path) -> None:
    release = tmp_path / "release"
    variant = {"name": "cheap", "kind": "variant", "task": "node_tasks.wait_for_too", "estimate": {"other": 500}, "value": 1}
    params = {"path": str(release), "log": f"{release}.log"}
    mapped = {"id": "m", "task": "node_tasks.wait_for", "params": params, "map": ["a", "b"], "expected_items": 2, "variants": [variant]}
    nodes = [{**mapped, "estimate": {"other": 150_000}, "value": 9}]
    run = stack.client.submit(Graph.parse({"name": "lacking", "max_parallel": 1, "nodes": nodes}), budget=20_000)
    until(lambda: state(stack, run, "m.0") == "running")
    specs, attempts = f"hg1:spec:{run.run_id}.1", f"hg1:attempt:{run.run_id}.1"
    spec = stack.redis.hget(specs, "m")
    assert spec is not None
    stack.redis.hset(specs, "m", spec.replace("wait_for_too", "wait_gone"))
    release.touch()
    until(lambda: stack.redis.hexists(attempts, "m.1:lacks"))
    assert state(stack, run, "m.1") == "due"
    stack.redis.hset(specs, "m", spec)
    run.wait(TIMEOUT_S)
    done = by_id(run)
    assert {id_: done[id_]["outcome"] for id_ in ("m", "m.0", "m.1")} == dict.fromkeys(("m", "m.0", "m.1"), "succeeded")
    assert (run.outcome, done["m.1"]["verdict"]) == ("degraded", "cheap")
    assert not stack.redis.hexists(attempts, "m.1:fails")
