"""A budget that is spent stops what it does not cover, although beat, the agent and the recorder's reader are not there."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

import pytest
import redis
from running import Running, producer, until

from orchestrator.embedded import Stack
from orchestrator.graph import Graph
from orchestrator.settings import Settings
from orchestrator.submission import Submission

TASKS = ("node_tasks",)


def graph(path: Path) -> Graph:
    def node(name: str, task: str, cost: int, *, after: list[str], required: bool = True, **params: object) -> dict[str, object]:
        declared = {"params": params, "after": after, "required": required, "attempts": 1, "estimate": {"other": cost}}
        return {"id": name, "task": task, **declared}

    first = node("first", "node_tasks.wait_for", 0, after=[], path=str(path), log=str(path) + ".log")
    dear = node("dear", "synthetic.spend", 500_000, after=["first"], micros=950_000)
    return Graph.parse({"name": "spent", "nodes": [first, dear, node("more", "synthetic.spend", 400_000, after=["dear"], required=False)]})


def settled(stack: Running) -> int:
    day = int(stack.redis.time()[0]) // 86_400
    return int(stack.redis.hget(f"hg1:spent:acme:{day}", "settled") or 0)


def test_the_next_unfunded_node_and_the_next_run_are_stopped_with_nobody_else_running(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    release = tmp_path / "release"
    with tempfile.TemporaryDirectory(prefix="hg", ignore_cleanup_errors=True) as name:
        settings = Settings(home=Path(name))
        with Stack(settings, 1, 2, TASKS, beat=False, console=False) as running:
            client = producer(Settings(home=settings.home, redis_url=running.redis_url, tasks=TASKS))
            with redis.Redis.from_url(running.client_url, decode_responses=True) as connection:
                stack = Running(running, client, connection)
                client.tenants.create("acme", limit_per_day_micros=1_000_000, exceeded_percent=95, on_exceeded="suspend")
                wanted = graph(release)
                run = client.submit(wanted, tenant="acme")
                until(lambda: stack.redis.hget(f"hg1:state:{run.run_id}.1", "first") == "running")
                recorder = running.pids()["recorder"]
                os.kill(recorder, signal.SIGSTOP)
                try:
                    release.touch()
                    until(lambda: settled(stack) >= 950_000)
                    until(lambda: not any(stack.redis.hlen(key) for key in stack.redis.keys("hg1:unacked:*")))
                    level = stack.redis.hget("hg1:level:acme", "day")
                    assert level is not None
                    assert level.endswith("|111|1,1,1")
                    assert stack.redis.hget(f"hg1:state:{run.run_id}.1", "more") == "due", "suspended: it waits, and is not begun"
                    # Without the action only amounts refuse: the policy is what the recorder would publish.
                    stack.redis.hset("hg1:tenant:acme", "on_exceeded", "notify")
                    client.kernel.link.call("cost/level", "acme")
                    until(lambda: stack.redis.hget(f"hg1:run:{run.run_id}.1", "status") == "ended")
                    assert stack.redis.hget(f"hg1:state:{run.run_id}.1", "more") == "skipped"
                    free = {**Submission.of(wanted, settings).want(None), "floor": "60000", "estimate": "60000"}
                    assert client.kernel.state.admit("02" + "0" * 24, 1, "acme", free)[:2] == ["refused", "budget"]
                    assert 950_000 <= settled(stack) < 1_000_000
                finally:
                    os.kill(recorder, signal.SIGCONT)
            client.engine.dispose()
            client.kernel.link.close()
            client.kernel.app.close()
