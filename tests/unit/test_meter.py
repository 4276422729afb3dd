from __future__ import annotations

import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from functools import partial

import pytest

from cost.meter import Execution, Usage, meter, metering
from cost.money import MICROS_MAX

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
