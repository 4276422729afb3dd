"""Entering a level calls the cost agent by itself: real workers and recorder, and a beat whose agent comes once an hour."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from running import Running, producer, until
from test_govern import quality, spending, state

from orchestrator.embedded import Stack
from orchestrator.graph import Graph
from orchestrator.handle import RunHandle
from orchestrator.settings import Settings
from orchestrator.store.decisions import list_decisions

TIMEOUT_S = 60
TASKS = ("node_tasks",)


@pytest.fixture(scope="module")
def alone() -> Iterator[Running]:
    """A stack whose cost agent is called by nobody but levels."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="hg", ignore_cleanup_errors=True) as name:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        settings = Settings(home=Path(name), agent_interval_s=3600)
        with Stack(settings, 1, 3, TASKS, console=False) as running:
            client = producer(Settings(home=settings.home, redis_url=running.redis_url, tasks=TASKS))
            with redis.Redis.from_url(running.client_url, decode_responses=True) as connection:
                yield Running(running, client, connection)


def submitted(stack: Running, tenant: str, *nodes: dict[str, Any]) -> RunHandle:
    stack.client.tenants.create(tenant, limit_per_day_micros=1_000_000)
    return stack.client.submit(Graph.parse({"name": "levels", "max_parallel": 1, "nodes": list(nodes)}), tenant=tenant)


def triggered(stack: Running, run: RunHandle) -> list[tuple[str, str, str]]:
    """Trigger, action and cause of the decisions about a run."""
    return [(each.trigger, each.action, each.cause) for each in list_decisions(stack.client.engine, run=run.run_id)]


def test_a_level_that_a_running_node_s_charge_enters_is_decided_on_at_once(alone: Running, tmp_path: Path) -> None:
    release = tmp_path / "release"
    run = submitted(alone, "lev-extend", spending("first", release, 400_000, 950_000), quality("draft", release, 300_000, 30_000))
    until(lambda: alone.redis.hget(f"hg1:verdict:{run.run_id}.1", "draft") == "cheap", TIMEOUT_S)
    assert state(alone, run, "first") == "running"
    release.touch()
    assert run.wait(TIMEOUT_S).outcome == "degraded"
    made = [each for each in triggered(alone, run) if each[1] == "degrade"]
    assert made == [("level", "degrade", f"{run.run_id}.1.first.1")]


def test_a_level_that_a_reservation_enters_is_decided_on_at_once(alone: Running, tmp_path: Path) -> None:
    """What was dear left 70 % committed, and no level; what the next node sets aside makes it 95 %, too much for the draft."""
    release = tmp_path / "release"
    run = submitted(
        alone,
        "lev-begin",
        {"id": "dear", "task": "synthetic.spend", "params": {"micros": 700_000}, "estimate": {"other": 400_000}, "attempts": 1},
        spending("first", release, 250_000, 0, after=["dear"]),
        quality("draft", release, 300_000, 20_000, after=["first"]),
    )
    until(lambda: alone.redis.hget(f"hg1:verdict:{run.run_id}.1", "draft") == "cheap", TIMEOUT_S)
    assert state(alone, run, "first") == "running"
    release.touch()
    assert run.wait(TIMEOUT_S).outcome == "degraded"
    made = [each for each in triggered(alone, run) if each[1] == "degrade"]
    assert made == [("level", "degrade", f"{run.run_id}.1.first.1")]


def test_a_level_that_a_settled_charge_enters_is_decided_on_at_once(alone: Running, tmp_path: Path) -> None:
    go = tmp_path / "go"
    waits = {"id": "waits", "task": "node_tasks.wait_for", "params": {"path": str(go), "log": f"{go}.log"}, "after": ["dear"]}
    run = submitted(
        alone,
        "lev-settle",
        {"id": "dear", "task": "synthetic.spend", "params": {"micros": 950_000}, "estimate": {"other": 400_000}, "attempts": 1},
        {**waits, "estimate": {"other": 0}},
        quality("draft", go, 300_000, 30_000, after=["waits"]),
    )
    until(lambda: alone.redis.hget(f"hg1:verdict:{run.run_id}.1", "draft") == "cheap", TIMEOUT_S)
    go.touch()
    assert run.wait(TIMEOUT_S).outcome == "degraded"
    made = [each for each in triggered(alone, run) if each[1] == "degrade"]
    assert made == [("level", "degrade", f"{run.run_id}.1.dear.1")]


def test_a_level_that_a_lowered_limit_enters_is_decided_on_at_once(alone: Running, tmp_path: Path) -> None:
    release = tmp_path / "release"
    run = submitted(alone, "lev-policy", spending("first", release, 400_000, 650_000), quality("draft", release, 600_000, 30_000))
    until(lambda: run.cost_micros >= 0 and state(alone, run, "first") == "running", TIMEOUT_S)
    until(lambda: int(alone.redis.hget(f"hg1:purse:{run.run_id}.1", "reserved") or 0) >= 650_000)
    alone.client.tenants.update("lev-policy", limit_per_day_micros=700_000, reason="less money")
    until(lambda: alone.redis.hget(f"hg1:verdict:{run.run_id}.1", "draft") == "cheap", TIMEOUT_S)
    release.touch()
    assert run.wait(TIMEOUT_S).outcome == "degraded"
    assert ("level", "degrade", "policy") in triggered(alone, run)
