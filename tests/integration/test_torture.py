"""Fifty SIGKILLs of real workers and pool processes under load; a thousand are `./dev torture --kills 1000`."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.torture.__main__ import play

KILLS = 50
TTL_S, GAP_S = 1.0, 0.5


@pytest.mark.timeout(240)
def test_fifty_kills_lose_nothing_double_nothing_and_leave_no_slot_taken(tmp_path: Path) -> None:
    result = play(1, tmp_path / "round", KILLS, TTL_S, GAP_S)
    assert result["violations"] == []
    assert result["kills"] == KILLS
    assert result["killed_executions"] > 10
