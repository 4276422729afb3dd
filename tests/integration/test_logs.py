"""What nodes say is read while they run and when they are over, on any machine; what a killed process had said is not lost."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from running import Running, until
from terminal import Terminal, end

from orchestrator.cli import main
from orchestrator.graph import Graph
from orchestrator.handle import RunHandle
from orchestrator.redaction import HIDDEN
from tenancy.errors import Unknown

TIMEOUT_S = 60
SECRET = "plugh-xyzzy-17"


def node(name: str, task: str = "talk.say", after: tuple[str, ...] = (), attempts: int = 1, **params: Any) -> dict[str, Any]:
    given = {"words": name, **params} if task == "talk.say" else params
    return {"id": name, "task": task, "params": given, "attempts": attempts, "after": list(after)}


def submit(stack: Running, *nodes: dict[str, Any]) -> RunHandle:
    return stack.client.submit(Graph.parse({"name": "talk", "nodes": list(nodes)}))


def texts(run: RunHandle, name: str, attempt: int | None = None) -> list[str]:
    return [line.text for line in run.logs(name, attempt)]


def spooled(stack: Running, run: RunHandle) -> list[str]:
    return [*stack.redis.scan_iter(f"hg1:log:{run.run_id}*", count=1_000)]


@pytest.fixture
def terminal(stack: Running, tmp_path: Path) -> Terminal:
    return Terminal(tmp_path, stack.client.settings.home)


def test_each_attempt_has_its_own_log_without_secrets_and_redis_has_nothing_of_it_left(stack: Running) -> None:
    run = submit(stack, node("twice", attempts=2, fails=1, api_key=SECRET), node("quiet", "talk.nothing", after=("twice",)))
    assert run.wait(TIMEOUT_S).outcome == "succeeded"
    for attempt in (1, 2):
        lines = run.logs("twice", attempt)
        assert [(line.level, line.number, line.attempt) for line in lines] == [
            ("WARNING", 1, attempt),
            ("stdout", 2, attempt),
            ("stderr", 3, attempt),
            ("stdout", 4, attempt),
        ]
        assert re.fullmatch(rf"twice: logged by \d+ at attempt {attempt}", lines[0].text)
        assert [line.text for line in lines[1:]] == [f"twice: printed {HIDDEN}", "twice: to stderr", "twice: and more"]
        assert lines[0].logger == "talking_tasks"
        assert abs(lines[0].at - run.view().submitted_at) < 300
    assert run.logs("quiet") == []
    assert len(run.logs()) == 8
    assert run.logs() == run.logs("twice")
    assert (spooled(stack, run), [name for name in stack.redis.zrange("hg1:logs", 0, -1) if run.run_id in name]) == ([], [])
    names = stack.client.kernel.results.objects.names(run.run_id)
    assert names == [f"{run.run_id}/1/twice.{attempt}.log" for attempt in (1, 2)], "one object for each attempt that said something"
    assert SECRET not in str([stack.client.kernel.results.objects.read(name) for name in names])


def test_what_a_node_of_an_earlier_generation_said_is_found_where_it_was_adopted(stack: Running, tmp_path: Path) -> None:
    go = tmp_path / "go"
    needs = {"id": "load", "task": "node_tasks.needs", "params": {"name": "load", "log": str(tmp_path / "log"), "path": str(go)}}
    run = submit(stack, node("first"), {**needs, "attempts": 1, "after": ["first"]})
    assert run.wait(TIMEOUT_S).outcome == "failed"
    go.touch()
    again = run.rerun(reason="test")
    assert again.wait(TIMEOUT_S).outcome == "succeeded"
    assert texts(again, "first") == texts(run, "first")
    assert again.logs() == [], "nothing of this generation said anything"
    with pytest.raises(Unknown, match="no node 'nobody'"):
        run.logs("nobody")
    with pytest.raises(ValueError, match="name the node"):
        run.logs(attempt=1)


def test_a_log_is_read_while_its_node_runs_and_outlives_the_kill_of_its_process(stack: Running, tmp_path: Path) -> None:
    go = tmp_path / "go"
    run = submit(stack, node("long", attempts=3, until=str(go)))
    try:
        said = until(lambda: len(texts(run, "long")) >= 3 and texts(run, "long"), TIMEOUT_S)
        os.kill(int(re.findall(r"logged by (\d+)", said[0])[0]), signal.SIGKILL)
        until(lambda: len(texts(run, "long", 2)) >= 3, TIMEOUT_S)
    finally:
        go.touch()
    assert run.wait(TIMEOUT_S).outcome == "succeeded"
    assert texts(run, "long", 1) == said, "what the killed process had said"
    assert texts(run, "long", 2)[-1] == "long: and more"
    logs = stack.client.kernel.logs
    until(lambda: logs.put_away(0) is not None and not spooled(stack, run))
    assert (spooled(stack, run), texts(run, "long", 1)) == ([], said)


def test_the_command_prints_follows_and_says_what_is_wrong(stack: Running, terminal: Terminal, tmp_path: Path) -> None:
    go = tmp_path / "go"
    run = submit(stack, node("a", attempts=2, fails=1), node("b", after=("a",), until=str(go)), node("c", after=("b",), fails=1))
    following = terminal.start(["headgate", "logs", run.run_id, "-f", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    one = terminal.start(["headgate", "logs", f"{run.run_id}/b", "-f"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        until(lambda: len(texts(run, "b")) >= 3, TIMEOUT_S)
        assert len(run.logs()) == 11
        assert following.poll() is None, "the run goes on"
        go.touch()
        assert run.wait(TIMEOUT_S).outcome == "failed"
        out, err = following.communicate(timeout=TIMEOUT_S)
        assert (following.returncode, err) == (1, ""), "as `watch`"
        lines = [json.loads(text) for text in out.splitlines()]
        assert [(line["node"], line["attempt"], line["number"]) for line in lines] == [
            *(("a", attempt, number) for attempt in (1, 2) for number in (1, 2, 3, 4)),
            *((name, 1, number) for name in ("b", "c") for number in (1, 2, 3, 4)),
        ]
        text, _ = one.communicate(timeout=TIMEOUT_S)
        assert one.returncode == 0, "the node succeeded"
        assert re.fullmatch(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}  b#1  (WARNING|stdout |stderr )  .*\n){4}", text)
    finally:
        go.touch()
        end(following)
        end(one)


def test_one_attempt_is_printed_and_bad_words_are_one_sentence(stack: Running) -> None:
    run = submit(stack, node("a", attempts=2, fails=1))
    assert run.wait(TIMEOUT_S).outcome == "succeeded"
    with stack.client.settings.in_force():
        second = CliRunner().invoke(main, ["logs", f"{run.run_id}/a", "--attempt", "2"])
        assert (second.exit_code, second.stdout.count("a#2"), second.stdout.count("a#1")) == (0, 4, 0)
        assert CliRunner().invoke(main, ["logs", f"{run.run_id}/a", "--attempt", "3"]).output == ""
        for words, said in (
            ((f"{run.run_id}/nobody",), "has no node 'nobody'"),
            ((f"{run.run_id}/",), "names no node: write RUN, or RUN/NODE"),
            (("no such",), "'no such' is no id of a run"),
            ((run.run_id, "--attempt", "1"), "--attempt is one at a node: write RUN/NODE"),
            ((f"{run.run_id}/a", "--attempt", "0"), "0 is not in the range x>=1"),
        ):
            done = CliRunner().invoke(main, ["logs", *words])
            assert (done.exit_code, done.stdout) == (2, ""), words
            assert said in done.stderr


def test_logs_of_runs_that_are_over_are_read_without_a_stack(stack: Running, tmp_path: Path) -> None:
    run = submit(stack, node("a"))
    assert run.wait(TIMEOUT_S).outcome == "succeeded"
    home = tmp_path / "elsewhere"
    home.mkdir()
    with sqlite3.connect(stack.client.settings.home / "headgate.db") as record, sqlite3.connect(home / "headgate.db") as copy:
        record.backup(copy)
    (home / "results").symlink_to(stack.client.settings.home / "results")
    done = Terminal(tmp_path, home).headgate("logs", f"{run.run_id}/a", "-f")
    assert (done.code, done.out.count("a#1")) == (0, 4)
