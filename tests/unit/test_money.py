from __future__ import annotations

from decimal import Decimal

import pytest

from cost.money import MICROS_MAX, check_micros, format_units, normalise_category, parse_units, split_largest_remainder

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("text", "micros"),
    [("0.06", 60_000), ("0", 0), ("1", 1_000_000), ("0.000001", 1), ("9007199254.740991", MICROS_MAX), (Decimal("0.060"), 60_000)],
)
def test_units_are_parsed_as_decimals(text: str | Decimal, micros: int) -> None:
    assert parse_units(text) == micros


@pytest.mark.parametrize(
    "value",
    [
        0.06, float("nan"), float("inf"), 5, True, None, b"1",
        "nan", "NaN", "inf", "-1", "-0", "+1", "1e3", "1E3", "0x10", "1_000", "1,5", "", " 1", "1 ", "1\n", ".5", "1.", "0.0000001", "٣",
        "9007199254.740992", "9" * 5000, "0." + "0" * 5000, "0" * 5000 + "1",
        Decimal("NaN"), Decimal("-1"), Decimal("Infinity"), Decimal("1E+3"), Decimal("1E+999999"), Decimal("1E-7"),
        Decimal("9007199254.740992"),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_whatever_is_not_a_plain_amount_is_refused_in_few_words(value: object) -> None:
    with pytest.raises(ValueError) as refusal:
        parse_units(value)  # type: ignore[arg-type]
    assert len(str(refusal.value)) < 200


@pytest.mark.parametrize(
    "value", [1.0, float("nan"), True, "1", None, -1, 2**53, 10**5000, Decimal(1)], ids=lambda value: type(value).__name__
)
def test_an_amount_in_micros_is_an_int_in_range(value: object) -> None:
    with pytest.raises(ValueError, match="budget"):
        check_micros(value, "budget")


@pytest.mark.parametrize("micros", [0, 1, 60_000, 999_999, 1_000_000, 1_500_000, MICROS_MAX])
def test_what_is_shown_can_be_typed_again(micros: int) -> None:
    assert parse_units(format_units(micros)) == micros
    assert parse_units(format_units(micros, decimals_min=3)) == micros


def test_amounts_are_shown_without_needless_decimals() -> None:
    assert [format_units(60_000), format_units(2_000_000), format_units(60_000, 3), format_units(0, 2)] == ["0.06", "2", "0.060", "0.00"]


def test_an_unknown_category_is_booked_as_other_with_a_warning() -> None:
    assert normalise_category("llm") == ("llm", False)
    assert normalise_category("gpu") == ("other", True)


def test_a_split_adds_up_and_ties_go_to_the_first_key() -> None:
    assert split_largest_remainder(10, {"b": 1, "a": 1, "c": 1}) == {"b": 3, "a": 4, "c": 3}
    assert split_largest_remainder(5, {"a": 0, "b": 0}) == {"a": 3, "b": 2}
    assert split_largest_remainder(MICROS_MAX, {"a": MICROS_MAX, "b": 1}) == {"a": MICROS_MAX - 1, "b": 1}
    with pytest.raises(ValueError, match="nothing"):
        split_largest_remainder(1, {})
