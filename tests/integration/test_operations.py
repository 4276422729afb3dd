"""docs/operations.md command by command, and what operators' commands do to workers under load."""

from __future__ import annotations

import json
import os
import re
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pages import commands
from running import until
from terminal import Done, Terminal

from orchestrator.cli import main
from orchestrator.redis_url import for_client
from orchestrator.settings import Settings
from tenancy.link import Link
from tenancy.transport.fleet import WorkerView, workers

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
BLOCKS = re.findall(r"^```(python|sh|sh background)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
MODULE = next(text for kind, text in BLOCKS if kind == "python")
pytestmark = pytest.mark.timeout(400)


def test_every_command_of_the_page_does_what_the_page_says() -> None:
    ran = 0
    with tempfile.TemporaryDirectory(prefix="hgops") as name, ExitStack() as stacks:
        terminal = Terminal(Path(name), Path(name) / ".headgate")
        for kind, text in BLOCKS:
            if kind == "python":
                (terminal.directory / text.split("\n", 1)[0].removeprefix("# ")).write_text(text)
                continue
            for command, shown in commands(text):
                if kind == "sh background":
                    stacks.enter_context(terminal.up(*command.split()[2:]))
                    continue
                done = terminal.type("sh", "-c", command)
                assert done.code == 0, (command, done)
                printed = done.out.splitlines()
                assert [line for line in shown if not any(each.startswith(line) for each in printed)] == [], (command, done.out)
                ran += 1
    assert ran >= 12


class Fleet:
    """A stack of three workers with two slots each, and its operator."""

    def __init__(self, terminal: Terminal, link: Link) -> None:
        self.terminal, self.link = terminal, link

    def headgate(self, *words: str) -> Done:
        """A command in this process: a new one takes seconds to start on busy cores, and the load would be over."""
        with Settings(home=self.terminal.home).in_force():
            done = CliRunner().invoke(main, list(words))
        return Done(done.exit_code, done.stdout, done.stderr)

    def workers(self) -> dict[str, WorkerView]:
        """The live workers by the part of their name before the host."""
        return {each.name.partition("@")[0]: each for each in workers(self.link)}

    def running(self) -> int:
        return sum(worker.running for worker in self.workers().values())

    def load(self, n: int, s: float) -> str:
        """A run that keeps workers busy, once it does."""
        run_id = self.terminal.headgate("submit", "night:batch", f"n={n}", f"s={s}").out.strip()
        until(self.running)
        return run_id

    def assert_nothing_lost(self, run_id: str) -> None:
        assert self.terminal.headgate("watch", run_id).code == 0
        nodes = self.headgate("show", run_id, "--json").json["nodes"]
        assert {(node["outcome"], node["attempt"], node["lost"]) for node in nodes} == {("succeeded", 1, 0)}

    def summary(self, worker_id: str) -> dict[str, Any]:
        path = self.terminal.home / "artifacts" / "execution" / f"worker_summary_{worker_id}.json"
        until(path.exists, 30)
        return dict(json.loads(path.read_text()))


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """Shared by the tests below, in their order; the last ones end workers."""
    with tempfile.TemporaryDirectory(prefix="hgfleet") as name:
        terminal = Terminal(Path(name), Path(name) / "home")
        (terminal.directory / "night.py").write_text(MODULE)
        with terminal.up("--tasks", "night", "--workers", "3") as stack:
            link = Link(for_client(stack["redis_url"]))
            yield Fleet(terminal, link)
            link.close()


def test_workers_are_listed_with_what_they_offer(fleet: Fleet) -> None:
    found = fleet.headgate("workers", "list", "--json").json
    assert [each["name"].partition("@")[0] for each in found] == ["w1", "w2", "w3"]
    for worker in found:
        assert (worker["slots"], worker["pools"]) == (2, ["default"])
        assert "night.step" in worker["tasks"]
        assert worker["since"] <= worker["beat"]


def test_the_queues_and_the_slots_that_are_wanted_follow_the_load(fleet: Fleet) -> None:
    assert fleet.headgate("workers", "wanted", "--json").json["wanted"] == 0
    run_id = fleet.load(150, 0.5)
    view = fleet.headgate("queues", "--json").json
    wanted = fleet.headgate("workers", "wanted", "--json").json
    (pool,) = view["pools"]
    assert (pool["slots"], pool["capacity"]) == (6, 120)
    assert 1 <= pool["running"] <= 6
    (tenant,) = view["tenants"]
    assert tenant["lines"][0]["queued"]["normal"] == pool["queued"] > 0
    assert tenant["lines"][0]["oldest_s"] > 0
    assert 1 <= wanted["wanted"] <= wanted["pools"]["default"]["running"] + wanted["pools"]["default"]["queued"]
    fleet.assert_nothing_lost(run_id)


def test_slots_grow_and_shrink_under_load_and_nothing_is_lost(fleet: Fleet) -> None:
    run_id = fleet.load(150, 0.5)
    grown = fleet.headgate("workers", "scale", "9", "--json")
    assert grown.json["slots"] == 9, grown
    until(lambda: fleet.running() > 6)
    assert fleet.headgate("workers", "scale", "3").code == 0
    assert [worker.slots for worker in fleet.workers().values()] == [1, 1, 1]
    until(lambda: fleet.running() <= 3)
    fleet.assert_nothing_lost(run_id)
    few = fleet.headgate("workers", "scale", "2")
    assert (few.code, "2 slots are too few for 3 workers" in few.err) == (2, True)
    assert fleet.headgate("workers", "scale", "6").code == 0


def test_an_unknown_worker_is_one_sentence_with_the_nearest_name(fleet: Fleet) -> None:
    done = fleet.headgate("workers", "drain", "w7")
    assert done.code == 2
    assert re.fullmatch(r"headgate: there is no live worker 'w7'; the nearest is 'w\d@.*'\n", done.err)


def test_a_drained_worker_finishes_what_runs_has_its_summary_and_stays_stopped(fleet: Fleet) -> None:
    before = fleet.workers()
    run_id = fleet.load(24, 1.0)
    done = fleet.headgate("workers", "drain", "w3", "--json")
    assert (done.code, done.json["drained"], done.json["id"]) == (0, True, before["w3"].id)
    summary = done.json["summary"]
    assert summary["executed"] == summary["succeeded"] > 0
    assert (summary["how"], summary["failed"], summary["success_rate"], summary["schema_version"]) == ("retired", 0, 1.0, 1)
    fleet.assert_nothing_lost(run_id)
    assert fleet.workers().keys() == {"w1", "w2"}
    until(lambda: "w3" not in json.loads((fleet.terminal.home / "stack.json").read_text())["pids"])


def test_a_worker_that_is_killed_has_its_summary_too(fleet: Fleet) -> None:
    victim = fleet.workers()["w2"]
    os.kill(victim.pid, signal.SIGKILL)
    summary = fleet.summary(victim.id)
    assert (summary["how"], summary["name"]) == ("dead", victim.name)
    assert summary["executed"] == summary["succeeded"] > 0
    until(lambda: "w2" in fleet.workers(), 30)
