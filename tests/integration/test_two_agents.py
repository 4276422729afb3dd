"""Two real beats that call the cost agent each second; every worker, then Redis killed: one decision at a time, each whole."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from beats import Beats
from running import until

from orchestrator.graph import Graph
from orchestrator.handle import RunHandle
from orchestrator.store.decisions import DecisionView

pytestmark = pytest.mark.timeout(240)
DRAFTS = 1_500
LIMIT = 10_000_000


@pytest.fixture
def beats(monkeypatch: pytest.MonkeyPatch) -> Iterator[Beats]:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    with Beats.beside(2, 1, ["node_tasks"], agent_interval_s=1.0) as made:
        yield made


def graph(path: Path) -> Graph:
    """A node that uses most of the money and goes on, and many behind it that do not fit as they are."""
    cheap = {"name": "cheap", "kind": "generation", "params": {"inputs": []}, "estimate": {"llm": 100}, "value": 1}
    params = {"micros": 9_200_000, "path": str(path), "log": str(path / "log")}
    nodes: list[dict[str, Any]] = [
        {"id": "dear", "task": "node_tasks.charge_then_wait", "params": params, "estimate": {"other": 4_000_000}, "timeout_s": 200},
        {"id": "later", "task": "node_tasks.wait_for", "params": {"path": str(path / "go"), "log": str(path / "later")}, "after": ["dear"]},
    ]
    draft = {"task": "synthetic.noop", "after": ["later"], "value": 3, "estimate": {"llm": 2_500}, "variants": [cheap]}
    return Graph.parse({"name": "agents", "nodes": [*nodes, *({"id": f"d{n}", **draft} for n in range(DRAFTS))]})


def degrading(run: RunHandle) -> list[DecisionView]:
    return [each for each in run.decisions() if each.action == "degrade"]


def test_what_killed_agents_and_a_killed_redis_left_is_completed_by_the_next_tick_and_decided_once(beats: Beats, tmp_path: Path) -> None:
    beats.client.tenants.update("default", limit_per_day_micros=LIMIT, reason="a test")
    with redis.Redis.from_url(beats.stack.client_url, decode_responses=True) as client:
        run = beats.client.submit(graph(tmp_path))
        until(lambda: (tmp_path / "log").exists(), 60)
        beats.start(0)
        beats.start(-60)
        key, verdicts = f"hg1:decision:{run.run_id}.1", f"hg1:verdict:{run.run_id}.1"
        workers = [psutil.Process(pid) for name, pid in beats.stack.pids().items() if name.startswith("w")]
        late = time.monotonic() + 60
        while not client.hexists(key, "open"):  # for some 30 ms, so nothing sleeps here
            assert time.monotonic() < late
        for process in [*(child for worker in workers for child in worker.children()), *workers]:
            process.kill()
        left = client.hget(key, "open")
        until(lambda: degrading(run) and degrading(run)[0].applied_at, 60)
        made = degrading(run)
        assert [each.number for each in made] == [1]
        assert client.hlen(verdicts) == len(made[0].plan) > 0
        assert left in (made[0].id, None)  # None: it was applied before they died

        os.kill(beats.stack.pids()["redis"], signal.SIGKILL)
        (tmp_path / "go").touch()
        assert run.wait(150).outcome in ("degraded", "terminated_by_cost")
    told = run.decisions()
    assert all(each.applied_at for each in told if each.plan), "none is half applied"
    assert max(Counter(each.number for each in told).values()) == 1
    judged = Counter(node for event in run.events if event["t"] == "node.judged" for node in event["nodes"])
    assert max(judged.values()) == 1, "no node was judged twice the same"
