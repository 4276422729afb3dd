"""The four ways to give something up, each applicable alone, and when each is applied unasked."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final, Literal, NamedTuple

from cost.outlook import TenantView
from cost.plan import AS_IS, SKIP, Modification, NodeCost, PlanDown, VariantCost, plan_down

Strategy = Literal["skip", "generation", "retrieval", "variant"]

EVERY: Final[frozenset[Strategy]] = frozenset(("skip", "generation", "retrieval", "variant"))

# From which share of the limit on too little remains, per cent; and the concurrency factor above which variants are switched.
_SKIP_BELOW, _GENERATION_BELOW, _VARIANT_ABOVE = 1, 5, 70


def unasked(tenant: TenantView, *, crowded: bool = False) -> frozenset[Strategy]:
    """Return what a run may be degraded by without being short of money otherwise; `crowded` says that concurrency tripped."""
    allowed: set[Strategy] = {"retrieval"}
    if crowded or tenant.remains_below(_SKIP_BELOW):
        allowed.add("skip")
    if tenant.remains_below(_GENERATION_BELOW):
        allowed.add("generation")
    if tenant.factor > _VARIANT_ABOVE:
        allowed.add("variant")
    return frozenset(allowed)


def stages(tenant: TenantView) -> Iterator[frozenset[Strategy]]:
    """Yield the strategies to plan with, one set after the other, until a plan fits: those unasked, cheaper variants too, all."""
    found = unasked(tenant)
    more: frozenset[Strategy] = found | {"variant"}
    yield from dict.fromkeys((found, more, EVERY))


def only(nodes: Iterable[NodeCost], strategies: Collection[Strategy]) -> list[NodeCost]:
    """Return the nodes with the options that these strategies leave: without skip, every node is to run."""
    return [
        replace(
            node,
            required=node.required or "skip" not in strategies,
            variants=[each for each in node.variants if each.kind in strategies],
        )
        for node in nodes
    ]


def to_the_full(nodes: Iterable[NodeCost], strategies: Collection[Strategy]) -> PlanDown:
    """Return the cheapest plan of these strategies alone."""
    return plan_down(only(nodes, strategies), 0)


def fitting(nodes: Iterable[NodeCost], strategies: Collection[Strategy], available_micros: int) -> PlanDown:
    """Return the plan of these strategies alone that keeps the most value for `available_micros`; it may not fit."""
    return plan_down(only(nodes, strategies), available_micros)


class Choosable(NamedTuple):
    """The pending nodes, as they are chosen now and may become."""

    nodes: tuple[NodeCost, ...]
    current: Mapping[str, str]

    def lowered(self, *, kept: bool = False) -> list[NodeCost]:
        """Return each node as it is chosen now, with what is cheaper still: what was given less is given nothing more here.

        kept: those that were given less stay as they are.
        """
        found = [chosen(node, self.current.get(node.id, AS_IS)) for node in self.nodes]
        return [replace(node, required=True, variants=()) if kept and node.id in self.current else node for node in found]

    def raised(self) -> list[NodeCost]:
        """Return each node at its full quality, with what lies between that and what it is chosen to be now. None of them is skipped."""
        found = []
        for node in self.nodes:
            now = chosen(node, self.current.get(node.id, AS_IS))
            between = [
                each
                for each in node.variants
                if each.name == self.current.get(node.id) or (each.estimate_micros >= now.estimate_micros and each.value > now.value)
            ]
            found.append(replace(node, required=True, variants=between if node.id in self.current else ()))
        return found

    def applied(self, plan: PlanDown) -> PlanDown:
        """Return a plan for `lowered` nodes with the names of the choices it comes to."""
        choices = {id_: self.current.get(id_, AS_IS) if choice == AS_IS else choice for id_, choice in plan.choices.items()}
        return replace(plan, choices=choices)

    def restored(self, plan: PlanDown, reason: str) -> PlanDown:
        """Return a plan for `raised` nodes with what it changes of the choices of now; a saving of less than nothing is what it costs."""
        changes = []
        for node in sorted(self.nodes, key=lambda each: each.id):
            now, then = self.current.get(node.id, AS_IS), plan.choices[node.id]
            if now != then:
                saved = chosen(node, now).estimate_micros - chosen(node, then).estimate_micros
                changes.append(Modification("restore", node.id, then, reason, saved))
        return replace(plan, modifications=tuple(changes))


def chosen(node: NodeCost, choice: str) -> NodeCost:
    """Return a node as it is chosen now, with the variants that are cheaper still. Raises ValueError for a choice that it has not."""
    if choice in (AS_IS, SKIP):
        return node
    now = next((each for each in node.variants if each.name == choice), None)
    if now is None:
        raise ValueError(f"node {node.id!r} is chosen to be {choice!r}, and has no such variant")
    cheaper: list[VariantCost] = [each for each in node.variants if each.estimate_micros < now.estimate_micros]
    return replace(node, estimate_micros=now.estimate_micros, value=min(now.value, node.value), variants=cheaper)
