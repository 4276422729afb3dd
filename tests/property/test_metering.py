"""What is charged is what was used and not refused, whatever is charged in which order."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cost.meter import Execution, metering
from cost.money import CATEGORIES, MICROS_MAX, check_micros
from cost.prices import check_quantity
from tenancy.errors import BudgetRefused

pytestmark = pytest.mark.property

charges = st.lists(st.tuples(st.sampled_from(CATEGORIES), st.integers(0, 100), st.booleans()), max_size=30)
anything = st.one_of(
    st.floats(),
    st.integers(),
    st.integers(-(10**5000), 10**5000),
    st.decimals(allow_nan=True, allow_infinity=True),
    st.text(),
    st.none(),
    st.booleans(),
    st.complex_numbers(),
    st.binary(),
    st.sampled_from([2**53, 2**53 - 1, "0x10", "9" * 5000, -0.0, 1e-300, 1e300]),
)


@given(charges, st.integers(0, 500), st.one_of(st.none(), st.integers(0, 500)))
def test_nothing_used_is_lost_and_nothing_refused_is_charged(made: list[tuple[str, int, bool]], most: int, reserved: int | None) -> None:
    covered = max(most, reserved or 0)
    told: list[int] = []

    def extend(cats: str) -> None:
        told.append(sum(int(part.partition("=")[2]) for part in cats.split(",") if part))
        if told[-1] > covered:
            raise BudgetRefused("no more")

    expected = dict.fromkeys(CATEGORIES, 0)
    with metering(Execution("r", 1, "n", 1, "acme", extend=extend, reserved_micros=reserved)) as usage:
        for category, micros, used in made:
            fits = sum(expected.values()) + micros <= covered
            try:
                usage.charge(category, micros, "micros", used=used)
                assert fits
            except BudgetRefused:
                assert not fits
                if not used:
                    continue
            expected[category] += micros
    assert {name: found for name, found in expected.items() if found} == {n: m for n, m in usage.by_category().items() if m}
    assert all(total > (reserved or -1) for total in told)


@given(anything)
def test_whatever_is_given_as_an_amount_is_one_or_is_refused_in_one_short_sentence(value: Any) -> None:
    for check, kind in ((check_quantity, Decimal), (check_micros, int)):
        taken, said = None, ""
        try:
            taken = check(value)
        except ValueError as error:
            said = str(error)
        assert (0 < len(said) < 200) if taken is None else (isinstance(taken, kind) and 0 <= taken <= MICROS_MAX)
