"""With HEADGATE_LOG_FORMAT=json every process of ours writes JSON, and its lines say which run, node and tenant they are about."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from consoles import HEADGATE, opened
from running import let_go, producer, until

from orchestrator.embedded import Stack
from orchestrator.graph import Graph
from orchestrator.settings import Settings

HERE = Path(__file__).resolve().parent
TASKS = ("talking_tasks",)


def lines(stack: Stack, name: str) -> list[dict[str, Any]]:
    """Every whole line of a process's log, as JSON; all are but Celery's warning to who runs it as root, which comes before any log is."""
    said = [line for line in (stack.log_dir / f"{name}.log").read_text().splitlines(keepends=True) if line.endswith("\n")]
    first = next((at for at, line in enumerate(said) if line.startswith("{")), len(said))
    return [json.loads(line) for line in said[first:]]


def console_lines(home: Path) -> list[dict[str, Any]]:
    """The lines of a console's log; its URL, on stdout, is between them."""
    said = next(home.glob("console-*.log")).read_text().splitlines(keepends=True)
    return [json.loads(line) for line in said if line.startswith('{"event"') and line.endswith("\n")]


def test_every_process_writes_json_and_a_nodes_lines_say_run_node_and_tenant(monkeypatch: pytest.MonkeyPatch) -> None:
    home = Path(tempfile.mkdtemp(prefix="hglog"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]))
    nodes = [{"id": "a", "task": "talk.say", "params": {"words": "a", "fails": 1}, "attempts": 2}]
    try:
        with Stack(Settings(home=home, log_format="json"), 1, 1, TASKS, console=False) as stack:
            client = producer(Settings(home=home, redis_url=stack.redis_url, tasks=TASKS))
            client.tenants.create("acme")
            run = client.submit(Graph.parse({"name": "talk", "nodes": nodes}), tenant="acme").wait(60)
            assert run.outcome == "succeeded"
            until(lambda: any("Sending due task" in line["event"] for line in lines(stack, "beat")), 60)
            until(lambda: any(line.get("task") == "headgate.sweep" for line in lines(stack, "system")), 60)
            until(lambda: any("succeeded" in line["event"] for line in lines(stack, "w1") if line.get("node") == "a"), 60)
            of_node = [line for line in lines(stack, "w1") if line.get("node") == "a"]
            assert {(line["run"], line["generation"]) for line in of_node} == {(run.run_id, 1)}
            said = [line for line in of_node if line["logger"] == "talking_tasks"]
            assert [(line["tenant"], line["attempt"], line["level"]) for line in said] == [
                ("acme", attempt, "warning") for attempt in (1, 2)
            ]
            assert {line["worker"].partition("@")[0] for line in said} == {"w1"}
            assert {line["service"] for line in lines(stack, "w1")} == {"worker"}
            assert {line["service"] for line in lines(stack, "beat")} == {"beat"}
            assert {line["service"] for line in lines(stack, "recorder")} == {"recorder"}
            assert any("epoch" in line["event"] for line in lines(stack, "recorder"))
            with opened(client.settings, HEADGATE, HEADGATE_LOG_FORMAT="json"):
                until(lambda: console_lines(home), 60)
            assert {line["service"] for line in console_lines(home)} == {"console"}
            let_go(client)
    finally:
        Settings.forget()
        shutil.rmtree(home, ignore_errors=True)
