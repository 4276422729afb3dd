"""Fifty SIGKILLs of real workers and pool processes under load; a thousand are `./dev torture --kills 1000`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks.torture.__main__ import play

ROUNDS, KILLS = 2, 25
TTL_S = 1.0


@pytest.mark.timeout(240)
def test_fifty_kills_lose_nothing_double_nothing_and_leave_no_slot_taken(tmp_path: Path) -> None:
    with ThreadPoolExecutor(ROUNDS) as pool:
        results = list(pool.map(lambda number: play(number, tmp_path / f"round-{number}", KILLS, TTL_S), range(1, ROUNDS + 1)))
    assert [result["violations"] for result in results] == [[], []]
    assert sum(result["kills"] for result in results) == ROUNDS * KILLS
    assert sum(result["killed_executions"] for result in results) > 10
