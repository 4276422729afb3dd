"""Maps, when a worker dies between two pieces, an answer is lost, something comes twice, or Redis loses everything."""

from __future__ import annotations

import json
import random
import shutil
from typing import Any

import pytest

from orchestrator.embedded import RedisServer
from orchestrator.graph import Graph
from orchestrator.recorder.loop import Recorder
from orchestrator.splice import spliced
from orchestrator.store.read import get_nodes, get_run
from tenancy.priorities import Priority
from tests.integration.hands import Hands, drain
from tests.integration.test_join_recovery import kept


def mapped(dice: random.Random) -> Graph:
    """A random graph with maps of every join."""
    nodes: list[dict[str, Any]] = []
    for i in range(10):
        above = [f"n{j}" for j in range(max(0, i - 4), i) if dice.random() < 0.4]
        node: dict[str, Any] = {"id": f"n{i}", "task": "synthetic.noop", "after": above, "required": dice.random() < 0.7, "attempts": 1}
        if dice.random() < 0.5:
            count = dice.randint(1, 7)
            node |= {"map": list(range(count)), "params": {"x": {"$item": True}}}
            node["join"] = dice.choice(["all_succeeded", "all_done", f"at_least({dice.randint(1, count)})"])
        elif above:
            node["join"] = dice.choice(["all_succeeded", "all_done", f"at_least({dice.randint(1, len(above))})"])
            if dice.random() < 0.3:
                node["when"] = {"$ref": dice.choice(above), "equals": "x"}
        nodes.append(node)
    return Graph.parse({"name": "mapped", "nodes": nodes})


def one(count: int, **fields: Any) -> Graph:
    node = {"id": "m", "task": "synthetic.noop", "map": list(range(count)), "params": {"x": {"$item": True}}, **fields}
    return Graph.parse({"name": "one", "nodes": [node, {"id": "end", "task": "synthetic.noop", "after": ["m"], "join": "all_done"}]})


def claim(hands: Hands, graph: Graph) -> tuple[str, int, dict[str, Any], Any]:
    """Start a run of one map and claim it: run, attempt, spec, delivery."""
    run, _ = hands.request(graph)
    hands.start(run, graph)
    delivery = hands.queue.pop(hands.inc, "default", 1)
    assert delivery is not None
    reply = hands.state.begin(run, 1, "m", hands.inc, delivery.tag, delivery.number, "w")
    assert reply[6:] == ["expand", ""]
    return run, int(reply[1]), json.loads(reply[2]), delivery


def finish(recorder: Recorder, hands: Hands, *runs: str) -> None:
    for _ in range(20):
        for run in runs:
            hands.sweep(run)
        hands.work(fail=0.0)
        drain(recorder)
    for run in runs:
        assert get_run(recorder.engine, run).status == "ended"
        nodes = get_nodes(recorder.engine, run)
        assert all(node.outcome for node in nodes)
        assert get_run(recorder.engine, run).total == len(nodes)


@pytest.mark.parametrize("seed", range(4))
def test_a_rebuild_finds_every_map_as_it_was_also_half_expanded_and_the_run_ends(
    recorder: Recorder, hands: Hands, redis_server: RedisServer, seed: int
) -> None:
    dice = random.Random(seed)
    graphs = [mapped(dice), one(7, join="all_done"), one(6, join="at_least(2)")]
    half, attempt, spec, _ = claim(hands, one(7))
    runs = [hands.request(graph)[0] for graph in graphs]
    drain(recorder)
    for run, graph in zip(runs, graphs, strict=True):
        hands.start(run, graph)
    hands.expand(half, "m", attempt, spec, most=2)
    hands.begin()  # nobody ends this one
    hands.work(dice.randint(4, 20), fail=0.2)
    drain(recorder)
    runs.append(half)
    live = [run for run in runs if get_run(recorder.engine, run).status != "ended"]
    before = {run: kept(hands, run) for run in live}
    assert before[half]["wait"]["m:made"] == "4"
    redis_server.kill()
    shutil.rmtree(redis_server.directory / "appendonlydir")
    redis_server.start()
    recorder.prepare()
    after = {run: kept(hands, run) for run in live}
    assert after == before
    hands.enroll()
    finish(recorder, hands, *runs)


def test_a_worker_that_dies_between_two_pieces_leaves_the_rest_to_the_next(recorder: Recorder, hands: Hands) -> None:
    run, attempt, spec, _ = claim(hands, one(7))
    assert hands.expand(run, "m", attempt, spec, most=2)[0] == "more"
    hands.queue.retire(hands.inc)
    hands.enroll()
    hands.work()
    drain(recorder)
    finish(recorder, hands, run)
    nodes = {node.id: node for node in get_nodes(recorder.engine, run)}
    assert (nodes["m"].attempt, nodes["m"].outcome, nodes["m"].lost) == (3, "succeeded", 1)
    assert [nodes[f"m.{i}"].attempt for i in range(7)] == [1] * 7


def test_a_piece_that_comes_twice_changes_nothing_and_answers_the_same(recorder: Recorder, hands: Hands) -> None:
    run, attempt, spec, _ = claim(hands, one(3))
    hands.piece = 3
    first = hands.expand(run, "m", attempt, spec)
    state = hands.link.read("HGETALL", f"hg1:run:{run}.1")
    assert hands.expand(run, "m", attempt, spec) == first == ["done", 0, "m.0", "m.1", "m.2"]
    assert hands.link.read("HGETALL", f"hg1:run:{run}.1") == state
    assert (state["total"], state["left"]) == ("5", "5")
    drain(recorder)
    finish(recorder, hands, run)


def test_the_message_of_a_map_goes_with_its_last_piece_and_a_second_one_finds_it_waiting(recorder: Recorder, hands: Hands) -> None:
    run, attempt, spec, delivery = claim(hands, one(2))
    hands.expand(run, "m", attempt, spec)
    assert not hands.queue.ack(hands.inc, delivery.tag, delivery.number)
    hands.queue.put("{}", "default", 1, "default", 1000, once=f"{run}.1.m", run=f"{run}.1")
    second = hands.queue.pop(hands.inc, "default", 1)
    assert second is not None
    assert hands.state.begin(run, 1, "m", hands.inc, second.tag, second.number, "w") == ["early"]
    drain(recorder)
    finish(recorder, hands, run)


def test_a_zombie_expands_nothing(hands: Hands) -> None:
    run, attempt, spec, _ = claim(hands, one(7))
    hands.expand(run, "m", attempt, spec, most=1)
    zombie = hands.inc
    hands.queue.retire(hands.inc)
    hands.enroll()
    hands.inc, fresh = zombie, hands.inc
    assert hands.expand(run, "m", attempt, spec) == ["fenced"]
    hands.inc = fresh
    assert hands.link.read("HLEN", f"hg1:state:{run}.1") == 4


def test_a_run_that_is_cancelled_while_a_map_expands_ends_with_every_node_cancelled(recorder: Recorder, hands: Hands) -> None:
    run, attempt, spec, _ = claim(hands, one(7))
    hands.expand(run, "m", attempt, spec, most=1)
    hands.state.cancel(run, 1, "enough", "ann")
    hands.state.revoke(run, 1, "cancelled", "enough", ["m.0", "m.1", "end"])
    assert hands.expand(run, "m", attempt, spec) == ["stopped", 0]
    assert hands.expand(run, "m", attempt, spec) == ["stopped", 0]
    drain(recorder)
    assert get_run(recorder.engine, run).outcome == "cancelled"
    assert {node.id: node.outcome for node in get_nodes(recorder.engine, run)} == dict.fromkeys(["m", "end", "m.0", "m.1"], "cancelled")


def test_items_that_the_hold_does_not_cover_must_fit_when_they_begin(recorder: Recorder, hands: Hands) -> None:
    graph = one(6, expected_items=2, estimate={"llm": 1000})
    graph = Graph.parse({**json.loads(graph.canonical()), "nodes": [{**node, "estimate": {"llm": 1000}} for node in graph.spec()["nodes"]]})
    run, _ = hands.request(graph)
    hands.start(run, graph)
    purse = hands.link.read("HGETALL", f"hg1:purse:{run}.1")
    assert (purse["hold"], purse["needed"]) == ("7000", "7000")  # a list that is given is counted as it is
    drain(recorder)
    finish(recorder, hands, run)


def test_a_graph_that_is_half_spliced_in_is_found_again_after_a_loss_and_not_returned_twice(
    recorder: Recorder, hands: Hands, redis_server: RedisServer
) -> None:
    outer = Graph.parse({"name": "outer", "nodes": [{"id": "n", "task": "synthetic.noop"}]})
    returned = Graph.parse(
        {"name": "g", "nodes": [{"id": "n", "graph": {"nodes": [{"id": f"p{i}", "task": "synthetic.noop"} for i in range(5)]}}]}
    )
    run, _ = hands.request(outer)
    drain(recorder)
    hands.start(run, outer)
    claimed = hands.begin()
    assert claimed is not None
    source = returned.canonical().decode()
    grown = spliced("n", returned, hands.settings, Priority.NORMAL, required=True, strict=False, depth=1, source=source)
    piece = grown.rows[:2]
    reply = hands.state.expand(run, 1, "n", claimed[2], hands.inc, grown.told(piece), 0, piece, grown.carried(piece), "llm=70")
    assert (reply[0], len(reply)) == ("more", 4)
    drain(recorder)
    before = kept(hands, run)
    fragments = hands.link.read("HGETALL", f"hg1:fragment:{run}.1")
    redis_server.kill()
    shutil.rmtree(redis_server.directory / "appendonlydir")
    redis_server.start()
    recorder.prepare()
    assert kept(hands, run) == before
    assert hands.link.read("HGETALL", f"hg1:fragment:{run}.1") == fragments
    hands.enroll()
    hands.sweep(run)
    delivery = hands.queue.pop(hands.inc, "default", 1)
    while delivery is not None and hands.node_of(delivery.tag)[1] != "n":
        hands.queue.ack(hands.inc, delivery.tag, delivery.number)
        delivery = hands.queue.pop(hands.inc, "default", 1)
    assert delivery is not None
    again = hands.state.begin(run, 1, "n", hands.inc, delivery.tag, delivery.number, "w")
    assert again[5:] == ["0", "expand", source]  # not run again: what it returned is known
    for first in range(0, 5, 2):
        piece = grown.rows[first : first + 2]
        reply = hands.state.expand(run, 1, "n", int(again[1]), hands.inc, grown.told(piece), first, piece, grown.carried(piece))
    assert reply[0] == "done"
    assert hands.state.settle(run, 1, "n", int(again[1]), "", "signal") == "settled"
    drain(recorder)
    finish(recorder, hands, run)
    assert {node.id: node.outcome for node in get_nodes(recorder.engine, run)} == dict.fromkeys(
        ["n", *(f"n.p{i}" for i in range(5))], "succeeded"
    )
