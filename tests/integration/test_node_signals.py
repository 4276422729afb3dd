"""Graph nodes on a stack without beat: signals alone settle what ends in a signal, and without them only the sweeper does."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import deaf_tasks
import pytest
import redis
from running import Running, producer, until

from orchestrator import canvas
from orchestrator.assembly import HeadgateApp
from orchestrator.embedded import Stack
from orchestrator.graph import Graph
from orchestrator.handle import RunHandle
from orchestrator.settings import Settings
from orchestrator.store.engine import open_engine
from orchestrator.sweeper import Sweeper

TASKS = ("node_tasks", "deaf_tasks")
TIMEOUT_S = 20


@contextmanager
def unswept(monkeypatch: pytest.MonkeyPatch, *, deaf: bool = False) -> Iterator[Running]:
    """A stack of one worker and no beat."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    if deaf:
        monkeypatch.setenv(deaf_tasks.FLAG, "1")
    with tempfile.TemporaryDirectory(prefix="hg", ignore_cleanup_errors=True) as name:
        home = Path(name)
        with Stack(Settings(home=home, stale_after_s=0.1), 1, 2, TASKS, beat=False, console=False) as running:
            client = producer(Settings(home=home, redis_url=running.redis_url, tasks=TASKS))
            with redis.Redis.from_url(running.client_url, decode_responses=True) as connection:
                yield Running(running, client, connection)
            client.engine.dispose()
            client.kernel.link.close()
            client.kernel.app.close()


def one(task: str, /, attempts: int = 1, timeout_s: int = 30, **params: Any) -> Graph:
    node = {"id": "n", "task": task, "params": params, "attempts": attempts, "timeout_s": timeout_s}
    return Graph.parse({"name": "one", "nodes": [node]})


def closed(stack: Running, run: RunHandle, count: int) -> list[tuple[str, int, str]]:
    """What became of each execution: event, attempt, by."""

    def found() -> list[tuple[str, int, str]]:
        every = [event for event in run.events if event["t"] in ("money.settled", "money.voided")]
        return [(event["t"], event["attempt"], event["by"]) for event in every]

    until(lambda: len(found()) >= count)
    return found()


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def test_signals_alone_settle_every_row_of_a_node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(canvas, "HARD_LIMIT_GRACE_S", 1)
    settled = "money.settled"
    with unswept(monkeypatch) as stack:
        submit = stack.client.submit
        run = submit(one("synthetic.noop")).wait(TIMEOUT_S)
        assert (run.outcome, closed(stack, run, 1)) == ("succeeded", [(settled, 1, "signal")])

        run = submit(one("synthetic.fail", times=9)).wait(TIMEOUT_S)
        assert (run.outcome, closed(stack, run, 1)) == ("failed", [(settled, 1, "signal")])

        run = submit(one("theirs.retrying", attempts=2, times=1)).wait(TIMEOUT_S)
        assert (run.outcome, closed(stack, run, 2)) == ("succeeded", [(settled, 1, "signal"), (settled, 2, "signal")])

        began = tmp_path / "began"
        run = submit(one("node_tasks.stubborn", timeout_s=1, path=str(began), seconds=20)).wait(TIMEOUT_S)
        assert (run.outcome, closed(stack, run, 1)) == ("failed", [(settled, 1, "signal")])

        release, log = tmp_path / "release", tmp_path / "log"
        run = submit(one("node_tasks.wait_for", path=str(release), log=str(log)))
        until(lambda: lines(log))
        os.kill(int(lines(log)[0].split()[1]), signal.SIGKILL)
        until(lambda: len(lines(log)) == 2)  # the message came again by itself: nothing is told of the first execution
        release.touch()
        assert run.wait(TIMEOUT_S).outcome == "succeeded"
        assert closed(stack, run, 2) == [("money.voided", 1, "lost"), (settled, 2, "signal")]

        stays, log = tmp_path / "stays", tmp_path / "terminated"
        run = submit(one("node_tasks.wait_for", path=str(stays), log=str(log)))
        until(lambda: lines(log))
        stack.app.control.revoke(f"{run.run_id}.1.n", terminate=True, signal="SIGKILL")
        assert closed(stack, run, 1) == [("money.voided", 1, "signal")]
        assert stack.redis.hget(f"hg1:purse:{run.run_id}.1", "open") == "0"


def test_with_the_middleware_disconnected_nothing_is_settled_until_the_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    with unswept(monkeypatch, deaf=True) as stack:
        run = stack.client.submit(one("synthetic.noop"))
        until(lambda: [node["outcome"] for node in run.nodes] == ["succeeded"])
        until(lambda: not stack.redis.exists(*[f"hg1:unacked:{inc}" for inc in stack.redis.zrange("hg1:incarnations", 0, -1)]))
        assert stack.redis.smembers(f"hg1:open:{run.run_id}.1") == {"n:1"}
        assert run.outcome is None

        app: HeadgateApp = stack.app
        sweeper = Sweeper(app.headgate_kernel, open_engine(Settings(home=stack.stack.home).resolved_database_url()))
        sweeper.age_ms = 0
        assert sweeper.sweep().settled == 1
        assert run.wait(TIMEOUT_S).outcome == "succeeded"
        assert closed(stack, run, 1) == [("money.settled", 1, "sweeper")]
        assert [event["price_version"] for event in run.events if event["t"] == "money.settled"] == ["1"]
        sweeper.engine.dispose()
