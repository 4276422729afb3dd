"""Workers of two releases side by side: each node runs where its task is, and fails with names where that is nowhere any more."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from running import Running, by_id, producer, until

from orchestrator.embedded import Stack, commands
from orchestrator.embedded.commands import Commands
from orchestrator.graph import Graph
from orchestrator.settings import Settings
from tenancy.transport.fleet import workers

HERE = Path(__file__).resolve().parent
OLD, NEW = "node_tasks", "node_tasks,slot_tasks"
WAIT_S = 1.0
TIMEOUT_S = 60.0
pytestmark = pytest.mark.timeout(240)


class Fleet:
    """Two workers that run what a file says when they start: a deployment that is replaced one worker at a time."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.deploy(1, OLD, "one")
        self.deploy(2, NEW, "two")

    def deploy(self, index: int, tasks: str, release: str) -> None:
        (self.home / f"worker-{index}").write_text(f"export HEADGATE_TASKS={tasks} HEADGATE_RELEASE={release}\n")

    def command(self, index: int, concurrency: int) -> tuple[str, ...]:
        return ("sh", "-c", f'. {self.home}/worker-{index}; exec "$@"', "worker", *commands.worker(index, concurrency))

    def upgrade(self, running: Running, index: int, tasks: str, release: str) -> None:
        """Replace a worker: it is told to end, finishes what it runs, and comes back as what was deployed."""
        link = running.client.kernel.link
        before = {each.id for each in workers(link)}
        self.deploy(index, tasks, release)
        psutil.Process(running.stack.pids()[f"w{index}"]).terminate()
        until(lambda: [each for each in workers(link) if each.id not in before and each.name.startswith(f"w{index}@")], TIMEOUT_S)
        until(lambda: len(workers(link)) == 2, TIMEOUT_S)


@pytest.fixture(scope="module")
def fleet() -> Iterator[tuple[Fleet, Running]]:
    home = Path(tempfile.mkdtemp(prefix="hgroll"))
    before = dict(os.environ)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), *filter(None, [before.get("PYTHONPATH")])])
    fleet = Fleet(home)
    try:
        settings = Settings(home=home, task_wait_s=WAIT_S)
        with Stack(settings, 2, 2, console=False, commands=Commands(worker=fleet.command)) as stack:
            client = producer(settings.model_copy(update={"redis_url": stack.redis_url, "tasks": tuple(NEW.split(","))}))
            with redis.Redis.from_url(stack.client_url, decode_responses=True) as connection:
                yield fleet, Running(stack, client, connection)
            client.engine.dispose()
            client.kernel.link.close()
            client.kernel.app.close()
    finally:
        os.environ.clear()
        os.environ.update(before)
        Settings.forget()
        shutil.rmtree(home, ignore_errors=True)


def mixed(log: Path, old: int, new: int, *more: dict[str, Any]) -> Graph:
    nodes: list[dict[str, Any]] = [{"id": f"old{at}", "task": "node_tasks.slowly", "params": {"text": "x"}} for at in range(old)]
    nodes += [{"id": f"new{at}", "task": "slots.free", "params": {"log": str(log), "seconds": 0.02}} for at in range(new)]
    return Graph.parse({"name": "mixed", "nodes": [*nodes, *more]})


def test_old_and_new_workers_side_by_side_lose_nothing_and_repeat_nothing(fleet: tuple[Fleet, Running], tmp_path: Path) -> None:
    deployment, running = fleet
    run = running.client.submit(mixed(tmp_path / "log", 10, 20)).wait(TIMEOUT_S)
    nodes = by_id(run)
    assert run.outcome == "succeeded"
    assert {node["attempt"] for node in nodes.values()} == {1}
    assert {node["worker"].split("@")[0] for id_, node in nodes.items() if id_.startswith("new")} == {"w2"}  # the other one lacks it
    load = running.client.submit(mixed(tmp_path / "log", 50, 300))
    until(lambda: sum(node["outcome"] == "succeeded" for node in load.nodes) > 10)
    deployment.upgrade(running, 1, NEW, "two")
    nodes = by_id(load.wait(TIMEOUT_S))
    assert load.outcome == "succeeded"
    assert {node["attempt"] for node in nodes.values()} == {1}
    assert len((tmp_path / "log").read_text().splitlines()) == 20 + 300


def test_a_node_whose_task_no_worker_of_its_pool_has_any_more_fails_and_names_pool_task_and_versions(
    fleet: tuple[Fleet, Running], tmp_path: Path
) -> None:
    deployment, running = fleet
    client = running.client
    client.pause("platform", reason="until the release before is back")
    try:
        optional = {"id": "optional", "task": "slots.free", "params": {"log": "", "seconds": 0}, "required": False}
        after = {"id": "after", "task": "node_tasks.slowly", "params": {"text": "x"}, "after": ["optional"]}
        run = client.submit(mixed(tmp_path / "log", 1, 1, optional, after))
        for index in (1, 2):
            deployment.upgrade(running, index, OLD, "one-again")
    finally:
        client.resume("platform")
    nodes = by_id(run.wait(TIMEOUT_S))
    assert {id_: node["outcome"] for id_, node in nodes.items()} == {
        "old0": "succeeded",
        "new0": "failed",
        "optional": "failed",
        "after": "succeeded",
    }
    reason = nodes["new0"]["reason"]
    assert 'no worker of the pool "default" has had the task "slots.free"' in reason
    assert reason.count(", one-again)") == 2
    assert run.cost_micros == sum(node["cost_micros"] for node in nodes.values() if node["id"] in ("old0", "after"))
