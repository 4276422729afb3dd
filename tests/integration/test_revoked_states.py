"""What Celery's own tools see of a node that was cancelled while it ran: REVOKED, in the result backend and in Flower's events."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

from celery.events.state import State
from celery.exceptions import TaskRevokedError
from celery.result import AsyncResult
from running import CELERY_WORKERS, Running, by_id, until

from orchestrator.graph import Graph


@contextlib.contextmanager
def watched(stack: Running) -> Iterator[State]:
    """What Flower would know of tasks, from the workers' events."""
    seen, done = State(), threading.Event()

    def listen() -> None:
        with stack.app.connection_for_read() as connection:
            receiver = stack.app.events.Receiver(connection, handlers={"*": seen.event})
            while not done.is_set():
                with contextlib.suppress(socket.timeout):
                    receiver.capture(limit=None, timeout=0.5, wakeup=False)

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        told = stack.app.control.enable_events(reply=True, timeout=10, limit=CELERY_WORKERS)
        assert len(told) == CELERY_WORKERS
        until(lambda: len(seen.workers) >= CELERY_WORKERS)
        yield seen
    finally:
        stack.app.control.disable_events()
        done.set()
        thread.join(10)


def test_a_node_cancelled_while_it_runs_is_revoked_in_the_backend_and_in_flower(stack: Running, tmp_path: Path) -> None:
    nodes = [
        {"id": "told", "task": "node_tasks.until_cancelled", "params": {"path": str(tmp_path / "began")}},
        {"id": "fine", "task": "synthetic.noop"},
        {"id": "next", "task": "synthetic.noop", "after": ["told"]},
    ]
    with watched(stack) as seen:
        run = stack.client.submit(Graph.parse({"name": "g", "nodes": nodes}))
        until(lambda: (tmp_path / "began").exists())
        assert run.cancel("told")
        assert run.wait(30).outcome == "failed"
        told, fine = (f"{run.run_id}.1.{node}" for node in ("told", "fine"))
        until(lambda: told in seen.tasks and seen.tasks[told].state == "REVOKED")
        until(lambda: fine in seen.tasks and seen.tasks[fine].state == "SUCCESS")
    result = AsyncResult(told, app=stack.app)
    until(lambda: result.state == "REVOKED")
    node = by_id(run)["told"]
    assert (node["outcome"], node["attempt"]) == ("cancelled", 1)
    assert node["cost_micros"] > 0  # what it did is charged
    assert not stack.redis.exists(f"hg1:open:{run.run_id}.1")


def test_nodes_that_never_were_published_have_their_states_in_celerys_backend(stack: Running) -> None:
    nodes = [
        {"id": "fine", "task": "synthetic.noop"},
        {"id": "bad", "task": "synthetic.fail", "params": {"times": 9}, "attempts": 1},
        {"id": "lost", "task": "synthetic.noop", "after": ["bad"]},
        {"id": "other", "task": "synthetic.noop", "when": {"$ref": "fine", "equals": "never"}},
    ]
    run = stack.client.submit(Graph.parse({"name": "states", "nodes": nodes})).wait(30)
    assert run.outcome == "failed"
    shown = {node: AsyncResult(f"{run.run_id}.1.{node}", app=stack.app) for node in (*by_id(run), "none")}
    until(lambda: shown["bad"].state == "FAILURE")  # its worker stores it
    assert {node: result.state for node, result in shown.items()} == {
        "fine": "SUCCESS",
        "bad": "FAILURE",
        "lost": "REVOKED",
        "other": "SUCCESS",
        "none": "PENDING",
    }
    assert shown["other"].result.startswith("skipped: not taken: ")
    assert isinstance(shown["lost"].result, TaskRevokedError)
    stack.redis.delete(f"celery-task-meta-{run.run_id}.1.bad")
    expired = AsyncResult(f"{run.run_id}.1.bad", app=stack.app)
    assert expired.state == "FAILURE"
    assert str(expired.result).startswith("RuntimeError: ")
    assert AsyncResult("somebody-elses", app=stack.app).state == "PENDING"


def test_a_node_is_started_while_it_runs_and_pending_before(stack: Running, tmp_path: Path) -> None:
    release, log = tmp_path / "release", tmp_path / "log"
    nodes = [
        {"id": "runs", "task": "node_tasks.wait_for", "params": {"path": str(release), "log": str(log)}},
        {"id": "waits", "task": "synthetic.noop", "after": ["runs"]},
    ]
    run = stack.client.submit(Graph.parse({"name": "started", "nodes": nodes}))
    try:
        until(lambda: AsyncResult(f"{run.run_id}.1.runs", app=stack.app).state == "STARTED")
        assert AsyncResult(f"{run.run_id}.1.waits", app=stack.app).state == "PENDING"
    finally:
        release.touch()
    assert run.wait(30).outcome == "succeeded"
