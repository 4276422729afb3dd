"""What the recorder learns from runs that ended, on a real database."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, insert

from orchestrator.recorder.learning import SPEC_BYTES_MAX, learn
from orchestrator.store import tables as t
from orchestrator.store.engine import create_tables, open_engine
from orchestrator.store.learned import learned_means

pytestmark = pytest.mark.both_records


COSTS = {f"cost_{category}": 0 for category in ("llm", "retrieval", "storage", "compute", "other")}
RUN = {
    "generation": 1,
    "graph_name": "g",
    "digest": "",
    "submitted_at": 1,
    "labels": "{}",
    "status": "ended",
    "priority": 5,
    "cost_micros": 0,
}


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = open_engine(database_url, writer=True)
    create_tables(engine)
    yield engine
    engine.dispose()


def run(engine: Engine, name: str, tenant: str, *nodes: dict[str, Any], spec: bytes | None = b"", learns: bool = True) -> None:
    """A run that ended; each node has an id, a task and what its row says."""
    text = json.dumps({"nodes": [{"id": node["node_id"], "task": node["task"]} for node in nodes]}).encode()
    with engine.begin() as connection:
        row = {**RUN, "run_id": name, "tenant": tenant, "spec": zlib.compress(text) if spec == b"" else spec}
        connection.execute(insert(t.run), row)
        for node in nodes:
            given = {"fails": 0, "lost": 0, "cost_micros": 0, "verdict": None, **COSTS, **node, "run_id": name, "generation": 1}
            given.pop("task")
            connection.execute(insert(t.node), given)
        if learns:
            learn(connection, {(name, 1)})


def node(name: str, llm: int, *, task: str = "a", outcome: str = "succeeded", **more: Any) -> dict[str, Any]:
    return {"node_id": name, "task": task, "outcome": outcome, "cost_llm": llm, "cost_compute": 1, **more}


def test_a_task_s_mean_is_that_of_its_tenant_alone_and_of_the_variant_that_ran(engine: Engine) -> None:
    run(engine, "r1", "acme", *(node(f"n{at}", 10 * at) for at in range(5)), *(node(f"v{at}", 3, verdict="small") for at in range(5)))
    run(engine, "r2", "birch", *(node(f"n{at}", 500) for at in range(5)))
    assert learned_means(engine, "acme", {"a", "b"}) == {"a": {"llm": 20, "compute": 1}}
    assert learned_means(engine, "acme", {"a"}, "small") == {"a": {"llm": 3, "compute": 1}}
    assert learned_means(engine, "birch", {"a"}) == {"a": {"llm": 500, "compute": 1}}
    assert learned_means(engine, "cedar", {"a"}) == {}
    run(engine, "r3", "acme", *(node(f"n{at}", 40) for at in range(5)))
    assert learned_means(engine, "acme", {"a"}) == {"a": {"llm": 30, "compute": 1}}


def test_only_nodes_that_succeeded_at_once_are_learned_from(engine: Engine) -> None:
    odd = [node("x1", 900, outcome="failed"), node("x2", 900, fails=1), node("x3", 900, lost=1), node("x4", 900, outcome="skipped")]
    run(engine, "r1", "acme", *(node(f"n{at}", 7) for at in range(5)), *odd)
    assert learned_means(engine, "acme", {"a"}) == {"a": {"llm": 7, "compute": 1}}


def test_a_run_without_a_graph_on_record_or_with_a_very_large_one_teaches_nothing(engine: Engine) -> None:
    nodes = [node(f"n{at}", 7) for at in range(5)]
    run(engine, "r1", "acme", *nodes, spec=None)
    run(engine, "r2", "acme", *nodes, spec=b"x" * (SPEC_BYTES_MAX + 1))
    run(engine, "r3", "acme", *nodes, learns=False)
    hostile = [b"", b"not deflated", zlib.compress(b"[1"), zlib.compress(b"{}"), zlib.compress(b"[" * 90_000), zlib.compress(bytes(10**7))]
    for number, spec in enumerate(hostile):
        run(engine, f"x{number}", "acme", *nodes, spec=spec or b"\0")
    run(engine, "r4", "acme", *(node(f"n{at}", 2**60) for at in range(5)))
    assert learned_means(engine, "acme", {"a"}) == {}
