"""Settlements that ride along, without Redis: each is settled once, by whoever took it."""

from __future__ import annotations

import os
import queue
import threading

import pytest

from cost.middleware import Spent
from orchestrator import riders
from orchestrator.riders import Riders
from tenancy.errors import Unavailable


def spent(node: str) -> Spent:
    return Spent("run", 1, node, 1, "compute=1", "1", "")


def test_a_settlement_that_nobody_takes_goes_alone() -> None:
    settled: queue.Queue[str] = queue.Queue()
    waiting = Riders(lambda each: settled.put(each.node_id))
    waiting.add(spent("a"))
    assert settled.get(timeout=20) == "a"
    assert waiting.take() == ()


def test_what_was_taken_is_not_settled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(riders, "RIDE_S", 3_600)
    settled: list[str] = []
    waiting = Riders(lambda each: settled.append(each.node_id))
    for node in "abc":
        waiting.add(spent(node))
    taken = [each.node_id for each in waiting.take()]
    waiting.flush()
    assert (taken, settled) == (["a", "b", "c"], [])


def test_two_who_take_at_once_share_them_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(riders, "RIDE_S", 3_600)
    waiting = Riders(lambda each: None)
    names = [str(number) for number in range(2_000)]
    taken: list[str] = []
    added = threading.Event()

    def take() -> None:
        while True:
            last = added.is_set()
            taken.extend(each.node_id for each in waiting.take())
            if last:
                return

    threads = [threading.Thread(target=take) for _ in range(3)]
    for thread in threads:
        thread.start()
    for name in names:
        waiting.add(spent(name))
    added.set()
    for thread in threads:
        thread.join()
    assert sorted(taken, key=int) == names


def test_one_that_cannot_be_settled_does_not_keep_the_others(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(riders, "RIDE_S", 3_600)
    settled: list[str] = []

    def settle(each: Spent) -> None:
        if each.node_id == "away":
            raise Unavailable("Redis is away")
        if each.node_id == "twice":
            raise ValueError("it was settled before with another amount")
        settled.append(each.node_id)

    waiting = Riders(settle)
    for node in ("away", "twice", "last"):
        waiting.add(spent(node))
    waiting.flush()
    assert settled == ["last"]
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]
    assert "settlement of run.away is left to the sweeper: Redis is away" in caplog.text


def test_a_fork_leaves_those_of_its_parent_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(riders, "RIDE_S", 3_600)
    waiting = Riders(lambda each: None)
    waiting.add(spent("of the parent"))
    child = os.fork()
    if not child:
        waiting.add(spent("of the child"))
        names = [each.node_id for each in waiting.take()]
        os._exit(0 if names == ["of the child"] else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert [each.node_id for each in waiting.take()] == ["of the parent"]
