"""Running nodes never exceed the slots, nor a cap of their run or tenant; a killed worker leaves no slot taken."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fleet import kill, most_at_once, spans, worker
from running import Running, until

from orchestrator.graph import Graph
from orchestrator.handle import RunHandle

pytestmark = pytest.mark.timeout(180)
TIMEOUT_S = 60
SLOTS = 100


@pytest.fixture(scope="module", autouse=True)
def wide(stack: Running) -> Iterator[None]:
    """A hundred slots."""
    with worker(stack, "wide", "-P", "threads", "-c", str(SLOTS), "-Q", "pool.wide"):
        yield


def many(count: int, log: Path, seconds: float, **fields: Any) -> Graph:
    params = {"log": str(log), "seconds": seconds, "until": str(gate(log))}
    node = {"task": "slots.free", "params": params, "pool": "wide"}
    return Graph.parse({"name": "many", "nodes": [{"id": f"n{index}", **node} for index in range(count)], **fields})


def gate(log: Path) -> Path:
    """The file that every node waits for, so that there are as many side by side as there may be, however slow the machine is."""
    return log.with_suffix(".gate")


def held(stack: Running, *runs: RunHandle) -> int:
    with stack.redis.pipeline() as pipe:  # one look at all of them
        for run in runs:
            pipe.scard(f"hg1:held:run:{run.run_id}.1")
        return sum(pipe.execute())


def running(stack: Running, *runs: RunHandle) -> int:
    return sum(stack.redis.hvals(f"hg1:state:{run.run_id}.1").count("running") for run in runs)


def most_held(stack: Running, log: Path, expected: int, *runs: RunHandle) -> int:
    """Let go of the nodes when `expected` run; return how many messages were in workers' hands at most until the end."""
    most = 0
    try:
        until(lambda: running(stack, *runs) == expected)
    finally:
        gate(log).touch()
    while any(run.status != "ended" for run in runs):
        most = max(most, held(stack, *runs))
    assert {run.wait(TIMEOUT_S).outcome for run in runs} == {"succeeded"}
    return most


def test_a_hundred_slots_run_a_hundred_of_a_thousand_nodes_and_never_one_more(stack: Running, tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert most_held(stack, log, SLOTS, stack.client.submit(many(1000, log, 0.2))) <= SLOTS
    assert len(spans(log)) == 1000
    assert most_at_once(spans(log)) == SLOTS


def test_max_parallel_of_ten_is_reached_and_not_passed_beside_a_hundred_slots(stack: Running, tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert most_held(stack, log, 10, stack.client.submit(many(1000, log, 0.05, max_parallel=10))) <= 10
    assert len(spans(log)) == 1000
    assert most_at_once(spans(log)) == 10


def test_max_running_nodes_of_ten_hold_over_all_runs_of_a_tenant(stack: Running, tmp_path: Path) -> None:
    stack.client.tenants.create("narrow", max_running_nodes=10)
    log = tmp_path / "log"
    runs = [stack.client.submit(many(500, log, 0.05), tenant="narrow") for _ in range(2)]
    assert most_held(stack, log, 10, *runs) <= 10
    assert len(spans(log)) == 1000
    assert most_at_once(spans(log)) == 10


def test_max_parallel_of_a_submission_overrules_the_graphs(stack: Running, tmp_path: Path) -> None:
    log = tmp_path / "log"
    run = stack.client.submit(many(20, log, 0.1, max_parallel=50), max_parallel=3)
    assert most_held(stack, log, 3, run) <= 3
    assert most_at_once(spans(log)) == 3
    assert stack.redis.hget("hg1:caps", f"{run.run_id}.1") is None


def test_a_killed_worker_leaves_no_slot_of_a_limit_or_cap_taken(stack: Running, tmp_path: Path) -> None:
    begun, go = tmp_path / "begun", tmp_path / "go"
    node = {"task": "slots.wait", "params": {"path": str(go), "begun": str(begun)}, "pool": "doomed"}
    with worker(stack, "doomed", "-c", "2", "-Q", "pool.doomed") as process:
        graph = Graph.parse({"name": "doomed", "max_parallel": 1, "nodes": [{"id": f"n{index}", **node} for index in range(3)]})
        run = stack.client.submit(graph)
        until(begun.exists)
        assert stack.redis.scard("hg1:held:limit:waiting") == 1
        kill(process)
    until(lambda: stack.redis.scard("hg1:held:limit:waiting") == 0)
    assert stack.redis.scard(f"hg1:held:run:{run.run_id}.1") == 0
    go.touch()
    with worker(stack, "heir", "-c", "2", "-Q", "pool.doomed"):
        assert run.wait(TIMEOUT_S).outcome == "succeeded"
    assert len(begun.read_text().split()) == 4
    assert stack.redis.scard("hg1:held:limit:waiting") == 0
