"""Pools are parked and opened at their bounds, by the scripts, on a real Redis; nodes of runs that were admitted always start."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from orchestrator.backpressure import Backpressure
from orchestrator.embedded.redis_server import RedisServer
from orchestrator.state import State
from tenancy.link import Link
from tenancy.transport.queue import Queue

SERVER = "server-1"
RULES = Backpressure(backlog_per_slot=5, park_at_percent=80, release_below_percent=70)
INFO = {"name": "w", "pools": ["default"], "slots": 2, "tasks": ["t"]}
"""Capacity 10: parked at 8, open below 7."""


class Cell:
    """A tenant that may run much, and runs of nodes that wait for nothing."""

    def __init__(self, url: str) -> None:
        self.link = Link(url, server=SERVER)
        self.queue, self.state, self.redis = Queue(self.link), State(self.link, RULES), self.link.client
        self.redis.hset("hg1:epoch", mapping={"epoch": 1, "server": SERVER, "seq": 0})
        self.account("acme")

    def account(self, tenant: str, **terms: Any) -> None:
        row = {"limit_day": 10**9, "max_runs": 100, "status": "active", "version": 1, "held": 0, "running": 0, **terms}
        self.redis.hset(f"hg1:tenant:{tenant}", mapping=row)

    def submit(self, run: str, nodes: int, tenant: str = "acme", pool: str = "") -> list[Any]:
        want = {"graph": "g", "total": nodes, "estimate": str(nodes), "floor": str(nodes), "budget": "", "priority": 5}
        want |= {"max_parallel": "", "pools": [pool], "roots": {pool: nodes}, "tasks": ["t"]}
        return self.state.admit(run, 1, tenant, want)

    def start(self, run: str, nodes: int, tenant: str = "acme", pool: str = "default") -> None:
        ids = [f"n{number}" for number in range(nodes)]
        ctl = json.dumps({"amounts": {"": "1"}, "required": True, "attempts": 1, "next": []})
        self.state.load(run, 1, [(node, 0, ctl, "{}", "", 0) for node in ids], {})
        for node in self.state.launch(run, 1, 0, 1, ids):
            self.queue.put("{}", tenant, 5, pool, 1000, f"{run}.1.{node}")

    def work(self) -> bool:
        """Run one node; returns what its settlement says: whether a run that waits may start."""
        delivery = self.queue.pop("w1", "default")
        assert delivery is not None
        run, gen, node = json.loads(str(self.redis.hget("hg1:meta", delivery.tag)))["o"].split(".", 2)
        assert self.state.begin(run, int(gen), node, "w1", delivery.tag, delivery.number, "w")[0] == "run"
        self.state.finish(run, int(gen), node, 1, "w1", "succeeded", "1", "", "", -1)
        _, may_start, _ = self.state.charge(run, int(gen), node, 1, "", "signal")
        self.queue.ack("w1", delivery.tag, delivery.number)
        return may_start

    def pressure(self, pool: str = "default") -> dict[str, str]:
        return dict(self.redis.hgetall(f"hg1:pressure:{pool}"))

    def events(self, kind: str) -> list[dict[str, Any]]:
        log = [json.loads(entry["e"]) for _, entry in self.redis.xrange("hg1:events")]
        return [event for event in log if event["t"] == kind]


@pytest.fixture
def cell(redis_server: RedisServer) -> Iterator[Cell]:
    made = Cell(redis_server.client_url)
    yield made
    made.link.close()


def test_a_pool_is_parked_at_80_percent_and_open_below_70_and_both_are_counted_and_timed(cell: Cell) -> None:
    cell.queue.enroll("w1", 4000, INFO)
    for run in ("r1", "r2"):
        assert cell.submit(run, 4)[0] == "admitted"  # the second at a load of 4 of 10, the third at 8
        cell.start(run, 4)
    assert cell.submit("r3", 1) == ["held", "backpressure", 0]
    assert cell.pressure()["state"] == "parked"
    assert cell.work() is False  # 8 with what it holds itself
    assert cell.state.let_in(20) == [0]  # 7
    assert cell.work() is False
    assert cell.state.let_in(20) == [0, "r3.1"]  # 6
    told = cell.pressure()
    assert (told["state"], told["parked"]) == ("open", "1")
    assert 0 <= int(told["parked_ms"]) < 60_000
    changes = [(event["state"], event["load"], event["capacity"]) for event in cell.events("pressure.changed")]
    assert changes == [("parked", 8, 10), ("open", 6, 10)]
    assert [event["why"] for event in cell.events("run.held")] == ["backpressure"]


def test_the_settlement_that_brings_the_load_below_the_bound_says_so_once(cell: Cell) -> None:
    cell.queue.enroll("w1", 4000, INFO)
    cell.submit("r1", 9)
    cell.start("r1", 9)
    assert cell.submit("r2", 1)[:2] == ["held", "backpressure"]
    # Each settlement sees what its own message adds to the load: 9, 8, 7 and then 6.
    assert [cell.work() for _ in range(5)] == [False, False, False, True, False]


def test_a_burst_of_admissions_sees_its_own_load_before_anything_is_in_line(cell: Cell) -> None:
    cell.queue.enroll("w1", 4000, INFO)
    assert [cell.submit(f"r{number}", 4)[0] for number in range(4)] == ["admitted", "admitted", "held", "held"]
    assert cell.redis.hgetall("hg1:loading") == {"default": "8"}
    cell.start("r0", 4)
    cell.state.cancel("r1", 1, "enough", "ann")
    assert cell.redis.hgetall("hg1:loading") == {}
    assert cell.state.let_in(20) == [0, "r2.1"]
    assert cell.redis.hget("hg1:run:r3.1", "why") == "backpressure"


def test_a_flood_parks_the_tenant_that_makes_it_and_not_one_below_its_even_share(cell: Cell) -> None:
    cell.account("birch")
    cell.queue.enroll("w1", 4000, INFO)
    cell.submit("r1", 100)
    cell.start("r1", 100)
    assert cell.submit("r2", 1)[:2] == ["held", "backpressure"]
    # 7 of 10 for two tenants: birch is given 3.5.
    assert [cell.submit(f"b{number}", 1, "birch")[0] for number in range(5)] == ["admitted"] * 4 + ["held"]
    assert cell.redis.hgetall("hg1:loading:default") == {"birch": "4"}
    assert cell.pressure()["state"] == "parked"
    cell.start("b0", 1, "birch")
    delivery = cell.queue.pop("w1", "default")
    assert delivery is not None
    assert cell.state.let_in(20) == [0]  # what runs counts as much as what waits


def test_a_run_that_is_larger_than_the_capacity_starts_where_the_load_is_low(cell: Cell) -> None:
    cell.queue.enroll("w1", 4000, INFO)
    assert cell.submit("r1", 200)[0] == "admitted"


def test_what_was_admitted_starts_also_where_the_pool_is_parked(cell: Cell) -> None:
    cell.queue.enroll("w1", 4000, INFO)
    cell.submit("r1", 20)
    cell.start("r1", 20)
    assert cell.submit("r2", 1)[:2] == ["held", "backpressure"]
    for _ in range(20):
        cell.work()
    assert cell.state.let_in(20) == [0, "r2.1"]


def test_with_no_live_worker_runs_wait_and_the_first_worker_lets_them_in_in_turns(cell: Cell) -> None:
    cell.account("birch")
    order = [("a1", "acme"), ("a2", "acme"), ("a3", "acme"), ("b1", "birch"), ("b2", "birch")]
    assert {tuple(cell.submit(run, 1, tenant)[:2]) for run, tenant in order} == {("held", "worker")}
    assert cell.state.let_in(20) == [0]
    cell.queue.enroll("w1", 4000, {**INFO, "tasks": ["other"]})
    assert cell.state.let_in(20) == [0]  # it serves the pool, and not the task
    cell.queue.enroll("w2", 4000, INFO)
    assert cell.state.let_in(3) == [1, "a1.1", "b1.1", "a2.1"]
    assert cell.state.let_in(20) == [0, "b2.1", "a3.1"]
    assert not cell.redis.exists("hg1:waiting")
    assert [(event["state"], event["capacity"]) for event in cell.events("pressure.changed")] == [("parked", 0), ("open", 10)]


def test_a_run_that_nobody_serves_stands_beside_the_line_and_is_overtaken_by_nobody_once_it_is_served(cell: Cell) -> None:
    cell.account("acme", max_runs=1)
    cell.queue.enroll("w1", 4000, INFO)
    assert cell.submit("r1", 1, pool="gpu") == ["held", "worker", 0]
    assert cell.submit("r2", 1)[0] == "admitted"
    assert cell.submit("r3", 1)[:2] == ["held", "runs"]
    cell.queue.enroll("w2", 4000, {**INFO, "pools": ["gpu"]})
    assert cell.submit("r4", 1) == ["held", "worker", 1]  # behind r1, as soon as that could go on
    cell.start("r2", 1)
    cell.work()
    assert cell.state.let_in(20) == [0, "r1.1"]
    assert cell.redis.zrange("hg1:line:acme", 0, -1) == ["r3.1", "r4.1"]
    assert not cell.redis.exists("hg1:unserved:acme")


def test_a_tenant_s_own_pool_is_the_one_that_is_looked_at(cell: Cell) -> None:
    cell.queue.enroll("w1", 4000, INFO)
    cell.account("birch", pool="gpu")
    assert cell.submit("r1", 1, "birch")[:2] == ["held", "worker"]
    assert cell.pressure("gpu")["state"] == "parked"
    assert cell.submit("r2", 1)[0] == "admitted"
