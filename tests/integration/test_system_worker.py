"""The stack's worker for beat's work does it while every slot is taken."""

from __future__ import annotations

from pathlib import Path

import pytest
from running import SLOTS, WORKERS, Running, until

from orchestrator.graph import Graph
from orchestrator.handle import RunHandle
from orchestrator.registry import registry
from orchestrator.submission import Submission

pytestmark = pytest.mark.timeout(120)
TIMEOUT_S = 60


def test_what_beat_asks_for_is_done_while_every_slot_is_taken(stack: Running, tmp_path: Path) -> None:
    release, log = tmp_path / "release", tmp_path / "log"
    params = {"path": str(release), "log": str(log)}
    nodes = [{"id": f"n{index}", "task": "node_tasks.wait_for", "params": params} for index in range(SLOTS * WORKERS)]
    full = stack.client.submit(Graph.parse({"name": "full", "nodes": nodes}))
    try:
        until(lambda: log.exists() and len(log.read_text().splitlines()) == len(nodes))
        graph = Graph.parse({"name": "left", "nodes": [{"id": "a", "task": "synthetic.noop"}]}).resolved(registry)
        left = stack.client._store(Submission.of(graph, stack.client.settings), "default", None, None)
        # Its producer died once it was on record: the sweeper starts it.
        until(lambda: stack.redis.hget(f"hg1:state:{left}.1", "a") == "due")
    finally:
        release.touch()
    assert full.wait(TIMEOUT_S).outcome == "succeeded"
    assert RunHandle(stack.client, left, 1).wait(TIMEOUT_S).outcome == "succeeded"
