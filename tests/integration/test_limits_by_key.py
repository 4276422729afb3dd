"""Limits by key hold over all workers, and what waits for one occupies none of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fleet import most_at_once, spans, workers
from running import SLOTS, WORKERS, Running, until

from orchestrator.graph import Graph
from orchestrator.handle import RunHandle

pytestmark = pytest.mark.timeout(120)
TIMEOUT_S = 30


def many(task: str, count: int, log: Path, seconds: float) -> Graph:
    params = {"log": str(log), "seconds": seconds}
    nodes: list[dict[str, Any]] = [{"id": f"n{index}", "task": task, "params": params} for index in range(count)]
    return Graph.parse({"name": "limited", "nodes": nodes})


def ended(run: RunHandle) -> bool:
    return bool(run.status == "ended")


def test_a_worker_tells_the_limits_of_its_tasks(stack: Running) -> None:
    info = workers(stack)["w1"]
    assert info["limits"]["slots.two"] == [{"key": "two", "at_once": 2}]
    assert info["limits"]["slots.often"] == [{"key": "often", "rate": 30}]
    assert info["limits"]["slots.each"] == [{"key": "each", "at_once": 1, "per": "tenant"}]
    assert info["expected_ms"]["slots.two"] == 200


def test_two_at_once_are_two_at_once_and_those_that_wait_take_no_slot(stack: Running, tmp_path: Path) -> None:
    limited, others = tmp_path / "limited", tmp_path / "others"
    first = stack.client.submit(many("slots.two", 20, limited, 0.1))
    until(lambda: spans(limited))
    second = stack.client.submit(many("slots.free", 10, others, 0.1))
    most = 0
    while not (ended(first) and ended(second)):
        most = max(most, stack.redis.scard("hg1:held:limit:two"))
    assert (first.wait(TIMEOUT_S).outcome, second.wait(TIMEOUT_S).outcome) == ("succeeded", "succeeded")
    assert len(spans(limited)) == 20
    assert most_at_once(spans(limited)) == most == 2
    # The other slots were not waiting with them: what came later went past.
    assert spans(others)[-1].ended < spans(limited)[-1].started
    assert most_at_once([*spans(limited), *spans(others)]) == WORKERS * SLOTS
    assert stack.redis.scard("hg1:held:limit:two") == 0


def test_thirty_a_minute_are_three_at_first_and_then_one_every_two_seconds(stack: Running, tmp_path: Path) -> None:
    log = tmp_path / "log"
    run = stack.client.submit(many("slots.often", 6, log, 0.0)).wait(TIMEOUT_S)
    assert run.outcome == "succeeded"
    starts = [span.started - spans(log)[0].started for span in spans(log)]
    assert len(starts) == 6
    assert starts[2] < 1.5
    # A token of the first moment may have come before the first start.
    assert all(starts[index] > 2.0 * (index - 2) - 0.3 for index in (3, 4, 5))


def test_a_limit_per_tenant_is_one_for_each(stack: Running, tmp_path: Path) -> None:
    for tenant in ("left", "right"):
        stack.client.tenants.create(tenant)
    logs = {tenant: tmp_path / tenant for tenant in ("left", "right")}
    runs = [stack.client.submit(many("slots.each", 6, log, 0.1), tenant=tenant) for tenant, log in logs.items()]
    assert [run.wait(TIMEOUT_S).outcome for run in runs] == ["succeeded", "succeeded"]
    assert [most_at_once(spans(log)) for log in logs.values()] == [1, 1]
    assert most_at_once([span for log in logs.values() for span in spans(log)]) == 2
