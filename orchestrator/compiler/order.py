"""The order of a graph: topological, by levels, and along its critical path; nodes are numbers from 0."""

from __future__ import annotations

from collections.abc import Sequence

Parents = Sequence[Sequence[int]]


def children_of(parents: Parents) -> list[list[int]]:
    """Return the children of each node, in the order of the nodes."""
    children: list[list[int]] = [[] for _ in parents]
    for node, above in enumerate(parents):
        for parent in above:
            children[parent].append(node)
    return children


def topological(parents: Parents, children: Sequence[Sequence[int]]) -> list[int]:
    """Return the nodes, parents first; among those that are free the one that came free first (Kahn's algorithm).

    Raises
    ------
    ValueError
        The graph has a cycle.
    """
    waiting = [len(above) for above in parents]
    order = [node for node, count in enumerate(waiting) if not count]
    for node in order:
        for child in children[node]:
            waiting[child] -= 1
            if not waiting[child]:
                order.append(child)
    if len(order) != len(parents):
        raise ValueError("the graph has a cycle")
    return order


def levels(order: Sequence[int], parents: Parents) -> list[int]:
    """Return for each node the number of nodes before it on the longest way to it."""
    level = [0] * len(order)
    for node in order:
        level[node] = max((level[parent] + 1 for parent in parents[node]), default=0)
    return level


def critical_path(order: Sequence[int], parents: Parents, weights: Sequence[int]) -> tuple[list[int], int]:
    """Return the path with the largest sum of `weights` (each >= 0), and that sum; of equal ones the earliest in the order."""
    if not order:
        return [], 0
    length = [0] * len(order)
    before = [-1] * len(order)
    for node in order:
        for parent in parents[node]:
            if before[node] < 0 or length[parent] > length[before[node]]:
                before[node] = parent
        length[node] = weights[node] + (length[before[node]] if before[node] >= 0 else 0)
    last = max(order, key=lambda node: length[node])
    path, node = [], last
    while node >= 0:
        path.append(node)
        node = before[node]
    return path[::-1], length[last]
