"""Contraction: nodes grow into lanes, lanes into Pars, for as long as Celery can carry what comes out.

One pass in topological order, so that all that could grow on the left of a node has grown when the node is reached:

- a node whose only parent has no other child continues its parent's lane;
- a join whose parents have no other child closes their lanes. Lanes that are all the children of one node become a Par behind
  it, again and again towards the roots; if one lane is left, the join continues it, otherwise the lanes become a Par that
  leads the join's lane, and each of them starts when its own parents have ended;
- at the end the remaining lanes with one parent follow that parent: one is appended to it, several become its last Par. Its
  other children, which have more parents, stay counted joins.

Each lane is merged at most once, so the pass is linear in nodes and edges.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TypeAlias

from orchestrator.compiler.order import Parents

NO_PARENT = -1


class Split:
    """A Par under construction; its branches may still grow, and lose their beginning and be late."""

    __slots__ = ("branches", "late")

    def __init__(self, branches: list[list[Draft]]) -> None:
        self.branches = branches
        self.late: list[list[Draft]] = []

    @property
    def all(self) -> list[list[Draft]]:
        return self.branches + self.late


Draft: TypeAlias = int | Split


class Lane:
    """Items in a row; `parent` is the one node that all its heads wait for, if they do."""

    __slots__ = ("free", "items", "parent")

    def __init__(self, items: list[Draft], parent: int) -> None:
        self.items = items
        self.parent = parent
        self.free = True


def contract(parents: Parents, order: Sequence[int], counted: Collection[int] = ()) -> list[list[Draft]]:
    """Return the rows that cover the reduced graph, each node in exactly one of them.

    Parameters
    ----------
    parents
        Parents of each node, reduced.
    order
        A topological order.
    counted
        Nodes that must never be carried, whatever their parents: joins other than `all_succeeded`.
    """
    contraction = _Contraction(parents)
    for node in order:
        contraction.visit(node, never_carried=node in counted)
    contraction.follow()
    return [lane.items for lane in contraction.lanes if lane.free]


class _Contraction:
    def __init__(self, parents: Parents) -> None:
        self.parents = parents
        self.fanout = [0] * len(parents)
        for above in parents:
            for parent in above:
                self.fanout[parent] += 1
        self.lanes: list[Lane] = []
        self.ending: dict[int, Lane] = {}  # the lane whose last node it is

    def visit(self, node: int, *, never_carried: bool) -> None:
        above = self.parents[node]
        if never_carried or not above:
            self.start(node, NO_PARENT)
        elif any(self.fanout[parent] > 1 for parent in above):
            self.start(node, above[0] if len(above) == 1 else NO_PARENT)
        elif len(above) == 1:
            self.extend(self.ending[above[0]], node)
        else:
            self.join([self.ending[parent] for parent in above], node)

    def start(self, node: int, parent: int) -> None:
        lane = Lane([node], parent)
        self.lanes.append(lane)
        self.ending[node] = lane

    def extend(self, lane: Lane, node: int) -> None:
        lane.items.append(node)
        self.ending[node] = lane

    def join(self, lanes: list[Lane], node: int) -> None:
        """Let `node` follow `lanes`, which all end here and nowhere else."""
        lanes = self.climb(lanes)
        if len(lanes) == 1:
            self.extend(lanes[0], node)
            return
        shared = {lane.parent for lane in lanes}
        parent = shared.pop() if len(shared) == 1 else NO_PARENT
        if parent != NO_PARENT:
            self.fanout[parent] -= len(lanes) - 1  # they are one child now
        lane = Lane([self.split(lanes), node], parent)
        self.lanes.append(lane)
        self.ending[node] = lane

    def climb(self, lanes: list[Lane]) -> list[Lane]:
        """Put lanes behind their common parent wherever they are all of its children."""
        kept = dict.fromkeys(lanes)
        siblings: dict[int, list[Lane]] = {}
        queue = list(lanes)
        for lane in queue:
            parent = lane.parent
            if parent == NO_PARENT:
                continue
            family = siblings.setdefault(parent, [])
            family.append(lane)
            if len(family) == self.fanout[parent]:
                for member in family:
                    del kept[member]
                trunk = self.ending[parent]
                trunk.items.append(self.split(family))
                kept[trunk] = None
                queue.append(trunk)
        return list(kept)

    def split(self, lanes: list[Lane]) -> Split:
        for lane in lanes:
            lane.free = False
        return Split([lane.items for lane in lanes])

    def follow(self) -> None:
        """Let the lanes that wait for one node only follow it."""
        followers: dict[int, list[Lane]] = {}
        for lane in self.lanes:
            if lane.free and lane.parent != NO_PARENT:
                followers.setdefault(lane.parent, []).append(lane)
        # A trunk is seen before the lanes behind it, so the items of one lane are copied once at most.
        last_of = {id(lane): node for node, lane in self.ending.items()}
        for parent, family in followers.items():
            trunk = self.ending[parent]
            if len(family) > 1:
                trunk.items.append(self.split(family))
            else:
                trunk.items.extend(family[0].items)
                family[0].free = False
                self.ending[last_of[id(family[0])]] = trunk
