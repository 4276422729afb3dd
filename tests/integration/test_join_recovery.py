"""Joins, conditions and runs that stop, when Redis loses everything: what the record says is what state was."""

from __future__ import annotations

import random
import shutil
from typing import Any

import pytest

from orchestrator.embedded import RedisServer
from orchestrator.graph import Graph
from orchestrator.recorder.loop import Recorder
from orchestrator.store.read import get_nodes, get_run
from tests.integration.hands import Hands, drain


def branching(dice: random.Random, on_failure: str) -> Graph:
    """A random graph of every join, with conditions of which about half hold: every result is "x"."""
    nodes: list[dict[str, Any]] = []
    for i in range(24):
        above = [f"n{j}" for j in range(max(0, i - 5), i) if dice.random() < 0.4]
        node: dict[str, Any] = {"id": f"n{i}", "task": "synthetic.noop", "after": above, "required": dice.random() < 0.7, "attempts": 1}
        if above:
            node["join"] = dice.choice(["all_succeeded", "all_succeeded", "all_done", f"at_least({dice.randint(1, len(above))})"])
            if dice.random() < 0.3:
                node["when"] = {"$ref": dice.choice(above), dice.choice(["equals", "not_equals"]): "x"}
        nodes.append(node)
    return Graph.parse({"name": "branching", "nodes": nodes, "on_failure": on_failure})


def kept(hands: Hands, run: str) -> dict[str, Any]:
    """What state has of a run that a rebuild must find again."""
    read = hands.link.client
    fields = read.hgetall(f"hg1:run:{run}.1")
    wait = {name: count for name, count in read.hgetall(f"hg1:wait:{run}.1").items() if count != "0" or ":" not in name}
    states = {node: "due" if state == "running" else state for node, state in read.hgetall(f"hg1:state:{run}.1").items()}
    return {
        "state": states,
        # Nothing is counted any more once a run stops, so there the record may know better.
        "wait": {} if "stopped" in fields else wait,
        "due": {node for node, state in states.items() if state == "due"},
        "run": {name: value for name, value in fields.items() if name in ("left", "stopped", "on_failure", "required_failed", "degraded")}
        | {name: value for name, value in fields.items() if name.startswith("n:")},
        "cascade": read.lrange(f"hg1:cascade:{run}.1", 0, -1),
    }


@pytest.mark.parametrize("on_failure", ["finish", "stop"])
@pytest.mark.parametrize("seed", range(3))
def test_a_rebuild_finds_every_join_as_it_was_and_the_run_ends(
    recorder: Recorder, hands: Hands, redis_server: RedisServer, seed: int, on_failure: str
) -> None:
    dice = random.Random(seed)
    graphs = [branching(dice, on_failure) for _ in range(2)]
    runs = [hands.request(graph)[0] for graph in graphs]
    drain(recorder)
    for run, graph in zip(runs, graphs, strict=True):
        hands.start(run, graph)
    hands.begin()  # nobody ends this one, so its run is live, whatever stops it
    hands.work(dice.randint(5, 30), fail=0.3 if on_failure == "stop" else 0.15)
    drain(recorder)
    live = [run for run in runs if get_run(recorder.engine, run).status != "ended"]
    before = {run: kept(hands, run) for run in live}
    assert before
    redis_server.kill()
    shutil.rmtree(redis_server.directory / "appendonlydir")
    redis_server.start()
    recorder.prepare()
    assert {run: kept(hands, run) for run in live} == before
    hands.enroll()
    for _ in range(20):
        for run in live:
            hands.sweep(run)
        hands.work(fail=0.1)
        drain(recorder)
    for run in runs:
        assert get_run(recorder.engine, run).status == "ended"
        assert all(node.outcome for node in get_nodes(recorder.engine, run))
