"""Cancelling nodes, runs, tenants and everything is a fence: after it is acknowledged nothing of that begins, whatever restarts."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from running import Running, by_id, until
from ulid import ULID

from orchestrator import Refused, Unknown
from orchestrator.cancellation import fed_only_by, node_of
from orchestrator.cli import main
from orchestrator.embedded import RedisServer
from orchestrator.graph import Graph
from orchestrator.handle import RunHandle
from orchestrator.recorder import append_request
from orchestrator.recorder.loop import Recorder
from orchestrator.store import read
from tests.integration.hands import POOL, Hands, drain, layers

TIMEOUT_S = 30


def needs(name: str, log: Path, *parents: str, **more: Any) -> dict[str, Any]:
    parts = [{"$ref": parent} for parent in parents]
    return {"id": name, "task": "node_tasks.needs", "params": {"name": name, "log": str(log), "parts": parts}, **more}


def gated(place: Path, *nodes: dict[str, Any], name: str = "g") -> Graph:
    """A graph whose first node waits for the file `gate`."""
    first = {"id": "first", "task": "node_tasks.wait_for", "params": {"path": str(place / "gate"), "log": str(place / "began")}}
    return Graph.parse({"name": name, "nodes": [first, *nodes]})


def begun(place: Path) -> bool:
    return (place / "began").exists()


def outcomes(run: RunHandle) -> dict[str, str]:
    return {node: row["outcome"] for node, row in by_id(run).items()}


def ran(log: Path) -> list[str]:
    return sorted(log.read_text().split()) if log.exists() else []


def trail(stack: Running, target: str) -> list[tuple[str, str, str | None]]:
    lines = [line for line in read.audit(stack.client.engine) if line.target == target]
    return [(line.action, line.actor, line.reason) for line in lines if not line.action.startswith("run.admitted")]


# -- nodes -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("below", [False, True])
def test_a_cancelled_node_never_begins_and_its_subgraph_is_what_only_it_feeds(stack: Running, tmp_path: Path, below: bool) -> None:
    log = tmp_path / "log"
    after = {"after": ["first"]}
    nodes = [needs("a", log, **after), needs("b", log, "a"), needs("other", log, **after), needs("both", log, "b", "other")]
    run = stack.client.submit(gated(tmp_path, *nodes))
    until(lambda: begun(tmp_path))
    assert run.cancel(["a", "a"], below=below, reason="not needed", by="ann")  # named twice by mistake
    assert outcomes(run)["a"] == "cancelled"  # on record by now
    (tmp_path / "gate").touch()
    assert run.wait(TIMEOUT_S).outcome == "failed"
    fed = "cancelled" if below else "upstream_failed"
    assert outcomes(run) == {"first": "succeeded", "a": "cancelled", "b": fed, "other": "succeeded", "both": "upstream_failed"}
    assert ran(log) == ["other"]
    assert by_id(run)["a"]["reason"] == "not needed"
    assert trail(stack, run.run_id) == [("node.cancelling", "ann", "not needed")]
    with pytest.raises(Refused, match="is over"):
        run.cancel("a")


def test_a_node_that_runs_is_told_and_cancelled_whatever_it_returns(stack: Running, tmp_path: Path) -> None:
    log = tmp_path / "log"
    nodes = [
        {"id": "told", "task": "node_tasks.until_cancelled", "params": {"path": str(tmp_path / "began")}},
        {"id": "deaf", "task": "node_tasks.wait_for", "params": {"path": str(tmp_path / "gate"), "log": str(tmp_path / "deaf")}},
        needs("next", log, "told"),
        needs("after", log, "deaf"),
        needs("free", log),
    ]
    run = stack.client.submit(Graph.parse({"name": "g", "nodes": nodes}))
    until(lambda: begun(tmp_path) and (tmp_path / "deaf").exists())
    assert run.cancel(["told", "deaf"])
    (tmp_path / "gate").touch()
    assert run.wait(TIMEOUT_S).outcome == "failed"
    free = {"next": "upstream_failed", "after": "upstream_failed", "free": "succeeded"}
    assert outcomes(run) == {"told": "cancelled", "deaf": "cancelled", **free}
    assert ran(log) == ["free"]
    assert by_id(run)["told"]["cost_micros"] > 0  # what it did is charged


def test_of_a_cancelled_run_what_runs_is_told(stack: Running, tmp_path: Path) -> None:
    nodes = [{"id": "told", "task": "node_tasks.until_cancelled", "params": {"path": str(tmp_path / "began")}}]
    run = stack.client.submit(Graph.parse({"name": "g", "nodes": nodes}))
    until(lambda: begun(tmp_path))
    assert run.cancel()
    assert run.wait(TIMEOUT_S).outcome == "cancelled"
    assert outcomes(run) == {"told": "succeeded"}


def test_now_ends_one_execution_and_nothing_else(stack: Running, tmp_path: Path) -> None:
    place = tmp_path / "other"
    place.mkdir()
    other = stack.client.submit(gated(place, name="other"))
    nodes = [
        {"id": "slow", "task": "node_tasks.stubborn", "params": {"path": str(tmp_path / "began"), "seconds": 60}},
        needs("n", tmp_path / "log"),
    ]
    run = stack.client.submit(Graph.parse({"name": "g", "nodes": nodes}))
    until(lambda: begun(tmp_path) and begun(place) and outcomes(run)["n"])
    started = time.monotonic()
    assert run.cancel("slow", now=True, reason="now", by="ann")
    assert run.wait(TIMEOUT_S).outcome == "failed"
    assert time.monotonic() - started < 20  # it would have gone on for a minute
    assert outcomes(run) == {"slow": "cancelled", "n": "succeeded"}
    (place / "gate").touch()
    assert other.wait(TIMEOUT_S).result() == 1


def test_celery_s_revoke_of_a_node_s_task_id_cancels_the_node(stack: Running, tmp_path: Path) -> None:
    log = tmp_path / "log"
    told = {"id": "told", "task": "node_tasks.until_cancelled", "params": {"path": str(tmp_path / "told")}}
    run = stack.client.submit(gated(tmp_path, needs("a", log, after=["first"]), needs("b", log, after=["first"]), told))
    until(lambda: begun(tmp_path) and (tmp_path / "told").exists())
    stack.app.control.revoke([f"{run.run_id}.1.a", f"{run.run_id}.1.told"])
    until(lambda: outcomes(run)["a"] == outcomes(run)["told"] == "cancelled", 10)
    (tmp_path / "gate").touch()
    assert run.wait(TIMEOUT_S).outcome == "failed"
    assert outcomes(run) == {"first": "succeeded", "a": "cancelled", "b": "succeeded", "told": "cancelled"}
    assert ran(log) == ["b"]
    assert ("node.cancelling", "celery", "its task id was revoked") in trail(stack, run.run_id)
    assert node_of(str(ULID())) is None


# -- tenants, everything -----------------------------------------------------------------------------------------------------


def test_a_tenant_is_cancelled_as_a_whole_also_what_waits_and_nobody_else(stack: Running, tmp_path: Path) -> None:
    client, log = stack.client, tmp_path / "log"
    tenant = f"t{tmp_path.name[:40].replace('_', '-')}"
    client.tenants.create(tenant, max_concurrent_runs=1)
    mine = [client.submit(gated(tmp_path, needs("a", log, "first"), name=f"g{n}"), tenant=tenant) for n in range(3)]
    place = tmp_path / "other"
    place.mkdir()
    other = client.submit(gated(place, name="other"))
    until(lambda: begun(tmp_path) and begun(place))
    assert [run.status for run in mine] == ["running", "held", "held"]
    assert set(client.cancel_all(f"tenant:{tenant}", reason="a mistake", by="ann")) == {run.run_id for run in mine}
    later = client.submit(Graph.parse({"name": "later", "nodes": [needs("later", log)]}), tenant=tenant)
    (tmp_path / "gate").touch()
    (place / "gate").touch()
    assert [run.wait(TIMEOUT_S).outcome for run in mine] == ["cancelled"] * 3
    assert (other.wait(TIMEOUT_S).outcome, later.wait(TIMEOUT_S).outcome) == ("succeeded", "succeeded")
    assert ran(log) == ["later"]
    assert [outcomes(run)["a"] for run in mine] == ["cancelled"] * 3
    assert trail(stack, f"tenant:{tenant}") == [("scope.cancelled", "ann", "a mistake")]
    with pytest.raises(Unknown):
        client.cancel_all("tenant:nobody-at-all")


def test_everything_is_cancelled_by_one_command(stack: Running, tmp_path: Path) -> None:
    run = stack.client.submit(gated(tmp_path, needs("a", tmp_path / "log", "first")))
    until(lambda: begun(tmp_path))
    with stack.client.settings.in_force():
        done = CliRunner().invoke(main, ["cancel", "--all", "--reason", "fire", "--by", "ann", "--json"])
        assert run.run_id in json.loads(done.stdout)["cancelled"]
        for wrong in ([], [run.run_id, "--all"], ["--tenant", "x", "--node", "a"], [run.run_id, "--subgraph"]):
            assert CliRunner().invoke(main, ["cancel", *wrong]).exit_code == 2
    (tmp_path / "gate").touch()
    assert run.wait(TIMEOUT_S).outcome == "cancelled"
    assert ran(tmp_path / "log") == []


def test_a_run_that_is_on_record_only_is_cancelled_and_nothing_of_it_begins(stack: Running, tmp_path: Path) -> None:
    run_id, graph = str(ULID()).lower(), Graph.parse({"name": "g", "nodes": [needs("a", tmp_path / "log")]})
    wanted = {"run": run_id, "gen": 1, "tenant": "default", "digest": graph.digest, "graph": graph.name, "priority": 5}
    append_request(stack.client.kernel.link, "request.submit", wanted, payload=graph.canonical())
    until(lambda: any(run.run_id == run_id for run in read.list_runs(stack.client.engine)))
    assert stack.client.cancel(run_id)
    run = stack.client.run(run_id).wait(TIMEOUT_S)
    assert (run.outcome, outcomes(run)) == ("cancelled", {"a": "cancelled"})
    assert ran(tmp_path / "log") == []
    assert not stack.client.cancel(run_id)


def test_a_run_of_ten_thousand_nodes_is_cancelled_within_a_second(stack: Running, tmp_path: Path) -> None:
    wide = [{"id": f"n{n}", "task": "synthetic.noop", "after": ["first"]} for n in range(9_999)]
    run = stack.client.submit(gated(tmp_path, *wide))
    until(lambda: begun(tmp_path))
    started = time.monotonic()
    assert run.cancel()
    took = time.monotonic() - started
    (tmp_path / "gate").touch()
    assert run.wait(120).outcome == "cancelled"
    assert read.get_run(stack.client.engine, run.run_id).counts == {"succeeded": 1, "cancelled": 9_999}
    assert took < 1.0, f"acknowledged after {took:.2f} s"


# -- loss of everything, by hand ---------------------------------------------------------------------------------------------


def test_fences_hold_after_redis_lost_everything(recorder: Recorder, hands: Hands, redis_server: RedisServer) -> None:
    run, _ = hands.request(layers(3, 2))
    fenced, _ = hands.request(layers(2, 1), "default")
    drain(recorder)
    hands.start(run, layers(3, 2))
    claimed = hands.begin()
    assert claimed is not None
    node = claimed[1]
    assert hands.state.stop(run, 1, "not this one", "ann", ["n1.0", node]) == [1, 1, 0]
    drain(recorder)
    redis_server.kill()
    shutil.rmtree(redis_server.directory / "appendonlydir")
    redis_server.start()
    recorder.prepare()
    hands.enroll()
    hands.sweep(run)
    hands.work()
    drain(recorder)
    nodes = {row.id: row for row in read.get_nodes(recorder.engine, run)}
    assert (nodes[node].outcome, nodes[node].attempt) == ("cancelled", 1)
    assert nodes["n1.0"].outcome == "cancelled"
    # The scope's fence: what was admitted before it does not begin, what comes after it does.
    hands.start(fenced, layers(2, 1))
    hands.state.fence("tenant:default", "all of it", "ann")
    assert hands.begin() is None
    drain(recorder)
    redis_server.kill()
    shutil.rmtree(redis_server.directory / "appendonlydir")
    redis_server.start()
    recorder.prepare()
    hands.enroll()
    hands.sweep(fenced)
    assert hands.begin() is None
    later, _ = hands.request(layers(1, 1))
    drain(recorder)
    until(lambda: hands.link.client.time()[0] * 1000 > int(hands.link.client.hget("hg1:fence", "tenant:default")))  # type: ignore[index,operator,arg-type]
    hands.start(later, layers(1, 1))
    assert [claimed[0] for claimed in iter(hands.begin, None)] == [later]
    assert hands.queue.pop(hands.inc, POOL, 1) is None


def test_what_only_some_nodes_feed_is_what_has_no_other_parent() -> None:
    parents: dict[str, tuple[str, ...]] = {"a": (), "b": ("a",), "c": ("a", "x"), "x": (), "d": ("b",), "e": ("d", "c")}
    assert fed_only_by(parents, ["a"]) == ["a", "b", "d"]
    assert set(fed_only_by(parents, ["a", "x"])) == set(parents)
    assert fed_only_by(parents, ["e"]) == ["e"]
