"""A sketch of what a quantity was like: quantiles, fading, merging, and reading it back."""

from __future__ import annotations

import random

import pytest

from cost.learning.distribution import ACCURACY, Distribution

pytestmark = pytest.mark.unit


def of(*values: float) -> Distribution:
    made = Distribution()
    for value in values:
        made.add(value)
    return made


def test_a_quantile_is_within_two_per_cent_of_the_value_of_that_rank() -> None:
    dice = random.Random(1)
    values = [dice.paretovariate(1.5) * 1_000 for _ in range(5_000)]
    found = of(*values)
    for share in (0.01, 0.5, 0.9, 0.99):
        exact = sorted(values)[int(share * (len(values) - 1))]
        assert abs(found.quantile(share) - exact) <= ACCURACY * exact * 1.001
    assert found.mean == pytest.approx(sum(values) / len(values))


def test_what_has_faded_counts_less_and_what_came_since_in_full() -> None:
    found = of(*[1_000.0] * 100)
    found.fade(0.01)
    assert found.weight == pytest.approx(1)
    assert found.quantile(0.5) == pytest.approx(1_000, rel=ACCURACY)
    for _ in range(3):
        found.add(10)
    assert found.mean == pytest.approx((1_000 + 3 * 10) / 4)
    assert found.quantile(0.5) == pytest.approx(10, rel=ACCURACY)


def test_ten_thousand_fadings_leave_no_number_that_is_too_large_and_no_bin_of_long_ago() -> None:
    found = of(5, 50, 500)
    for _ in range(10_000):
        found.fade(0.99)
        found.add(70)
    assert found.weight == pytest.approx(100, rel=0.01)
    assert len(found.to_document()["bins"]) == 1
    assert found.mean == pytest.approx(70)


def test_two_merged_are_as_if_all_had_come_to_one() -> None:
    one, other = of(1, 2, 3), of(0, 400)
    other.fade(0.5)
    one.merge(other)
    assert one.weight == pytest.approx(4)
    assert one.mean == pytest.approx((6 + 200) / 4)


def test_read_back_it_is_the_same() -> None:
    found = of(0, 3, 10**15)
    found.fade(0.3)
    again = Distribution.from_document(found.to_document())
    assert again.to_document() == found.to_document()
    assert [again.quantile(q / 10) for q in range(11)] == [found.quantile(q / 10) for q in range(11)]


def test_of_nothing_all_is_0_and_what_is_no_value_is_refused() -> None:
    assert (Distribution().mean, Distribution().weight, Distribution().quantile(0.9)) == (0, 0, 0)
    for value, weight in ((-1, 1.0), (1, 0.0), (1, -2.0)):
        with pytest.raises(ValueError, match="cannot be added"):
            Distribution().add(value, weight)
