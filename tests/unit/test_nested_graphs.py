"""Sub-graphs: nodes that stand for graphs, done away with when a graph is read."""

from __future__ import annotations

import time
from typing import Any

import pytest

from orchestrator.graph import Graph, Limits
from orchestrator.graph.parse import parse


def node(id_: str, /, **fields: Any) -> dict[str, Any]:
    return {"id": id_, "task": "t", **fields}


def sub(id_: str, *nodes: Any, **fields: Any) -> dict[str, Any]:
    return {"id": id_, "graph": {"nodes": list(nodes)}, **fields}


def graph(*nodes: Any) -> Graph:
    return Graph.parse({"name": "g", "nodes": list(nodes)})


def problems(*nodes: Any, limits: Limits | None = None) -> tuple[str, ...]:
    return parse({"name": "g", "nodes": list(nodes)}, limits or Limits())[1]


def test_a_sub_graph_reads_as_the_same_nodes_written_without() -> None:
    written = graph(
        node("a"),
        sub(
            "n",
            node("p", params={"x": {"$input": "given"}, "y": [{"$input": "plain"}, {"$input": "open", "default": 7}]}),
            node("q", params={"x": {"$ref": "p", "default": None}}, variants=[{**VARIANT, "params": {"x": {"$input": "plain"}}}]),
            node("r", after=["p"], when={"$ref": "p", "equals": 1}),
            node("s", after=["q", "r"]),
            params={"given": {"$ref": "a"}, "plain": {"deep": [1]}},
        ),
        node("b", params={"x": {"$ref": "n"}}, after=["n"]),
    )
    flat = graph(
        node("a"),
        node("n.p", params={"x": {"$ref": "a"}, "y": [{"deep": [1]}, 7]}),
        node("n.q", params={"x": {"$ref": "n.p", "default": None}}, variants=[{**VARIANT, "params": {"x": {"deep": [1]}}}]),
        node("n.r", after=["n.p"], when={"$ref": "n.p", "equals": 1}),
        node("n.s", after=["n.q", "n.r"]),
        node("b", params={"x": {"$ref": "n.s"}}, after=["n.s"]),
    )
    assert written == flat
    assert written.digest == flat.digest
    assert Graph.parse(written.canonical()) == written


VARIANT = {"name": "v", "kind": "generation", "estimate": {"llm": 1}, "value": 0}


def test_what_waits_for_a_sub_graph_waits_for_all_its_sinks_and_its_roots_wait_for_what_it_waits_for() -> None:
    made = graph(
        node("a"),
        sub("n", node("x"), sub("m", node("y"), node("z", after=["y"])), node("w"), node("v", after=["w", "x"]), after=["a"]),
        node("b", after=["n"]),
    )
    assert made.parents() == {
        "a": (),
        "n.x": ("a",),
        "n.m.y": ("a",),
        "n.m.z": ("n.m.y",),
        "n.w": ("a",),
        "n.v": ("n.w", "n.x"),
        "b": ("n.m.z", "n.v"),
    }


def test_inputs_pass_through_sub_graphs_within_sub_graphs() -> None:
    made = graph(
        node("a"),
        sub("n", sub("m", node("x", params={"v": {"$input": "in"}}), params={"in": [{"$input": "of"}]}), params={"of": {"$ref": "a"}}),
    )
    assert made.by_id["n.m.x"].params == {"v": [{"$ref": "a"}]}


def nested(depth: int) -> dict[str, Any]:
    inner: dict[str, Any] = node("x")
    for _ in range(depth):
        inner = sub("n", inner)
    return inner


def test_sub_graphs_stand_five_deep_at_most() -> None:
    assert problems(nested(5)) == ()
    assert problems(nested(6)) == ("node 'n.n.n.n.n.n': sub-graphs stand more than 5 deep inside each other; take some apart",)


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ([{"id": "n", "graph": None}], "`graph` is null; give an object"),
        ([{"id": "n", "graph": {"nodes": []}}], "with a list of at least one node"),
        ([{"id": "n", "graph": {"nodes": [node("a")], "name": "x"}}], "unknown key 'name' in `graph`"),
        ([sub("n", node("a"), required=False)], "a sub-graph takes id, graph, params, after and not 'required'"),
        ([sub("n", node("a"), params=3)], "`params` is 3"),
        ([sub("n", node("a"), after="x")], "`after` is 'x'"),
        ([sub("n", node("a"), params={"x": 1})], "nothing inside takes the parameter 'x'"),
        ([sub("n", node("a", params={"x": {"$input": "tpoic"}}), params={"topic": 1})], "no parameter 'tpoic'; did you mean 'topic'?"),
        ([sub("n", node("a", params={"x": {"$input": 3}}))], "$input is 3"),
        ([node("a", params={"x": {"$input": "y"}})], "stands for a parameter of a sub-graph, and this node is in none"),
        ([sub("n", node("a")), node("n.b")], "node 'n.b': its id lies under the sub-graph 'n'"),
        ([sub("n", node("a", params={"x": {"$ref": "b"}})), node("b")], "refers to 'n.b', which is not a node"),
        ([sub("n", node("a"), node("a"))], "node 'n.a': duplicate id"),
        ([sub("n", 7)], "nodes[0]: the node is 7"),
        ([sub("n", node("a"), node("b")), node("c", params={"x": {"$ref": "n"}})], "which ends in 2 nodes (n.a, n.b)"),
        ([sub("n", node("a", params={"x": {"$ref": "b"}}), node("b", after=["a"]))], "cycle: n.a -> n.b -> n.a"),
    ],
)
def test_what_is_wrong_with_a_sub_graph_is_one_sentence(nodes: list[Any], said: str) -> None:
    found = problems(*nodes)
    assert any(said in sentence for sentence in found), found


def test_inputs_cannot_make_a_small_text_a_large_graph() -> None:
    users = [node(f"a{i}", params={"x": {"$input": "large"}}) for i in range(300)]
    started = time.monotonic()
    found = problems(sub("n", *users, params={"large": "x" * 60_000}))
    assert sum("larger than the limit of 16,777,216 bytes" in sentence for sentence in found) == 1
    assert time.monotonic() - started < 30
