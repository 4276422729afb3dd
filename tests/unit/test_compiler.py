"""What the compiler makes of each shape, written out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.compiler import Fragment, NodeInfo, Par, Plan, Seq, compile_plan, decode_fragment, encode_fragment

pytestmark = pytest.mark.unit

Graph = dict[str, list[str]]


def plan_of(graph: Graph, nodes_max: int = 10**6, bytes_max: int = 10**9) -> Plan:
    return compile_plan(graph, nodes_max=nodes_max, bytes_max=bytes_max, weight=lambda _: 100)


def seqs(plan: Plan) -> list[Seq]:
    return [fragment.seq for fragment in plan.fragments]


def par(*branches: str | tuple[str | Par, ...], late: tuple[Seq, ...] = ()) -> Par:
    return Par(tuple((branch,) if isinstance(branch, str) else branch for branch in branches), late)


def fan(width: int) -> Graph:
    middle = [f"m{index}" for index in range(width)]
    return {"s": [], **{node: ["s"] for node in middle}, "t": middle}


def chain(length: int) -> Graph:
    return {f"n{index}": [f"n{index - 1}"] if index else [] for index in range(length)}


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        ({}, []),
        ({"a": []}, [("a",)]),
        ({"a": [], "b": ["a"], "c": ["b"]}, [("a", "b", "c")]),
        ({"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]}, [("a", par("b", "c"), "d")]),
        ({"a": [], "b": [], "c": ["a", "b"], "d": ["c"]}, [(par("a", "b"), "c", "d")]),
        (
            {"a": [], "b": ["a"], "b1": ["b"], "b2": ["b"], "bj": ["b1", "b2"], "c": ["a"], "d": ["bj", "c"]},
            [("a", par(("b", par("b1", "b2"), "bj"), "c"), "d")],
        ),
        # A branch that ends in a fork joins where the others do.
        ({"a": [], "b": ["a"], "c": ["b"], "d": ["b"], "x": ["a"], "j": ["c", "d", "x"]}, [("a", par("x", ("b", par("c", "d"))), "j")]),
        # A fork that never joins.
        ({"a": [], "b": ["a"], "c": ["a"], "c2": ["c"]}, [("a", par("b", ("c", "c2")))]),
        # N: what has one parent follows it, what has two is counted.
        ({"a": [], "b": [], "c": ["a"], "d": ["a", "b"]}, [("a", "c"), ("b",), ("d",)]),
        # A join carries its parents' lanes whatever these waited for.
        ({"p": [], "q": [], "x": ["p"], "y": ["p", "q"], "j": ["x", "y"]}, [("p",), ("q",), (par("x", "y"), "j")]),
        # Every node of a layer before every node of the next cannot be written in Celery.
        ({"a": [], "b": [], "c": ["a", "b"], "d": ["a", "b"]}, [("a",), ("b",), ("c",), ("d",)]),
    ],
)
def test_each_shape_becomes_these_fragments(graph: Graph, expected: list[Seq]) -> None:
    assert seqs(plan_of(graph)) == expected


def test_an_edge_that_others_imply_is_dropped() -> None:
    plan = plan_of({"a": [], "b": ["a"], "c": ["b", "a"], "d": ["c", "a", "b"]})
    assert plan.parents == {"a": (), "b": ("a",), "c": ("b",), "d": ("c",)}
    assert plan.children == {"a": ("b",), "b": ("c",), "c": ("d",), "d": ()}
    assert (plan.statistics.edges_given, plan.statistics.edges_reduced) == (6, 3)


def test_a_parent_named_twice_counts_once() -> None:
    assert plan_of({"a": [], "b": ["a", "a"]}).parents["b"] == ("a",)


def test_a_chain_is_cut_from_its_end() -> None:
    assert seqs(plan_of(chain(5), nodes_max=2)) == [("n0",), ("n1", "n2"), ("n3", "n4")]


def test_bytes_cut_like_nodes_do() -> None:
    assert seqs(plan_of(chain(5), bytes_max=299)) == seqs(plan_of(chain(5), nodes_max=2))


def test_a_node_larger_than_the_bound_travels_alone() -> None:
    plan = compile_plan(chain(3), nodes_max=9, bytes_max=100, weight=lambda node: 500 if node == "n1" else 10)
    assert seqs(plan) == [("n0",), ("n1",), ("n2",)]


def test_a_wide_fork_that_its_predecessor_cannot_carry_leads_its_own_fragment() -> None:
    plan = plan_of(fan(1000), nodes_max=40)
    assert [fragment.kind for fragment in plan.fragments] == ["single", "chord"]
    assert {message.nodes for message in plan.messages()} == {1, 2}


def test_a_long_branch_joins_late_and_the_others_are_carried() -> None:
    graph: Graph = {"a": [], "b": ["a"], **{f"c{i}": [f"c{i - 1}"] if i else ["a"] for i in range(6)}, "d": ["b", "c5"]}
    plan = plan_of(graph, nodes_max=4)
    assert seqs(plan) == [("a", par("b", late=(("c3", "c4", "c5"),)), "d"), ("c0", "c1", "c2")]
    assert plan.heads(0) == ("a", "c3")
    assert plan.order_is_exact(graph)


@pytest.mark.parametrize("count", [250, 500, 1000])
def test_bytes_of_all_messages_grow_with_the_nodes(count: int) -> None:
    layers: Graph = {"j0": []}
    for layer in range(count // 20):
        layers.update({f"{layer}.{place}": [f"j{layer}"] for place in range(20)})
        layers[f"j{layer + 1}"] = [f"{layer}.{place}" for place in range(20)]
    for graph in (chain(count), fan(count), layers):
        statistics = plan_of(graph, nodes_max=40).statistics
        # A chain cut into full pieces carries (40 + 1) / 2 signatures a message on average; nothing here carries more.
        assert statistics.bytes_all <= 100 * 41 / 2 * statistics.nodes


def test_the_statistics_are_those_of_the_plan() -> None:
    graph: Graph = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c", "a"], "e": ["d"], "x": [], "y": ["x", "e"], "z": ["x", "e"]}
    statistics = compile_plan(
        graph, nodes_max=9, bytes_max=10**6, weight=lambda _: 100, estimate=lambda node: 50 if node == "c" else 2
    ).statistics
    assert statistics.fragments == {"single": 3, "chain": 0, "chord": 1}
    assert (statistics.chords, statistics.groups, statistics.joins) == (1, 0, 2)
    assert (statistics.edges_given, statistics.edges_reduced, statistics.carried) == (10, 9, 5)
    assert statistics.carried_share == pytest.approx(5 / 9)
    assert (statistics.critical_path, statistics.critical_path_length) == (("a", "c", "d", "e", "y"), 58)
    assert (statistics.levels, statistics.widest_level) == (5, 2)
    assert statistics.largest_message == ("a", 5, 500)
    assert statistics.bytes_all == 100 * (5 + 3 + 3 + 2 + 1 + 1 + 1 + 1)


def test_a_plan_with_another_order_is_told_apart() -> None:
    plan = plan_of({"a": [], "b": ["a"], "c": ["b"]})
    assert plan.order_is_exact({"a": [], "b": ["a"], "c": ["b", "a"]})
    assert not plan.order_is_exact({"a": [], "b": ["a"], "c": ["a"]})
    assert not plan.order_is_exact({"a": [], "b": ["a"]})


@pytest.mark.parametrize(
    ("graph", "nodes_max", "message"),
    [
        ({"a": ["b"], "b": ["a"]}, 5, "cycle"),
        ({"a": ["a"]}, 5, "cycle"),
        ({"a": ["nowhere"]}, 5, "'nowhere' is a parent but not a node"),
        ({"a": []}, 0, "nodes_max"),
    ],
)
def test_what_cannot_be_compiled_says_why(graph: Graph, nodes_max: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan_of(graph, nodes_max=nodes_max)


def test_a_fragment_survives_its_json() -> None:
    fragment = Fragment(0, ("a", par("b", ("c", par("d", "e")), late=(("f", "g"),)), "h"))
    info = {node: (f"task.{node}", 5, 300) for node in fragment.nodes}
    text = encode_fragment(fragment, info)
    assert json.loads(text)["seq"] == ["a", [["b"], ["c", [["d"], ["e"]]], [None, "f", "g"]], "h"]
    spec = decode_fragment(text)
    assert (spec.seq, spec.nodes["c"]) == (fragment.seq, NodeInfo("task.c", 5, 300))
    pinned = encode_fragment(fragment, {**info, "c": NodeInfo("task.c", 5, 300, "gpu")})
    assert json.loads(pinned)["nodes"]["c"] == ["task.c", 5, 300, "gpu"]
    assert decode_fragment(pinned).nodes["c"].pool == "gpu"


@pytest.mark.parametrize(
    "text",
    ['{"seq":["a"],"nodes":{}}', '{"seq":["a",3],"nodes":{"a":["t",5,1]}}', '{"seq":[[[]]],"nodes":{}}', "[]", '{"nodes":{}}', "{"],
)
def test_what_is_no_fragment_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        decode_fragment(text)


HUNDRED_THOUSAND = r"""
import random, re, sys, time
from orchestrator.compiler import compile_plan

kind, seed = sys.argv[1], random.Random(7)
if kind == "chain":
    graph = {i: [i - 1] if i else [] for i in range(100_000)}
elif kind == "layers":
    graph = {i: [i // 100 * 100 - 100 + k for k in seed.sample(range(100), 3)] if i >= 100 else [] for i in range(100_000)}
else:
    graph = {i: sorted({seed.randrange(i) for _ in range(seed.randrange(4))}) if i else [] for i in range(100_000)}
named = {str(node): [str(parent) for parent in parents] for node, parents in graph.items()}
started = time.process_time()
plan = compile_plan(named, nodes_max=40, bytes_max=16_384, weight=lambda node: 520)
cpu_s = time.process_time() - started
# Not ru_maxrss, which a child inherits from the process that forked it.
peak_kb = int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1])
print(cpu_s, peak_kb // 1024, plan.statistics.nodes)
"""


@pytest.mark.parametrize("kind", ["chain", "layers", "sparse"])
def test_a_hundred_thousand_nodes_compile_in_seconds_in_bounded_memory(kind: str) -> None:
    """Seconds of CPU, because others use this machine; measured 1 to 6, with 110 to 230 MB."""
    command = [sys.executable, "-c", HUNDRED_THOUSAND, kind]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    cpu_s, peak_mb, nodes = map(float, done.stdout.split())
    assert nodes == 100_000
    assert cpu_s < 20
    assert peak_mb < 500
