"""Two trials of stops: a pause and a cancel with all workers killed after it; a thousand are `./dev stops --trials 1000`."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.stops.__main__ import play
from benchmarks.stops.block import NODES
from benchmarks.stops.verdict import Stop, violations

BEGAN = {"t": "node.began", "run": "r", "gen": 1, "node": "a", "attempt": 1, "tenant": "acme"}
ADMITTED = {"t": "run.admitted", "run": "r", "gen": 1, "tenant": "acme"}
STOP = Stop("cancel run", "r", "", ())


@pytest.mark.timeout(400)
def test_a_run_whose_workers_were_all_killed_in_its_pause_goes_on_without_loss_or_repetition(tmp_path: Path) -> None:
    (paused,) = play(5, 1, tmp_path / "block")
    assert (paused["kind"], paused["faults"][1], paused["violations"]) == ("pause run", "workers", [])
    assert (paused["outcome"], paused["stopped"]) == ("succeeded", True)
    assert paused["began"] >= NODES


@pytest.mark.timeout(400)
def test_nothing_of_a_cancelled_run_begins_though_all_workers_are_started_anew(tmp_path: Path) -> None:
    (cancelled,) = play(8, 1, tmp_path / "block")
    assert (cancelled["kind"], cancelled["faults"][1], cancelled["violations"]) == ("cancel run", "workers", [])
    assert (cancelled["outcome"], cancelled["stopped"]) == ("cancelled", True)


@pytest.mark.parametrize(
    "fence",
    [
        {"t": "run.cancelling", "run": "r"},
        {"t": "node.cancelling", "run": "r", "nodes": ["a"]},
        {"t": "scope.cancelled", "scope": "tenant:acme"},
        {"t": "scope.cancelled", "scope": "platform"},
        {"t": "scope.paused", "scope": "run:r.1"},
        {"t": "scope.paused", "scope": "tenant:acme"},
    ],
)
def test_the_verdict_sees_what_begins_behind_a_fence_and_lets_pass_what_began_before(fence: dict[str, object]) -> None:
    seen = [("r.1.a", 1)]
    assert violations(STOP, [ADMITTED, BEGAN, fence], seen) == []
    assert len(violations(STOP, [ADMITTED, fence, BEGAN], seen)) == 1
    assert violations(STOP, [fence, ADMITTED, BEGAN], seen) == [] or fence["t"] != "scope.cancelled"


def test_the_verdict_sees_executions_that_never_began_and_second_outcomes() -> None:
    ended = {"t": "node.ended", "run": "r", "gen": 1, "node": "a", "outcome": "succeeded"}
    assert violations(STOP, [ADMITTED], [("r.1.a", 1)]) == ["r.1.a ran (attempt 1) and never began"]
    assert len(violations(STOP, [ADMITTED, ended, ended], [])) == 1
