"""A pinned node runs on the workers that serve its pool, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fleet import worker, workers
from running import Running

from orchestrator.graph import Graph

pytestmark = pytest.mark.timeout(120)
TIMEOUT_S = 30


@pytest.fixture(scope="module", autouse=True)
def gpu(stack: Running) -> Iterator[None]:
    """A worker of the pool gpu beside the stack's own, which serve the pool default."""
    with worker(stack, "gpu", "-c", "2", pools="gpu"):
        yield


def node(id_: str, log: Path, task: str = "slots.free", **fields: Any) -> dict[str, Any]:
    return {"id": id_, "task": task, "params": {"log": str(log), "seconds": 0.0}, **fields}


def results(stack: Running, *nodes: dict[str, Any], **options: Any) -> dict[str, str]:
    """Run a graph; which pools the worker of each node serves."""
    run = stack.client.submit(Graph.parse({"name": "pinned", "nodes": list(nodes)}), **options).wait(TIMEOUT_S)
    assert run.outcome == "succeeded"
    return {each["id"]: run.result(each["id"]) for each in nodes}


def test_a_node_pinned_to_a_pool_runs_on_its_workers_and_the_others_do_not(stack: Running, tmp_path: Path) -> None:
    log = tmp_path / "log"
    found = results(
        stack,
        *(node(f"free{index}", log) for index in range(6)),
        *(node(f"gpu{index}", log, pool="gpu") for index in range(6)),
        *(node(f"task{index}", log, "slots.pinned") for index in range(3)),
        node("back", log, "slots.pinned", pool="default"),
    )
    assert found == {
        **{f"free{index}": "default" for index in range(6)},
        **{f"gpu{index}": "gpu" for index in range(6)},
        **{f"task{index}": "gpu" for index in range(3)},
        "back": "default",
    }


def test_a_chain_and_a_chord_change_pools_from_node_to_node(stack: Running, tmp_path: Path) -> None:
    log = tmp_path / "log"
    found = results(
        stack,
        node("a", log, pool="gpu"),
        node("b", log, after=["a"]),
        node("c", log, after=["b"], pool="gpu"),
        *(node(f"m{index}", log, after=["c"], **({"pool": "gpu"} if index % 2 else {})) for index in range(4)),
        node("join", log, after=[f"m{index}" for index in range(4)], pool="gpu"),
        node("end", log, after=["join"]),
    )
    on_gpu = {id_ for id_, pools in found.items() if pools == "gpu"}
    assert on_gpu == {"a", "c", "m1", "m3", "join"}
    assert {pools for id_, pools in found.items() if id_ not in on_gpu} == {"default"}


def test_a_tenant_pinned_by_its_policy_runs_in_its_pool_but_for_nodes_that_are_pinned(stack: Running, tmp_path: Path) -> None:
    stack.client.tenants.create("pinned", pool="gpu")
    found = results(stack, node("own", tmp_path / "log"), node("other", tmp_path / "log", pool="default"), tenant="pinned")
    assert found == {"own": "gpu", "other": "default"}


def test_a_worker_says_that_it_serves_what_it_consumes_from(stack: Running) -> None:
    with worker(stack, "queues", "-c", "1", "-Q", "pool.narrow"), worker(stack, "both", "-c", "1", pools="left,right"):
        known = workers(stack)
        assert {name: known[name]["pools"] for name in ("w1", "gpu", "queues", "both")} == {
            "w1": ["default"],
            "gpu": ["gpu"],
            "queues": ["narrow"],
            "both": ["left", "right"],
        }
        active = stack.app.control.inspect(timeout=5, limit=6).active_queues()
        queues = {name.split("@")[0]: sorted(queue["name"] for queue in found) for name, found in active.items()}
    assert (queues["queues"], queues["both"]) == (["pool.narrow"], ["pool.left", "pool.right", "system"])
    assert (queues["gpu"], queues["w1"]) == (["pool.gpu", "system"], ["pool.default", "system"])


def test_a_node_of_a_pool_named_on_the_command_line_is_delivered(stack: Running, tmp_path: Path) -> None:
    with worker(stack, "queue", "-c", "1", "-Q", "pool.narrow", pools="unused"):
        assert results(stack, node("a", tmp_path / "log", pool="narrow")) == {"a": "unused"}
