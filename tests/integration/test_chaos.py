"""Seeds of the chaos harness, made small: real processes are killed and every promise holds afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.chaos.__main__ import play


@pytest.mark.parametrize("seed", [4, 12])
def test_runs_keep_every_promise_while_processes_are_killed(seed: int, tmp_path: Path) -> None:
    result = play(seed, tmp_path / "home", small=True)
    assert result["violations"] == []
    assert sum(result["faults"].values()) >= 1
    assert result["runs"] >= 3
