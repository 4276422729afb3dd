"""The money of ordinary Celery tasks, script by script, on a real Redis."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from cost.task_ledger import ATTEMPTS_PER_HOUR, Claim, Delivery, Refusal, TaskLedger, sweep_tasks
from orchestrator.embedded import RedisServer
from tenancy.errors import BudgetRefused, Fenced, Unavailable
from tenancy.transport.queue import Queue

TASK = "f3a1"


class Cell:
    """Two tenants with 10,000 micros a day, and the ledger of ordinary tasks."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.ledger = TaskLedger(lambda: url, silent_s=0)
        self.redis = self.ledger.link.client
        self.redis.hset("hg1:epoch", mapping={"epoch": 1, "server": self.ledger.link.server_id(), "seq": 0})
        for tenant in ("acme", "beta"):
            self.redis.hset(f"hg1:tenant:{tenant}", mapping={"limit_day": 10_000, "max_runs": 1, "status": "active", "version": 1})

    def begin(self, claim: str = "c1", amount: int = 1_000, tenant: str = "acme", task: str = TASK) -> Claim | Refusal:
        return self.ledger.begin(task, "t.a", tenant, amount, Delivery(claim, "", "", "", "w@h"))

    def claim(self, *args: Any, **kwargs: Any) -> Claim:
        found = self.begin(*args, **kwargs)
        assert isinstance(found, Claim), found
        return found

    def day(self, tenant: str = "acme") -> dict[str, int]:
        row: dict[str, str] = self.redis.hgetall(next(iter(self.redis.scan_iter(f"hg1:spent:{tenant}:[0-9]*"))))  # type: ignore[assignment]
        return {name: int(value) for name, value in row.items() if name in ("settled", "reserved", "waste") and int(value)}

    def events(self) -> list[tuple[str, int, str]]:
        every = [json.loads(entry["e"]) for _, entry in self.redis.xrange("hg1:events")]  # type: ignore[union-attr]
        return [(event["t"].removeprefix("money."), event.get("attempt", 0) % ATTEMPTS_PER_HOUR, event.get("by", "")) for event in every]


@pytest.fixture
def cell(redis_server: RedisServer) -> Iterator[Cell]:
    cell = Cell(redis_server.client_url)
    yield cell
    cell.ledger.link.close()


def test_a_claim_whose_reply_was_lost_is_the_same_and_reserves_once(cell: Cell) -> None:
    first = cell.claim()
    assert cell.claim() == first == Claim(TASK, "t.a", first.attempt, "acme", 1_000)
    assert first.ordinal == 1
    assert cell.day() == {"reserved": 1_000}


def test_a_report_settles_once_whatever_is_repeated(cell: Cell) -> None:
    claim = cell.claim()
    assert [cell.ledger.report(claim, "llm=700", "signal") for _ in range(3)] == ["settled", "same", "same"]
    assert cell.ledger.report(claim, "llm=701", "signal") == "conflict"
    assert cell.ledger.close(claim, "signal") == "same"
    assert cell.day() == {"settled": 700}


def test_an_execution_that_noted_nothing_is_void_and_what_it_still_reports_is_waste(cell: Cell) -> None:
    claim = cell.claim()
    assert [cell.ledger.close(claim, "signal") for _ in range(2)] == ["void", "same"]
    assert [cell.ledger.report(claim, "llm=30", "signal") for _ in range(2)] == ["waste", "same"]
    assert cell.day() == {"settled": 30, "waste": 30}


def test_what_was_noted_is_charged_at_the_close_and_only_the_rest_is_waste(cell: Cell) -> None:
    claim = cell.claim()
    cell.ledger.note(claim, "llm=200,storage=5")
    assert cell.ledger.close(claim, "sweeper") == "settled"
    assert cell.day() == {"settled": 205}
    assert [cell.ledger.report(claim, "compute=7,llm=250,storage=5", "signal") for _ in range(2)] == ["waste", "same"]
    assert cell.day() == {"settled": 262, "waste": 57}
    assert cell.events() == [("reserved", 1, ""), ("settled", 1, "sweeper"), ("settled", 1, "signal")]


def test_what_is_closed_without_a_report_names_the_prices_by_which_it_was_noted(cell: Cell) -> None:
    claim = cell.claim()
    cell.ledger.note(claim, "llm=40", price_version="7")
    assert cell.ledger.close(claim, "sweeper") == "settled"
    event = json.loads(cell.redis.xrevrange("hg1:events", count=1)[0][1]["e"])  # type: ignore[index]
    assert (event["t"], event["by"], event["price_version"]) == ("money.settled", "sweeper", "7")


def test_a_report_below_what_was_noted_is_a_conflict_and_charges_nothing(cell: Cell) -> None:
    claim = cell.claim()
    cell.ledger.note(claim, "llm=200")
    cell.ledger.close(claim, "sweeper")
    assert cell.ledger.report(claim, "llm=100", "signal") == "conflict"
    assert cell.day() == {"settled": 200}


def test_the_next_claim_closes_the_one_before_as_lost(cell: Cell) -> None:
    first = cell.claim("c1")
    cell.ledger.note(first, "llm=40")
    second = cell.claim("c2")
    assert second.ordinal == 2
    assert cell.day() == {"settled": 40, "reserved": 1_000}
    third = cell.claim("c3")
    assert cell.events()[-3:] == [("reserved", 2, ""), ("voided", 2, "lost"), ("reserved", 3, "")]
    assert cell.ledger.report(second, "llm=9", "signal") == "waste"
    assert cell.ledger.report(third, "llm=1", "signal") == "settled"
    assert cell.day() == {"settled": 50, "waste": 9}


def test_an_execution_that_retries_is_not_taken_for_lost(cell: Cell) -> None:
    first = cell.claim("c1")
    cell.ledger.note(first, "llm=40", leaving=True)
    second = cell.claim("c2")
    assert cell.ledger.report(first, "llm=41", "signal") == "settled"
    assert cell.ledger.report(second, "llm=1", "signal") == "settled"
    assert cell.day() == {"settled": 42}


@pytest.mark.parametrize(("amount", "fits"), [(10_000, True), (10_001, False), (0, True)])
def test_what_does_not_fit_is_refused_with_the_numbers_and_leaves_nothing(amount: int, fits: bool, cell: Cell) -> None:
    found = cell.begin(amount=amount)
    if fits:
        assert isinstance(found, Claim)
        return
    assert found == Refusal("budget", "10000", "0")
    assert not list(cell.redis.scan_iter(f"hg1:*{TASK}*"))


def test_unknown_closed_and_suspended_tenants_are_refused(cell: Cell) -> None:
    assert cell.begin(tenant="nobody") == Refusal("unknown", "", "")
    for status in ("closed", "suspended"):
        cell.redis.hset("hg1:tenant:beta", "status", status)
        assert cell.begin(tenant="beta", task=status) == Refusal(status, "", "")
    assert not list(cell.redis.scan_iter("hg1:purse:*"))


def test_what_the_fair_queue_gave_out_before_a_suspension_runs(cell: Cell) -> None:
    cell.redis.hset("hg1:tenant:beta", "status", "suspended")
    assert isinstance(cell.ledger.begin(TASK, "t.a", "beta", 1, Delivery("c", "inc", "m1", "1", "w")), Claim)


def test_a_task_id_belongs_to_one_tenant(cell: Cell) -> None:
    claim = cell.claim()
    assert cell.begin("c2", tenant="beta") == Refusal("other_tenant", "", "")
    assert cell.ledger.report(claim, "llm=1", "signal") == "settled"
    assert cell.day() == {"settled": 1}


def test_usage_beyond_the_reservation_reserves_more_or_stops(cell: Cell) -> None:
    claim = cell.claim(amount=1_000)
    cell.ledger.note(claim, "llm=4000")
    assert cell.day() == {"reserved": 4_000}
    with pytest.raises(BudgetRefused) as refused:
        cell.ledger.note(claim, "llm=10001")
    assert (refused.value.limit, refused.value.current) == (10_000, 4_000)
    assert cell.day() == {"reserved": 4_000}
    assert cell.ledger.close(claim, "signal") == "settled"
    assert cell.day() == {"settled": 4_000}


def test_no_number_that_is_none_passes_the_scripts(cell: Cell) -> None:
    for amount in ("0x10", "1e3", "nan", "inf", "-1", "1.5", "9007199254740992", "9" * 5_000):
        with pytest.raises(Exception, match="AMOUNT"):
            cell.begin(amount=amount)  # type: ignore[arg-type]
        claim = cell.claim("kept")
        with pytest.raises(Exception, match="AMOUNT"):
            cell.ledger.report(claim, f"llm={amount}", "signal")
    assert cell.day() == {"reserved": 1_000}


def test_a_sweep_closes_what_was_silent_for_its_patience_and_goes_through_all(cell: Cell) -> None:
    for number in range(450):
        cell.claim(task=f"t{number}", amount=10)
    assert sweep_tasks(cell.ledger.link, 60_000) == 0
    assert sweep_tasks(cell.ledger.link, 0) == 450
    assert sweep_tasks(cell.ledger.link, 0) == 0
    assert cell.day() == {}


def test_a_patient_task_is_left_alone_by_the_sweep(cell: Cell) -> None:
    cell.ledger.silent_ms = 60_000
    cell.claim()
    assert sweep_tasks(cell.ledger.link, 0) == 0
    assert cell.day() == {"reserved": 1_000}


def test_under_the_fair_queue_a_task_is_lost_when_its_delivery_is_held_no_more(cell: Cell) -> None:
    queue = Queue(cell.ledger.link)
    queue.enroll("inc", 4_000, {"name": "w", "tasks": []})
    queue.put("{}", "acme", 5, "default", 1)
    held = queue.pop("inc", "default")
    assert held is not None
    cell.ledger.begin(TASK, "t.a", "acme", 100, Delivery("c", "inc", held.tag, str(held.number), "w"))
    assert sweep_tasks(cell.ledger.link, 0) == 0
    queue.ack("inc", held.tag, held.number)
    assert sweep_tasks(cell.ledger.link, 0) == 1
    assert cell.events()[-1] == ("voided", 1, "sweeper")


def test_what_was_acknowledged_before_it_ran_is_lost_when_its_worker_is(cell: Cell) -> None:
    queue = Queue(cell.ledger.link)
    queue.enroll("inc", 60_000, {"name": "w", "pools": ["default"]})
    queue.put("{}", "acme", 5, "default", 10)
    held = queue.pop("inc", "default")
    assert held is not None
    cell.ledger.begin(TASK, "t.a", "acme", 100, Delivery("c", "inc", held.tag, "", "w"))
    queue.ack("inc", held.tag, held.number)
    assert sweep_tasks(cell.ledger.link, 0) == 0
    queue.retire("inc")
    assert sweep_tasks(cell.ledger.link, 0) == 1


def test_the_keys_of_a_task_go_an_hour_after_its_end_and_not_while_it_runs(cell: Cell) -> None:
    claim = cell.claim()
    keys = [f"hg1:task:{TASK}", f"hg1:purse:task.{TASK}.0", f"hg1:res:task.{TASK}.0"]
    assert [cell.redis.ttl(key) for key in keys] == [-1] * 3
    cell.ledger.report(claim, "llm=1", "signal")
    assert all(3_590 < int(cell.redis.ttl(key)) <= 3_600 for key in keys)  # type: ignore[arg-type]
    cell.claim("c2")
    assert [cell.redis.ttl(key) for key in keys] == [-1] * 3


def test_while_the_record_is_too_far_behind_nothing_is_reserved_and_what_runs_is_charged(cell: Cell) -> None:
    running, patient = cell.claim(), TaskLedger(lambda: cell.url, lag_ms=lambda: 60_000)
    cell.redis.mset({"hg1:recorded": "1-0", "hg1:recorded:at": 0})
    assert isinstance(patient.begin("young", "t.a", "acme", 1_000, Delivery("c2", "", "", "", "w@h")), Claim), "its first event is young"
    first = json.loads(cell.redis.xrange("hg1:events")[0][1]["e"])  # type: ignore[index]
    cell.redis.delete("hg1:events")
    cell.redis.xadd("hg1:events", {"e": json.dumps({**first, "at": first["at"] - 61_000})}, id="1-1")
    with pytest.raises(Unavailable, match="the recorder is behind"):
        patient.begin("late", "t.a", "acme", 1_000, Delivery("c3", "", "", "", "w@h"))
    assert not cell.redis.exists("hg1:task:late")
    assert cell.ledger.report(running, "llm=400", "signal") == "settled"
    cell.redis.set("hg1:recorded", "1-9")
    assert isinstance(patient.begin("late", "t.a", "acme", 1_000, Delivery("c3", "", "", "", "w@h")), Claim)
    patient.link.close()


def test_between_two_epochs_no_script_passes(cell: Cell) -> None:
    cell.redis.hdel("hg1:epoch", "server")
    with pytest.raises(Fenced):
        cell.begin()
    with pytest.raises(Fenced):
        sweep_tasks(cell.ledger.link, 0)
