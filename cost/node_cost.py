"""What a pending node costs, is worth, and could be given up for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from cost.money import check_micros

AS_IS: Final = "as_is"
SKIP: Final = "skip"


class VariantCost(NamedTuple):
    """A cheaper way to run a node; `kind` is generation, retrieval or variant."""

    name: str
    kind: str
    estimate_micros: int
    value: int


@dataclass(frozen=True, slots=True)
class NodeCost:
    """What a pending node costs, is worth, and could be given up for.

    `children` are the ids it feeds. `needs` are the parents whose result it takes without a default: an optional
    node cannot run without them. `max_cost` is what a strict tenant reserves; plans work on estimates. `fed` says that something
    that is not among the nodes of the plan feeds it as well: it ran, or runs.
    """

    id: str
    required: bool
    value: int
    estimate_micros: int
    max_cost: int | None = None
    variants: Sequence[VariantCost] = ()
    children: Sequence[str] = ()
    needs: Sequence[str] = ()
    fed: bool = False

    def __post_init__(self) -> None:
        check_micros(self.estimate_micros, f"estimate of {self.id}")
        check_micros(self.value, f"value of {self.id}")
        names = [AS_IS, SKIP]
        for variant in self.variants:
            check_micros(variant.estimate_micros, f"estimate of {self.id}, variant {variant.name}")
            check_micros(variant.value, f"value of {self.id}, variant {variant.name}")
            names.append(variant.name)
        if len(set(names)) < len(names):
            raise ValueError(f"node {self.id!r} has a variant whose name is taken, or is {AS_IS} or {SKIP}")


class Option(NamedTuple):
    """One way to run a node, or to skip it; micros and value."""

    choice: str
    kind: str
    cost: int
    value: int


def options(node: NodeCost) -> list[Option]:
    """What a node may choose, the unchanged one first; a variant that saves nothing is none."""
    found = [Option(AS_IS, AS_IS, node.estimate_micros, node.value)]
    # A cheaper variant declared to be worth more is worth as much: nothing is changed without need.
    found.extend(
        Option(variant.name, variant.kind, variant.estimate_micros, min(variant.value, node.value))
        for variant in node.variants
        if variant.estimate_micros < node.estimate_micros
    )
    if not node.required:
        found.append(Option(SKIP, SKIP, 0, 0))
    return found


def floor(nodes: Iterable[NodeCost]) -> int:
    """Return the micros of the cheapest plan that still runs every required node; optional nodes cost nothing in it."""
    return sum(min(option.cost for option in options(node)) for node in nodes)
