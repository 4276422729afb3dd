"""Corrections of what was charged: booked once, on record, never below what was charged, and still there after a rebuild."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
import redis
from sqlalchemy import select

from cost.period import day_of, first_of_month_before, month_of
from cost.prices import UsageLine, write_lines
from cost.task_ledger import Claim, Delivery, TaskLedger
from orchestrator.embedded import RedisServer
from orchestrator.recorder.loop import Recorder
from orchestrator.settings import Settings
from orchestrator.store import tables as t
from tests.integration.hands import make_recorder

pytestmark = pytest.mark.both_records

TENANT = "default"


class Cell:
    """A recorder, and the ledger of ordinary tasks of a tenant."""

    def __init__(self, recorder: Recorder, url: str) -> None:
        self.recorder = recorder
        self.link = recorder.link
        self.redis = recorder.link.client
        self.tasks = TaskLedger(lambda: url)
        seconds, _ = self.link.read("TIME")
        self.day = day_of(int(seconds) * 1000)

    def use(self, task: str, cats: str) -> None:
        claim = self.tasks.begin(task, "t.a", TENANT, 1_000, Delivery(task, "", "", "", "w@h"))
        assert isinstance(claim, Claim), claim
        assert self.tasks.report(claim, cats, "signal") == "settled"

    def adjust(self, key: str, amount: int | str, category: str = "llm", day: int | None = None, tenant: str = TENANT) -> tuple[str, int]:
        arguments = (tenant, key, str(amount), category, self.day if day is None else day, "ann", "goodwill", "")
        answer, micros = self.link.call("cost/adjust", *arguments)
        return answer, int(micros)

    def record(self) -> None:
        while self.recorder.step(None):
            pass

    def books(self) -> list[dict[str, int]]:
        """Today's and this month's, without zeroes."""
        rows: Any = [self.redis.hgetall(f"hg1:spent:{TENANT}:{book}") for book in (self.day, f"m{month_of(self.day)}")]
        return [{name: int(value) for name, value in sorted(row.items()) if int(value)} for row in rows]

    def rows(self, table: Any, *where: Any) -> list[dict[str, Any]]:
        self.record()
        with self.recorder.engine.connect() as connection:
            return [dict(row) for row in connection.execute(select(table).where(*where)).mappings()]


@pytest.fixture
def cell(redis_server: RedisServer, settings: Settings) -> Iterator[Cell]:
    cell = Cell(make_recorder(redis_server, settings), redis_server.client_url)
    yield cell
    cell.tasks.link.close()


def test_an_adjustment_is_booked_once_in_day_and_month_and_another_content_is_a_conflict(cell: Cell) -> None:
    cell.use("a", "llm=700,compute=5")
    assert [cell.adjust("k", 300) for _ in range(2)] == [("done", 1_000), ("same", 1_000)]
    assert [cell.adjust(*other)[0] for other in (("k", 301), ("k", 300, "compute"), ("k", 300, "llm", cell.day - 1))] == ["conflict"] * 3
    assert cell.books() == [{"c:compute": 5, "c:llm": 1_000, "settled": 1_005}] * 2


def test_a_refund_gives_back_no_more_than_was_charged_in_its_day_and_category(cell: Cell) -> None:
    cell.use("a", "llm=700,compute=5")
    assert cell.adjust("x", -6, "compute") == ("refused", 5)
    assert cell.adjust("x", -5, "compute") == ("done", 0)
    assert [cell.adjust(key, -400)[0] for key in ("y", "y", "z")] == ["done", "same", "refused"]
    assert cell.adjust("z", -400, day=cell.day - 1) == ("refused", 0)
    assert cell.books() == [{"c:llm": 300, "settled": 300}] * 2


def test_an_adjustment_is_an_entry_of_its_own_and_the_audit_says_who_and_why(cell: Cell) -> None:
    cell.use("a", "llm=700")
    cell.adjust("k", -200)
    (entry,) = cell.rows(t.ledger, t.ledger.c.kind == "adjust")
    said = {name: entry[name] for name in ("tenant", "run_id", "category", "amount", "day", "by", "cause")}
    assert said == {"tenant": TENANT, "run_id": "", "category": "llm", "amount": -200, "day": cell.day, "by": "ann", "cause": "goodwill"}
    (audited,) = cell.rows(t.audit, t.audit.c.action == "money.adjusted")
    assert (audited["actor"], audited["tenant"], json.loads(audited["data"])["reason"]) == ("ann", TENANT, "goodwill")
    assert cell.rows(t.incident) == []


def test_after_a_rebuild_adjustments_are_counted_and_each_id_still_counts_once(cell: Cell) -> None:
    cell.use("a", "llm=700")
    cell.adjust("k", -200)
    cell.adjust("more", 50, "storage")
    cell.record()
    before = cell.books()
    cell.redis.flushall()
    cell.recorder.prepare()
    assert cell.books() == before == [{"c:llm": 500, "c:storage": 50, "settled": 550}] * 2
    assert [cell.adjust(*each)[0] for each in (("k", -200), ("k", -201), ("more", 50, "storage"), ("x", -501))] == [
        "same",
        "conflict",
        "same",
        "refused",
    ]
    assert cell.books() == before
    assert [key for key in cell.redis.scan_iter("hg1:task:*") if key == "hg1:task:"] == []


def test_what_an_ordinary_task_used_is_on_record_with_the_prices_that_made_micros_of_it(cell: Cell) -> None:
    claim = cell.tasks.begin("a", "t.a", TENANT, 1_000, Delivery("a", "", "", "", "w@h"))
    assert isinstance(claim, Claim)
    lines = write_lines([UsageLine("llm", "token", Decimal("2.5"))])
    assert [cell.tasks.report(claim, "llm=50", "signal", "1", lines) for _ in range(2)] == ["settled", "same"]
    (used,) = cell.rows(t.usage)
    assert used == {"run_id": "task.a", "generation": 0, "node_id": "t.a", "attempt": claim.attempt, "price_version": "1", "lines": lines}
    assert [row["price_version"] for row in cell.rows(t.ledger, t.ledger.c.kind == "settle")] == ["1"]


def test_the_books_of_this_month_and_the_one_before_are_open(cell: Cell) -> None:
    first = first_of_month_before(cell.day)
    assert cell.adjust("a", 1, day=first) == ("done", 1)
    assert cell.adjust("b", 1, day=first - 1) == ("closed", first)
    assert cell.adjust("c", 1, day=cell.day + 1) == ("closed", first)
    assert cell.adjust("a", 1, day=first) == ("same", 1)
    assert cell.redis.hget(f"hg1:spent:{TENANT}:m{month_of(first)}", "settled") == "1"


@pytest.mark.parametrize("amount", ["0", "-0", "", "-", "+5", "0x10", "1e3", "nan", "inf", "1.5", str(2**53), f"-{2**53}", "9" * 5_000])
def test_an_amount_that_is_none_changes_nothing(cell: Cell, amount: str) -> None:
    cell.use("a", "llm=700")
    with pytest.raises(redis.ResponseError, match="AMOUNT"):
        cell.adjust("k", amount)
    assert cell.books()[0] == {"c:llm": 700, "settled": 700}


def test_the_largest_amount_is_booked_to_the_micro_and_a_micro_more_is_refused(cell: Cell) -> None:
    cell.use("a", "llm=1")
    assert cell.adjust("k", 2**53 - 2) == ("done", 2**53 - 1)
    with pytest.raises(redis.ResponseError, match="AMOUNT"):
        cell.adjust("l", 1)
    assert cell.adjust("m", -(2**53 - 1)) == ("done", 0)
    assert sum(row["amount"] for row in cell.rows(t.ledger, t.ledger.c.kind != "reserve")) == 0


def test_nobody_s_adjustment_is_unknown(cell: Cell) -> None:
    assert cell.adjust("k", 1, tenant="nobody")[0] == "unknown"
