"""What the nodes of a run cost, are worth and may be given up for, as its graph says; kept for the next look."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Engine, Select, select

from cost.plan import NodeCost
from orchestrator.graph import Graph
from orchestrator.graph.fields import least_of
from orchestrator.launched import recorded_submission
from orchestrator.results import result_store
from orchestrator.settings import Settings
from orchestrator.splice import LIMITS
from orchestrator.store import tables as t
from orchestrator.store.expansions import became, expansions
from orchestrator.store.read import open_record
from orchestrator.submission import Submission
from tenancy.errors import GraphInvalid, HeadgateError
from tenancy.priorities import Priority

NODES_KEPT = 50_000
"""Nodes of graphs that are kept in memory, at most; the run that was asked for longest ago goes first."""


@dataclass(frozen=True)
class RunCosts:
    """The nodes of a run that run in this generation, by id; all parents; and the nodes that run whatever became of theirs.

    least: of a node that needs so many successes among its parents, how many. items: of a map, how many items are expected, whether
    each is required, and whether the map gathers whatever became of them.
    """

    costs: Mapping[str, NodeCost]
    parents: Mapping[str, tuple[str, ...]]
    tolerant: frozenset[str]
    items: Mapping[str, tuple[int, bool, bool]] = field(default_factory=dict)
    least: Mapping[str, int] = field(default_factory=dict)

    def with_spliced(self, owner: str, inner: Submission, *, required: bool, adopted: Collection[str] = ()) -> RunCosts:
        """Return them with the nodes of a graph that the task of `owner` returned in its place; what gathers them costs nothing.

        required: whether the run needs `owner`; if not, it needs none of them. adopted: nodes that an earlier generation ran.
        """
        ends = [node for node, children in inner.plan.children.items() if not children]
        costs, parents = dict(self.costs), {**self.parents, **{node: tuple(above) for node, above in inner.plan.parents.items()}}
        for cost in inner.costs:
            if cost.id in adopted:
                continue
            children = (*cost.children, owner) if cost.id in ends else cost.children
            costs[cost.id] = replace(cost, required=cost.required and required, children=children)
        if owner in costs:
            costs[owner] = replace(costs[owner], estimate_micros=0, max_cost=None, variants=())
        parents[owner] = (*parents.get(owner, ()), *ends)
        tolerant, items, least = _of_graph(inner)
        return RunCosts(costs, parents, self.tolerant | tolerant, {**self.items, **items}, {**self.least, **least})

    def grown(self, states: Mapping[str, str]) -> RunCosts:
        """Return them with what nodes became, going by the nodes that there are: an item costs its share, what gathers it costs nothing."""
        became: dict[str, list[str]] = {}
        for node in states:
            if node not in self.parents:
                became.setdefault(node.rpartition(".")[0], []).append(node)
        if not became:
            return self
        costs, parents, tolerant = dict(self.costs), dict(self.parents), set(self.tolerant)
        for owner, nodes in became.items():
            cost = costs.get(owner)
            parents |= dict.fromkeys(nodes, ())
            parents[owner] = (*parents.get(owner, ()), *nodes)
            if cost is None:
                continue
            costs[owner] = replace(cost, estimate_micros=0, max_cost=None, variants=())
            if owner in self.items:
                expected, required, gathers = self.items[owner]
                item = _share(cost, expected, len(nodes), required=required)
                costs |= {node: replace(item, id=node) for node in nodes}
                tolerant |= {owner} if gathers else set()
        return replace(self, costs=costs, parents=parents, tolerant=frozenset(tolerant))


def _share(cost: NodeCost, expected: int, count: int, *, required: bool) -> NodeCost:
    """Return what one of `count` items costs of a map that was planned with as many as were expected."""
    share = max(1, expected)
    return NodeCost(
        id=cost.id,
        required=required,
        value=max(1, cost.value // count),
        estimate_micros=cost.estimate_micros // share,
        variants=tuple(v._replace(estimate_micros=v.estimate_micros // share, value=max(1, v.value // count)) for v in cost.variants),
        children=(cost.id,),
    )


class CostBook:
    """Reads the graphs of runs from the record. A graph never changes, so each is read once by a process that has room for it."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self.engine = engine
        self.settings = settings
        self._results = result_store(settings)
        self._known: OrderedDict[tuple[str, int], RunCosts] = OrderedDict()

    def of(self, run_id: str, generation: int) -> RunCosts | None:
        """Return the costs of a run; None where the record has no graph of it, or one that this version cannot read.

        Raises Unavailable.
        """
        key = run_id, generation
        if key not in self._known:
            read = self._read(run_id, generation)
            if read is None:
                return None
            self._known[key] = read
            while len(self._known) > 1 and sum(len(each.parents) for each in self._known.values()) > NODES_KEPT:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key]

    def grown(self, run_id: str, generation: int, states: Mapping[str, str]) -> RunCosts | None:
        """Return the costs of a run with what its nodes became, as far as `states` and the record say; None as `of`. Raises Unavailable."""
        known = self.of(run_id, generation)
        if known is None:
            return None
        owners = {node.rpartition(".")[0] for node in states if node not in known.parents}
        if owners - known.items.keys():
            known = self._known[run_id, generation] = self._with_graphs(known, run_id, generation)
        return known.grown(states)

    def _with_graphs(self, known: RunCosts, run_id: str, generation: int) -> RunCosts:
        """Return them with the graphs that tasks returned and that are on record: outer ones first, as they were spliced in."""
        with open_record(self.engine) as connection:
            row = connection.execute(_row_of(run_id, generation)).mappings().one()
            told = expansions(connection, run_id, generation)
            of_run = (t.node.c.run_id == run_id) & (t.node.c.generation == generation) & (t.node.c.adopted > 0)
            adopted = frozenset(connection.execute(select(t.node.c.node_id).where(of_run)).scalars())
        for event in told:
            owner = str(event["node"])
            first = next((node for node in became(event)), None)
            if "source" not in event or first is None or first in known.parents:
                continue
            try:
                graph = Graph.parse(self._results.decode(str(event["source"])), LIMITS)
            except (ValueError, HeadgateError):
                continue  # its place alone is known then, as before it is on record
            inner = Submission.of(graph, self.settings, Priority.parse(row["priority"]), strict=bool(row["strict"]))
            cost = known.costs.get(owner)
            known = known.with_spliced(owner, inner, required=cost is None or cost.required, adopted=adopted)
        return known

    def _read(self, run_id: str, generation: int) -> RunCosts | None:
        with open_record(self.engine) as connection:
            row = connection.execute(_row_of(run_id, generation)).mappings().one_or_none()
        if row is None:
            return None
        try:
            submission = recorded_submission(dict(row), self.settings)
        except (ValueError, GraphInvalid):
            return None
        return RunCosts(
            {cost.id: cost for cost in submission.costs},
            {node: tuple(above) for node, above in submission.plan.parents.items()},
            *_of_graph(submission),
        )


def _of_graph(submission: Submission) -> tuple[frozenset[str], dict[str, tuple[int, bool, bool]], dict[str, int]]:
    """Return the nodes that run whatever became of their parents, the maps, and the nodes that need so many successes."""
    nodes = submission.graph.nodes
    tolerant = frozenset(node.id for node in nodes if node.parents_join == "all_done")
    items = {
        node.id: (node.width, node.required and node.join == "all_succeeded", node.join == "all_done")
        for node in nodes
        if node.map is not None
    }
    return tolerant, items, {node.id: least for node in nodes if (least := least_of(node.parents_join))}


def _row_of(run_id: str, generation: int) -> Select[Any]:
    return select(t.run).where(t.run.c.run_id == run_id, t.run.c.generation == generation)
