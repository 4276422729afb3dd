"""A worker that is told to end, by SIGTERM under load: it finishes what runs, pops nothing more, and ends within the grace period."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from running import producer, until

from orchestrator.client import Client
from orchestrator.embedded import Stack
from orchestrator.embedded.commands import Commands
from orchestrator.embedded.commands import worker as worker_command
from orchestrator.embedded.stack import GRACE_S
from orchestrator.graph import Graph
from orchestrator.handle import RunHandle
from orchestrator.settings import Settings

HERE = Path(__file__).resolve().parent
TASKS = "winding_tasks"
LONG_S = 2.0
BEGUN_LATE_S = 0.5
"""A node whose message was popped when the signal came may still begin."""
pytestmark = pytest.mark.timeout(300)


class Fleet:
    """A stack of one worker with two slots that is told to end again and again, with a producer."""

    def __init__(self, stack: Stack, client: Client, marks: Path, rounds: int) -> None:
        self.stack, self.client, self.marks, self.rounds = stack, client, marks, rounds
        self.random = random.Random(0)

    def submit(self, short: int, long: int) -> RunHandle:
        nodes = [{"id": f"n{at}", "task": f"{TASKS}.nap", "params": {"s": LONG_S if at < long else 0.0}} for at in range(short + long)]
        self.random.shuffle(nodes)
        return self.client.submit(Graph.parse({"name": "load", "nodes": nodes}))

    def send(self, names: list[str]) -> None:
        app = self.client.kernel.app
        with app.producer_or_acquire() as using:
            for name in names:
                app.send_task("winding.mark", (name, 0.01), priority=1, producer=using, ignore_result=True)

    def term(self) -> tuple[float, float]:
        """SIGTERM for the worker at a random moment; returns when, and when it had ended."""
        pid = self.stack.pids()["w1"]
        process = psutil.Process(pid)
        at = time.time() + self.random.uniform(0.0, 0.3)
        until(lambda: time.time() >= at)
        process.terminate()
        told = time.time()
        until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE, 60)
        ended = time.time()
        self.stack.child("w1").deaths = 0
        until(lambda: self.stack.pids().get("w1") not in (None, pid))
        return told, ended


@pytest.fixture(params=[("prefork", 6), ("threads", 3)], ids=["prefork", "threads"])
def fleet(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    """A stack whose worker has the pool in question."""
    pool, rounds = request.param
    home = Path(tempfile.mkdtemp(prefix="hgend"))
    marks = home / "marks"
    marks.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(HERE), prepend=os.pathsep)
    monkeypatch.setenv("TESTS_MARKS", str(marks))
    commands = replace(Commands(), worker=lambda index, slots: (*worker_command(index, slots), "-P", pool))
    with Stack(Settings(home=home, backlog_per_slot=1_000), 1, 2, [TASKS], beat=False, console=False, commands=commands) as stack:
        client = producer(Settings(home=home, redis_url=stack.redis_url, tasks=(TASKS,), backlog_per_slot=1_000))
        yield Fleet(stack, client, marks, rounds)
        client.engine.dispose()
        client.kernel.link.close()
        client.kernel.app.close()
    shutil.rmtree(home, ignore_errors=True)


def test_sigterm_under_load_loses_nothing_repeats_nothing_and_keeps_within_the_grace(fleet: Fleet) -> None:
    runs, names, waits = [], [], []
    for round_ in range(fleet.rounds):
        run = fleet.submit(short=150, long=2 if round_ % 2 else 0)
        sent = [f"{round_}-{at}" for at in range(40)]
        fleet.send(sent)
        names += sent
        until(lambda run=run: any(node["started_at"] for node in run.nodes))
        told, ended = fleet.term()
        waits.append(ended - told)
        runs.append((run, told, ended))
    assert max(waits) < GRACE_S, waits
    for run, told, ended in runs:
        run.wait(timeout_s=60)
        assert {(node["outcome"], node["attempt"]) for node in run.nodes} == {("succeeded", 1)}
        late = [node["id"] for node in run.nodes if told + BEGUN_LATE_S < node["started_at"] < ended]
        assert not late, f"begun while the worker was winding down: {late}"
    # An ordinary task has no gate: only the queue keeps it from running twice.
    until(lambda: len(list(fleet.marks.iterdir())) == len(names))
    assert {path.name: path.read_text() for path in fleet.marks.iterdir()} == dict.fromkeys(names, "x")
