"""Corrections of what was charged, by other prices."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cost.money import MICROS_MAX
from cost.prices import PriceTable, UsageLine, read_lines, settle_micros, write_lines
from cost.reprice import Charge, corrections

OLD = PriceTable.of("1", {"compute/second": "1000", "llm/token": "20"})
NEW = PriceTable.of("2", {"compute/second": "1000", "compute/wall_second": "50", "llm/token": "15", "llm/image": "0.5"})
LINES = [UsageLine("llm", "token", Decimal(100)), UsageLine("compute", "second", Decimal("0.25"))]


def test_what_costs_the_same_needs_no_correction() -> None:
    assert corrections([Charge(5, "compute", 250), Charge(5, "llm", 2_000)], LINES, OLD) == []


def test_each_category_is_corrected_by_its_difference() -> None:
    lines = [*LINES, UsageLine("compute", "wall_second", Decimal(2))]
    found = corrections([Charge(5, "compute", 250), Charge(5, "llm", 2_000)], lines, NEW)
    assert found == [Charge(5, "compute", 100), Charge(5, "llm", -500)]


def test_a_category_that_cost_nothing_before_is_charged_on_the_first_day() -> None:
    assert corrections([Charge(7, "", 0)], [UsageLine("llm", "image", Decimal(4))], NEW) == [Charge(7, "llm", 2)]


def test_no_day_gives_back_more_than_it_was_charged() -> None:
    charged = [Charge(5, "llm", 200), Charge(6, "llm", 1_800)]
    assert corrections(charged, LINES[:1], NEW) == [Charge(5, "llm", -200), Charge(6, "llm", -300)]


def test_a_unit_without_a_price_is_an_error() -> None:
    with pytest.raises(ValueError, match="no price for llm/image"):
        corrections([Charge(5, "llm", 1)], [UsageLine("llm", "image", Decimal(4))], OLD)


QUANTITIES = st.decimals(0, 1_000_000, allow_nan=False, places=6)
UNITS = st.sampled_from(
    [("llm", "token"), ("compute", "second"), ("compute", "wall_second"), ("storage", "micros"), ('of, "mine" ü', "micros")]
)
USAGE = st.dictionaries(UNITS, QUANTITIES, max_size=5)


@given(USAGE)
def test_usage_reads_as_it_was_written(usage: dict[tuple[str, str], Decimal]) -> None:
    lines = [UsageLine(*unit, quantity) for unit, quantity in usage.items()]
    read = read_lines(write_lines(lines))
    assert settle_micros(read, NEW) == settle_micros([line for line in lines if line.quantity], NEW)
    assert [(line.category, line.unit, line.quantity) for line in read] == [(x.category, x.unit, x.quantity) for x in lines if x.quantity]


@given(
    USAGE,
    st.lists(
        st.tuples(st.integers(1, 3), st.sampled_from(["llm", "compute", "other"]), st.integers(0, 10**9)),
        min_size=1,
        unique_by=lambda c: c[:2],
    ),
)
def test_corrections_make_of_any_charges_what_the_usage_costs(
    usage: dict[tuple[str, str], Decimal], rows: list[tuple[int, str, int]]
) -> None:
    lines = [UsageLine(*unit, quantity) for unit, quantity in usage.items()]
    after = {(day, category): micros for day, category, micros in rows}
    for day, category, micros in corrections([Charge(*row) for row in sorted(rows)], lines, NEW):
        after[day, category] = after.get((day, category), 0) + micros
    assert min(after.values()) >= 0
    costs = settle_micros(lines, NEW)
    for category in {*costs, *(name for _, name in after)}:
        assert sum(micros for (_, name), micros in after.items() if name == category) == costs.get(category, 0)


def test_usage_of_more_units_than_fit_is_not_on_record() -> None:
    assert write_lines([UsageLine("llm", f"unit-{n}", Decimal(MICROS_MAX)) for n in range(200)]) == ""


@pytest.mark.parametrize(
    "text", ["", "{}", '[["llm"]]', '[["llm","token","-1"]]', '[["llm","token","nan"]]', "[1]", '[["llm","token","x"]]']
)
def test_what_is_no_usage_is_refused(text: str) -> None:
    if text == "{}":
        assert read_lines(text) == []
        return
    with pytest.raises(ValueError):
        read_lines(text)
