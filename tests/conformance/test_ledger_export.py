"""Reading the ledger: entries in their order, however many, with few in memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest
from sqlalchemy import Engine, insert

from orchestrator.store import tables as t
from orchestrator.store.engine import create_tables, open_engine
from orchestrator.store.ledger import charges, entries, month_days, number_of

pytestmark = pytest.mark.both_records

MONTH = date(2026, 11, 1)
ROWS = 20_000


def row(number: int, **values: Any) -> dict[str, Any]:
    day = number_of(MONTH) + number % 30
    execution = {"run_id": f"r{number}", "generation": 1, "node_id": "n", "attempt": 1}
    name = f"r{number}.1.n.1.settle.llm"
    filled = {"id": name, "tenant": "acme", "kind": "settle", "category": "llm", "amount": number, "day": day, "by": "signal"}
    period = date.fromordinal(MONTH.toordinal() + number % 30).isoformat()
    return {
        **filled,
        **execution,
        "at": day * 86_400_000 + number,
        "price_version": "1",
        "period": period,
        "cause": "signal",
        "released": 0,
        "to_hold": 0,
        **values,
    }


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = open_engine(database_url, writer=True)
    create_tables(engine)
    yield engine
    engine.dispose()


def test_a_month_is_read_in_order_with_a_thousand_entries_in_memory(engine: Engine) -> None:
    with engine.begin() as connection:
        for first in range(0, ROWS, 10_000):
            connection.execute(insert(t.ledger), [row(number) for number in range(first, first + 10_000)])
        connection.execute(insert(t.ledger), [row(number, tenant="beta", id=f"b{number}") for number in range(100)])
    tracemalloc.start()
    try:
        count, total, last = 0, 0, (0, 0, "")
        for entry in entries(engine, "acme", MONTH):
            place = (entry["day"], entry["at"], entry["id"])
            assert place > last
            count, total, last = count + 1, total + entry["amount"], place
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (count, total) == (ROWS, sum(range(ROWS)))
    assert peak < 8_000_000


@pytest.mark.parametrize(
    ("month", "days"), [(date(2026, 2, 1), 28), (date(2028, 2, 1), 29), (date(2026, 12, 1), 31), (date(1970, 1, 1), 31)]
)
def test_a_month_has_its_days(month: date, days: int) -> None:
    assert len(month_days(month)) == days
    assert month_days(month)[0] == number_of(month)


def test_an_execution_that_ran_over_midnight_belongs_to_the_day_that_it_began_in(engine: Engine) -> None:
    first = number_of(MONTH)
    later = {"day": first + 1, "period": "2026-11-02", "id": "r0.1.n.1.settle.llm.2026-11-02", "amount": 7}
    at = (first + 1) * 86_400_000 + 5
    with engine.begin() as connection:
        connection.execute(insert(t.ledger), [row(0, amount=3, at=at), row(0, at=at, **later), row(30, amount=1), row(31, amount=2)])

    def found(since: int, until: int) -> list[list[int]]:
        return [[each["amount"] for each in group] for group in charges(engine, "acme", first + since, first + until)]

    assert found(0, 0) == [[3, 7], [1]]
    assert found(1, 1) == [[2]]
    assert found(0, 1) == [[3, 7], [1], [2]]
