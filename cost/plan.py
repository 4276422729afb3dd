"""Planning a run down: the choices that keep the most value of a graph within an amount of money."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final, NamedTuple

from cost.money import check_micros
from cost.node_cost import AS_IS, SKIP, NodeCost, VariantCost, floor
from cost.optimiser import Bounded, Chosen, Graph, cost_of, priced, relaxed, search, value_of

__all__ = ["AS_IS", "SKIP", "Modification", "NodeCost", "PlanDown", "VariantCost", "floor", "plan_down", "solver"]

# The exact search is tried with at most that many nodes that could be changed.
_SEARCHED_MAX: Final = 40

# Up to so many nodes that could be changed a plan keeps 99 % of the optimum, above 95 % of its bound. The relaxation is asked where less
# than `_ENOUGH` is proven, and branch and bound where it is less than `_LEAST`.
_NODES_MAX: Final = 2_000
_ENOUGH, _ENOUGH_ABOVE, _LEAST = 0.998, 0.97, 0.993

# Graphs beyond it are left to the multiplier: the relaxation takes seconds.
_RELAXED_MAX: Final = 20_000


class Modification(NamedTuple):
    """One thing given up: `type` is skip or the kind of the variant, `change` the choice that replaces "as_is"."""

    type: str
    node: str
    change: str
    reason: str
    estimated_saving_micros: int


@dataclass(frozen=True, slots=True)
class PlanDown:
    """One choice for every node; `fits` is False when even the cheapest plan, which this then is, costs too much.

    `exact` says that no other plan that fits keeps more value (ties: fewer nodes changed, then cheaper). `bound` is a value that no plan
    that fits exceeds: this one keeps at least value / bound of what could be kept.
    """

    choices: Mapping[str, str]
    cost_micros: int
    value: int
    modifications: tuple[Modification, ...]
    fits: bool
    exact: bool = True
    bound: int = 0


def solver() -> str:
    """Return what makes the plans, with its version: another one may plan otherwise."""
    return f"headgate 1, scipy {version('scipy')}"


def plan_down(nodes: Iterable[NodeCost], available_micros: int) -> PlanDown:
    """Return the plan that keeps the most value for `available_micros`, changing nothing when everything fits.

    Required nodes always run. Skipping an optional node also skips the optional nodes that only it feeds; what else
    it feeds receives its defaults. The plan is exact as long as finding it stays below a fixed amount of work, as it
    does for a dozen nodes that could be changed (`cost/optimiser/search.py`); otherwise it keeps nearly all that could be
    kept, and `bound` says of how much (`docs/decisions/plans.md`). Ties are broken by node id, so the same input gives
    the same plan. Raises ValueError for a cycle or an amount out of range.
    """
    check_micros(available_micros, "available money")
    graph = Graph.of(nodes)
    full = graph.as_it_is
    if cost_of(full) <= available_micros:
        return _plan(graph, full, available_micros, value_of(full), exact=True)
    least = graph.cheapest()
    if cost_of(least) > available_micros:
        return _plan(graph, least, available_micros, value_of(least), exact=True)
    found = priced(graph, available_micros)
    changeable = sum(len(options) > 1 for options in graph.options.values())
    if changeable <= _SEARCHED_MAX and (best := search(graph, available_micros, value_of(found.chosen))):
        return _plan(graph, best, available_micros, value_of(best), exact=True)
    enough = _ENOUGH if changeable <= _NODES_MAX else _ENOUGH_ABOVE
    if value_of(found.chosen) < enough * found.bound and changeable <= _RELAXED_MAX:
        other = relaxed(graph, available_micros, _LEAST if changeable <= _NODES_MAX else 0.0)
        found = Bounded(max(found.chosen, other.chosen, key=value_of), min(found.bound, other.bound))
    return _plan(graph, found.chosen, available_micros, found.bound, exact=False)


def _plan(graph: Graph, chosen: Chosen, available: int, bound: int, *, exact: bool) -> PlanDown:
    full = cost_of(graph.as_it_is)
    skipped = {id_ for id_, option in chosen.items() if option.choice == SKIP}
    modifications = []
    for id_ in sorted(chosen):
        option, estimate = chosen[id_], graph.nodes[id_].estimate_micros
        if option.choice != AS_IS:
            reason = f"everything would cost {full} micros, and {available} are available"
            if id_ in skipped and graph.forced(id_, skipped):
                reason = "what feeds it is skipped"
            modifications.append(Modification(option.kind, id_, option.choice, reason, estimate - option.cost))
    cost, value = cost_of(chosen), value_of(chosen)
    choices = {id_: option.choice for id_, option in chosen.items()}
    return PlanDown(choices, cost, value, tuple(modifications), cost <= available, exact, bound)
