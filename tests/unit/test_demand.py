"""How many slots a backlog asks for."""

from __future__ import annotations

import pytest

from tenancy.demand import Demand, PoolDemand


@pytest.mark.parametrize(
    ("running", "queued", "queued_ms", "wanted"),
    [
        (0, 0, 0, 0),
        (3, 0, 0, 3),  # what runs keeps its slots
        (0, 1, 10, 1),  # whatever waits is worth a slot
        (2, 100, 60_000, 3),
        (2, 100, 60_001, 4),  # rounded up
        (0, 100, 600_000, 10),
        (1, 2, 3_600_000, 3),  # never more than there are messages
    ],
)
def test_a_pool_asks_for_what_begins_its_backlog_within_the_target(running: int, queued: int, queued_ms: int, wanted: int) -> None:
    assert PoolDemand("default", 4, running, queued, queued_ms).wanted(60.0) == wanted


def test_altogether_pools_add_up_and_a_run_that_waits_is_worth_a_slot() -> None:
    pools = (PoolDemand("default", 0, 1, 10, 120_000), PoolDemand("gpu", 2, 0, 1, 5))
    assert Demand(pools, 0).wanted(60.0) == 4
    assert Demand((), 0).wanted(60.0) == 0
    assert Demand((), 2).wanted(60.0) == 1
    assert Demand(pools, 2).wanted(60.0) == 4
