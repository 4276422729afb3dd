"""A run goes on in its next generation: what succeeded is adopted, what did not runs again, through a loss of everything."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from running import Running, by_id, until

from orchestrator import Refused, Unknown
from orchestrator.cli import main
from orchestrator.collector import Collector
from orchestrator.embedded import RedisServer
from orchestrator.graph import Graph
from orchestrator.handle import RunHandle
from orchestrator.recorder import append_request
from orchestrator.recorder.loop import Recorder
from orchestrator.store import read
from tests.integration.hands import Hands, Starter, drain, layers

TIMEOUT_S = 30


class Work:
    """A graph r -> m0, m1, m2 -> j whose nodes write what runs; m1 fails until it is mended."""

    def __init__(self, place: Path) -> None:
        self.log, self.mended = place / "log", place / "mended"
        self.log.touch()

    def graph(self, **last: Any) -> Graph:
        log = str(self.log)
        nodes: list[dict[str, Any]] = [{"id": "r", "task": "node_tasks.needs", "params": {"name": "r", "log": log}}]
        for name in ("m0", "m1", "m2"):
            params = {"name": name, "log": log, "parts": {"$ref": "r"}, "path": str(self.mended) if name == "m1" else ""}
            nodes.append({"id": name, "task": "node_tasks.needs", "params": params, "attempts": 1})
        parts = [{"$ref": name} for name in ("m0", "m1", "m2")]
        nodes.append({"id": "j", "task": "node_tasks.needs", "params": {"name": "j", "log": log, "parts": parts}, **last})
        nodes = [{**node, "estimate": {"compute": 700}} for node in nodes]
        return Graph.parse({"name": "mending", "nodes": nodes})

    def ran(self) -> Counter[str]:
        """How often each node ran so far."""
        return Counter(self.log.read_text().split())


def of_generations(run: RunHandle) -> dict[str, int | None]:
    return {node: row["adopted"] for node, row in by_id(run).items()}


def test_a_rerun_of_what_failed_repeats_nothing_that_had_succeeded(stack: Running, tmp_path: Path) -> None:
    work, client = Work(tmp_path), stack.client
    first = client.submit(work.graph(), key=tmp_path.name, budget=50_000).wait(TIMEOUT_S)
    assert (first.outcome, work.ran()) == ("failed", Counter(r=1, m0=1, m1=1, m2=1))
    work.mended.touch()
    second = first.rerun(reason="the file is there", by="ann").wait(TIMEOUT_S)
    assert (second.generation, second.outcome) == (2, "succeeded")
    assert work.ran() == Counter(r=1, m0=1, m1=2, m2=1, j=1)
    assert second.result() == ["j", [[name, ["r", None]] for name in ("m0", "m1", "m2")]]
    assert of_generations(second) == {"r": 1, "m0": 1, "m1": None, "m2": 1, "j": None}
    # A finished run never changes, and only what runs costs.
    assert (first.outcome, first.generation, client.run(first.run_id).generation) == ("failed", 1, 2)
    nodes = by_id(second)
    assert second.cost_micros == nodes["m1"]["cost_micros"] + nodes["j"]["cost_micros"]
    assert [nodes[name]["cost_micros"] for name in ("r", "m0", "m2")] == [0, 0, 0]
    view = read.get_run(client.engine, second.run_id, 2)
    assert (view.key, view.total, view.counts, view.budget) == (None, 5, {"succeeded": 5}, 50_000)
    assert view.estimate == 2 * 700
    line = next(line for line in read.audit(client.engine, "default")[::-1] if line.action == "run.rerun")
    assert (line.actor, line.reason, line.target) == ("ann", "the file is there", first.run_id)
    # The key names the run in whatever generation it is.
    again = client.submit(work.graph(), key=tmp_path.name, budget=50_000)
    assert (again.run_id, again.generation, work.ran()["r"]) == (first.run_id, 2, 1)


def test_a_rerun_from_a_node_runs_what_depends_on_it_and_of_a_node_only_that(stack: Running, tmp_path: Path) -> None:
    work = Work(tmp_path)
    work.mended.touch()
    first = stack.client.submit(work.graph()).wait(TIMEOUT_S)
    second = first.rerun("m0", "from").wait(TIMEOUT_S)
    assert of_generations(second) == {"r": 1, "m0": None, "m1": 1, "m2": 1, "j": None}
    third = first.rerun(["r", "m2"], "node").wait(TIMEOUT_S)
    assert of_generations(third) == {"r": None, "m0": 2, "m1": 1, "m2": None, "j": 2}
    assert work.ran() == Counter(r=2, m0=2, m1=1, m2=2, j=2)
    assert [run.outcome for run in (first, second, third)] == ["succeeded"] * 3
    assert third.result("j") == second.result("j")


def test_what_cannot_run_again_is_refused_in_a_sentence_and_leaves_nothing(stack: Running, tmp_path: Path) -> None:
    client, work = stack.client, Work(tmp_path)
    work.mended.touch()
    done = client.submit(work.graph()).wait(TIMEOUT_S)
    live = client.submit(Graph.parse({"name": "g", "nodes": [{"id": "s", "task": "synthetic.sleep", "params": {"seconds": 30}}]}))
    try:
        before = len(read.list_runs(client.engine, limit=10_000))
        with pytest.raises(Refused, match=r"all nodes of run .* succeeded; name the nodes"):
            done.rerun()
        with pytest.raises(Unknown, match="has no node 'm9'"):
            done.rerun("m9", "from")
        with pytest.raises(Refused, match=r"generation 1 of run .* is not over"):
            live.rerun()
        with pytest.raises(Unknown, match="there is no run"):
            client.rerun("0" * 26)
        with pytest.raises(ValueError, match="name nodes"):
            done.rerun("m0")
        assert len(read.list_runs(client.engine, limit=10_000)) == before
    finally:
        live.cancel()


def test_a_run_that_was_cancelled_goes_on_where_it_was(stack: Running, tmp_path: Path) -> None:
    log, gate = tmp_path / "log", tmp_path / "gate"
    nodes: list[dict[str, Any]] = [{"id": "a", "task": "node_tasks.needs", "params": {"name": "a", "log": str(log)}}]
    nodes.append({"id": "b", "task": "node_tasks.wait_for", "params": {"path": str(gate), "log": str(tmp_path / "b")}, "after": ["a"]})
    nodes.append({"id": "c", "task": "node_tasks.needs", "params": {"name": "c", "log": str(log), "parts": {"$ref": "a"}}, "after": ["b"]})
    first = stack.client.submit(Graph.parse({"name": "g", "nodes": nodes}))
    until((tmp_path / "b").exists)
    assert first.cancel()
    gate.touch()
    assert first.wait(TIMEOUT_S).outcome == "cancelled"
    second = first.rerun().wait(TIMEOUT_S)
    assert (second.outcome, log.read_text().split()) == ("succeeded", ["a", "c"])


def test_the_command_says_what_it_did_and_refuses_two_ways_at_once(stack: Running, tmp_path: Path) -> None:
    work = Work(tmp_path)
    run = stack.client.submit(work.graph(required=False)).wait(TIMEOUT_S)
    work.mended.touch()
    with stack.client.settings.in_force():
        done = CliRunner().invoke(main, ["rerun", run.run_id, "--from", "m1", "--reason", "again", "--by", "bob", "--json"])
        assert (done.exit_code, json.loads(done.stdout)) == (0, {"run_id": run.run_id, "generation": 2})
        assert stack.client.run(run.run_id).wait(TIMEOUT_S).outcome == "succeeded"
        shown = CliRunner().invoke(main, ["show", run.run_id])
        assert "adopted from generation 1" in shown.stdout
        assert CliRunner().invoke(main, ["rerun", run.run_id, "--from", "m1", "--node", "j"]).exit_code == 2


# -- loss of everything, by hand ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("until_step", "recorded"),
    [
        ("adopted", "half of it"),
        ("adopted", "all of it"),
        ("launched", "nothing of it"),
        ("at work", "half of it"),
        ("at work", "all of it"),
    ],
)
def test_a_generation_survives_the_loss_of_redis_and_repeats_nothing(
    recorder: Recorder,
    hands: Hands,
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    recorded: str,
    until_step: str,
) -> None:
    run, _ = hands.request(layers(3, 4))
    drain(recorder)
    hands.start(run, layers(3, 4))
    hands.work(5)
    hands.state.cancel(run, 1, "enough", "ann")
    left = [node for node, state in hands.link.client.hgetall(f"hg1:state:{run}.1").items() if state in ("pending", "due")]
    hands.state.revoke(run, 1, "cancelled", "enough", left)
    drain(recorder)
    request = append_request(hands.link, "request.rerun", {"run": run, "what": "failed", "by": "ann"})
    drain(recorder)
    assert (read.get_run(recorder.engine, run).generation, request) == (2, request)
    adopted = {node.id for node in read.get_nodes(recorder.engine, run, 1) if node.outcome == "succeeded"}
    assert len(adopted) == 5
    hands.gen = 2
    from orchestrator.admission import Admission

    kernel = Starter(hands)
    if until_step == "adopted":
        monkeypatch.setattr(hands.state, "launch", lambda *_: [])
    admission = Admission(kernel, recorder.engine)  # type: ignore[arg-type]
    admission.start(run, 2)
    monkeypatch.undo()
    if until_step == "at work":
        hands.work(2)
    if recorded == "all of it":
        drain(recorder)
    elif recorded == "half of it":
        entries = len(hands.link.client.xrange("hg1:events"))
        monkeypatch.setattr("orchestrator.recorder.stream.BATCH_MAX", max(1, entries // 2))
        recorder.step(None)
        monkeypatch.undo()
    redis_server.kill()
    shutil.rmtree(redis_server.directory / "appendonlydir")
    redis_server.start()
    recorder.prepare()
    hands.enroll()
    for _ in range(20):
        if read.get_run(recorder.engine, run, 2).status == "ended":
            break
        admission.start(run, 2)
        hands.sweep(run)
        hands.work()
        drain(recorder)
    assert read.get_run(recorder.engine, run, 2).outcome == "succeeded"
    nodes = {node.id: node for node in read.get_nodes(recorder.engine, run, 2)}
    assert {node for node, row in nodes.items() if row.adopted} == adopted
    assert all(row.adopted == 1 and row.attempt == 0 and row.result == '"x"' for node, row in nodes.items() if node in adopted)
    assert all(row.outcome == "succeeded" and row.attempt > 0 for node, row in nodes.items() if node not in adopted)
    assert hands.link.client.hgetall("hg1:tenant:default")["running"] == "0"


def test_a_node_whose_large_result_was_collected_runs_again_where_it_is_taken(stack: Running, tmp_path: Path) -> None:
    client, log, mended = stack.client, tmp_path / "log", tmp_path / "mended"
    log.touch()

    def node(name: str, *parts: str, **params: Any) -> dict[str, Any]:
        return {"id": name, "task": "node_tasks.needs", "params": {"name": name, "log": str(log), **params}, "after": list(parts)}

    large = {"id": "large", "task": "synthetic.emit", "params": {"bytes": 10_000}, "after": ["first"]}
    idle = {"id": "idle", "task": "synthetic.emit", "params": {"bytes": 10_000}, "after": ["first"]}
    takes = {**node("takes", "idle", parts={"$ref": "large"}, path=str(mended)), "attempts": 1}
    run = client.submit(Graph.parse({"name": "g", "nodes": [node("first"), large, idle, takes]})).wait(TIMEOUT_S)
    assert run.outcome == "failed"
    settings = client.settings
    later = int(time.time() * 1000 + settings.result_ttl_s * 1000 + 60_000)
    Collector(client.kernel.results.objects, client.engine, settings.result_ttl_s).collect(later)
    assert not client.kernel.results.objects.names(run.run_id)
    mended.touch()
    again = run.rerun(reason="the file is there").wait(TIMEOUT_S)
    assert (again.outcome, by_id(again)["large"]["attempt"]) == ("succeeded", 1)
    assert of_generations(again) == {"first": 1, "idle": 1, "large": None, "takes": None}
    assert Counter(log.read_text().split()) == Counter(first=1, takes=2)
