"""`celery purge` removes messages, not runs: what was due is published again."""

from __future__ import annotations

import pytest
from running import Running, until

from orchestrator.graph import Graph

pytestmark = pytest.mark.timeout(120)
TIMEOUT_S = 60
WIDTH = 20


def test_a_purge_removes_messages_and_the_sweeper_publishes_the_runs_nodes_again(stack: Running) -> None:
    stack.client.tenants.create("purged")
    stack.client.pause("tenant:purged", reason="so that its messages wait")
    try:
        nodes = [{"id": f"n{index}", "task": "synthetic.noop"} for index in range(WIDTH)]
        run = stack.client.submit(Graph.parse({"name": "purged", "nodes": nodes}), tenant="purged")
        until(lambda: waiting(stack, run.run_id) == WIDTH)
        assert stack.app.control.purge() >= WIDTH
        until(lambda: waiting(stack, run.run_id) == WIDTH)  # of new messages: none of the old ones is left
        assert run.status == "running"
    finally:
        stack.client.resume("tenant:purged", reason="over")
    assert run.wait(TIMEOUT_S).outcome == "succeeded"
    assert {node["attempt"] for node in run.nodes} == {1}


def waiting(stack: Running, run_id: str) -> int:
    return sum(f"{run_id}.1." in once for once in stack.redis.hkeys("hg1:once"))
