"""Transitive reduction: an edge that a longer way implies orders nothing and is dropped.

Reachability is kept as one bit for each source, for a block of sources at a time, so memory stays at nodes x block / 8 bytes
however large the graph is. Only edges that could be implied are asked about: those that span two levels or more, from a node
with other children to a node with other parents. A graph whose edges all go from one level to the next costs nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from orchestrator.compiler.order import Parents

BLOCK_SOURCES = 4096
"""Sources a pass; 100,000 nodes take at most 50 MB at a time."""


def transitive_reduction(
    parents: Parents, order: Sequence[int], level: Sequence[int], kept: Collection[int] = (), loose: Collection[int] = ()
) -> list[tuple[int, ...]]:
    """Return `parents` without the edges that the others imply, each in the order given.

    Parameters
    ----------
    parents
        Distinct parents of each node.
    order, level
        A topological order of the nodes, and the level of each.
    kept
        Nodes that keep all their edges, because they count their parents.
    loose
        Nodes that may end, or go on, before all of their parents have succeeded: a way through one of them implies nothing.
    """
    place = [0] * len(order)
    for position, node in enumerate(order):
        place[node] = position
    implied = _implied(parents, order, place, _candidates(parents, level, kept), loose)
    return [tuple(u for u in above if u not in implied[v]) if v in implied else tuple(above) for v, above in enumerate(parents)]


def _candidates(parents: Parents, level: Sequence[int], kept: Collection[int]) -> dict[int, list[int]]:
    """Return source -> targets of every edge that might be implied."""
    fanout = [0] * len(parents)
    for above in parents:
        for parent in above:
            fanout[parent] += 1
    found: dict[int, list[int]] = {}
    for node, above in enumerate(parents):
        if len(above) > 1 and node not in kept:
            for parent in above:
                if fanout[parent] > 1 and level[node] - level[parent] > 1:
                    found.setdefault(parent, []).append(node)
    return found


def _implied(
    parents: Parents, order: Sequence[int], place: Sequence[int], candidates: dict[int, list[int]], loose: Collection[int]
) -> dict[int, set[int]]:
    """Return target -> sources of every implied edge among `candidates`."""
    sources = sorted(candidates, key=lambda node: place[node])
    implied: dict[int, set[int]] = {}
    for start in range(0, len(sources), BLOCK_SOURCES):
        block = sources[start : start + BLOCK_SOURCES]
        bit = [0] * len(order)
        asked: dict[int, list[int]] = {}
        for index, source in enumerate(block):
            bit[source] = 1 << index
            for target in candidates[source]:
                asked.setdefault(target, []).append(source)
        last = max(place[target] for target in asked)
        above_bits = [0] * len(order)  # the sources of this block that are strictly above the node
        for node in order[place[block[0]] + 1 : last + 1]:
            farther = nearest = 0
            for parent in parents[node]:
                farther |= above_bits[parent]
                nearest |= bit[parent]
            above_bits[node] = 0 if node in loose else farther | nearest
            for source in asked.get(node, ()):
                if farther & bit[source]:
                    implied.setdefault(node, set()).add(source)
    return implied
