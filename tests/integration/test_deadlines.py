"""A run in flight gets more time: what waits for certain, also after Redis is lost; what runs, where its process can be given it."""

from __future__ import annotations

from typing import Any

import pytest
from running import Running, by_id, until

from orchestrator.client import Client
from orchestrator.embedded import RedisServer
from orchestrator.graph import Graph
from orchestrator.recorder.loop import Recorder
from orchestrator.recovery import recover
from orchestrator.settings import Settings
from orchestrator.store.read import audit, get_run
from tenancy.errors import Refused, Unknown
from tenancy.link import Link
from tests.integration.hands import Hands, drain, layers
from tests.integration.test_pauses import recording


def sleeps(seconds: float, timeout_s: int, *more: dict[str, Any]) -> Graph:
    node = {"id": "n", "task": "synthetic.sleep", "params": {"seconds": seconds}, "timeout_s": timeout_s, "attempts": 1}
    return Graph.parse({"name": "slow", "nodes": [node, *more]})


def test_a_node_that_has_not_begun_has_the_raised_limit(stack: Running) -> None:
    client = stack.client
    client.pause("tenant:default", reason="test")
    try:
        run = client.submit(sleeps(2, 1))
        until(lambda: stack.redis.hget(f"hg1:state:{run.run_id}.1", "n") == "due")
        extended = run.extend_deadline(20, "n", reason="it takes longer", by="ann")
    finally:
        client.resume("tenant:default", reason="test")
    assert (extended.waiting, extended.running, extended.kept) == (1, (), ())
    assert run.wait(30).outcome == "succeeded"
    line = next(line for line in audit(client.engine, run=run.run_id) if line.action == "deadline.raised")
    assert (line.actor, line.reason) == ("ann", "it takes longer")


def test_what_runs_gets_more_time_too_and_a_whole_run_at_once(stack: Running) -> None:
    after = {"id": "after", "task": "synthetic.sleep", "params": {"seconds": 4}, "timeout_s": 2, "after": ["n"], "attempts": 1}
    run = stack.client.submit(sleeps(6, 5, after))
    until(lambda: any(event["t"] == "node.began" for event in run.events))
    extended = run.extend_deadline(60)
    assert (extended.waiting, extended.running, extended.kept) == (1, ("n",), ())
    assert run.wait(60).outcome == "succeeded"
    assert {node["outcome"] for node in by_id(run).values()} == {"succeeded"}


def test_what_a_node_becomes_has_its_raised_limit_begun_or_not(stack: Running) -> None:
    items = {"id": "m", "task": "synthetic.sleep", "map": [5, 3], "params": {"seconds": {"$item": True}}, "timeout_s": 4, "attempts": 1}
    run = stack.client.submit(Graph.parse({"name": "slow", "max_parallel": 1, "nodes": [items]}))
    until(lambda: any(event["t"] == "node.began" and event["node"] == "m.0" for event in run.events))
    extended = run.extend_deadline(60, "m")
    assert extended.running == ("m.0",)
    assert run.wait(60).outcome == "succeeded"
    began = {event["node"]: event["at"] for event in run.events if event["t"] == "node.began"}
    assert began["m.1"] > began["m.0"]


def test_more_time_is_not_for_ever(stack: Running) -> None:
    run = stack.client.submit(sleeps(60, 3))
    until(lambda: any(event["t"] == "node.began" for event in run.events))
    assert run.extend_deadline(5).running == ("n",)
    assert run.wait(40).outcome == "failed"
    node = by_id(run)["n"]
    assert node["outcome"] == "timed_out"
    assert node["finished_at"] - node["started_at"] > 4.5


def test_a_shorter_time_is_refused_with_a_sentence_and_changes_nothing(stack: Running) -> None:
    run = stack.client.submit(sleeps(60, 300))
    try:
        until(lambda: stack.redis.exists(f"hg1:fragment:{run.run_id}.1"))
        with pytest.raises(
            Refused, match=r"200 s would give nothing of run .* the node 'n' has 300 s already; a timeout can only be raised"
        ):
            run.extend_deadline(200, "n")
        with pytest.raises(Refused, match="each node that has not ended has 300 s or more"):
            run.extend_deadline(200)
        with pytest.raises(Unknown, match="has no node 'm'"):
            run.extend_deadline(600, "m")
        with pytest.raises(ValueError, match="whole seconds from 1 to 604800"):
            run.extend_deadline(0)
        assert not stack.redis.exists(f"hg1:timeout:{run.run_id}.1")
    finally:
        run.cancel(now=True)
    run.wait(30)
    with pytest.raises(Refused, match="is over; there is nothing to give more time to"):
        run.extend_deadline(600)


def test_the_raised_limits_survive_the_loss_of_redis(recorder: Recorder, hands: Hands, redis_server: RedisServer) -> None:
    graph = layers(2, 2)
    run, _ = hands.request(graph)
    drain(recorder)
    hands.start(run, graph)
    assert hands.state.deadline(run, 1, 900, "", "they take longer", "ann") == "0"
    assert hands.state.deadline(run, 1, 1200, "n0.1", "this one most", "ann") == "0"
    assert hands.state.deadline(run, 1, 800, "", "said later, and less", "ann") == "900"
    drain(recorder)
    recorder.link.client.flushall()
    recover(Link(redis_server.client_url), recorder.engine, hands.settings)
    hands.enroll()
    hands.sweep(run)
    limits = {}
    while claimed := hands.begin():
        limits[claimed[1]] = claimed[3].timeout_s
        hands.finish(*claimed)
    assert limits == {"n0.0": 900, "n0.1": 1200, "n1.0": 900, "n1.1": 900}
    drain(recorder)
    assert get_run(recorder.engine, run).outcome == "succeeded"


def test_a_worker_that_does_not_answer_keeps_its_limit_and_that_is_said(
    recorder: Recorder, hands: Hands, settings: Settings, redis_server: RedisServer
) -> None:
    graph = layers(1, 2)
    run, _ = hands.request(graph)
    drain(recorder)
    hands.start(run, graph)
    began = hands.begin()  # by hand: nobody listens to remote control
    assert began is not None
    assert began[3].timeout_s is None
    client = Client(settings.model_copy(update={"redis_url": redis_server.url}))
    with recording(recorder):
        first = client.extend_deadline(run, 900, reason="it takes longer", by="ann")
        again = client.extend_deadline(run, 900, reason="whoever asked died before he was told", by="ann")
    assert (first.waiting, first.running, first.kept) == (1, (), ("n0.0",))
    assert again == first
    hands.finish(*began)
    following = hands.begin()
    assert following is not None
    assert following[3].timeout_s == 900
    drain(recorder)
    lines = [line for line in audit(recorder.engine, run=run) if line.action == "deadline.raised"]
    assert [(line.said["timeout_s"], line.said["former"]) for line in lines] == [(900, 0), (900, 900)]
    client.kernel.link.close()
    client.kernel.app.close()
    client.engine.dispose()
