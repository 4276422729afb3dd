"""What the compiler promises for every graph."""

from __future__ import annotations

import random
from collections.abc import Callable
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.compiler import Par, Plan, Seq, compile_plan, cut, decode_fragment, encode_fragment, measure
from orchestrator.compiler.measure import DEPTH_MAX

pytestmark = pytest.mark.property

Graph = dict[str, list[str]]
UNBOUNDED = {"nodes_max": 10**9, "bytes_max": 10**12}


def shuffled(graph: Graph, seed: int) -> Graph:
    """Return the same graph under other names and in another order."""
    random_ = random.Random(seed)
    names = list(graph)
    random_.shuffle(names)
    new = {name: f"n{index}" for index, name in enumerate(names)}
    order = list(graph)
    random_.shuffle(order)
    return {new[node]: [new[parent] for parent in graph[node]] for node in order}


@st.composite
def series_parallel(draw: st.DrawFn) -> Graph:
    """Grow one edge into a graph: an edge becomes two in a row, or two side by side (two-terminal series-parallel)."""
    random_ = random.Random(draw(st.integers(0, 2**32)))
    edges = [(0, 1)]
    count = 2
    for _ in range(draw(st.integers(0, 60))):
        index = random_.randrange(len(edges))
        left, right = edges[index]
        if random_.random() < 0.5:
            edges.append((left, right))
        else:
            edges[index] = (left, count)
            edges.append((count, right))
            count += 1
    graph: Graph = {str(node): [] for node in range(count)}
    for left, right in edges:
        if str(left) not in graph[str(right)]:
            graph[str(right)].append(str(left))
    return shuffled(graph, random_.randrange(2**32))


@st.composite
def forks_and_joins(draw: st.DrawFn) -> Graph:
    """Compose sequences and forks with a join, inside each other."""
    graph: Graph = {}

    def node(parents: list[str]) -> list[str]:
        name = str(len(graph))
        graph[name] = parents
        return [name]

    def grow(parents: list[str], depth: int) -> list[str]:
        for _ in range(draw(st.integers(1, 3))):
            width = draw(st.integers(1, 4)) if depth else 1
            ends = [end for _ in range(width) for end in grow(parents, depth - 1)] if width > 1 else parents
            parents = node(ends)
        return parents

    grow([], draw(st.integers(0, 3)))
    return shuffled(graph, draw(st.integers(0, 2**32)))


@st.composite
def layered(draw: st.DrawFn) -> Graph:
    random_ = random.Random(draw(st.integers(0, 2**32)))
    width, depth, density = draw(st.integers(1, 6)), draw(st.integers(1, 7)), draw(st.floats(0, 1))
    graph: Graph = {}
    for layer in range(depth):
        for place in range(width):
            above = [f"{layer - 1}.{other}" for other in range(width) if layer and random_.random() < density]
            graph[f"{layer}.{place}"] = above
    return shuffled(graph, random_.randrange(2**32))


@st.composite
def any_order(draw: st.DrawFn) -> Graph:
    """Dense to sparse: each pair is an edge with one probability."""
    random_ = random.Random(draw(st.integers(0, 2**32)))
    density = draw(st.floats(0, 1))
    graph = {str(node): [str(other) for other in range(node) if random_.random() < density] for node in range(draw(st.integers(0, 25)))}
    return shuffled(graph, random_.randrange(2**32))


@st.composite
def n_shaped(draw: st.DrawFn) -> Graph:
    """A row of nodes above another, each below waiting for one or two neighbours: the shape that no composition has."""
    width, rows = draw(st.integers(1, 8)), draw(st.integers(1, 5))
    graph: Graph = {}
    for row in range(rows):
        for place in range(width):
            near = [f"{row - 1}.{place}", f"{row - 1}.{(place + 1) % width}"] if row else []
            graph[f"{row}.{place}"] = list(dict.fromkeys(near[: draw(st.integers(0, 2))]))
    return shuffled(graph, draw(st.integers(0, 2**32)))


@st.composite
def trees(draw: st.DrawFn) -> Graph:
    """Trees from a root or to one, some of them combs."""
    random_ = random.Random(draw(st.integers(0, 2**32)))
    count, reach = draw(st.integers(1, 80)), draw(st.integers(1, 80))
    above = {node: random_.randrange(max(0, node - reach), node) for node in range(1, count)}
    graph: Graph = {str(node): [] for node in range(count)}
    inward = draw(st.booleans())
    for node, other in above.items():
        if inward:
            graph[str(other)].append(str(node))
        else:
            graph[str(node)].append(str(other))
    return shuffled(graph, random_.randrange(2**32))


GRAPHS = st.one_of(series_parallel(), forks_and_joins(), layered(), any_order(), n_shaped(), trees())
WEIGHTS = st.sampled_from([lambda node: 100, lambda node: 10 * (1 + len(node)), lambda node: 1 + (sum(map(ord, node)) * 37) % 400])
BOUNDS = st.tuples(st.sampled_from([1, 2, 3, 5, 9, 20, 10**9]), st.sampled_from([1, 150, 450, 2000, 10**9]))


def copies(seq: Seq, after: tuple[str, ...] = ()) -> dict[str, tuple[str, ...]]:
    """Return what each message carries, by the definition: its node, all on its right, and what follows the branch it is in."""
    carried: dict[str, tuple[str, ...]] = {}
    for position, item in enumerate(seq):
        rest = tuple(node for later in seq[position + 1 :] for node in on_time(later)) + after
        if isinstance(item, Par):
            for branch in item.branches + item.late:
                carried.update(copies(branch, rest))
        else:
            carried[item] = (item, *rest)
    return carried


def on_time(item: str | Par) -> list[str]:
    if isinstance(item, str):
        return [item]
    return [node for branch in item.branches for inner in branch for node in on_time(inner)]


def depth_of(seq: Seq) -> int:
    return max((1 + depth_of(branch) for item in seq if isinstance(item, Par) for branch in item.branches + item.late), default=0)


def well_formed(seq: Seq) -> bool:
    """A Par has two branches at least, one of them on time, is followed by a node or by nothing, and is never a row by itself."""
    for position, item in enumerate(seq):
        if isinstance(item, Par):
            branches = item.branches + item.late
            if not item.branches or len(branches) < 2 or not all(map(well_formed, branches)):
                return False
            if position + 1 < len(seq) and not isinstance(seq[position + 1], str):
                return False
    return bool(seq) and not (len(seq) == 1 and isinstance(seq[0], Par))


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(GRAPHS, WEIGHTS, BOUNDS, st.sampled_from([1, 2, 3, DEPTH_MAX]))
def test_every_plan_covers_the_graph_in_its_exact_order_within_the_bounds(
    graph: Graph, weight: Callable[[str], int], bounds: tuple[int, int], depth_max: int
) -> None:
    nodes_max, bytes_max = bounds
    with mock.patch.object(measure, "DEPTH_MAX", depth_max), mock.patch.object(cut, "DEPTH_MAX", depth_max):
        plan = compile_plan(graph, nodes_max=nodes_max, bytes_max=bytes_max, weight=weight)

    assert sorted(node for fragment in plan.fragments for node in fragment.nodes) == sorted(graph)
    assert plan.order_is_exact(graph)
    assert list(plan.parents) == list(graph)
    carried: dict[str, tuple[str, ...]] = {}
    info = dict.fromkeys(graph, ("a.task", 5, 300))
    for fragment in plan.fragments:
        assert decode_fragment(encode_fragment(fragment, info)).seq == fragment.seq
        assert well_formed(fragment.seq)
        assert depth_of(fragment.seq) <= depth_max
        assert all(plan.fragment_of[node] == fragment.index for node in fragment.nodes)
        carried.update(copies(fragment.seq))
    for node, load in carried.items():
        assert len(set(load)) == len(load)
        assert len(load) <= nodes_max
        assert sum(map(weight, load)) <= bytes_max or load == (node,)
    assert {message.node: (message.nodes, message.bytes) for message in plan.messages()} == {
        node: (len(load), sum(map(weight, load))) for node, load in carried.items()
    }


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(1, 3), st.integers(1, 200), BOUNDS, st.integers(0, 2**32), st.booleans())
def test_nests_of_any_depth_are_cut_in_their_exact_order(
    width: int, depth: int, bounds: tuple[int, int], seed: int, shared_end: bool
) -> None:
    graph: Graph = {}
    for level in range(depth):
        graph[f"f{level}"] = [f"f{level - 1}"] if level else []
        for place in range(width):
            graph[f"x{level}.{place}"] = [f"f{level}"]
    if shared_end:  # a comb whose teeth all end in one join
        graph["end"] = [f"x{level}.{place}" for level in range(depth) for place in range(width)]
    else:
        for level in reversed(range(depth)):
            inner = f"j{level + 1}" if level < depth - 1 else f"f{level}"
            graph[f"j{level}"] = [*(f"x{level}.{place}" for place in range(width)), inner]
    graph = shuffled(graph, seed)
    plan = compile_plan(graph, nodes_max=bounds[0], bytes_max=bounds[1], weight=lambda node: 100)
    assert plan.order_is_exact(graph)
    assert all(well_formed(fragment.seq) and depth_of(fragment.seq) <= DEPTH_MAX for fragment in plan.fragments)
    assert all(message.nodes <= bounds[0] for message in plan.messages())
    if bounds == (10**9, 10**9):
        assert plan.statistics.carried_share > 0.95


@settings(max_examples=300, deadline=None)
@given(st.one_of(series_parallel(), forks_and_joins()))
def test_a_series_parallel_graph_is_carried_whole_where_the_bounds_allow(graph: Graph) -> None:
    plan = compile_plan(graph, **UNBOUNDED, weight=len)
    if max(map(depth_of, (fragment.seq for fragment in plan.fragments))) < DEPTH_MAX:
        assert len(plan.fragments) == 1
        assert plan.statistics.carried_share == 1.0
    # A graph that fits into one message is never cut.
    tight = compile_plan(graph, nodes_max=len(graph), bytes_max=10**12, weight=len)
    assert [fragment.seq for fragment in tight.fragments] == [fragment.seq for fragment in plan.fragments]


@settings(max_examples=200, deadline=None)
@given(trees())
def test_a_tree_is_carried_whole_where_the_bounds_allow(graph: Graph) -> None:
    plan = compile_plan(graph, **UNBOUNDED, weight=len)
    if max(map(depth_of, (fragment.seq for fragment in plan.fragments))) < DEPTH_MAX:
        assert plan.statistics.carried_share == 1.0


@settings(max_examples=200, deadline=None)
@given(GRAPHS, BOUNDS)
def test_compiling_twice_gives_the_same_plan(graph: Graph, bounds: tuple[int, int]) -> None:
    def compiled() -> Plan:
        return compile_plan(dict(graph), nodes_max=bounds[0], bytes_max=bounds[1], weight=len)

    assert compiled().fragments == compiled().fragments


@settings(max_examples=200, deadline=None)
@given(GRAPHS, st.randoms(use_true_random=False))
def test_a_counted_join_is_never_carried(graph: Graph, random_: random.Random) -> None:
    counted = {node for node in graph if random_.random() < 0.3}
    plan = compile_plan(graph, **UNBOUNDED, weight=len, counted=counted)
    heads = {head for fragment in plan.fragments for head in fragment.heads}
    assert counted <= heads
    assert plan.order_is_exact(graph)
