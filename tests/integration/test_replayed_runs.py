"""Runs of every ending, replayed from their logs: what the log says alone is what is on record, byte for byte."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from running import Running, by_id, until
from sqlalchemy import select

from orchestrator import BudgetRefused
from orchestrator.artifacts.event_log import files_in
from orchestrator.artifacts.place import event_log as path_of
from orchestrator.cli import main
from orchestrator.embedded import RedisServer
from orchestrator.graph import Graph
from orchestrator.handle import RunHandle
from orchestrator.log_key import log_key
from orchestrator.recorder.loop import Recorder
from orchestrator.replay import replay_file, replay_run
from orchestrator.replay.decisions import decided_otherwise
from orchestrator.replay.record import read_log
from orchestrator.settings import Settings
from orchestrator.store import tables as t
from orchestrator.store.read import get_run
from tests.integration.hands import Hands, drain, layers, make_recorder

TIMEOUT_S = 60


def graph_of(*nodes: dict[str, Any], **fields: Any) -> Graph:
    return Graph.parse({"name": "replayed", "nodes": list(nodes), **fields})


def waits(path: Path, name: str = "a", **fields: Any) -> dict[str, Any]:
    """A node that ends when `path` exists."""
    params = {"path": str(path), "log": str(path.with_suffix(".log"))}
    return {"id": name, "task": "node_tasks.wait_for", "params": params, **fields}


def spend(name: str, micros: int) -> dict[str, Any]:
    """A node that charges what it is estimated at."""
    return {"id": name, "task": "synthetic.spend", "params": {"micros": micros}, "estimate": {"other": micros}}


def agrees(stack: Running, run: RunHandle) -> list[str]:
    """Replay a run that has ended from SQL and from its file; the types of its events."""
    settings = stack.client.settings
    key = log_key(settings)
    found = replay_run(stack.client.engine, run.run_id, run.generation, key)
    assert found.differences == ()
    assert (found.outcome, found.cost_micros, found.status) == (run.outcome, run.cost_micros, run.status)
    if run.status == "ended":
        path = path_of(settings.resolved_artifacts_dir(), "replayed", run.run_id, run.generation)
        until(lambda: path.exists() and replay_file(path, key).events == found.events)
        assert replay_file(path, key).differences == ()
    return [event["t"] for event in run.events]


def test_a_run_that_succeeded_agrees(stack: Running) -> None:
    graph = graph_of(
        {"id": "a", "task": "node_tasks.use", "params": {"tokens": 5, "seconds": 0.01}},
        {"id": "b", "task": "node_tasks.slowly", "params": {"text": "ünï\u2028code"}, "after": ["a"]},
        {"id": "c", "task": "node_tasks.together", "params": {"parts": [{"$ref": "b"}]}},
    )
    run = stack.client.submit(graph, budget="1").wait(TIMEOUT_S)
    assert run.outcome == "succeeded"
    assert "money.settled" in agrees(stack, run)


def test_a_run_that_was_planned_down_agrees_and_its_decision_is_made_again(stack: Running) -> None:
    cheaper = {"name": "small", "kind": "generation", "params": {"micros": 10_000}, "estimate": {"other": 10_000}, "value": 7}
    graph = graph_of(
        {**spend("a", 30_000), "value": 10, "variants": [cheaper]},
        {**spend("b", 20_000), "required": False},
    )
    run = stack.client.submit(graph, budget=13_000).wait(TIMEOUT_S)
    assert run.outcome == "degraded"
    assert "decision.applied" in agrees(stack, run)
    log = read_log(stack.client.engine, run.run_id, 1)
    assert list(decided_otherwise(log, log.submitted)) == []
    other = replace(log, steps=[replace(step, text=step.text.replace('"change":"small"', '"change":"large"')) for step in log.steps])
    (sentence,) = decided_otherwise(other, log.submitted)
    assert '"change": "large"' in sentence.partition(", which the decision ")[0]
    assert sentence.endswith("did not plan")


def test_a_run_that_failed_after_retries_agrees(stack: Running) -> None:
    graph = graph_of(
        {"id": "a", "task": "node_tasks.shout", "params": {"characters": 3}, "attempts": 2},
        {"id": "b", "task": "synthetic.noop", "after": ["a"]},
        {"id": "c", "task": "node_tasks.shout", "params": {"characters": 2}, "attempts": 1, "required": False},
    )
    run = stack.client.submit(graph).wait(TIMEOUT_S)
    assert run.outcome == "failed"
    assert "node.retry" in agrees(stack, run)


def test_a_run_that_was_cancelled_under_way_agrees(stack: Running, tmp_path: Path) -> None:
    go = tmp_path / "go"
    run = stack.client.submit(graph_of(waits(go), {"id": "b", "task": "synthetic.noop", "after": ["a"]}))
    until(go.with_suffix(".log").exists)
    assert run.cancel(reason="enough")
    go.touch()
    assert run.wait(TIMEOUT_S).outcome == "cancelled"
    assert "run.cancelling" in agrees(stack, run)


def test_a_run_that_was_cancelled_in_line_and_one_that_was_refused_agree(stack: Running, tmp_path: Path) -> None:
    stack.client.tenants.create("replayed", max_concurrent_runs=1, on_runs_limit="hold")
    go = tmp_path / "go"
    first = stack.client.submit(graph_of(waits(go)), tenant="replayed")
    held = stack.client.submit(graph_of({"id": "a", "task": "synthetic.noop"}), tenant="replayed", key="held")
    until(lambda: held.status == "held")
    assert held.cancel()
    go.touch()
    assert held.wait(TIMEOUT_S).outcome == "cancelled"
    assert "run.held" in agrees(stack, held)
    agrees(stack, first.wait(TIMEOUT_S))
    with pytest.raises(BudgetRefused):
        stack.client.submit(graph_of({"id": "a", "task": "synthetic.noop", "estimate": {"other": 10**7}}), budget=1, key="poor")
    again = graph_of({"id": "a", "task": "synthetic.noop"}, name="replayed-again")
    stack.client.submit(again, key="poor").wait(TIMEOUT_S)  # the key of a run that was refused may be another's
    with stack.client.engine.connect() as connection:
        of_refused = select(t.run.c.run_id).where(t.run.c.status == "refused", t.run.c.graph_name == "replayed")
        refused = connection.execute(of_refused.order_by(t.run.c.submitted_at.desc()).limit(1)).scalar()
    assert "run.refused" in agrees(stack, stack.client.run(str(refused)))


def test_a_run_whose_process_was_killed_agrees(stack: Running, tmp_path: Path) -> None:
    go = tmp_path / "go"
    run = stack.client.submit(graph_of(waits(go)))
    until(go.with_suffix(".log").exists)
    until(lambda: go.with_suffix(".log").read_text().endswith("\n"))
    os.kill(int(go.with_suffix(".log").read_text().split()[1]), signal.SIGKILL)
    go.touch()
    assert run.wait(TIMEOUT_S).outcome == "succeeded"
    assert "node.lost" in agrees(stack, run)


def test_later_generations_agree_with_what_they_adopt(stack: Running) -> None:
    cheaper = {"name": "small", "kind": "generation", "params": {"micros": 10_000}, "estimate": {"other": 10_000}, "value": 7}
    graph = graph_of(
        {**spend("a", 30_000), "value": 10, "variants": [cheaper]},
        {"id": "b", "task": "node_tasks.shout", "params": {"characters": 3}, "attempts": 1, "after": ["a"]},
        {"id": "c", "task": "synthetic.noop", "after": ["b"]},
    )
    first = stack.client.submit(graph, budget=15_000).wait(TIMEOUT_S)
    agrees(stack, first)
    second = first.rerun(reason="once more").wait(TIMEOUT_S)
    third = second.rerun(reason="and once more").wait(TIMEOUT_S)
    assert (third.generation, third.outcome, by_id(third)["a"]["verdict"]) == (3, "failed", "small")
    for run in (second, third):
        assert "node.adopted" in agrees(stack, run)
    folder = path_of(stack.client.settings.resolved_artifacts_dir(), "replayed", first.run_id, 1).parent
    assert [path.name for path in files_in(folder)] == ["events.2.jsonl", "events.3.jsonl", "events.jsonl"]


def test_the_command_says_agrees_and_names_what_differs(stack: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = stack.client.submit(graph_of({"id": "a", "task": "synthetic.noop"})).wait(TIMEOUT_S)
    monkeypatch.setenv("HEADGATE_HOME", str(stack.client.settings.home))
    monkeypatch.setenv("HEADGATE_REDIS_URL", stack.stack.redis_url)
    Settings.forget()
    command = CliRunner().invoke(main, ["replay", run.run_id])
    assert (command.exit_code, command.stderr) == (0, "")
    assert command.stdout.startswith(f"run {run.run_id} generation 1: succeeded, ")
    assert command.stdout.endswith("entries, chain whole: agrees\n")
    path = path_of(stack.client.settings.resolved_artifacts_dir(), "replayed", run.run_id, 1)
    until(path.exists)

    monkeypatch.setenv("HEADGATE_HOME", str(tmp_path / "elsewhere"))  # neither database nor key
    monkeypatch.delenv("HEADGATE_REDIS_URL")
    Settings.forget()
    command = CliRunner().invoke(main, ["replay", str(path.parent)])
    assert (command.exit_code, command.stdout.endswith("chain not checked: agrees\n")) == (0, True)
    assert "there is no key here" in command.stderr
    key = tmp_path / "key"
    key.write_bytes(log_key(stack.client.settings))
    key.chmod(0o600)
    copy = tmp_path / "events.jsonl"
    copy.write_text(path.read_text().replace('"outcome":"succeeded"', '"outcome":"failed"', 1))
    command = CliRunner().invoke(main, ["replay", str(copy), "--key-file", str(key), "--json"])
    assert command.exit_code == 1
    assert '"chained": true' in command.stdout
    assert "was changed" in command.stdout
    assert not (tmp_path / "elsewhere").exists()


# -- with a recorder in this process -------------------------------------------------------------------------------------------


def started(recorder: Recorder, hands: Hands, width: int, depth: int) -> str:
    graph = layers(width, depth)
    run, _ = hands.request(graph)
    drain(recorder)
    hands.start(run, graph)
    return run


def work_until_ended(recorder: Recorder, hands: Hands, runs: list[str], fail: float) -> None:
    hands.enroll()
    for _ in range(50):
        for run in runs:
            hands.sweep(run)
        hands.work(fail=fail)
        drain(recorder)
        if all(get_run(recorder.engine, run).status == "ended" for run in runs):
            return
    raise AssertionError("the runs do not end")


def lose_everything(recorder: Recorder, hands: Hands, server: RedisServer) -> None:
    server.kill()
    for file in (server.directory / "appendonlydir").iterdir():
        file.unlink()
    server.start()
    recorder.prepare()


@pytest.mark.parametrize("fail", [0.0, 0.4])
def test_runs_that_went_on_in_a_redis_that_was_rebuilt_from_the_record_agree(
    recorder: Recorder, hands: Hands, redis_server: RedisServer, settings: Settings, fail: float
) -> None:
    runs = [started(recorder, hands, 3, 4) for _ in range(3)]
    hands.work(7, fail=fail)
    open_ = [hands.begin() for _ in range(2)]  # executions that nobody will end
    assert all(open_)
    drain(recorder)
    for _ in range(2):
        lose_everything(recorder, hands, redis_server)
        for run in runs:  # also before anything has happened to them since
            found = replay_run(recorder.engine, run, 1, recorder.key)
            assert (found.differences, found.status) == ((), "running")
        drain(recorder)
    work_until_ended(recorder, hands, runs, fail)
    recorder.artifacts.close()
    for run in runs:
        assert replay_run(recorder.engine, run, 1, recorder.key).differences == ()
        path = path_of(settings.resolved_artifacts_dir(), "layers", run, 1)
        assert replay_file(path, recorder.key).differences == ()
    with recorder.engine.connect() as connection:
        assert connection.execute(select(t.ledger.c.id).where(t.ledger.c.kind == "expire")).scalars().all()
        assert None not in connection.execute(select(t.event.c.link)).scalars().all()
        assert connection.execute(select(t.incident.c.kind)).scalars().all() == []


def test_a_recorder_that_died_before_it_wrote_a_log_writes_it_when_it_comes_back(
    recorder: Recorder, hands: Hands, redis_server: RedisServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing: Callable[..., None] = lambda *_: None  # noqa: E731 (the recorder died between commit and file)
    with monkeypatch.context() as patch:
        patch.setattr(recorder.artifacts, "runs_ended", nothing)
        run = started(recorder, hands, 2, 2)
        work_until_ended(recorder, hands, [run], 0.0)
    path = path_of(settings.resolved_artifacts_dir(), "layers", run, 1)
    assert not path.exists()
    again = make_recorder(redis_server, settings)
    again.artifacts.close()
    assert replay_file(path, again.key).differences == ()
