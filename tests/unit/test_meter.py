from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from functools import partial
from typing import Any

import pytest

from cost.meter import Execution, Usage, meter, metering
from cost.money import MICROS_MAX, check_micros, parse_units
from cost.prices import PriceTable
from tenancy.errors import BudgetRefused, Unavailable

pytestmark = pytest.mark.unit

FIRST = Execution("01hq0000000000000000000000", 1, "draft", 2, "acme")
SECOND = Execution("01hq0000000000000000000000", 1, "merge", 1, "acme")


def test_outside_a_node_nothing_is_recorded_but_arguments_are_checked() -> None:
    meter.charge("llm", 5, "token")
    assert (meter.attempt, meter.idempotency_key) == (1, "local")
    with pytest.raises(ValueError, match="no price"):
        meter.charge("llm", 5, "furlong")
    with pytest.raises(ValueError, match="quantity"):
        meter.charge("llm", float("nan"), "token")


def test_a_node_is_charged_by_category_and_knows_its_attempt() -> None:
    with metering(FIRST) as usage:
        meter.charge("llm", 500 * 3, "token")
        meter.charge("retrieval", 1, "query")
        meter.charge("llm", 7, "micros")
        assert meter.attempt == 2
        assert meter.idempotency_key == "01hq0000000000000000000000.1.draft"
    assert usage.by_category() == {"llm": 30_007, "retrieval": 50}
    assert meter.idempotency_key == "local"


def test_many_small_charges_cost_what_one_large_one_does() -> None:
    with metering(FIRST) as usage:
        for _ in range(1000):
            meter.charge("compute", 0.0004, "second")
    assert usage.by_category() == {"compute": 400}
    assert [line.quantity for line in usage.lines] == [Decimal("0.4")]


@pytest.mark.parametrize(
    ("covered", "charged", "reserved", "cats"),
    [
        (100, 60, 100, {"llm": 60, "compute": 12}),  # it fits
        (100, 95, 100, {"llm": 95, "compute": 5}),  # as far as it fits
        (100, 100, 100, {"llm": 100}),
        (200, 95, 100, {"llm": 95, "compute": 12}),  # more could be reserved
    ],
)
def test_what_a_strict_execution_is_measured_to_use_ends_with_what_is_covered(
    covered: int, charged: int, reserved: int, cats: dict[str, int]
) -> None:
    asked: list[str] = []

    def extend(cats: str) -> None:
        asked.append(cats)
        if sum(int(pair.split("=")[1]) for pair in cats.split(",")) > covered:
            raise BudgetRefused("no more", limit=covered, current=covered)

    strict = Execution("01hq0000000000000000000000", 1, "draft", 1, "acme", extend=extend, reserved_micros=reserved, strict=True)
    with metering(strict) as usage:
        meter.charge("llm", charged, "micros")
    usage.close(0.0124)
    assert usage.by_category() == cats
    assert sum(cats.values()) <= covered
    plain = Execution("01hq0000000000000000000000", 1, "draft", 1, "acme", extend=extend, reserved_micros=reserved)
    asked.clear()
    with metering(plain) as usage:
        meter.charge("llm", charged, "micros")
    usage.close(0.0124)
    assert usage.by_category() == {"llm": charged, "compute": 12}
    assert not asked, "what was used is charged, whoever is asked"


def test_closing_adds_the_cpu_seconds_once_and_ends_charging() -> None:
    with metering(FIRST) as usage:
        meter.charge("llm", 1, "token")
    usage.close(0.0125)
    usage.close(0.0125)
    assert usage.by_category() == {"llm": 20, "compute": 12}  # 12.5 half-even
    with pytest.raises(RuntimeError, match="has ended"):
        usage.charge("llm", 1, "token")


def test_closing_without_seconds_adds_nothing() -> None:
    usage = Usage(FIRST)
    usage.close()
    assert usage.by_category() == {}
    with pytest.raises(ValueError, match="quantity"):
        Usage(FIRST).close(float("nan"))


def test_a_refused_charge_leaves_the_usage_as_it_was() -> None:
    with metering(FIRST) as usage:
        meter.charge("llm", MICROS_MAX, "micros")
        for quantity, unit in ((1, "token"), (1, "micros"), (0.5, "micros"), (-1, "token")):
            with pytest.raises(ValueError):
                meter.charge("llm", quantity, unit)
    usage.close(3.0)
    assert usage.by_category() == {"llm": MICROS_MAX}


def test_an_unknown_category_is_booked_as_other_and_named_once() -> None:
    with metering(FIRST) as usage:
        meter.charge("gpu", 3, "micros")
        meter.charge("gpu", 4, "micros")
    assert usage.by_category() == {"other": 7}
    assert usage.warnings == ("category 'gpu' is unknown and was booked as other",)


def test_200_charges_from_many_threads_are_200() -> None:
    with metering(FIRST) as usage, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: meter.charge("other", 1, "micros"), range(200)))
    assert usage.by_category() == {"other": 200}


def test_coroutines_and_their_threads_charge_their_own_node() -> None:
    async def node(execution: Execution, quantity: int) -> dict[str, int]:
        with metering(execution) as usage:
            await asyncio.gather(*(asyncio.to_thread(meter.charge, "other", quantity, "micros") for _ in range(5)))
            assert meter.attempt == execution.attempt
        return usage.by_category()

    async def both() -> list[dict[str, int]]:
        return await asyncio.gather(node(FIRST, 1), node(SECOND, 100))

    assert asyncio.run(both()) == [{"other": 5}, {"other": 500}]


def test_with_several_nodes_a_thread_of_none_is_refused_and_a_copied_context_is_not() -> None:
    refusals: list[str] = []

    def charge() -> None:
        try:
            meter.charge("other", 1, "micros")
        except RuntimeError as error:
            refusals.append(str(error))

    with metering(FIRST) as first, metering(SECOND) as second:
        context = contextvars.copy_context()
        for target in (charge, partial(context.run, charge)):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()
    assert len(refusals) == 1
    assert "copy_context" in refusals[0]
    assert (first.by_category(), second.by_category()) == ({}, {"other": 1})


# -- money while it runs -----------------------------------------------------------------------------------------------------


class Purse:
    """Covers up to `most` micros and remembers what it was told."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.told: list[str] = []

    def extend(self, cats: str) -> None:
        self.told.append(cats)
        total = sum(int(part.partition("=")[2]) for part in cats.split(","))
        if total > self.most:
            raise BudgetRefused("no more", limit=self.most, current=total)


def extending(most: int, reserved: int | None = 100) -> tuple[Execution, Purse]:
    purse = Purse(most)
    return Execution("01hq0000000000000000000000", 1, "draft", 1, "acme", extend=purse.extend, reserved_micros=reserved), purse


def test_only_a_charge_beyond_what_is_covered_asks_for_more() -> None:
    execution, purse = extending(1000)
    with metering(execution):
        meter.charge("llm", 60, "micros")
        meter.charge("other", 40, "micros")
        assert purse.told == []
        meter.charge("llm", 1, "micros")
        meter.charge("llm", 0, "micros")
    assert purse.told == ["llm=61,other=40"]


def test_without_a_known_reservation_every_charge_is_told() -> None:
    execution, purse = extending(1000, reserved=None)
    with metering(execution):
        meter.charge("llm", 1, "micros")
        meter.charge("llm", 1, "micros")
    assert purse.told == ["llm=1", "llm=2"]


def test_a_refused_charge_is_not_charged_and_what_was_used_before_is() -> None:
    execution, purse = extending(150)
    with metering(execution) as usage:
        meter.charge("llm", 120, "micros")
        with pytest.raises(BudgetRefused):
            meter.charge("llm", 31, "micros")
        assert usage.by_category() == {"llm": 120}
        meter.charge("llm", 30, "micros")  # what still fits goes on
    usage.close(2.0)
    assert usage.by_category() == {"llm": 150, "compute": 2000}  # CPU was used: nobody is asked
    assert purse.told == ["llm=120", "llm=151", "llm=150"]


def test_what_was_used_already_counts_although_it_is_refused() -> None:
    execution, _ = extending(150)
    with metering(execution) as usage:
        with pytest.raises(BudgetRefused):
            meter.charge("llm", 400, "micros", used=True)
        assert usage.by_category() == {"llm": 400}
        with pytest.raises(BudgetRefused):
            meter.charge("other", 1, "micros")
    assert usage.by_category() == {"llm": 400}


def test_what_cannot_be_asked_is_not_charged_either() -> None:
    def away(_cats: str) -> None:
        raise Unavailable("Redis is away")

    with metering(Execution("01hq0000000000000000000000", 1, "draft", 1, "acme", extend=away)) as usage, pytest.raises(Unavailable):
        meter.charge("llm", 1, "micros")
    assert usage.by_category() == {}


def test_parallel_charges_of_1_stop_exactly_at_what_is_covered() -> None:
    execution, purse = extending(150, reserved=0)
    refused = []

    def charge(_: int) -> None:
        try:
            meter.charge("other", 1, "micros")
        except BudgetRefused:
            refused.append(1)

    with metering(execution) as usage, ThreadPoolExecutor(8) as pool:
        list(pool.map(charge, range(200)))
    assert (usage.by_category(), len(refused)) == ({"other": 150}, 50)
    assert max(int(cats.partition("=")[2]) for cats in purse.told) == 151


# -- time --------------------------------------------------------------------------------------------------------------------


class Clock:
    """Stands where `time` is asked; moves when it is told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("cost.meter.time", made)
    return made


def seconds(usage: Usage) -> dict[str, Decimal]:
    return {line.category: line.quantity for line in usage.lines if line.unit == "wall_second"}


PRICED = PriceTable.of("9", {"compute/second": "1000", "compute/wall_second": "10", "llm/wall_second": "100"})


def priced(most: int = 10**9) -> Execution:
    return Execution("01hq0000000000000000000000", 1, "draft", 1, "acme", PRICED, extend=Purse(most).extend)


def test_a_block_is_charged_for_the_seconds_that_it_took(clock: Clock) -> None:
    with metering(priced()) as usage:
        for _ in range(2):
            with meter.timed("llm"):
                clock.now += 1.5
    assert (seconds(usage), usage.by_category()) == ({"llm": 3}, {"llm": 300})


def test_a_block_inside_one_of_its_category_adds_nothing_and_one_of_another_does(clock: Clock) -> None:
    async def inner() -> None:
        with meter.timed("llm"):
            await asyncio.to_thread(once)

    def once() -> None:
        with meter.timed("llm"):
            clock.now += 1

    with metering(priced()) as usage, meter.timed("llm"):
        asyncio.run(inner())
        with meter.timed("compute"):
            clock.now += 2
    assert seconds(usage) == {"llm": 3, "compute": 2}


def test_blocks_side_by_side_in_threads_count_each(clock: Clock) -> None:
    both = threading.Barrier(3)

    def block() -> None:
        with meter.timed("llm"):
            both.wait()
            both.wait()

    with metering(priced()) as usage:
        threads = [threading.Thread(target=block) for _ in range(2)]
        for thread in threads:
            thread.start()
        both.wait()
        clock.now += 4
        both.wait()
        for thread in threads:
            thread.join()
    assert seconds(usage) == {"llm": 8}


def test_a_block_that_raises_is_charged_and_its_error_is_the_one_that_is_seen(clock: Clock) -> None:
    @meter.timed("llm")
    def fails() -> None:
        clock.now += 1
        raise KeyError("mine")

    with metering(priced(most=50)) as usage:
        with pytest.raises(KeyError, match="mine"):
            fails()
        with pytest.raises(BudgetRefused), meter.timed("llm"):
            clock.now += 1
    assert seconds(usage) == {"llm": 2}


def test_a_category_that_is_none_is_refused_before_the_block(clock: Clock) -> None:
    with metering(priced()), pytest.raises(ValueError, match="a category is a text"), meter.timed(""):
        pytest.fail("the block began")
    with meter.timed("llm"):  # outside a node nothing is recorded
        pass


def test_a_node_s_wall_seconds_are_recorded_and_free_unless_a_table_says_otherwise() -> None:
    free, paying = Usage(FIRST), Usage(priced())
    for usage in (free, paying):
        usage.close(0.5, 8.0)
    assert (seconds(free), free.by_category()) == ({"compute": 8}, {"compute": 500})
    assert paying.by_category() == {"compute": 580}


def test_timed_compute_is_part_of_a_node_s_wall_seconds(clock: Clock) -> None:
    with metering(priced()) as usage:
        with meter.timed("compute"):
            clock.now += 3
        clock.now += 1
    usage.close(None, 4.0)
    assert seconds(usage) == {"compute": 4}


# -- amounts that are none -----------------------------------------------------------------------------------------------------

NO_AMOUNTS = [
    float("nan"),
    float("inf"),
    float("-inf"),
    -1,
    -0.01,
    2**53,
    "0x10",
    "1",
    10**4999,
    "9" * 5000,
    Decimal("9" * 5000),
    None,
    True,
]


@pytest.mark.parametrize("amount", NO_AMOUNTS, ids=lambda amount: f"{type(amount).__name__}")
def test_an_amount_that_is_none_is_refused_in_one_short_sentence(amount: Any) -> None:
    ways: list[Callable[[], Any]] = [
        lambda: meter.charge("llm", amount, "token"),
        lambda: meter.charge("llm", amount, "micros"),
        lambda: check_micros(amount),
        lambda: PriceTable.of("2", {"compute/second": "1", "llm/token": amount if amount != "1" else "1e3"}),
    ]
    if amount != "1":
        ways.append(lambda: parse_units(amount))
    with metering(FIRST) as usage:
        for way in ways:
            with pytest.raises(ValueError) as refused:
                way()
            assert len(str(refused.value)) < 200
            assert "\n" not in str(refused.value)
    assert usage.by_category() == {}
