"""Midnight UTC and the end of a month while real workers work: nothing is booked twice or lost, and holds go over."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ahead
import pytest
import redis
from running import SLOTS, WORKERS, let_go, producer, until

from benchmarks.money.books import Execution, Key, Record, disagreements, executions, read_counters, read_record
from cost.period import MS_PER_DAY, day_of, month_ends_ms, month_of
from orchestrator.client import Client
from orchestrator.embedded import Stack
from orchestrator.graph import Graph
from orchestrator.handle import RunHandle
from orchestrator.settings import Settings
from tenancy.errors import BudgetRefused

HERE = Path(__file__).resolve().parent
CPU = 100
"""Micros set aside for the CPU time of a node, which is charged as well."""
PAID, ASIDE = 900, 1_000
RUNS, WIDTH, DEPTH = 6, 4, 3


@dataclass(frozen=True)
class Night:
    """A stack whose scripts have a clock of their own."""

    client: Client
    redis: redis.Redis

    def record(self) -> Record:
        with self.client.engine.connect() as connection:
            return read_record(connection)


@pytest.fixture
def night(monkeypatch: pytest.MonkeyPatch) -> Iterator[Night]:
    home = Path(tempfile.mkdtemp(prefix="hg"))
    places = [str(ahead.SITE), str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(places))
    tasks = ("midnight_tasks",)
    try:
        with ahead.installed(), Stack(Settings(home=home), WORKERS, SLOTS, tasks, console=False) as stack:
            __import__("midnight_tasks")
            client = producer(Settings(home=home, redis_url=stack.redis_url, tasks=tasks))
            with redis.Redis.from_url(stack.client_url, decode_responses=True) as connection:
                yield Night(client, connection)
            let_go(client)
    finally:
        Settings.forget()
        shutil.rmtree(home, ignore_errors=True)


def layered(then: int) -> Graph:
    """Nodes that pay 300 and, after a while, `then`."""
    nodes: list[dict[str, Any]] = []
    for layer in range(DEPTH):
        after = [f"n{layer - 1}.{at}" for at in range(WIDTH)] if layer else []
        for at in range(WIDTH):
            params = {"first": 300, "seconds": 0.25, "then": then}
            estimate = {"llm": PAID, "compute": CPU}
            nodes.append({"id": f"n{layer}.{at}", "task": "midnight.pay", "params": params, "estimate": estimate, "after": after})
    return Graph.parse({"name": "layered", "nodes": nodes})


def submit(night: Night, tenant: str, graph: Graph) -> list[RunHandle]:
    with ThreadPoolExecutor(RUNS) as pool:
        return list(pool.map(lambda _: night.client.submit(graph, tenant=tenant), range(RUNS)))


def test_a_month_ends_under_load_and_every_entry_is_in_the_period_of_its_reservation(night: Night) -> None:
    estimate = RUNS * WIDTH * DEPTH * ASIDE
    tenants = {
        # Exactly what its runs hold: whatever were lost or counted twice at midnight would refuse a node.
        "amber": {"limit_per_day_micros": estimate, "limit_per_month_micros": estimate},
        # Its nodes pay more than was set aside for them, which is asked for while they run.
        "basil": {"limit_per_day_micros": 3 * estimate, "limit_per_month_micros": 3 * estimate},
    }
    for tenant, limits in tenants.items():
        night.client.tenants.create(tenant, max_concurrent_runs=RUNS + 1, **limits)
    last = day_of(month_ends_ms(day_of(ahead.now_ms(night.redis))) - 1)
    ahead.jump(night.redis, last * MS_PER_DAY + 40_000_000)

    runs = submit(night, "amber", layered(PAID - 300)) + submit(night, "basil", layered(1_500))
    with pytest.raises(BudgetRefused):
        night.client.submit(layered(PAID - 300), tenant="amber")
    spent = f"hg1:spent:amber:{last}"
    until(lambda: int(str(night.redis.hget(spent, "settled") or 0)) > 3 * PAID)
    ahead.jump(night.redis, (last + 1) * MS_PER_DAY - 1_000)
    until(lambda: all(run.status == "ended" for run in runs), 60)
    assert Counter(run.outcome for run in runs) == {"succeeded": 2 * RUNS}

    until(lambda: not accounts(night))
    record = night.record()
    found = {key: one for key, one in executions(record.events).items() if one.tenant in tenants}
    assert len(found) == 2 * RUNS * WIDTH * DEPTH
    assert {one.state for one in found.values()} == {"settled"}
    for key, one in found.items():
        assert one.cats["llm"] == (PAID if one.tenant == "amber" else 1_800), key
        assert set(one.charged) <= set(one.parts), f"{key} is charged in a period that it had reserved nothing in"
    check_both_sides(record, found, last)
    check_holds(record, last)
    assert month_of(last) != month_of(last + 1)
    for book in (str(last), f"m{month_of(last)}", str(last + 1), f"m{month_of(last + 1)}"):
        for tenant in tenants:
            row: Any = night.redis.hgetall(f"hg1:spent:{tenant}:{book}")
            assert int(row["settled"]) > 0
            assert int(row["settled"]) <= tenants[tenant]["limit_per_day_micros"]
            assert int(row["reserved"]) == 0
    # Of the new day only what was reserved in it is spent: the budget is there again.
    again = night.client.submit(layered(PAID - 300), tenant="amber")
    again.wait(timeout_s=30)
    assert again.outcome == "succeeded"


def accounts(night: Night) -> list[str]:
    record = night.record()
    return disagreements(record, read_counters(night.redis, ["amber", "basil"], record.live))


def check_both_sides(record: Record, found: dict[Key, Execution], last: int) -> None:
    """There were executions before, after and over midnight; what was added after it belongs to the new day."""
    days = Counter(min(one.parts) for one in found.values())
    assert set(days) == {last, last + 1}
    settled = {(e["run"], int(e["gen"]), e["node"], int(e["attempt"])): day_of(e["at"]) for e in record.events if e["t"] == "money.settled"}
    over = [one for key, one in found.items() if min(one.parts) == last and settled[key] == last + 1]
    assert over, "nothing ran over midnight"
    assert all(one.charged[last] for one in over), "what was reserved before midnight is charged there"
    extended = [one for one in over if one.tenant == "basil" and last + 1 in one.parts]
    for one in extended:
        assert sum(one.charged[last].values()) == one.parts[last]


def check_holds(record: Record, last: int) -> None:
    """What began after midnight was paid by the hold of its run, which is of the day before."""
    admitted = {e["run"]: e for e in record.events if e["t"] == "run.admitted" and e["tenant"] == "amber"}
    assert {day_of(event["at"]) for event in admitted.values()} == {last}
    began = [event for event in record.events if event["t"] == "node.began" and event["run"] in admitted and int(event["day"]) == last + 1]
    assert began
    assert all(int(event["to_hold"]) == -int(event["amount"]) for event in began)
