"""Runs that wait to be admitted, on a running stack: why, in which order, and what turns them away."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from running import Running, until
from ulid import ULID

from orchestrator import BudgetRefused, QueueFull, Rate
from orchestrator.graph import Graph
from orchestrator.handle import RunHandle
from orchestrator.store import read

TIMEOUT_S = 20


def graph_of(*nodes: dict[str, Any], **fields: Any) -> Graph:
    return Graph.parse({"name": "waiting", "nodes": list(nodes), **fields})


NOOP = graph_of({"id": "a", "task": "synthetic.noop"})


@pytest.fixture
def tenant() -> str:
    return f"line-{str(ULID())[-10:].lower()}"


def waiting(path: Path) -> Graph:
    """A run that ends when `path` exists."""
    params = {"path": str(path), "log": str(path.with_suffix(".log"))}
    return graph_of({"id": "a", "task": "node_tasks.wait_for", "params": params, "estimate": {"other": 6_000}})


def time_of(run: RunHandle, kind: str) -> float:
    return next(float(event["at"]) for event in run.events if event["t"] == kind)


def submit_many(stack: Running, tenant: str, count: int) -> list[RunHandle]:
    return [stack.client.submit(NOOP, tenant=tenant) for _ in range(count)]


def test_the_end_of_a_run_lets_the_next_one_in_without_waiting_for_a_sweep(stack: Running, tenant: str) -> None:
    stack.client.tenants.create(tenant, max_concurrent_runs=1)
    runs = submit_many(stack, tenant, 6)
    assert all(run.wait(TIMEOUT_S).outcome == "succeeded" for run in runs)
    assert sorted(runs, key=lambda run: time_of(run, "run.admitted")) == runs
    gaps = sorted(time_of(after, "run.admitted") - time_of(before, "run.ended") for before, after in pairwise(runs))
    assert gaps[0] >= 0
    assert gaps[len(gaps) // 2] < 1000 * stack.client.settings.sweep_interval_s / 2


def test_a_cancelled_run_leaves_the_line_with_every_node_cancelled_and_the_others_move_up(
    stack: Running, tenant: str, tmp_path: Path
) -> None:
    stack.client.tenants.create(tenant, max_concurrent_runs=1)
    first = stack.client.submit(waiting(tmp_path / "go"), tenant=tenant)
    second, third = (stack.client.submit(NOOP, tenant=tenant) for _ in range(2))
    assert (second.status, third.status) == ("held", "held")
    assert until(lambda: second.held)[0] == "runs"
    assert second.cancel() is True
    assert stack.redis.zrange(f"hg1:line:{tenant}", 0, -1) == [f"{third.run_id}.1"]
    assert second.wait(TIMEOUT_S).outcome == "cancelled"
    assert [node["outcome"] for node in second.nodes] == ["cancelled"]
    assert second.cost_micros == 0
    (tmp_path / "go").touch()
    assert [run.wait(TIMEOUT_S).outcome for run in (first, third)] == ["succeeded", "succeeded"]
    assert until(lambda: stack.redis.hmget(f"hg1:tenant:{tenant}", "running", "held") == ["0", "0"])


def test_a_run_waits_for_money_where_the_policy_says_so_and_is_refused_with_the_time_where_not(
    stack: Running, tenant: str, tmp_path: Path
) -> None:
    stack.client.tenants.create(tenant, limit_per_day_micros=10_000, on_budget_limit="hold")
    first = stack.client.submit(waiting(tmp_path / "go"), tenant=tenant)
    second = stack.client.submit(waiting(tmp_path / "go"), tenant=tenant)
    assert until(lambda: second.held)[0] == "budget"
    stack.client.tenants.update(tenant, on_budget_limit="reject")
    until(lambda: stack.redis.hget(f"hg1:tenant:{tenant}", "on_budget_limit") == "reject")
    assert second.wait(TIMEOUT_S).status == "refused"
    with pytest.raises(BudgetRefused) as refused:
        stack.client.submit(waiting(tmp_path / "go"), tenant=tenant)
    assert (refused.value.limit, refused.value.current) == (10_000, 6_000)
    assert refused.value.retry_after_s
    (tmp_path / "go").touch()
    assert first.wait(TIMEOUT_S).outcome == "succeeded"
    assert stack.client.submit(waiting(tmp_path / "go"), tenant=tenant).wait(TIMEOUT_S).outcome == "succeeded"


def test_more_runs_than_may_wait_are_refused_with_the_time_to_try_again_and_leave_nothing(stack: Running, tenant: str) -> None:
    stack.client.tenants.create(tenant, max_concurrent_runs=0, max_waiting_runs=2)
    held = [stack.client.submit(NOOP, tenant=tenant, key=f"k{number}") for number in range(2)]
    with pytest.raises(QueueFull, match="has 2 waiting runs and may have 2") as refused:
        stack.client.submit(NOOP, tenant=tenant)
    assert (refused.value.limit, refused.value.current) == (2, 2)
    assert refused.value.retry_after_s
    assert len(read.list_runs(stack.client.engine, tenant=tenant)) == 2
    assert stack.client.submit(NOOP, tenant=tenant, key="k1").run_id == held[1].run_id
    stack.client.tenants.update(tenant, max_concurrent_runs=1)
    assert [run.wait(TIMEOUT_S).outcome for run in held] == ["succeeded", "succeeded"]


def test_submissions_that_come_too_fast_are_refused_with_the_time_to_try_again_and_succeed_after_it(stack: Running, tenant: str) -> None:
    stack.client.tenants.create(tenant, submissions_per_minute=60)
    with pytest.raises(Rate) as refused:
        submit_many(stack, tenant, 50)
    assert refused.value.limit == 60
    assert refused.value.current is not None
    assert refused.value.retry_after_s is not None
    assert 0 < refused.value.retry_after_s <= 1
    taken = len(read.list_runs(stack.client.engine, tenant=tenant))
    assert 6 <= taken < 50
    time.sleep(refused.value.retry_after_s)  # what the refusal promises
    stack.client.submit(NOOP, tenant=tenant)
    assert len(read.list_runs(stack.client.engine, tenant=tenant)) == taken + 1


def test_a_tenant_s_default_priority_is_that_of_runs_that_do_not_say_theirs(stack: Running, tenant: str) -> None:
    stack.client.tenants.create(tenant, default_priority="BATCH")
    runs = [stack.client.submit(NOOP, tenant=tenant, priority=priority) for priority in (None, "HIGH")]
    assert [read.get_run(stack.client.engine, run.run_id).priority for run in runs] == [9, 3]


def test_runs_of_a_pool_that_nobody_serves_wait_until_a_worker_of_it_starts(stack: Running, tenant: str, tmp_path: Path) -> None:
    stack.client.tenants.create(tenant, pool=tenant)
    runs = [stack.client.submit(NOOP, tenant=tenant) for _ in range(3)]
    assert until(lambda: runs[0].held)[0] == "worker"
    environment = {**os.environ, **stack.client.settings.environment(pools=(tenant,))}
    command = [sys.executable, "-m", "celery", "-A", "orchestrator.app", "worker", "-P", "solo", "-c", "1", "-Q", f"pool.{tenant}"]
    with (tmp_path / "worker.log").open("w") as log:
        worker = subprocess.Popen([*command, "-n", f"{tenant}@%h"], env=environment, stdout=log, stderr=log)
    try:
        assert [run.wait(60).outcome for run in runs] == ["succeeded"] * 3
    finally:
        worker.terminate()
        worker.wait(TIMEOUT_S)
    told = stack.redis.hgetall(f"hg1:pressure:{tenant}")
    assert int(told["parked"]) >= 1  # and perhaps once more: the worker is gone again
    assert int(told["parked_ms"]) > 0
