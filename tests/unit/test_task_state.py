"""What Flower's state makes of our log: each outcome as Celery's state, however often it is told, and no more tasks than are kept."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest

from orchestrator.web.task_state import TaskState

RUN = "0" * 26


def event(kind: str, node: str = "n", **said: Any) -> dict[str, Any]:
    return {"t": kind, "run": RUN, "gen": 1, "node": node, "tenant": "acme", "at": 5_000, **said}


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        ("succeeded", "SUCCESS"),
        ("skipped", "SUCCESS"),
        ("failed", "FAILURE"),
        ("timed_out", "FAILURE"),
        ("cancelled", "REVOKED"),
        ("upstream_failed", "REVOKED"),
    ],
)
def test_every_outcome_is_the_state_that_celery_has_for_it(outcome: str, state: str) -> None:
    tasks = TaskState()
    tasks.note(event("node.began", attempt=1, worker="w1@h", at=2_000), "t.a", counts=True)
    for _ in range(2):
        tasks.note(event("node.ended", attempt=1, outcome=outcome, reason="because"), "t.a", counts=True)
    task = tasks.tasks[f"{RUN}.1.n"]
    assert (task.state, task.tenant, task.run, task.node, task.name) == (state, "acme", RUN, "n", "t.a")
    assert (task.runtime, task.worker.hostname) == (3.0, "w1@h")
    assert task.result == ('"skipped: because"' if outcome == "skipped" else "" if outcome == "succeeded" else None)
    assert task.as_dict()["tenant"] == "acme"


def test_a_node_that_never_began_is_listed_and_makes_no_worker() -> None:
    tasks = TaskState()
    tasks.note(event("node.ended", outcome="upstream_failed", reason="f failed"), "t.a", counts=True)
    assert tasks.tasks[f"{RUN}.1.n"].state == "REVOKED"
    assert not tasks.workers
    tasks.note(event("node.began", node="m", attempt=1, worker="gone@h"), "t.a", counts=False)
    assert not tasks.workers
    assert not tasks.counter


def test_a_retry_shows_the_error_and_the_next_attempt_runs() -> None:
    tasks = TaskState()
    tasks.note(event("node.began", attempt=1, worker="w1@h"), "t.a", counts=False)
    tasks.note(event("node.retry", attempt=1, error='{"type": "Boom", "message": "no"}'), "t.a", counts=False)
    assert (tasks.tasks[f"{RUN}.1.n"].state, tasks.tasks[f"{RUN}.1.n"].exception) == ("RETRY", "Boom: no")
    tasks.note(event("node.began", attempt=2, worker="w1@h"), "t.a", counts=False)
    assert (tasks.tasks[f"{RUN}.1.n"].state, tasks.tasks[f"{RUN}.1.n"].retries) == ("STARTED", 1)


def test_no_more_tasks_are_kept_than_flower_is_told_to_and_the_search_forgets_the_others() -> None:
    tasks = TaskState(max_tasks_in_memory=10)
    for at in range(50):
        tasks.note(event("node.ended", node=f"n{at}", outcome="succeeded"), "t.a", counts=False)
    assert len(tasks.tasks) == 10
    assert len(tasks.search_engine.documents) == 10
    found = tasks.search_engine.search(tasks.tasks, "acme").task_ids
    assert len(found) == 10


def test_a_task_that_is_let_go_of_is_freed_without_the_collector() -> None:
    state = TaskState(max_tasks_in_memory=5, max_workers_in_memory=5)
    gc.disable()
    try:
        for number in range(5):
            state.note(event("node.began", node=f"n{number}", worker="w1"), "work", counts=False)
            state.note(event("node.ended", node=f"n{number}", outcome="failed", worker="w1"), "work", counts=False)
        gone = [weakref.ref(task) for task in state.tasks.values()]
        for number in range(5, 10):
            state.note(event("node.began", node=f"n{number}"), "work", counts=False)
        assert [each() for each in gone] == [None] * 5
    finally:
        gc.enable()
