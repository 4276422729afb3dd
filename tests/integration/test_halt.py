"""A level whose action is `suspend_now` ends what runs; it begins again, and counts against nobody, when the tenant goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
from running import Running, until

from orchestrator.graph import Graph

pytestmark = pytest.mark.timeout(120)
TIMEOUT_S = 60
TENANT = "halted"


def test_what_runs_is_ended_at_once_and_begins_again_when_the_limit_is_raised(stack: Running, tmp_path: Path) -> None:
    stack.client.tenants.create(TENANT, limit_per_day_micros=1_000_000, on_exceeded="suspend_now")
    log, release = tmp_path / "log", tmp_path / "release"
    slow = {"id": "slow", "task": "node_tasks.wait_for", "params": {"path": str(release), "log": str(log)}, "estimate": {"other": 0}}
    dear = {"id": "dear", "task": "synthetic.spend", "params": {"micros": 1_000_000}, "estimate": {"other": 900_000}}
    running = stack.client.submit(Graph.parse({"name": "slow", "nodes": [slow]}), tenant=TENANT)
    until(log.exists)
    spending = stack.client.submit(Graph.parse({"name": "halting", "nodes": [dear]}), tenant=TENANT)
    assert spending.wait(TIMEOUT_S).outcome == "succeeded"

    key = f"{running.run_id}.1"
    until(lambda: stack.redis.hget(f"hg1:state:{key}", "slow") == "due" and not stack.redis.hexists(f"hg1:lease:{key}", "slow"))
    assert stack.redis.zscore("hg1:halted", TENANT)
    assert stack.redis.hvals(f"hg1:res:{key}")[0].startswith("void|")
    assert not stack.redis.hexists(f"hg1:attempt:{key}", "slow:lost")
    assert len(log.read_text().split()) == 2, "it was not begun again"

    stack.client.tenants.update(TENANT, limit_per_day_micros=10_000_000)
    until(lambda: len(log.read_text().split()) == 4)
    release.touch()
    assert running.wait(TIMEOUT_S).outcome == "succeeded"
    (node,) = running.nodes
    assert (node["attempt"], node.get("lost", 0)) == (2, 0)
    assert not stack.redis.zscore("hg1:halted", TENANT)
