"""A block of random operations on money with faults; a million are `./dev money --operations 1000000`."""

from __future__ import annotations

import pytest

from benchmarks.money.__main__ import play


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", [11, 12])
def test_random_operations_with_faults_charge_each_execution_once_and_never_pass_a_limit(seed: int) -> None:
    result = play(seed, 1, 1_000)
    assert result["violations"] == []
    assert result["operations"] >= 1_000
    assert result["counts"]["settle: settled"] > 80
