"""What a task cost a tenant is what its next runs are admitted by, where nobody declares it."""

from __future__ import annotations

from typing import Any

from running import Running, until
from sqlalchemy import select
from ulid import ULID

from cost.estimate import LEARNED_FROM
from orchestrator.graph import Graph
from orchestrator.launched import asked, load_rows
from orchestrator.registry import registry
from orchestrator.store import read
from orchestrator.store import tables as t
from orchestrator.store.learned import learned_means

TIMEOUT_S = 30
TASK = "node_tasks.total"


def sums(count: int) -> Graph:
    return Graph.parse({"name": "sums", "nodes": [{"id": f"n{at}", "task": TASK, "params": {"numbers": [at]}} for at in range(count)]})


def row_of(stack: Running, run_id: str) -> dict[str, Any]:
    with stack.client.engine.connect() as connection:
        return dict(connection.execute(select(t.run).where(t.run.c.run_id == run_id)).mappings().one())


def test_runs_are_admitted_by_what_was_learned_and_every_start_of_one_costs_the_same(stack: Running) -> None:
    client = stack.client
    tenant, other = (client.tenants.create(f"t-{str(ULID())[-12:].lower()}").id for _ in range(2))
    first = client.submit(sums(LEARNED_FROM), tenant=tenant).wait(TIMEOUT_S)
    assert read.get_run(client.engine, first.run_id).estimate == LEARNED_FROM * 1_000
    mean = sum(learned_means(client.engine, tenant, {TASK})[TASK].values())
    assert 0 <= mean < 500  # micros of CPU
    client.pause(f"tenant:{tenant}")
    try:
        run = client.submit(sums(3), tenant=tenant, key="again")
        row = until(lambda: found if (found := row_of(stack, run.run_id))["estimate"] is not None else None)
        assert (row["estimate"], row["floor"], row["hold"]) == (3 * mean, 3 * mean, 3 * mean)
        assert row["digest"] == sums(3).resolved(registry).digest
        # The record starts it anew as the client did, whatever is learned meanwhile.
        assert asked(row, client.settings)["estimate"] == str(3 * mean)
        loaded = {each.node: each.ctl for each in load_rows(row, client.settings).nodes}
        assert loaded == stack.redis.hgetall(f"hg1:ctl:{run.run_id}.1")
        assert client.submit(sums(3), tenant=tenant, key="again").run_id == run.run_id
        assert stack.redis.hgetall(f"hg1:ctl:{run.run_id}.1") == loaded
    finally:
        client.resume(f"tenant:{tenant}")
    assert run.wait(TIMEOUT_S).outcome == "succeeded"
    fresh = client.submit(sums(1), tenant=other).wait(TIMEOUT_S)
    assert read.get_run(client.engine, fresh.run_id).estimate == 1_000  # nothing is known of this tenant
