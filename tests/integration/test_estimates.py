"""What a task cost a tenant is what its next runs are admitted by, where nobody declares it."""

from __future__ import annotations

import json
from tempfile import NamedTemporaryFile
from typing import Any

import pytest
from click.testing import CliRunner
from running import Running, until
from sqlalchemy import select
from ulid import ULID

from cost.estimate import LEARNED_FROM
from orchestrator.cli import main
from orchestrator.graph import Graph
from orchestrator.launched import asked, load_rows
from orchestrator.registry import registry
from orchestrator.settings import Settings
from orchestrator.store import read
from orchestrator.store import tables as t
from orchestrator.store.learned import learned_means
from tenancy.errors import BudgetRefused

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


def test_what_is_foreseen_is_what_admission_says(stack: Running) -> None:
    client = stack.client
    tenant = client.tenants.create(f"t-{str(ULID())[-12:].lower()}", limit_per_day_micros=10_000, max_concurrent_runs=1).id

    def graph(optional: int, required: int) -> Graph:
        costs = (("o", optional, False), ("r", required, True))
        nodes = [
            {"id": name, "task": TASK, "params": {"numbers": []}, "required": needed, "estimate": {"llm": micros}}
            for name, micros, needed in costs
        ]
        return Graph.parse({"name": "costs", "nodes": nodes})

    def foreseen(wanted: Graph, *options: str) -> dict[str, Any]:
        with (
            Settings(home=client.settings.home, redis_url=client.settings.redis_url).in_force(),
            NamedTemporaryFile("wb", suffix=".json") as file,
        ):
            file.write(wanted.canonical())
            file.flush()
            done = CliRunner().invoke(main, ["estimate", file.name, "--tenant", tenant, "--tasks", "node_tasks", "--json", *options])
        assert done.exit_code == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    too_much = foreseen(graph(0, 10_001))
    assert too_much["prospect"]["decision"] == "refused"
    with pytest.raises(BudgetRefused):
        client.submit(graph(0, 10_001), tenant=tenant)
    assert foreseen(graph(9_000, 4_000), "--quality", "full")["prospect"]["decision"] == "refused"
    with pytest.raises(BudgetRefused):
        client.submit(graph(9_000, 4_000), tenant=tenant, quality="full")
    client.tenants.update(tenant, limit_per_month_micros=3_999)
    of_month = foreseen(graph(9_000, 4_000))
    assert (of_month["prospect"]["decision"], of_month["remains"]["room_micros"]) == ("refused", 3_999)
    with pytest.raises(BudgetRefused):
        client.submit(graph(9_000, 4_000), tenant=tenant)
    client.tenants.update(tenant, limit_per_month_micros=None)

    client.pause(f"tenant:{tenant}")
    try:
        short = foreseen(graph(9_000, 4_000))
        assert (short["prospect"]["decision"], short["remains"]["room_micros"]) == ("planned_down", 10_000)
        assert [change["node"] for change in short["prospect"]["given_up"]] == ["o"]
        run = client.submit(graph(9_000, 4_000), tenant=tenant)
        row = until(lambda: found if (found := row_of(stack, run.run_id))["hold"] is not None else None)
        assert row["hold"] == short["prospect"]["hold_micros"]
        waits = foreseen(graph(0, 1))
        assert (waits["prospect"]["decision"], waits["remains"]["running"]) == ("held", 1)
        second = client.submit(graph(0, 1), tenant=tenant)
        until(lambda: row_of(stack, second.run_id)["status"] == "held")
    finally:
        client.resume(f"tenant:{tenant}")
    assert run.wait(TIMEOUT_S).outcome == "degraded"
    assert second.wait(TIMEOUT_S).outcome == "succeeded"
