"""A submission, prepared: what a graph costs, how it travels, and the rows that state is loaded with. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from graphlib import TopologicalSorter
from itertools import islice
from types import MappingProxyType
from typing import Any

from cost.estimate import Estimate, Means, estimate
from cost.plan import AS_IS, SKIP, NodeCost, PlanDown, VariantCost, floor, plan_down
from orchestrator.canvas import signature_bytes
from orchestrator.compiler import NodeInfo, Plan, compile_plan, encode_fragment
from orchestrator.graph import Graph, Node
from orchestrator.graph.fields import least_of
from orchestrator.graph.references import references
from orchestrator.joins import Joins
from orchestrator.settings import Settings
from orchestrator.state import ROWS_MAX
from tenancy.priorities import Priority

_LONGEST_TENANT = "t" * 63
"""Messages are bounded for the longest tenant id, so that a graph has the same plan for everybody."""

Row = tuple[str, int, str, str, str, int]


@dataclass(frozen=True)
class Submission:
    """A resolved graph with its plan and its costs; the same spec always gives the same submission."""

    graph: Graph
    plan: Plan
    priority: Priority
    learned: Means = field(default_factory=dict)
    strict: bool = False
    full: bool = False
    adopts: Mapping[str, int] = field(default_factory=dict)
    """What a later generation takes over instead of running it: node to the generation that ran it. It costs nothing."""
    becomes: Mapping[str, str] = field(default_factory=dict)
    """What a later generation knows that its nodes become, since their tasks returned it: node to the graph, as a result is kept."""

    @classmethod
    def of(
        cls,
        graph: Graph,
        settings: Settings,
        priority: Priority = Priority.NORMAL,
        learned: Means = MappingProxyType({}),
        *,
        strict: bool = False,
        full: bool = False,
        adopts: Mapping[str, int] = MappingProxyType({}),
        becomes: Mapping[str, str] = MappingProxyType({}),
    ) -> Submission:
        """Prepare a resolved and valid graph.

        strict: nodes are counted at their `max_cost`, variants too; full: nothing less than the estimate will do.

        learned: what tasks cost the tenant lately, for nodes that declare nothing. It is no part of the spec and its digest; a run
        keeps what it was first submitted with, so that every start of it costs the same.
        """
        by_id = graph.by_id
        joins = Joins.of(graph)
        plan = compile_plan(
            graph.parents(),
            nodes_max=settings.message_nodes,
            bytes_max=settings.message_bytes,
            weight=lambda node: signature_bytes(node, by_id[node].task, _LONGEST_TENANT, by_id[node].pool),
            counted=joins.counted,
            kept=joins.rules,
            loose=joins.loose,
        )
        known = {task: learned[task] for task in sorted(graph.tasks()) if task in learned}
        return cls(graph, plan, priority, known, strict, full, adopts, becomes)

    def relearned(self, learned: Means, *, strict: bool = False, full: bool = False) -> Submission:
        """Return the submission with other means and terms, those of the run that its key had already."""
        return Submission(self.graph, self.plan, self.priority, learned, strict, full, self.adopts, self.becomes)

    @cached_property
    def joins(self) -> Joins:
        """The nodes that count their parents one by one."""
        return Joins.of(self.graph)

    def without_max_cost(self) -> list[str]:
        """Return the nodes that a strict tenant cannot run: nothing says what they cost at most."""
        return [node.id for node in self.graph.nodes if node.max_cost is None]

    def _at_most(self, node: Node, micros: int) -> int:
        return max(micros, node.max_cost or 0) if self.strict else micros

    def amounts(self, node: Node) -> dict[str, int]:
        """Return what is set aside for one execution of a node as it is (''), and as each of its variants."""
        amounts = {"": self.estimates[node.id].micros, **{v.name: _total(v.estimate) for v in node.variants}}
        return {name: self._at_most(node, micros) for name, micros in amounts.items()}

    def planned(self, node: Node) -> dict[str, int]:
        """Return what is planned with for a node as it is (''), and as each of its variants: of a map, for all items that are expected."""
        return {name: node.width * micros for name, micros in self.amounts(node).items()}

    @cached_property
    def estimates(self) -> dict[str, Estimate]:
        """What one execution of each node is expected to cost as it is, and where that is known from."""
        return {node.id: estimate(node.estimate, self.learned.get(node.task)) for node in self.graph.nodes}

    @cached_property
    def costs(self) -> tuple[NodeCost, ...]:
        """What each node that runs costs, is worth, and could be given up for."""
        return tuple(
            NodeCost(
                id=node.id,
                required=node.required or node.id in self.joins.pinned,
                value=node.value,
                estimate_micros=amounts[""],
                max_cost=None if node.max_cost is None else node.width * node.max_cost,
                variants=tuple(VariantCost(v.name, v.kind, amounts[v.name], v.value) for v in node.variants),
                children=self.plan.children[node.id],
                needs=tuple(dict.fromkeys(r.node for r in references({"map": node.map, **node.params}) if r.bare)),
            )
            for node in self.graph.nodes
            if node.id not in self.adopts
            for amounts in [self.planned(node)]
        )

    @cached_property
    def estimate_micros(self) -> int:
        """Expected cost of all that runs, as it is."""
        return sum(cost.estimate_micros for cost in self.costs)

    @cached_property
    def floor_micros(self) -> int:
        """Cost of the cheapest plan that still runs every required node."""
        return floor(self.costs)

    @cached_property
    def floors(self) -> dict[str, int]:
        """What each node that runs is in the floor: its cheapest way to run, 0 where it is optional."""
        return {cost.id: floor([cost]) for cost in self.costs}

    def planned_down(self, hold_micros: int) -> PlanDown | None:
        """Return the choices that fit what is held, or None when the estimate fits."""
        return None if hold_micros >= self.estimate_micros else plan_down(self.costs, hold_micros)

    def want(self, budget_micros: int | None) -> dict[str, Any]:
        """What `admit` is asked for; amounts as decimal strings. The pool '' is the tenant's own, whichever that is when nodes are put."""
        by_id = self.graph.by_id
        first = [by_id[node] for node in self.heads()]
        runs = [node for node in self.graph.nodes if node.id not in self.adopts]
        return {
            "graph": self.graph.name,
            "total": len(self.graph.nodes),
            "estimate": str(self.estimate_micros),
            "floor": str(self.floor_micros),
            "budget": "" if budget_micros is None else str(budget_micros),
            "full": int(self.full),
            "priority": int(self.priority),
            "max_parallel": "" if self.graph.max_parallel is None else self.graph.max_parallel,
            "pools": sorted({node.pool or "" for node in runs}),
            "roots": dict(Counter(node.pool or "" for node in first)),
            "tasks": sorted({task for node in runs for task in (node.task, *(v.task for v in node.variants if v.task))}),
            **({"on_failure": "stop"} if self.graph.on_failure == "stop" else {}),
        }

    def heads(self) -> list[str]:
        """Nodes that run, and wait for none that does: the roots, where nothing is adopted."""
        adopts, parents = self.adopts, self.plan.parents
        return [node.id for node in self.graph.nodes if node.id not in adopts and all(parent in adopts for parent in parents[node.id])]

    def roots(self) -> list[str]:
        """Nodes that wait for none."""
        return [node.id for node in self.graph.nodes if not self.plan.parents[node.id]]

    def openers(self) -> list[str]:
        """Nodes that may be due when the run is launched: those that wait for none, or for what is adopted."""
        adopts, parents = self.adopts, self.plan.parents
        running = (node.id for node in self.graph.nodes if node.id not in adopts)
        return [node for node in running if not parents[node] or any(parent in adopts for parent in parents[node])]

    def adoption_order(self) -> list[str]:
        """The adopted nodes, children before their parents; last those that nodes of the graph are to become."""
        known = [node for node in self.adopts if node in self.plan.children]
        sorter = TopologicalSorter({node: [child for child in self.plan.children[node] if child in self.adopts] for node in known})
        return [*sorter.static_order(), *(node for node in self.adopts if node not in self.plan.children)]

    def becomes_later(self) -> dict[str, str]:
        """The graphs that nodes become which nodes of the graph are to become."""
        return {node: source for node, source in self.becomes.items() if node not in self.plan.children}

    def rows(self, choices: Mapping[str, str]) -> Iterator[list[Row]]:
        """Yield the rows of all nodes, in pieces that one script call may carry; `choices` are those of a plan-down."""
        nodes = iter(self.graph.nodes)
        while piece := list(islice(nodes, ROWS_MAX)):
            yield [self._row(node, choices.get(node.id, AS_IS)) for node in piece]

    def _row(self, node: Node, choice: str) -> Row:
        amounts = {name: str(micros) for name, micros in self.planned(node).items()}
        floor_micros = str(self.floors.get(node.id, 0))
        ctl: dict[str, Any] = {"floor": floor_micros} if node.map is None else {"floor": "0", "expects": floor_micros}
        ctl |= {"amounts": amounts, "required": node.required, "attempts": node.attempts}
        ctl |= self.joins.next_of(self.plan.children[node.id])
        if least := least_of(node.parents_join):
            ctl["least"] = least
        if node.id in self.becomes:
            ctl["source"] = self.becomes[node.id]
        if node.when is not None:
            ctl["when"] = node.when.document()
        spec: dict[str, Any] = {"task": node.task, "params": node.params}
        if node.map is not None:
            spec["map"] = self._map(node)
            ctl["map"] = 1
        if self.strict:
            spec["strict"] = True
        if node.variants:
            spec["variants"] = {v.name: _said(v.params, v.task) for v in node.variants}
        verdict = "" if choice in (AS_IS, SKIP) else choice
        return (node.id, len(self.plan.parents[node.id]), _json(ctl), _json(spec), verdict, self.plan.fragment_of[node.id])

    def _map(self, node: Node) -> dict[str, Any]:
        """What a worker makes the nodes of a map's items of."""
        rule = least_of(node.join) or node.join
        required = node.required and rule == "all_succeeded"
        amounts = self.amounts(node)
        least = min(amounts.values()) if required else 0
        item = {"floor": str(least), "amounts": {name: str(micros) for name, micros in amounts.items()}, "required": required}
        item |= {"attempts": node.attempts, "next": [], "joins": [[node.id, rule, 1]]}
        return {"list": node.map, "most": node.max_items, "rule": rule, "item": item, "info": list(self.info[node.id])}

    def fragments(self) -> Iterator[dict[int, str]]:
        """Yield the fragments as state keeps them, in pieces that one script call may carry."""
        fragments = iter(self.plan.fragments)
        while piece := list(islice(fragments, ROWS_MAX)):
            yield {fragment.index: encode_fragment(fragment, self.info) for fragment in piece}

    @cached_property
    def info(self) -> dict[str, NodeInfo]:
        """What a message must know of each node: task, priority, timeout in seconds, pool where it is pinned."""
        return {n.id: NodeInfo(n.task, int(n.priority or self.priority), n.timeout_s, n.pool) for n in self.graph.nodes}


def _total(estimate: Mapping[Any, int]) -> int:
    return sum(estimate.values())


def _said(params: Mapping[str, Any], task: str | None) -> dict[str, Any]:
    return {**({"params": dict(params)} if params else {}), **({"task": task} if task else {})}


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
