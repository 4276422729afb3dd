"""With the database away a submission fails in one sentence, what runs goes on, and nothing is lost when it is back."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import redis
from running import Running, producer, until

from orchestrator.embedded import Stack
from orchestrator.graph import Graph
from orchestrator.settings import Settings
from orchestrator.store import read
from tenancy.errors import Unavailable

pytestmark = pytest.mark.timeout(150)
TASKS = ("node_tasks",)
TIMEOUT_S = 60


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    with tempfile.TemporaryDirectory(prefix="hg", ignore_cleanup_errors=True) as name:
        settings = Settings(home=Path(name))
        with Stack(settings, 1, 2, TASKS, console=False) as running:
            client = producer(Settings(home=settings.home, redis_url=running.redis_url, tasks=TASKS))
            with redis.Redis.from_url(running.client_url, decode_responses=True) as connection:
                yield Running(running, client, connection)
            client.engine.dispose()
            client.kernel.link.close()
            client.kernel.app.close()


@contextmanager
def locked(database: Path) -> Iterator[None]:
    """Nobody else can write to the database meanwhile."""
    with closing(sqlite3.connect(database, isolation_level=None, timeout=30)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def test_running_work_goes_on_and_submissions_fail_until_the_database_is_back(
    stack: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = tmp_path / "release"
    first = {"id": "first", "task": "node_tasks.wait_for", "params": {"path": str(release), "log": str(tmp_path / "log")}}
    later = [{"id": f"n{index}", "task": "synthetic.noop", "after": ["first" if index == 0 else f"n{index - 1}"]} for index in range(10)]
    run = stack.client.submit(Graph.parse({"name": "going", "nodes": [first, *later]}))
    until((tmp_path / "log").exists)
    until(lambda: run.status == "running")
    other = Graph.parse({"name": "other", "nodes": [{"id": "a", "task": "synthetic.noop"}]})
    monkeypatch.setattr("orchestrator.recorder.ask.ANSWER_S", 2.0)
    with locked(stack.client.settings.home / "headgate.db"):
        with pytest.raises(Unavailable, match="the recorder did not answer within 2 s"):
            stack.client.submit(other, key="once")
        release.touch()
        until(lambda: stack.redis.hget(f"hg1:run:{run.run_id}.1", "status") == "ended", TIMEOUT_S)
        assert run.status == "running", "the record knows nothing of it yet"
    assert run.wait(TIMEOUT_S).outcome == "succeeded"
    assert len(run.nodes) == 11
    assert {node["attempt"] for node in run.nodes} == {1}

    monkeypatch.undo()
    again = stack.client.submit(other, key="once")  # whether or not the first one came through
    assert again.wait(TIMEOUT_S).outcome == "succeeded"
    assert len(read.list_runs(stack.client.engine, limit=100)) == 2
