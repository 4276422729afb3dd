"""Runs as the simulator knows them: nodes with a state, what each is chosen to be, and what its run still needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from cost.outlook import Basis
from cost.plan import AS_IS, SKIP, NodeCost, VariantCost, floor
from cost.strategies import chosen

from .entries import Execution, RunKey

State = Literal["pending", "running", "succeeded", "failed", "skipped", "cancelled"]


@dataclass(slots=True)
class SimulatedNode:
    """A node: what it was declared as (by a strict tenant at its most), what it is chosen to be now, and how far it is."""

    declared: NodeCost
    chosen: NodeCost
    choice: str = AS_IS
    state: State = "pending"
    attempt: int = 0
    unfunded: bool = False

    def choose(self, choice: str) -> None:
        """Take a plan's choice."""
        if choice == SKIP:
            self.state = "skipped"
        else:
            self.choice = choice
            self.chosen = chosen(self.declared, choice)


@dataclass(slots=True)
class SimulatedRun:
    """A run with its nodes by id."""

    key: RunKey
    tenant: str
    nodes: dict[str, SimulatedNode]
    status: Literal["waiting", "running", "succeeded", "degraded", "failed", "terminated_by_cost", "refused"] = "waiting"
    parents: dict[str, list[str]] = field(default_factory=dict)
    basis: Basis | None = None

    @classmethod
    def of(cls, key: RunKey, tenant: str, nodes: Sequence[NodeCost], *, strict: bool) -> SimulatedRun:
        counted = [at_most(node) if strict else node for node in nodes]
        made = {node.id: SimulatedNode(node, node) for node in counted}
        run = cls(key, tenant, made, parents={id_: [] for id_ in made})
        for node in nodes:
            for child in node.children:
                run.parents[child].append(node.id)
        return run

    @property
    def ready(self) -> list[str]:
        """The nodes that could go to the gate, in order."""
        done = ("succeeded", "skipped")
        return [
            id_
            for id_, node in self.nodes.items()
            if node.state == "pending" and all(self.nodes[parent].state in done for parent in self.parents[id_])
        ]

    @property
    def pending(self) -> list[NodeCost]:
        """What a plan looks at: the pending nodes, and those that feed them, which cost nothing more."""
        costs = []
        for id_, node in self.nodes.items():
            if node.state == "pending":
                costs.append(node.declared)
            elif node.state in ("running", "succeeded"):
                costs.append(NodeCost(id_, True, 0, 0, children=node.declared.children))
        return costs

    @property
    def current(self) -> dict[str, str]:
        """What the pending nodes are chosen to be, where that is not as they are."""
        return {id_: node.choice for id_, node in self.nodes.items() if node.state == "pending" and node.choice != AS_IS}

    @property
    def running(self) -> int:
        return sum(node.state == "running" for node in self.nodes.values())

    @property
    def any_pending(self) -> bool:
        return any(node.state == "pending" for node in self.nodes.values())

    @property
    def unfinished(self) -> bool:
        return any(node.state in ("pending", "running") for node in self.nodes.values())

    @property
    def needed(self) -> int:
        """The floor of the nodes that have not started."""
        return floor(self.pending)

    @property
    def estimate(self) -> int:
        """What the run as it is planned now was estimated to cost, from its first node to its last."""
        return sum(node.chosen.estimate_micros for node in self.nodes.values() if node.state != "skipped")

    @property
    def finished(self) -> int:
        """The estimates of what is done."""
        return sum(node.chosen.estimate_micros for node in self.nodes.values() if node.state in ("succeeded", "failed"))

    @property
    def given_up(self) -> list[str]:
        """The nodes that do not run as they were declared."""
        return [id_ for id_, node in self.nodes.items() if node.choice != AS_IS or node.state == "skipped"]

    def execution(self, node: str) -> Execution:
        return Execution(*self.key, node, self.nodes[node].attempt)


def at_most(node: NodeCost) -> NodeCost:
    """A node as a strict tenant counts it: at its declared maximum, which is also that of its variants."""
    most = max(node.estimate_micros, node.max_cost or 0)
    variants = [VariantCost(v.name, v.kind, max(v.estimate_micros, node.max_cost or 0), v.value) for v in node.variants]
    return replace(node, estimate_micros=most, variants=variants)
