"""A generation whose nodes become the graphs that they returned before: known through a loss of everything, returned once."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from orchestrator.admission import Admission
from orchestrator.embedded import RedisServer
from orchestrator.graph import Graph
from orchestrator.recorder import append_request
from orchestrator.recorder.loop import Recorder
from orchestrator.store import read
from tests.integration.hands import Hands, Starter, drain

pytestmark = pytest.mark.both_records


def nested(node: str, *ends: str) -> Graph:
    """A graph as it is spliced in under a node."""
    inner = [{"id": end, "task": "synthetic.noop"} for end in ends]
    return Graph.parse({"name": "g", "nodes": [{"id": node, "graph": {"nodes": inner}}]})


OUTER = Graph.parse(
    {"name": "outer", "nodes": [{"id": "n", "task": "synthetic.noop"}, {"id": "e", "task": "synthetic.noop", "after": ["n"]}]}
)
RETURNED = {"n": nested("n", "a", "d", "z"), "n.d": nested("n.d", "x", "y")}


def state_of(hands: Hands, run: str) -> dict[str, Any]:
    """What says what becomes of a run's nodes; a spec's or a control's text may be ordered otherwise."""
    link = hands.link.client
    states = {node: "due" if state == "running" else state for node, state in link.hgetall(f"hg1:state:{run}.2").items()}
    sources = {node: text.partition('"source":')[2] for node, text in link.hgetall(f"hg1:ctl:{run}.2").items() if '"source":' in text}
    return {
        "state": states,
        "source": {node: text[:60] for node, text in sources.items()},
        "wait": {name: count for name, count in link.hgetall(f"hg1:wait:{run}.2").items() if count != "0" or ":" not in name},
        "adopts": link.hgetall(f"hg1:adopts:{run}.2"),
        "result": link.hgetall(f"hg1:result:{run}.2"),
        "purse": link.hgetall(f"hg1:purse:{run}.2").get("hold"),
    }


def half_done(recorder: Recorder, hands: Hands) -> str:
    """A run whose first generation was cancelled: n became n.a, n.d and n.z, n.d became n.d.x and n.d.y; n.a and n.d.x have succeeded."""
    run, _ = hands.request(OUTER)
    drain(recorder)
    hands.start(run, OUTER)
    while claimed := hands.begin():
        node, attempt, delivery = claimed[1:]
        if node in RETURNED:
            hands.expand(run, node, attempt, {"depth": node.count(".")}, source=RETURNED[node].canonical().decode())
        elif node in ("n.a", "n.d.x"):
            hands.finish(run, node, attempt, delivery)
        else:
            hands.state.finish(run, 1, node, attempt, hands.inc, "failed", "", "{}", "", -1)
            hands.state.settle(run, 1, node, attempt, "", "signal")
            hands.queue.ack(hands.inc, delivery.tag, delivery.number)
    drain(recorder)
    assert read.get_run(recorder.engine, run).status == "ended"
    append_request(hands.link, "request.rerun", {"run": run, "what": "failed", "by": "ann"})
    drain(recorder)
    hands.gen = 2
    return run


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_a_generation_becomes_what_the_one_before_became_also_after_a_loss(
    recorder: Recorder, hands: Hands, redis_server: RedisServer, steps: int
) -> None:
    run = half_done(recorder, hands)
    admission = Admission(Starter(hands), recorder.engine)  # type: ignore[arg-type]
    admission.start(run, 2)
    for _ in range(steps):  # n becomes its graph, then n.d or n.z is what comes
        delivery = hands.queue.pop(hands.inc, "default", 1)
        assert delivery is not None
        node = hands.node_of(delivery.tag)[1]
        reply = hands.state.begin(run, 2, node, hands.inc, delivery.tag, delivery.number, "w")
        assert reply[0] == "run"
        if node in RETURNED:
            assert reply[5:7] == ["0", "expand"]  # it is not run again, and costs nothing
            hands.expand(run, node, int(reply[1]), {"depth": node.count(".")}, source=reply[7])
        else:
            hands.finish(run, node, int(reply[1]), delivery)
    drain(recorder)
    before = state_of(hands, run)
    redis_server.kill()
    shutil.rmtree(redis_server.directory / "appendonlydir")
    redis_server.start()
    recorder.prepare()
    assert state_of(hands, run) == before
    hands.enroll()
    for _ in range(10):
        admission.start(run, 2)
        hands.sweep(run)
        hands.work()
        drain(recorder)
    assert read.get_run(recorder.engine, run, 2).outcome == "succeeded"
    nodes = {node.id: node for node in read.get_nodes(recorder.engine, run, 2)}
    assert {node for node, row in nodes.items() if row.adopted} == {"n.a", "n.d.x"}
    assert nodes.keys() == {"n", "e", "n.a", "n.d", "n.z", "n.d.x", "n.d.y"}


def test_what_a_node_becomes_in_a_generation_that_never_came_to_it_is_known_to_the_next(recorder: Recorder, hands: Hands) -> None:
    run = half_done(recorder, hands)
    admission = Admission(Starter(hands), recorder.engine)  # type: ignore[arg-type]
    admission.start(run, 2)
    hands.state.cancel(run, 2, "not now", "ann")
    hands.state.revoke(run, 2, "cancelled", "not now", ["n", "e"])
    drain(recorder)
    append_request(hands.link, "request.rerun", {"run": run, "what": "failed", "by": "ann"})
    drain(recorder)
    hands.gen = 3
    admission.start(run, 3)
    for _ in range(10):
        hands.sweep(run)
        hands.work()
        drain(recorder)
    assert read.get_run(recorder.engine, run, 3).outcome == "succeeded"
    assert {node.id for node in read.get_nodes(recorder.engine, run, 3) if node.adopted} == {"n.a", "n.d.x"}
