"""Two real beats whose clocks differ by two minutes, one killed, the recorder killed: each scheduled time runs once."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator

import pytest
from beats import Beats
from running import until

from orchestrator.graph import Graph
from orchestrator.store import read
from orchestrator.store.schedules import TickView

EVERY_S = 5


class ScheduleBeats(Beats):
    """Beats, and what they made of the schedule `often`."""

    def submitted(self) -> list[TickView]:
        """Times that have a run."""
        return [tick for tick in self.client.schedules.ticks("often", limit=100) if tick.state == "submitted"]

    def after_another(self) -> None:
        """Return when a time that had not come yet is submitted."""
        seen = len(self.client.schedules.ticks("often", limit=100))
        until(lambda: len(self.submitted()) > seen, 60)


@pytest.fixture
def beats() -> Iterator[ScheduleBeats]:
    with ScheduleBeats.beside(1, 2, schedule_interval_s=1.0) as made:
        yield made


def test_each_time_runs_once_whichever_beat_and_recorder_live(beats: ScheduleBeats) -> None:
    graph = Graph.parse({"name": "often", "nodes": [{"id": "a", "task": "synthetic.noop", "params": {"inputs": [{"$schedule": "time"}]}}]})
    beats.client.schedules.create("often", graph, every_s=EVERY_S, catch_up="all", overlap="allow")
    ahead, behind = beats.start(60), beats.start(-60)
    beats.after_another()
    os.kill(beats.stack.pids()["recorder"], signal.SIGKILL)
    ahead.kill()
    ahead.wait(10)
    beats.after_another()
    assert behind.poll() is None
    beats.client.schedules.pause("often")
    ticks = sorted(beats.client.schedules.ticks("often", limit=100), key=lambda tick: tick.at)
    assert [tick.state for tick in ticks] == ["submitted"] * len(ticks)
    assert [tick.at for tick in ticks] == [ticks[0].at + EVERY_S * nth for nth in range(len(ticks))], "no time was passed over"
    runs = read.list_runs(beats.client.engine)
    assert Counter(run.run_id for run in runs) == Counter(tick.run_id for tick in ticks)
    assert set(Counter(run.key for run in runs).values()) == {1}
    assert {beats.client.run(run.run_id).wait(20).outcome for run in runs} == {"succeeded"}
