"""Flower's own list of tasks: our nodes are in it without Celery's events, with tenant, run and node, also of before it started."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

from consoles import HEADGATE, answer, opened, told
from running import Running, until

from orchestrator.graph import Graph


def listed(console: str, words: str) -> dict[str, dict[str, Any]]:
    """The tasks that Flower's search finds, by the node they are of."""
    columns = "columns[0][data]=received&order[0][column]=0&order[0][dir]=desc"
    rows = told(
        f"{console}/tasks/datatable?draw=1&start=0&length=50&{columns}&search[value]={quote(words)}".replace("[", "%5B").replace("]", "%5D")
    )
    return {str(row["node"]): row for row in rows["data"]}


def graph(tmp_path: Path) -> Graph:
    params = {"name": "f", "log": str(tmp_path / "log"), "path": "/nowhere"}
    nodes = [
        {"id": "a", "task": "synthetic.noop"},
        {"id": "f", "task": "node_tasks.needs", "params": params, "attempts": 1, "after": ["a"]},
        {"id": "z", "task": "synthetic.noop", "after": ["f"]},
        {"id": "o", "task": "node_tasks.needs", "params": params, "attempts": 1, "required": False},
    ]
    return Graph.parse({"name": "tasks", "nodes": nodes})


def test_flowers_list_has_every_node_with_tenant_run_and_node_finds_it_and_leads_to_its_run(
    stack: Running, console: str, tmp_path: Path
) -> None:
    stack.client.tenants.create("listed-tasks")
    run = stack.client.submit(graph(tmp_path), tenant="listed-tasks").wait(30)
    found = until(
        lambda: len(rows := listed(console, run.run_id)) == 4 and all(row["state"] != "STARTED" for row in rows.values()) and rows
    )
    assert {node: row["state"] for node, row in found.items()} == {"a": "SUCCESS", "f": "FAILURE", "z": "REVOKED", "o": "FAILURE"}
    assert {row["tenant"] for row in found.values()} == {"listed-tasks"}
    assert found["a"]["name"] == "synthetic.noop"
    assert found["a"]["worker"].startswith("w")
    assert "FileNotFoundError" in found["f"]["exception"]
    assert set(listed(console, "listed-tasks")) == {"a", "f", "z", "o"}
    assert set(listed(console, "listed-tasks state:REVOKED")) == {"z"}
    page = answer(f"{console}/tasks")[1]
    assert [each for each in re.findall(r'data-column="(\w+)"', page) if each in ("tenant", "run", "node")] == ["tenant", "run", "node"]
    task = answer(f"{console}/task/{run.run_id}.1.f")[1]
    assert f'href="/run/{run.run_id}?g=1&amp;node=f"' in task
    assert told(f"{console}/run/{run.run_id}/node?id=f")["task_id"] == f"{run.run_id}.1.f"


def test_a_console_that_starts_later_has_them_too(stack: Running, tmp_path: Path) -> None:
    run = stack.client.submit(graph(tmp_path)).wait(30)
    with opened(stack.client.settings, HEADGATE) as url:
        found = until(lambda: len(rows := listed(url, run.run_id)) == 4 and rows)
        assert found["a"]["state"] == "SUCCESS"
