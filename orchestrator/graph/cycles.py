"""Cycles among nodes, printed as short paths."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence

_SHOWN_STEPS = 8


def cycles(parents: Mapping[str, Sequence[str]]) -> Iterator[list[str]]:
    """Yield one shortest cycle through the first node of each knot (strongly connected component), along the edges.

    parents: by node; those outside the mapping and self-loops are passed over. Linear where there is no cycle.
    """
    waiting = dict.fromkeys(parents, 0)
    children: dict[str, list[str]] = {node: [] for node in parents}
    for node, before in parents.items():
        for parent in before:
            if parent != node and parent in children:
                children[parent].append(node)
                waiting[node] += 1
    ready = [node for node, count in waiting.items() if not count]
    while ready:
        for child in children[ready.pop()]:
            waiting[child] -= 1
            if not waiting[child]:
                ready.append(child)
    tangled = [node for node, count in waiting.items() if count]
    if tangled:
        for knot in _knots(tangled, children):
            yield _shortest(knot, children)


def path_of(cycle: Sequence[str]) -> str:
    """Return `a -> b -> a`; the middle of a long cycle is counted, not printed."""
    steps = [*cycle, cycle[0]]
    if len(steps) > _SHOWN_STEPS + 1:
        steps = [*steps[:4], f"({len(steps) - 7:,} more)", *steps[-3:]]
    return " -> ".join(steps)


def _knots(tangled: Sequence[str], children: Mapping[str, Sequence[str]]) -> list[list[str]]:
    import rustworkx  # needed for refusals only, so importing the package stays light

    index = {node: i for i, node in enumerate(tangled)}
    graph: rustworkx.PyDiGraph[str | None, None] = rustworkx.PyDiGraph()
    graph.add_nodes_from(tangled)
    graph.extend_from_edge_list([(i, index[child]) for node, i in index.items() for child in children[node] if child in index])
    found = [sorted(knot) for knot in rustworkx.strongly_connected_components(graph) if len(knot) > 1]
    return [[tangled[i] for i in knot] for knot in sorted(found)]


def _shortest(knot: Sequence[str], children: Mapping[str, Sequence[str]]) -> list[str]:
    start, inside = knot[0], set(knot)
    came_from: dict[str, str] = {}
    queue = deque([start])
    while queue:
        node = queue.popleft()
        for child in children[node]:
            if child == start:
                path = [node]
                while path[-1] != start:
                    path.append(came_from[path[-1]])
                return path[::-1]
            if child in inside and child not in came_from:
                came_from[child] = node
                queue.append(child)
    raise AssertionError("a strongly connected component has a cycle through each of its nodes")
