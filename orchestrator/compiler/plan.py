"""A plan says which nodes of a graph travel together, and what that costs and saves."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from orchestrator.compiler import fragments as fragment_walks
from orchestrator.compiler.cut import cut
from orchestrator.compiler.fragments import Fragment, Kind, Seq
from orchestrator.compiler.measure import NOTHING, Size
from orchestrator.compiler.order import children_of, critical_path, levels, topological
from orchestrator.compiler.reduce import transitive_reduction
from orchestrator.compiler.series_parallel import contract

Edges = Mapping[str, tuple[str, ...]]


class Message(NamedTuple):
    """What the message of one node carries, its own signature included; `bytes` is estimated."""

    node: str
    nodes: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Statistics:
    """What `headgate plan` prints.

    `chords` are joins that Celery carries, `groups` fans that it carries and that join later, `joins` the nodes with several
    parents that are counted and launched by the platform. `carried` of the `edges_reduced` edges are travelled by Celery's own
    chain and chord fields. `critical_path_length` is in the unit of the estimates (nodes where none were given). `bytes_all`
    sums the estimated bytes of every message of the plan.
    """

    nodes: int
    edges_given: int
    edges_reduced: int
    fragments: dict[Kind, int]
    chords: int
    groups: int
    joins: int
    carried: int
    critical_path: tuple[str, ...]
    critical_path_length: int
    levels: int
    widest_level: int
    largest_message: Message | None
    bytes_all: int

    @property
    def carried_share(self) -> float:
        """Return the share of reduced edges that Celery carries, 0 to 1; 1 for a graph without edges."""
        return self.carried / self.edges_reduced if self.edges_reduced else 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Fragments that cover a graph, each node in exactly one; between them `parents` is the truth.

    `parents` and `children` are those of the reduced graph, in the order of the graph.
    """

    fragments: tuple[Fragment, ...]
    parents: Edges
    children: Edges
    fragment_of: Mapping[str, int]
    statistics: Statistics
    weight: Callable[[str], int]

    def heads(self, fragment: Fragment | int) -> tuple[str, ...]:
        """Return the nodes of `fragment` that the platform publishes; Celery publishes the others."""
        return self.fragments[fragment].heads if isinstance(fragment, int) else fragment.heads

    def messages(self) -> Iterator[Message]:
        """Yield for every node what its message carries."""
        for fragment in self.fragments:
            yield from messages(fragment.seq, self.weight)

    def order_is_exact(self, given: Mapping[str, Sequence[str]]) -> bool:
        """Say whether the plan lets each node start after exactly those nodes that `given` puts before it.

        Reachability of `given` and of the plan is compared in full: memory is nodes squared / 8 bytes.
        """
        if sorted(node for fragment in self.fragments for node in fragment.nodes) != sorted(given):
            return False
        carried: dict[str, set[str]] = {}
        for fragment in self.fragments:
            for parent, child in fragment_walks.edges(fragment.seq):
                carried.setdefault(child, set()).add(parent)
        # A node inside a fragment is published by what precedes it there: that must be all of its parents.
        if any(before != set(self.parents[node]) for node, before in carried.items()):
            return False
        return _reach(self.parents) == _reach(given)


def messages(seq: Seq, weight: Callable[[str], int], after: Size = NOTHING) -> Iterator[Message]:
    """Yield what each message of `seq` carries, if `after` follows its end."""
    for item in reversed(seq):
        if isinstance(item, str):
            after = after.plus(Size(1, weight(item)))
            yield Message(item, *after)
        else:
            for branch in item.all:
                yield from messages(branch, weight, after)
            inside = list(fragment_walks.carried(item))
            after = after.plus(Size(len(inside), sum(map(weight, inside))))


def _reach(parents: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Return for each node the set of nodes before it, as bits."""
    number = {node: index for index, node in enumerate(sorted(parents))}
    above = [[number[parent] for parent in parents[node]] for node in sorted(parents)]
    bits = [0] * len(above)
    for node in topological(above, children_of(above)):
        for parent in above[node]:
            bits[node] |= bits[parent] | 1 << parent
    return {node: bits[index] for node, index in number.items()}


def compile_plan(
    parents: Mapping[str, Sequence[str]],
    *,
    nodes_max: int,
    bytes_max: int,
    weight: Callable[[str], int],
    estimate: Callable[[str], int] | None = None,
    counted: Collection[str] = (),
    kept: Collection[str] = (),
    loose: Collection[str] = (),
) -> Plan:
    """Compile a graph into fragments.

    Parameters
    ----------
    parents
        Every node with its distinct parents; the order of the mapping is the order of the graph.
    nodes_max
        Signatures in one message, its own included; at least 1.
    bytes_max
        Bytes that those signatures may take in one message; a node that is larger alone travels alone.
    weight
        Bytes that the signature of a node takes, >= 0.
    estimate
        Cost or duration of a node, >= 0, for the critical path; 1 by default.
    counted
        Nodes that Celery must never publish: joins that wait for something else than the success of all parents.

    kept
        Nodes whose edges all count, also those that others imply: joins that count their parents' outcomes.
    loose
        Nodes that may end, or go on, before all of their parents have succeeded: optional ones, and joins that tolerate failures. An edge
        is not implied by a way through one of them.

    Raises
    ------
    ValueError
        A parent is not a node, `nodes_max` is below 1, or the graph has a cycle.
    """
    if nodes_max < 1:
        raise ValueError(f"nodes_max must be at least 1, not {nodes_max}")
    names = list(parents)
    number = {name: index for index, name in enumerate(names)}
    try:
        given = [[number[parent] for parent in dict.fromkeys(parents[name])] for name in names]
    except KeyError as error:
        raise ValueError(f"{error.args[0]!r} is a parent but not a node") from None
    order = topological(given, children_of(given))
    level = levels(order, given)
    reduced = transitive_reduction(given, order, level, {number[name] for name in kept}, {number[name] for name in loose})
    rows = contract(reduced, order, {number[name] for name in counted})
    sizes = [weight(name) for name in names]
    pieces = cut(rows, sizes, Size(nodes_max, bytes_max), names.__getitem__)
    pieces.sort(key=lambda seq: min(number[head] for head in fragment_walks.heads(seq)))
    built = tuple(Fragment(index, seq) for index, seq in enumerate(pieces))

    path, length = critical_path(order, reduced, [estimate(name) if estimate else 1 for name in names])
    population = [0] * (max(level, default=-1) + 1)
    for depth in level:
        population[depth] += 1
    weights = dict(zip(names, sizes, strict=True)).__getitem__
    named_parents = {name: tuple(names[parent] for parent in reduced[index]) for index, name in enumerate(names)}
    named_children = {names[index]: tuple(names[child] for child in below) for index, below in enumerate(children_of(reduced))}
    kinds: dict[Kind, int] = {"single": 0, "chain": 0, "chord": 0}
    chords = groups = carried = bytes_all = joins = 0
    largest: Message | None = None
    for fragment in built:
        kinds[fragment.kind] += 1
        chords += fragment_walks.chords(fragment.seq)
        groups += fragment_walks.groups(fragment.seq)
        joins += sum(len(named_parents[head]) > 1 for head in fragment.heads)
        carried += sum(1 for _ in fragment_walks.edges(fragment.seq))
        for message in messages(fragment.seq, weights):
            bytes_all += message.bytes
            if largest is None or (message.bytes, message.nodes) > (largest.bytes, largest.nodes):
                largest = message
    return Plan(
        fragments=built,
        parents=named_parents,
        children=named_children,
        fragment_of={node: fragment.index for fragment in built for node in fragment.nodes},
        weight=weights,
        statistics=Statistics(
            nodes=len(names),
            edges_given=sum(map(len, given)),
            edges_reduced=sum(map(len, reduced)),
            fragments=kinds,
            chords=chords,
            groups=groups,
            joins=joins,
            carried=carried,
            critical_path=tuple(names[node] for node in path),
            critical_path_length=length,
            levels=len(population),
            widest_level=max(population, default=0),
            largest_message=largest,
            bytes_all=bytes_all,
        ),
    )
