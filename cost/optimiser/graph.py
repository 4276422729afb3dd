"""The graph that a plan is made for."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from cost.node_cost import SKIP, NodeCost, Option, options

Chosen = Mapping[str, Option]
"""An option for each node."""


class Bounded(NamedTuple):
    """A plan that fits, and what no plan that fits can keep more than."""

    chosen: dict[str, Option]
    bound: int


class Tie(NamedTuple):
    """The optional nodes that one runs behind: it needs all of `all_of`, and one of `any_of`. At most one of the two has any."""

    all_of: tuple[str, ...]
    any_of: tuple[str, ...]


FREE: Final = Tie((), ())


@dataclass(slots=True)
class Graph:
    """The nodes in topological order (ties by id), what each may choose, and who feeds whom."""

    nodes: dict[str, NodeCost]
    options: dict[str, list[Option]] = field(default_factory=dict)
    parents: dict[str, list[str]] = field(default_factory=dict)
    children: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, nodes: Iterable[NodeCost]) -> Graph:
        given = {node.id: node for node in nodes}
        parents: dict[str, list[str]] = {id_: [] for id_ in given}
        fed = {id_: {child for child in node.children if child in given} for id_, node in given.items()}
        for id_, node in given.items():
            for need in node.needs:
                if need in given:
                    fed[need].add(id_)
        children = {id_: sorted(ids) for id_, ids in fed.items()}
        for id_ in sorted(given):
            for child in children[id_]:
                parents[child].append(id_)
        waiting = {id_: len(feeders) for id_, feeders in parents.items()}
        ready = sorted(id_ for id_, count in waiting.items() if not count)
        order: dict[str, NodeCost] = {}
        while ready:
            id_ = heapq.heappop(ready)
            order[id_] = given[id_]
            for child in children[id_]:
                waiting[child] -= 1
                if not waiting[child]:
                    heapq.heappush(ready, child)
        if len(order) < len(given):
            raise ValueError(f"the nodes {sorted(given.keys() - order.keys())[:5]} wait for each other")
        return cls(order, {id_: options(node) for id_, node in order.items()}, parents, children)

    def forced(self, id_: str, skipped: AbstractSet[str] | Mapping[str, object]) -> bool:
        """Whether an optional node cannot or need not run, because of what is skipped before it."""
        node = self.nodes[id_]
        if node.required:
            return False
        feeders = self.parents[id_]
        alone = not node.fed and bool(feeders) and all(parent in skipped for parent in feeders)
        return alone or any(need in skipped for need in node.needs)

    def ties(self, id_: str) -> Tie:
        """Return without which other optional nodes this one cannot run: all of some, or any one of some."""
        node = self.nodes[id_]
        if node.required:
            return FREE
        needs = [need for need in dict.fromkeys(node.needs) if need in self.nodes and not self.nodes[need].required]
        if needs:
            return Tie(tuple(sorted(needs)), ())
        feeders = self.parents[id_]
        if node.fed or not feeders or any(self.nodes[feeder].required for feeder in feeders):
            return FREE
        return Tie(tuple(feeders), ()) if len(feeders) == 1 else Tie((), tuple(feeders))

    @property
    def as_it_is(self) -> dict[str, Option]:
        """Every node unchanged."""
        return {id_: found[0] for id_, found in self.options.items()}

    def cheapest(self) -> dict[str, Option]:
        """Return the cheapest plan that runs every required node; of what is as cheap, what keeps the most value."""
        chosen: dict[str, Option] = {}
        skipped: set[str] = set()
        for id_, found in self.options.items():
            if self.forced(id_, skipped):
                chosen[id_] = found[-1]
            else:
                chosen[id_] = min(found, key=lambda option: (option.cost, -option.value))
            if chosen[id_].choice == SKIP:
                skipped.add(id_)
        return chosen


def cost_of(chosen: Chosen) -> int:
    """Return the micros that a plan costs."""
    return sum(option.cost for option in chosen.values())


def value_of(chosen: Chosen) -> int:
    """Return the value that a plan keeps."""
    return sum(option.value for option in chosen.values())
