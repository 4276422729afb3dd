"""Branches: under which conditions a node stands, so that it is known who may be left out together."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

DEPTH_MAX: Final = 64
"""A node may stand under so many conditions, one behind the other."""


def gates(parents: Mapping[str, Collection[str]], conditional: Collection[str]) -> dict[str, frozenset[str]]:
    """Return for each node the gates that it stands under: it is taken if and only if all of these are.

    A gate is a node with a condition of its own, or one that joins branches of which perhaps none is taken. A node none of whose parents
    was taken is not taken itself, one with a taken parent passes over the others; so nothing is above it but what is above all of its
    parents, and it is a gate itself unless that is all that one of them needs. A node with no gates is always taken.

    parents: by node; unknown ones are passed over. conditional: nodes with a condition of their own. Nodes on a cycle, and behind one,
    are absent.
    """
    waiting = {node: sum(parent in parents for parent in above) for node, above in parents.items()}
    children: dict[str, list[str]] = {node: [] for node in parents}
    for node, above in parents.items():
        for parent in above:
            if parent in children:
                children[parent].append(node)
    found: dict[str, frozenset[str]] = {}
    ready = [node for node, count in waiting.items() if not count]
    for node in ready:
        found[node] = _gates(node, [found[parent] for parent in parents[node] if parent in parents], node in conditional)
        for child in children[node]:
            waiting[child] -= 1
            if not waiting[child]:
                ready.append(child)
    return found


def _gates(node: str, above: list[frozenset[str]], conditional: bool) -> frozenset[str]:
    if not above:
        return frozenset((node,)) if conditional else frozenset()
    fewest = min(above, key=len)
    # Mostly the parents share one set, which then is handed on as it is.
    shared = fewest if all(fewest is each or fewest <= each for each in above) else frozenset.intersection(*above)
    own = conditional or shared is not fewest
    return shared | {node} if own and len(shared) <= DEPTH_MAX else shared  # one too many is enough to refuse the graph


def gated(parents: Mapping[str, Collection[str]], found: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """Return the nodes that are not taken when none of their parents is; `found` is what `gates` returned."""
    return frozenset(node for node, above in parents.items() if above and all(found[parent] for parent in above))
