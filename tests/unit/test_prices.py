from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from cost.money import MICROS_MAX
from cost.prices import DEFAULT_PRICES, PriceTable, UsageLine, check_quantity, reserve_micros, settle_micros

pytestmark = pytest.mark.unit


def lines(*quantities: str, unit: str = "second") -> list[UsageLine]:
    return [UsageLine("compute", unit, Decimal(quantity)) for quantity in quantities]


def test_a_token_costs_20_micros_and_a_cpu_second_1000() -> None:
    assert DEFAULT_PRICES.price("llm", 1500, "token") == 30_000
    assert DEFAULT_PRICES.price("compute", 0.5, "second") == 500


def test_a_price_is_exact_before_it_is_rounded() -> None:
    assert DEFAULT_PRICES.price("compute", 0.1234567, "second") == Decimal("123.4567")
    assert DEFAULT_PRICES.price("storage", MICROS_MAX, "byte") == Decimal(MICROS_MAX) * Decimal("0.002")


def test_the_unit_micros_books_directly_under_any_category() -> None:
    assert DEFAULT_PRICES.price("llm", 7, "micros") == 7
    assert settle_micros([UsageLine("gpu", "micros", Decimal(7))], DEFAULT_PRICES) == {"other": 7}


def test_settlements_round_half_even_per_line_and_reservations_up() -> None:
    assert [settle_micros(lines(q), DEFAULT_PRICES)["compute"] for q in ("0.0005", "0.0015", "0.0025", "0.0014")] == [0, 2, 2, 1]
    assert reserve_micros(lines("0.000000000001"), DEFAULT_PRICES) == {"compute": 1}
    assert settle_micros([*lines("0.0015"), *lines("0.6", unit="micros")], DEFAULT_PRICES) == {"compute": 3}


def test_a_table_may_price_a_category_of_its_own_and_books_it_as_other() -> None:
    table = PriceTable("2", {("compute", "second"): Decimal(1), ("gpu", "hour"): Decimal("1.5")})
    assert settle_micros([UsageLine("gpu", "hour", Decimal(3))], table) == {"other": 4}


def test_a_unit_without_a_price_is_refused_naming_those_that_have_one() -> None:
    with pytest.raises(ValueError, match=r"no price for llm/second; it has compute/second"):
        DEFAULT_PRICES.price("llm", 1, "second")


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), -1, -0.5, True, "1", None, 2**53, 10**5000, 1e300, Decimal("sNaN"), Decimal("1E+999999"), 1j],
    ids=lambda value: type(value).__name__,
)
def test_a_quantity_is_a_finite_number_in_range(value: object) -> None:
    with pytest.raises(ValueError, match="quantity"):
        check_quantity(value)


@pytest.mark.parametrize("value", [2, 2.0, Decimal(2), Fraction(4, 2), np.int64(2), np.float64(2), np.float32(2)])
def test_every_kind_of_number_is_a_quantity(value: object) -> None:
    assert check_quantity(value) == 2


def test_a_tiny_or_negative_zero_quantity_is_zero() -> None:
    assert str(check_quantity(-0.0)) == str(check_quantity(5e-324)) == str(check_quantity(0))


@pytest.mark.parametrize("price", ["NaN", "Infinity", "-1", "1E+20"])
def test_a_table_with_a_senseless_price_is_refused(price: str) -> None:
    with pytest.raises(ValueError, match="llm/token"):
        PriceTable("2", {("compute", "second"): Decimal(1), ("llm", "token"): Decimal(price)})


def test_a_table_prices_what_every_node_is_charged_for() -> None:
    with pytest.raises(ValueError, match="compute/second"):
        PriceTable("2", {})


def test_a_table_is_read_as_it_was_written() -> None:
    table = PriceTable.of("2026-11", {"compute/second": "1000", "llm/token": "0.0200"})
    assert table.price("llm", 1, "token") == Decimal("0.02")
    assert table.texts() == {"compute/second": "1000", "llm/token": "0.02"}
    assert PriceTable.of("2026-11", table.texts()) == table
    assert PriceTable.of("1", DEFAULT_PRICES.texts()) == DEFAULT_PRICES


@pytest.mark.parametrize(
    ("version", "prices", "says"),
    [
        ("", {"compute/second": "1"}, "version"),
        ("a b", {"compute/second": "1"}, "version"),
        (2, {"compute/second": "1"}, "version"),
        ("2", {}, "1 to 1000"),
        ("2", ["compute/second"], "1 to 1000"),
        ("2", {"compute": "1"}, "is not category/unit"),
        ("2", {"compute/second": "1", "llm/token/2": "1"}, "is not category/unit"),
        ("2", {"compute/second": "1", "llm/micros": "1"}, "micros are money already"),
        ("2", {"compute/second": 1}, "such as"),
        ("2", {"compute/second": 0.5}, "such as"),
        ("2", {"compute/second": "1e3"}, "such as"),
        ("2", {"compute/second": "-1"}, "such as"),
        ("2", {"compute/second": "9999999999999999"}, "2\\^53-1"),
        ("2", {"llm/token": "1"}, "needs compute/second"),
    ],
)
def test_a_table_that_does_not_read_is_refused_in_a_sentence(version: object, prices: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        PriceTable.of(version, prices)


def test_elapsed_time_is_free_where_a_table_has_no_price_for_it() -> None:
    assert DEFAULT_PRICES.price("llm", 5, "wall_second") == 0
