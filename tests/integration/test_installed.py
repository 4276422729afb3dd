"""Budgets in somebody's Celery app: what they cover runs, nothing else does, and nothing is lost while they cannot be read."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running import until
from taxed import Taxed, end, worker

from cost.install import install
from cost.task_ledger import TaskLedger, sweep_tasks
from orchestrator.embedded import RedisServer
from tenancy.errors import Unavailable


@pytest.fixture
def taxed(redis_server: RedisServer) -> Iterator[Taxed]:
    taxed = Taxed(redis_server)
    yield taxed
    taxed.close()


@pytest.fixture
def fair(redis_server: RedisServer) -> Iterator[Taxed]:
    taxed = Taxed(redis_server, fair=True)
    yield taxed
    taxed.close()


def test_of_many_tasks_exactly_those_run_that_the_budget_covers(taxed: Taxed, tmp_path: Path) -> None:
    # 1,000 are reserved for each, and each spends 700 and a little CPU: it fits until 1,000 do not.
    taxed.fund("beta", 10_000)
    with worker(taxed, tmp_path / "w.log"):
        sent = [taxed.send("t.spend", 700, tenant="beta") for _ in range(30)]
        until(lambda: all(task.state in ("SUCCESS", "REVOKED") for task in sent))
        ran = [task for task in sent if task.state == "SUCCESS"]
        assert 10 <= len(ran) <= 13
        until(lambda: taxed.money.zcard("hg1:tasks") == 0)
    spent = taxed.spent("beta")
    assert spent["settled"] <= 10_000
    assert spent["reserved"] == 0
    assert spent["settled"] + 1_000 > 10_000
    assert all(taxed.events(task.id)[-1]["t"] == "money.refused" for task in sent if task not in ran)


def test_headers_and_declared_estimates_say_how_much_is_reserved(taxed: Taxed, tmp_path: Path) -> None:
    with worker(taxed, tmp_path / "w.log"):
        sent = {
            "1000": taxed.send("t.spend"),
            "5000": taxed.send("t.dear"),
            "77": taxed.send("t.dear", headers={"estimate_micros": 77}),
            "0": taxed.send("t.spend", headers={"estimate_micros": 0}),
        }
        for amount, task in sent.items():
            task.get()
            assert taxed.events(task.id)[0]["amount"] == amount


@pytest.mark.parametrize("amount", ["0x10", "77", float("nan"), float("inf"), -1, 1.5, 2**53, True, "9" * 5_000, [1]])
def test_an_estimate_that_is_no_amount_is_refused_in_words(amount: Any) -> None:
    app = Taxed.bare()
    ledger = TaskLedger(lambda: "unix:///nowhere")
    with pytest.raises(ValueError, match=r"estimates\['t.a'\] must"):
        install(app, ledger, estimates={"t.a": amount})
    with pytest.raises(ValueError, match="not the id of a tenant"):
        install(app, ledger, untagged="Not An Id")


def test_bad_headers_are_revoked_with_the_reason_and_the_worker_goes_on(taxed: Taxed, tmp_path: Path) -> None:
    with worker(taxed, tmp_path / "w.log"):
        bad = {
            "must be a whole number of micros": {"estimate_micros": "0x10"},
            "must not be negative": {"estimate_micros": -1},
            "must be at most": {"estimate_micros": 2**53},
            "there is no tenant 'nobody'": {"tenant": "nobody"},
            "there is no tenant '../x'": {"tenant": "../x"},
            "there is no tenant '7'": {"tenant": 7},
        }
        sent = {reason: taxed.send("t.spend", headers=headers) for reason, headers in bad.items()}
        for reason, task in sent.items():
            until(lambda task=task: task.state == "REVOKED")  # type: ignore[misc]
            assert reason in str(task.result)
        assert taxed.send("t.spend").get() == 700
        assert taxed.send("t.spend", headers={"estimate_micros": None}).get() == 700


def test_a_charge_beyond_the_reservation_reserves_more_and_one_beyond_the_budget_is_refused(taxed: Taxed, tmp_path: Path) -> None:
    taxed.fund("beta", 10_000)
    with worker(taxed, tmp_path / "w.log"):
        within, beyond = taxed.send("t.greedy", 4_000, tenant="beta"), None
        assert within.get() == "went on"
        until(lambda: taxed.closed(within.id))
        assert "money.extended" in [event["t"] for event in taxed.events(within.id)]
        beyond = taxed.send("t.greedy", 9_000, tenant="beta")
        assert beyond.get() == "stopped at 10000"
        assert taxed.closed(beyond.id) == [("settle", 1, 0, "signal")]


def test_a_task_with_a_base_and_a_request_class_of_its_own_has_a_budget_too(taxed: Taxed, tmp_path: Path) -> None:
    with worker(taxed, tmp_path / "w.log"):
        task = taxed.send("t.theirs")
        assert task.get() == "theirs"
        assert taxed.closed(task.id) == [("settle", 1, 10, "signal")]
        assert taxed.seen.lrange("test:accepted", 0, -1) == [task.id]


@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_other_pools_charge_as_prefork_does(pool: str, taxed: Taxed, tmp_path: Path) -> None:
    with worker(taxed, tmp_path / "w.log", "-P", pool):
        sent = [taxed.send("t.spend", 100 + number) for number in range(6)]
        for number, task in enumerate(sent):
            assert task.get() == 100 + number
            assert taxed.closed(task.id) == [("settle", 1, 100 + number, "signal")]
        again = taxed.send("t.again")
        # Not its state: a thread may say "retry" of the first attempt after another has said "success" of the second.
        assert sorted(taxed.closed(again.id, 2)) == [("settle", 1, 100, "signal"), ("settle", 2, 100, "signal")]


def test_with_the_middleware_disconnected_nothing_is_settled_until_the_sweep(taxed: Taxed, tmp_path: Path) -> None:
    with worker(taxed, tmp_path / "w.log", BUDGET_TEST_DEAF="1", BUDGET_TEST_SILENT="0"):
        good, bad = taxed.send("t.spend"), taxed.send("t.fail")
        until(lambda: (good.state, bad.state) == ("SUCCESS", "FAILURE"))
    assert [taxed.state(task.id) for task in (good, bad)] == [[(1, "open")], [(1, "open")]]
    assert taxed.spent()["settled"] == 0
    assert sweep_tasks(taxed.link, 0) == 2
    assert [event["by"] for task in (good, bad) for event in taxed.events(task.id)[1:]] == ["sweeper", "sweeper"]
    assert taxed.spent()["reserved"] == 0


def test_while_the_budgets_cannot_be_read_tasks_wait_and_are_neither_run_nor_lost(taxed: Taxed, tmp_path: Path) -> None:
    money = RedisServer(tmp_path / "money")
    money.start()
    budgets = Taxed(money)
    try:
        with worker(taxed, tmp_path / "w.log", BUDGET_TEST_MONEY=str(money.socket)):
            taxed.send("t.spend").get()
            money.kill()
            with pytest.raises(Unavailable):
                budgets.link.read("PING")
            waiting = [taxed.send("t.spend") for _ in range(3)]
            until(lambda: (tmp_path / "w.log").read_text().count("its budget cannot be read") >= 2)
            assert [task.state for task in waiting] == ["PENDING"] * 3
            assert [taxed.signals(task.id) for task in waiting] == [[]] * 3
            money.start()
            budgets.link.client.hset("hg1:epoch", "server", budgets.link.server_id())
            for task in waiting:
                assert task.get() == 700
            assert [budgets.closed(task.id) for task in waiting] == [[("settle", 1, 700, "signal")]] * 3
    finally:
        budgets.close()
        money.stop()


def test_a_waiting_task_is_taken_over_when_its_worker_ends(taxed: Taxed, tmp_path: Path) -> None:
    with worker(taxed, tmp_path / "w1.log", BUDGET_TEST_MONEY="/nowhere") as process:
        task = taxed.send("t.spend")
        until(lambda: "its budget cannot be read" in (tmp_path / "w1.log").read_text())
        end(process)
    with worker(taxed, tmp_path / "w2.log"):
        assert task.get() == 700
    assert taxed.closed(task.id) == [("settle", 1, 700, "signal")]


def test_under_the_fair_queue_a_killed_worker_s_task_runs_again_and_each_execution_is_charged(fair: Taxed, tmp_path: Path) -> None:
    with worker(fair, tmp_path / "w1.log", "-n", "w1@%h") as process:
        task = fair.send("t.linger", 40)
        fair.lingering()
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
    assert fair.state(task.id) == [(1, "open")]
    with worker(fair, tmp_path / "w2.log", "-n", "w2@%h"):
        fair.lingering()
        assert fair.closed(task.id)[0][:3] == ("settle", 1, 40)
        until(lambda: fair.state(task.id) == [(1, "settled"), (2, "open")])
        assert sweep_tasks(fair.link, 0) == 0
        fair.producer.control.revoke(task.id, terminate=True, signal="SIGKILL")
        assert fair.closed(task.id, 2)[1] == ("settle", 2, 40, "signal")
    assert fair.spent() == {"settled": 80, "reserved": 0, "waste": 0}


@pytest.mark.parametrize("transport", ["taxed", "fair"])
def test_a_countdown_reserves_when_it_is_due_and_not_before(transport: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    app: Taxed = request.getfixturevalue(transport)
    with worker(app, tmp_path / "w.log"):
        task = app.send("t.spend", countdown=1)
        now = app.send("t.spend")
        assert now.get() == 700
        assert app.events(task.id) == []
        assert task.get() == 700
        assert app.closed(task.id) == [("settle", 1, 700, "signal")]
