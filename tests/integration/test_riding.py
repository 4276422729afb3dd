"""Settlements that wait for a ride: with the next claim, at the end of their process, and when it is killed."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import patient_riders
import pytest
import redis
from running import Running, producer, until

from orchestrator.embedded import Stack
from orchestrator.graph import Graph
from orchestrator.settings import Settings
from orchestrator.store.engine import open_engine
from orchestrator.sweeper import Sweeper

TASKS = ("node_tasks", "patient_riders")


@contextmanager
def one_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """A stack of one worker of one process, whose settlements go when something takes them along, and no beat."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setenv(patient_riders.FLAG, "1")
    with tempfile.TemporaryDirectory(prefix="hg", ignore_cleanup_errors=True) as name:
        home = Path(name)
        with Stack(Settings(home=home), 1, 1, TASKS, beat=False, console=False) as running:
            client = producer(Settings(home=home, redis_url=running.redis_url, tasks=TASKS))
            with redis.Redis.from_url(running.client_url, decode_responses=True) as connection:
                yield Running(running, client, connection)
            client.engine.dispose()
            client.kernel.link.close()
            client.kernel.app.close()


def waits(path: Path, log: Path) -> Graph:
    return Graph.parse(
        {"name": "waits", "nodes": [{"id": "n", "task": "node_tasks.wait_for", "params": {"path": str(path), "log": str(log)}}]}
    )


def test_a_settlement_goes_with_the_next_claim_or_the_end_of_its_process_or_else_the_sweeper_makes_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    there.touch()
    with one_process(monkeypatch) as stack:

        def ended(name: str) -> tuple[str, int]:
            """Run a node to its end; its settlement waits. Returns run and process."""
            run = stack.client.submit(waits(there, tmp_path / name))
            until(lambda: [node["outcome"] for node in run.nodes] == ["succeeded"])
            assert stack.redis.smembers(f"hg1:open:{run.run_id}.1") == {"n:1"}
            return run.run_id, int((tmp_path / name).read_text().split()[1])

        def settled(run_id: str) -> list[tuple[int, str]]:
            events = stack.client.run(run_id).events
            return [(event["attempt"], event["by"]) for event in events if event["t"] == "money.settled"]

        first, _ = ended("first")
        second, process = ended("second")  # its claim took the first one along
        assert stack.client.run(first).wait(20).outcome == "succeeded"
        assert settled(first) == [(1, "signal")]

        os.kill(process, signal.SIGKILL)
        sweeper = Sweeper(stack.app.headgate_kernel, open_engine(Settings(home=stack.stack.home).resolved_database_url()))
        until(lambda: sweeper.sweep() and stack.client.run(second).outcome == "succeeded")
        sweeper.engine.dispose()
        assert settled(second) == [(1, "sweeper")]
        third, _ = ended("third")  # in a new process

        (worker,) = [pid for name, pid in stack.stack.pids().items() if name.startswith("w")]
        os.kill(worker, signal.SIGTERM)
        assert stack.client.run(third).wait(20).outcome == "succeeded"
        assert settled(third) == [(1, "signal")]
