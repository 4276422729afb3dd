"""Each row of the gate's table, on a real Redis."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from orchestrator.embedded.redis_server import RedisServer
from orchestrator.state import State
from tenancy.errors import Fenced
from tenancy.link import Link
from tenancy.transport.letters import letters
from tenancy.transport.queue import DeadIncarnation, Delivery, Queue

RUN = "01m81gdd2qjwpwn6jry62r8723"
SERVER = "server-1"


class Cell:
    """A tenant, two workers and one run: `a` before `b` and `c`; `c` is optional."""

    def __init__(self, url: str) -> None:
        self.link = Link(url, server=SERVER)
        self.queue, self.state = Queue(self.link), State(self.link)
        self.redis = self.link.client
        self.redis.hset("hg1:epoch", mapping={"epoch": 1, "server": SERVER, "seq": 0})
        self.redis.hset("hg1:tenant:acme", mapping={"limit_day": 1_000_000, "max_runs": 2, "status": "active", "version": 1})
        for worker in ("w1", "w2"):
            self.queue.enroll(worker, 4_000, {"name": worker, "tasks": []})

    def submit(self, *, budget: str = "", amounts: Mapping[str, str] | None = None) -> None:
        want = {"graph": "g", "total": 3, "estimate": "3000", "floor": "2000", "budget": budget, "priority": 5}
        assert self.state.admit(RUN, 1, "acme", want)[0] == "admitted"
        self.state.load(RUN, 1, [self.row("a", 0, ["b", "c"], amounts), self.row("b", 1, []), self.row("c", 1, [], required=False)], {})
        assert self.state.launch(RUN, 1, 0, 1, ["a"]) == ["a"]

    @staticmethod
    def row(
        node: str, wait: int, children: list[str], amounts: Mapping[str, str] | None = None, *, required: bool = True
    ) -> tuple[str, int, str, str, str, int]:
        ctl = {"amounts": dict(amounts or {"": "1000"}), "required": required, "attempts": 2, "next": children}
        return (node, wait, json.dumps(ctl), json.dumps({"task": "t", "params": {}}), "", 0)

    def deliver(self, node: str, worker: str = "w1", *, again: bool = False) -> Delivery:
        self.queue.put("{}", "acme", 5, "default", 1_000, f"{RUN}.1.{node}", int(again))
        delivery = self.queue.pop(worker, "default")
        assert delivery is not None
        return delivery

    def begin(self, node: str, delivery: Delivery, worker: str = "w1") -> list[Any]:
        return self.state.begin(RUN, 1, node, worker, delivery.tag, delivery.number, worker)

    def finish(self, node: str, attempt: int, outcome: str = "succeeded", *, worker: str = "w1", delay_ms: int = -1) -> list[Any]:
        fault = "" if outcome == "succeeded" else '{"type": "ValueError", "message": "no"}'
        return self.state.finish(RUN, 1, node, attempt, worker, outcome, "42", fault, "llm=500", delay_ms)

    def run_to_success(self, node: str, worker: str = "w1") -> None:
        delivery = self.deliver(node, worker)
        attempt = self.begin(node, delivery, worker)[1]
        assert self.finish(node, attempt, worker=worker)[0] == "done"
        assert self.state.settle(RUN, 1, node, attempt, "llm=500", "signal") == "settled"
        assert self.queue.ack(worker, delivery.tag, delivery.number) == 1

    def state_of(self, node: str) -> str | None:
        found: str | None = self.redis.hget(f"hg1:state:{RUN}.1", node)  # type: ignore[assignment]
        return found

    def events(self, kind: str) -> list[dict[str, Any]]:
        every = [json.loads(entry["e"]) for _, entry in self.redis.xrange("hg1:events")]  # type: ignore[union-attr]
        return [event for event in every if event["t"] == kind]


@pytest.fixture
def cell(redis_server: RedisServer) -> Iterator[Cell]:
    cell = Cell(redis_server.client_url)
    yield cell
    cell.link.close()


def test_a_due_node_is_claimed_with_an_attempt_a_lease_and_a_reservation(cell: Cell) -> None:
    cell.submit()
    assert cell.begin("a", cell.deliver("a"))[:2] == ["run", 1]
    assert cell.state_of("a") == "running"
    purse = cell.redis.hgetall(f"hg1:purse:{RUN}.1")
    assert (purse["hold"], purse["reserved"], purse["open"]) == ("2000", "1000", "1")


def test_a_begin_whose_reply_was_lost_answers_the_same_attempt(cell: Cell) -> None:
    cell.submit()
    delivery = cell.deliver("a")
    assert cell.begin("a", delivery) == cell.begin("a", delivery)
    assert len(cell.events("node.began")) == 1


def test_a_node_that_succeeded_names_its_due_children_again(cell: Cell) -> None:
    cell.submit()
    cell.run_to_success("a")
    row = cell.begin("a", cell.deliver("a"))
    assert row[:2] == ["ended", "succeeded"]
    assert sorted(row[3]) == ["b", "c"]


def test_a_node_that_failed_answers_with_its_error(cell: Cell) -> None:
    cell.submit()
    cell.begin("a", cell.deliver("a"))
    cell.finish("a", 1, "failed")
    row = cell.begin("a", cell.deliver("a", again=True))
    assert row[:2] == ["ended", "failed"]
    assert json.loads(row[2])["message"] == "no"


def test_a_required_failure_decides_its_descendants(cell: Cell) -> None:
    cell.submit()
    cell.begin("a", cell.deliver("a"))
    assert cell.finish("a", 1, "failed") == ["done", 0]
    assert (cell.state_of("b"), cell.state_of("c")) == ("upstream_failed", "upstream_failed")
    cell.state.settle(RUN, 1, "a", 1, "llm=500", "signal")
    assert [event["outcome"] for event in cell.events("run.ended")] == ["failed"]


def test_nothing_of_a_cancelled_run_begins(cell: Cell) -> None:
    cell.submit()
    delivery = cell.deliver("a")
    assert cell.state.cancel(RUN, 1, "because", "me") == 1
    assert cell.begin("a", delivery) == ["stopped"]
    assert cell.state_of("a") == "cancelled"
    assert cell.state.revoke(RUN, 1, "cancelled", "because", ["a", "b", "c"]) == [2, 0]
    assert [event["outcome"] for event in cell.events("run.ended")] == ["cancelled"]
    assert cell.redis.hgetall("hg1:tenant:acme")["held"] == "0"


def test_a_body_that_comes_too_early_is_dropped_and_may_be_published_again(cell: Cell) -> None:
    cell.submit()
    delivery = cell.deliver("b")
    assert cell.begin("b", delivery) == ["early"]
    assert cell.queue.ack("w1", delivery.tag, delivery.number) == 0
    assert cell.queue.put("{}", "acme", 5, "default", 1_000, f"{RUN}.1.b") != ""


def test_a_second_message_for_a_running_node_is_a_duplicate(cell: Cell) -> None:
    cell.submit()
    cell.begin("a", cell.deliver("a"))
    assert cell.begin("a", cell.deliver("a", "w2", again=True), "w2") == ["held"]
    assert [event["inc"] for event in cell.events("node.duplicate")] == ["w2"]


def test_before_its_time_a_node_goes_back_as_delayed(cell: Cell) -> None:
    cell.submit()
    cell.begin("a", cell.deliver("a"))
    assert cell.finish("a", 1, "failed", delay_ms=60_000) == ["retry", 60_000]
    row = cell.begin("a", cell.deliver("a", again=True))
    assert row[0] == "later"
    assert 0 < row[1] <= 60_000
    assert cell.queue.pop("w1", "default") is None


def test_a_refused_required_node_fails_and_an_optional_one_is_skipped(cell: Cell) -> None:
    cell.submit(budget="3000")
    cell.run_to_success("a")
    cell.redis.hset(f"hg1:ctl:{RUN}.1", "b", json.dumps({"amounts": {"": "9000"}, "required": True, "attempts": 2, "next": []}))
    cell.redis.hset(f"hg1:ctl:{RUN}.1", "c", json.dumps({"amounts": {"": "9000"}, "required": False, "attempts": 2, "next": []}))
    assert cell.begin("b", cell.deliver("b"))[:2] == ["refused", "failed"]
    assert cell.begin("c", cell.deliver("c"))[:2] == ["refused", "skipped"]
    assert [event["outcome"] for event in cell.events("run.ended")] == ["failed"]


def test_a_node_that_took_three_workers_with_it_is_poison(cell: Cell) -> None:
    cell.submit()
    for death in range(3):
        worker = f"victim-{death}"
        cell.queue.enroll(worker, 4_000, {"name": worker, "tasks": []})
        if death == 0:
            delivery: Delivery | None = cell.deliver("a", worker)
        else:
            delivery = cell.queue.pop(worker, "default")
        assert delivery is not None
        assert cell.begin("a", delivery, worker)[:2] == ["run", death + 1]
        cell.queue.link.client.zadd("hg1:incarnations", {worker: 0})
        cell.queue.reclaim(4_000)
    last = cell.queue.pop("w1", "default")
    assert last is not None
    assert last.number == 4
    assert cell.begin("a", last)[:2] == ["poison", "failed"]
    assert len(cell.events("money.voided")) == 3
    (letter,) = letters(cell.queue.link)
    assert (letter.tag, letter.reason) == (last.tag, "three workers died while they ran it")
    assert [death.worker for death in letter.deaths] == ["victim-0", "victim-1", "victim-2"]


def test_a_delivery_that_was_taken_away_begins_nothing(cell: Cell) -> None:
    cell.submit()
    delivery = cell.deliver("a")
    cell.queue.retire("w1")
    assert cell.begin("a", delivery) == ["gone"]
    with pytest.raises(DeadIncarnation):
        cell.queue.pop("w1", "default")


def test_an_unknown_run_begins_nothing(cell: Cell) -> None:
    cell.queue.put("{}", "acme", 5, "default", 1_000)
    delivery = cell.queue.pop("w1", "default")
    assert delivery is not None
    assert cell.begin("a", delivery) == ["none"]


def test_a_zombie_cannot_finish_and_what_it_spent_is_waste(cell: Cell) -> None:
    cell.submit()
    cell.begin("a", cell.deliver("a"))
    cell.queue.retire("w1")
    second = cell.queue.pop("w2", "default")
    assert second is not None
    assert cell.begin("a", second, "w2")[:2] == ["run", 2]
    assert cell.finish("a", 1) == ["fenced"]
    assert cell.state.settle(RUN, 1, "a", 1, "llm=500", "fenced") == "waste"
    assert cell.finish("a", 2, worker="w2")[0] == "done"
    assert cell.state.settle(RUN, 1, "a", 2, "llm=500", "signal") == "settled"
    assert cell.state.settle(RUN, 1, "a", 2, "llm=500", "signal") == "same"
    assert cell.state.settle(RUN, 1, "a", 2, "llm=501", "signal") == "conflict"
    (day,) = cell.redis.keys("hg1:spent:acme:[0-9]*")  # type: ignore[misc]
    assert cell.redis.hgetall(day) == {"reserved": "0", "settled": "1000", "waste": "500", "c:llm": "1000"}


def test_another_server_run_is_refused_before_anything_changes(cell: Cell) -> None:
    cell.submit()
    before = cell.redis.hgetall("hg1:epoch")
    stranger = Link(cell.link.url, server="server-2")
    with pytest.raises(Fenced):
        State(stranger).cancel(RUN, 1, "no", "me")
    assert cell.redis.hgetall("hg1:epoch") == before


@pytest.mark.parametrize("amount", ["0x10", "1e3", "nan", "-5", "9007199254740992", "9" * 5000, "1.5", ""])
def test_an_amount_that_is_no_amount_is_refused_by_the_script(cell: Cell, amount: str) -> None:
    cell.submit()
    cell.begin("a", cell.deliver("a"))
    before = cell.redis.hgetall(f"hg1:purse:{RUN}.1")
    with pytest.raises(Exception, match="AMOUNT"):
        cell.state.settle(RUN, 1, "a", 1, f"llm={amount}", "signal")
    assert cell.redis.hgetall(f"hg1:purse:{RUN}.1") == before
