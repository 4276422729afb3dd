"""What Celery says of an ordinary task's end, row by row of the table in cost/middleware.py, and that its money is closed once by it.

No sweeper and no recorder run here: signals alone close what ends in a signal.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import until
from taxed import Taxed, worker

from cost.task_ledger import sweep_tasks
from orchestrator.embedded import RedisServer


@pytest.fixture(scope="module")
def taxed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Taxed]:
    """One worker of two processes on the stock transport."""
    place = tmp_path_factory.mktemp("taxed")
    server = RedisServer(place / "redis")
    server.start()
    taxed = Taxed(server)
    try:
        with worker(taxed, place / "worker.log"):
            yield taxed
    finally:
        taxed.close()
        server.stop()


def after(taxed: Taxed, task_id: str, *kinds: str) -> list[tuple[str, str]]:
    """The signals of a task once each of `kinds` came."""
    until(lambda: all(kind in [name for name, _ in taxed.signals(task_id)] for kind in kinds))
    return taxed.signals(task_id)


def test_success_settles_what_was_used(taxed: Taxed) -> None:
    task = taxed.send("t.spend", 700)
    assert task.get(timeout=20) == 700
    assert after(taxed, task.id, "task_postrun") == [("task_prerun", "child"), ("task_success", "child"), ("task_postrun", "child")]
    assert taxed.closed(task.id) == [("settle", 1, 700, "signal")]
    reserved, settled = taxed.events(task.id)
    assert (reserved["t"], reserved["amount"], reserved["tenant"], reserved["node"]) == ("money.reserved", "1000", "acme", "t.spend")
    assert (settled["gen"], set(settled["cats"]) - {"compute"}) == (0, {"llm"})


def test_failure_settles_what_was_used(taxed: Taxed) -> None:
    task = taxed.send("t.fail")
    assert after(taxed, task.id, "task_postrun") == [("task_prerun", "child"), ("task_failure", "child"), ("task_postrun", "child")]
    assert taxed.closed(task.id) == [("settle", 1, 300, "signal")]


def test_a_retry_settles_and_the_same_id_runs_again_as_another_execution(taxed: Taxed) -> None:
    task = taxed.send("t.again")
    assert task.get(timeout=20) == "attempt 2"
    until(lambda: len(taxed.told(task.id, "task_postrun")) == 2)
    names = [name for name, side in taxed.signals(task.id) if side == "child"]
    # The message is out before the execution is over: another process may begin the next one meanwhile.
    assert names.index("before_task_publish") < names.index("task_retry")
    assert sorted(names) == sorted([*["task_prerun", "task_postrun"] * 2, "before_task_publish", "task_retry", "task_success"])
    assert sorted(row["state"] for row in taxed.told(task.id, "task_postrun")) == ["RETRY", "SUCCESS"]
    assert sorted(taxed.closed(task.id, 2)) == [("settle", 1, 100, "signal"), ("settle", 2, 100, "signal")]


@pytest.mark.parametrize(("name", "micros", "state"), [("t.ignored", 50, "IGNORED"), ("t.rejected", 60, "REJECTED")])
def test_what_is_ignored_or_rejected_has_a_postrun_in_the_process_which_settles(name: str, micros: int, state: str, taxed: Taxed) -> None:
    task = taxed.send(name)
    found = after(taxed, task.id, "task_postrun")
    assert [pair for pair in found if pair[1] == "child"] == [("task_prerun", "child"), ("task_postrun", "child")]
    assert [row["state"] for row in taxed.told(task.id, "task_postrun")] == [state]
    assert taxed.closed(task.id) == [("settle", 1, micros, "signal")]
    taxed.send("t.spend").get(timeout=20)
    assert len(taxed.closed(task.id)) == 1


def test_what_is_revoked_before_it_runs_has_one_signal_and_no_execution(taxed: Taxed) -> None:
    task_id = "revoked-before"
    taxed.producer.control.revoke(task_id)
    taxed.send("t.spend").get(timeout=20)
    taxed.send("t.spend", task_id=task_id)
    assert after(taxed, task_id, "task_revoked") == [("task_revoked", "main")]
    assert [(row["terminated"], row["expired"]) for row in taxed.told(task_id, "task_revoked")] == [(False, False)]
    assert taxed.events(task_id) == []


def test_what_has_expired_is_revoked_without_a_prerun_and_has_no_execution(taxed: Taxed) -> None:
    task = taxed.send("t.spend", expires=-1)
    assert after(taxed, task.id, "task_revoked") == [("task_revoked", "main")]
    assert [(row["terminated"], row["expired"]) for row in taxed.told(task.id, "task_revoked")] == [(False, True)]
    assert taxed.events(task.id) == []


@pytest.mark.parametrize(("note", "closed"), [(40, ("settle", 1, 40, "signal")), (0, ("void", 1, 0, "signal"))])
def test_a_terminated_task_is_told_by_revoked_alone_and_pays_what_it_had_noted(
    note: int, closed: tuple[str, int, int, str], taxed: Taxed
) -> None:
    task = taxed.send("t.linger", note)
    taxed.lingering()
    taxed.producer.control.revoke(task.id, terminate=True, signal="SIGKILL")
    found = after(taxed, task.id, "task_revoked")
    assert [pair for pair in found if pair[1] == "main"] == [("task_revoked", "main")]
    assert ("task_postrun", "child") not in found
    assert taxed.told(task.id, "task_revoked")[0]["terminated"]
    assert taxed.closed(task.id) == [closed]


def test_a_hard_time_limit_fails_in_the_main_process_and_closes_once(taxed: Taxed) -> None:
    task = taxed.send("t.limited")
    taxed.lingering()
    until(lambda: len(taxed.told(task.id, "task_failure")) == 2)
    failures = taxed.told(task.id, "task_failure")
    assert [(row["side"], row["exception"]) for row in failures] == [("main", "TimeLimitExceeded")] * 2
    assert ("task_success", "child") not in taxed.signals(task.id)
    assert taxed.closed(task.id) == [("settle", 1, 40, "signal")]
    taxed.send("t.spend").get(timeout=20)
    assert taxed.state(task.id) == [(1, "settled")]
    assert [row["state"] for row in taxed.told(task.id, "task_postrun")] in ([], [None])


def test_a_lost_worker_fails_in_the_main_process_and_pays_what_was_noted(taxed: Taxed) -> None:
    task = taxed.send("t.dies")
    assert after(taxed, task.id, "task_failure") == [("task_prerun", "child"), ("task_failure", "main")]
    assert taxed.told(task.id, "task_failure")[0]["exception"] == "WorkerLostError"
    assert taxed.closed(task.id) == [("settle", 1, 20, "signal")]


def test_a_lost_worker_whose_message_is_requeued_says_nothing_and_the_next_execution_closes_it(taxed: Taxed) -> None:
    task = taxed.send("t.dies_once")
    assert task.get(timeout=30) == "attempt 2"
    found = after(taxed, task.id, "task_success", "task_postrun")
    assert found == [("task_prerun", "child"), ("task_prerun", "child"), ("task_success", "child"), ("task_postrun", "child")]
    assert taxed.closed(task.id, 2) == [("settle", 1, 20, "lost"), ("settle", 2, 20, "signal")]


def test_a_task_that_exits_is_closed_by_the_main_process(taxed: Taxed) -> None:
    task = taxed.send("t.exits")
    found = after(taxed, task.id, "task_failure")
    assert ("task_failure", "main") in found
    assert taxed.closed(task.id) == [("settle", 1, 30, "signal")]


def test_a_process_that_dies_with_its_worker_has_no_signal_and_is_left_to_the_sweeper(taxed: Taxed, tmp_path: Path) -> None:
    with worker(taxed, tmp_path / "other.log", "-Q", "others", "-n", "other@%h", BUDGET_TEST_SILENT="0") as process:
        task = taxed.send("t.linger", queue="others")
        taxed.lingering()
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
    assert taxed.signals(task.id) == [("task_prerun", "child")]
    assert taxed.state(task.id) == [(1, "open")]
    assert sweep_tasks(taxed.link, 0) == 1
    assert taxed.closed(task.id) == [("settle", 1, 40, "sweeper")]
    assert sweep_tasks(taxed.link, 0) == 0


def test_at_the_end_nothing_is_reserved_and_the_day_is_the_sum_of_what_was_settled(taxed: Taxed) -> None:
    until(lambda: taxed.money.zcard("hg1:tasks") == 0)
    every = [entry["e"] for _, entry in taxed.money.xrange("hg1:events")]
    settled = sum(int(event["amount"]) for event in map(json.loads, every) if event["t"] == "money.settled" and event["tenant"] == "acme")
    assert taxed.spent() == {"settled": settled, "reserved": 0, "waste": 0}
    keys = [key for key in taxed.money.scan_iter("hg1:*task*") if key != "hg1:tasks"]
    assert keys
    assert all(0 < taxed.money.ttl(key) <= 3600 for key in keys)


def test_an_untagged_message_runs_as_before(taxed: Taxed) -> None:
    task = taxed.send("t.spend", tenant=None)
    assert task.get(timeout=20) == 700
    assert taxed.events(task.id) == []


def test_what_is_refused_is_revoked_with_the_reason(taxed: Taxed) -> None:
    taxed.fund("beta", 4_999)
    task = taxed.send("t.dear", tenant="beta")
    until(lambda: task.state == "REVOKED")
    assert "'beta' has 0 of 4999 micros committed today, and the task needs 5000 more" in str(task.result)
    assert after(taxed, task.id, "task_revoked") == [("task_revoked", "main")]
    assert [event["t"] for event in taxed.events(task.id)] == ["money.refused"]
    assert taxed.state(task.id) == []
