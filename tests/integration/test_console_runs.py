"""The console's pages of ours to who may and who may not: what is done from them, by whom, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from consoles import HEADGATE, answer, opened, post, told
from running import Running, until

from orchestrator.graph import Graph
from orchestrator.store import read
from orchestrator.web.console import HANDLERS
from orchestrator.web.metrics_page import Metrics
from orchestrator.web.page import Act

SLEEPS = Graph.parse(
    {"name": "sleeps", "nodes": [{"id": "s", "task": "synthetic.sleep", "params": {"seconds": 30}}], "labels": {"kind": "slow"}}
)


def failing(tmp_path: Path) -> Graph:
    params = {"name": "f", "log": str(tmp_path / "log"), "path": "/nowhere"}
    nodes = [
        {"id": "a", "task": "synthetic.noop"},
        {"id": "f", "task": "node_tasks.needs", "params": params, "attempts": 1, "after": ["a"]},
    ]
    return Graph.parse({"name": "fails", "nodes": nodes})


def path_of(pattern: str) -> str:
    """A path that a route's pattern matches."""
    verb = re.sub(r"\(([a-z]+)\|[^)]*\)", r"\1", pattern)
    return re.sub(r"\([^)]*\)", "default" if verb.startswith("/tenant/") else "01" + "0" * 24, verb)


def test_what_pages_do_to_runs_is_done_and_audited_and_one_refusal_keeps_no_other_from_it(
    stack: Running, console: str, tmp_path: Path
) -> None:
    client = stack.client
    live, failed = client.submit(SLEEPS), client.submit(failing(tmp_path)).wait(30)
    try:
        status, body = post(f"{console}/runs/pause", {"runs": [live.run_id, failed.run_id], "reason": "look"})
        assert status == 200
        assert [each["ok"] for each in body["done"]] == [True, False]
        assert "is over" in body["done"][1]["said"]
        shown = next(run for run in told(f"{console}/runs/data?q={live.run_id}")["runs"])
        assert shown["paused"] == [f"run:{live.run_id}.1"]
        assert live.run_id in told(f"{console}/console/banner")["runs"]["names"]
        assert post(f"{console}/runs/resume", {"runs": [live.run_id]})[1]["done"][0]["ok"]
        assert post(f"{console}/runs/cancel", {"runs": [live.run_id], "reason": "enough"})[1]["done"] == [
            {"run": live.run_id, "ok": True, "said": "cancelled"}
        ]
        assert post(f"{console}/runs/rerun", {"runs": [failed.run_id], "reason": "again"})[1]["done"][0]["ok"]
        assert read.get_run(client.engine, failed.run_id).generation == 2
        lines = {(line.action, line.actor, line.reason) for line in read.audit(client.engine) if live.run_id in (line.target or "")}
        assert lines >= {
            ("scope.paused", "console", "look"),
            ("scope.resumed", "console", "from the console"),
            ("run.cancelling", "console", "enough"),
        }
        assert ("run.rerun", "console", "again") in {
            (line.action, line.actor, line.reason) for line in read.audit(client.engine, run=failed.run_id)
        }
    finally:
        live.cancel(now=True)


def test_a_run_in_flight_is_listed_with_how_far_it_has_come(stack: Running, console: str) -> None:
    nodes = [{"id": "a", "task": "synthetic.noop"}, {"id": "s", "task": "synthetic.sleep", "params": {"seconds": 30}, "after": ["a"]}]
    run = stack.client.submit(Graph.parse({"name": "halfway", "nodes": nodes, "labels": {"kind": "half"}}))
    try:

        def shown(words: str) -> list[dict[str, object]]:
            runs: list[dict[str, object]] = told(f"{console}/runs/data?{words}")["runs"]
            return [each for each in runs if each["id"] == run.run_id]

        found = until(
            lambda: [each for each in shown("graph=halfway") if each["counts"] == {"succeeded": 1} and each["state"] == "running"]
        )[0]
        assert (found["total"], found["labels"]) == (2, {"kind": "half"})
        assert shown("label=kind%3Dhalf&state=running&since=1h&tenant=default")
        assert not shown("state=failed")
        assert any(strip["graph"] == "halfway" for strip in told(f"{console}/runs/strips")["graphs"])
    finally:
        run.cancel(now=True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("state=odd", "no run is 'odd'"),
        ("since=yesterday", "a time is epoch seconds"),
        ("before=x", ""),
        ("limit=-1", "limit is a whole number"),
        ("q=" + "x" * 300, "q is longer than 200 characters"),
    ],
)
def test_a_filter_that_does_not_fit_is_refused_in_one_sentence(words: str, said: str, console: str) -> None:
    status, text = answer(f"{console}/runs/data?{words}")
    assert status == 400
    assert said in text
    assert "Traceback" not in text


def test_nothing_is_done_for_another_site_or_without_the_pages_token(stack: Running, console: str) -> None:
    run = stack.client.submit(SLEEPS)
    try:
        url, body = f"{console}/runs/cancel", {"runs": [run.run_id]}
        assert post(url, body, token=None)[0] == 403
        assert post(url, body, Sec_Fetch_Site="cross-site")[0] == 403
        assert post(url, body, Origin="http://evil.example")[0] == 403
        assert answer(url)[0] == 405
        assert post(url, {"runs": "all"})[0] == 400
        assert post(url, {"runs": ["../../etc"]})[0] == 400
        assert post(url, {"runs": [run.run_id], "reason": "x" * 501})[0] == 400
        assert read.get_run(stack.client.engine, run.run_id).status != "cancelling"
        assert not [line for line in read.audit(stack.client.engine, run=run.run_id) if line.action == "run.cancelling"]
    finally:
        run.cancel(now=True)


def test_flowers_read_only_password_and_prefix_hold_on_every_route_of_ours(stack: Running, tmp_path: Path) -> None:
    argv = [*HEADGATE, "--basic-auth=ann:secret", "--url-prefix=ops", "--read-only"]
    with opened(stack.client.settings, argv) as url:
        assert url.endswith("/ops")
        for pattern, handler in HANDLERS:
            path = path_of(pattern)
            if handler is Metrics:  # open, as Flower's own, and without tenants (test_metrics.py)
                continue
            refused = (403,) if issubclass(handler, Act) else (401,)
            assert answer(url + path)[0] in refused, path
            assert answer(url + path, "ann:wrong")[0] in refused, path
            if issubclass(handler, Act):
                assert post(url + path, {"runs": []})[0] in (401, 403), path
                status, said = post(url + path, {"runs": ["0" * 26]}, "ann:secret")
                assert (status, said) == (403, {"error": "this console is read-only"}), path
        status, page = answer(f"{url}/runs", "ann:secret")
        assert status == 200
        assert 'data-read-only="1"' in page
        assert 'href="/ops/runs"' in page
        assert 'src="/ops/static/headgate/runs.js"' in page
        for name in ("console.js", "runs.js", "banner.js", "console.css"):
            assert answer(f"{url}/static/headgate/{name}")[0] == 200, name
        assert answer(f"{url}/static/headgate/../console.py")[0] in (403, 404)
        assert answer(f"{url}/static/headgate/%2e%2e/console.py")[0] in (403, 404)


def test_who_asked_is_the_name_that_flower_let_in(stack: Running) -> None:
    run = stack.client.submit(SLEEPS)
    try:
        with opened(stack.client.settings, [*HEADGATE, "--basic-auth=ann:secret"]) as url:
            assert post(f"{url}/runs/cancel", {"runs": [run.run_id]}, "ann:secret")[1]["done"][0]["ok"]
        lines = until(lambda: [line for line in read.audit(stack.client.engine, run=run.run_id) if line.action == "run.cancelling"])
        assert "ann" in {line.actor for line in lines}
    finally:
        run.cancel(now=True)
